"""The figure of the README and of the landing page: what MCBN does, and when it helps.

`python docs/figures/landing.py` writes it to `docs/_static`, its halves side by side for wide pages
and one below the other for narrow ones, in light and in dark colours. The numbers are results of
experiments; what it does is a sketch.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[1]
RESULTS = DOCS.parent / "experiments" / "results"
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
DESCRIPTION = (
    "MCBN passes one input through a trained network several times, each time with the batch-norm "
    "mean and variance of another mini-batch, and takes average and spread of the predictions. "
    "Below or beside it, the negative log-likelihood of a CIFAR-10 network against the batch size."
)

LIGHT = {"ink": "#1f2328", "soft": "#59636e", "line": "#d1d9e0", "fill": "#eef2f6",
         "mcbn": "#0969b5", "labels": "#a84b00", "augmented": "#0b7a4b"}  # fmt: skip
DARK = {"ink": "#e8edf2", "soft": "#a3adb8", "line": "#3d444d", "fill": "#252b33",
        "mcbn": "#5cb3f5", "labels": "#f2a45c", "augmented": "#4fcf92"}  # fmt: skip

# Heights of the classes in the sketched passes, and how far the sketched statistics are off.
PASSES = ((0.82, 0.28, 0.12), (0.52, 0.62, 0.16), (0.7, 0.2, 0.4))
SHIFTS = (-7.0, 1.5, 8.0)


@dataclass(frozen=True)
class Pen:
    """Writes elements of a picture in the colours of a theme."""

    colors: dict[str, str]

    def text(
        self, x: float, y: float, words: str, *, color: str = "ink", anchor: str = "start",
        size: float = 13, bold: bool = False,
    ) -> str:  # fmt: skip
        """Words, whose baseline begins, ends or is centred at a point."""
        weight = ' font-weight="600"' if bold else ""
        return (
            f'<text x="{x:g}" y="{y:g}" fill="{self.colors[color]}" text-anchor="{anchor}" '
            f'font-size="{size:g}"{weight}>{escape(words)}</text>'
        )

    def path(
        self, data: str, *, color: str, width: float = 1.5, fill: str = "none", dashes: str = ""
    ) -> str:
        """A line, dashed or not, or an area."""
        area = self.colors.get(fill, fill)
        dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
        return (
            f'<path d="{data}" fill="{area}" stroke="{self.colors[color]}" '
            f'stroke-width="{width:g}" stroke-linecap="round" stroke-linejoin="round"{dashed}/>'
        )

    def box(
        self, x: float, y: float, width: float, height: float, *, fill: str, radius: float = 2
    ) -> str:
        """A filled rectangle."""
        return (
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="{radius:g}" '
            f'fill="{self.colors[fill]}"/>'
        )

    def disc(self, x: float, y: float, radius: float, *, fill: str) -> str:
        """A filled circle."""
        return f'<circle cx="{x:g}" cy="{y:g}" r="{radius:.2f}" fill="{self.colors[fill]}"/>'

    def arrow(self, x: float, y: float, length: float) -> str:
        """An arrow to the right."""
        end = x + length
        return self.path(f"M{x:g} {y:g}H{end:g}m-4 -3.5l4 3.5l-4 3.5", color="soft")


def sketch(pen: Pen) -> Iterator[str]:
    """What MCBN does, 340 wide: mini-batches, their statistics, predictions, and their average."""
    yield pen.text(0, 16, "What it does", size=17, bold=True)
    yield pen.text(0, 38, "The weights stay. The batch-norm statistics", color="soft")
    yield pen.text(0, 55, "are those of one mini-batch after the other.", color="soft")
    for x, words in ((37, ("a mini-", "batch")), (130, ("its mean", "and variance")),
                     (220, ("one", "pass")), (302, ("average", "and spread"))):  # fmt: skip
        for line, each in enumerate(words):
            yield pen.text(x, 84 + 15 * line, each, color="soft", anchor="middle", size=12.5)
    for row, (heights, shift) in enumerate(zip(PASSES, SHIFTS, strict=True)):
        middle = 136 + 62 * row
        yield from mini_batch(pen, middle, row)
        yield pen.arrow(80, middle, 12)
        yield from statistics(pen, middle, shift)
        yield pen.arrow(168, middle, 12)
        yield from bars(pen, 196, middle + 20, heights)
    yield pen.path("M254 112q8 0 8 8V186q0 12 8 12q-8 0 -8 12V276q0 8 -8 8", color="soft")
    yield from bars(pen, 284, 222, [sum(each) / len(PASSES) for each in zip(*PASSES, strict=True)])
    for place, each in enumerate(zip(*PASSES, strict=True)):
        x, low, high = 291 + 17 * place, 222 - 44 * min(each), 222 - 44 * max(each)
        yield pen.path(f"M{x} {low:g}V{high:g}m-3 0h6M{x - 3} {low:g}h6", color="ink")
    yield pen.path("M3 313h26", color="soft", width=1.2, dashes="2 3")
    yield pen.text(38, 317, "running statistics, which eval mode uses", color="soft", size=12.5)


def mini_batch(pen: Pen, middle: float, row: int) -> Iterator[str]:
    """Eight training examples, as tiles of different shades."""
    for number in range(8):
        x, y = 3 + 17.5 * (number % 4), middle - 16 + 17.5 * (number // 4)
        yield pen.box(x, y, 14.5, 14.5, fill="line")
        size = 4 + (5 * number + 3 * row + number * row) % 8
        yield pen.box(
            x + (14.5 - size) / 2, y + (14.5 - size) / 2, size, size, fill="soft", radius=size / 3
        )


def statistics(pen: Pen, middle: float, shift: float) -> Iterator[str]:
    """A batch-norm layer: the distribution of its inputs, beside that of the running statistics."""
    yield pen.box(98, middle - 22, 64, 44, fill="fill", radius=6)
    yield pen.path(bell(130, middle + 15, 11), color="soft", width=1.2, dashes="2 3")
    yield pen.path(bell(130 + shift, middle + 15, 11 - shift / 3), color="mcbn", width=2)


def bell(center: float, base: float, spread: float) -> str:
    """A normal density of unit area, as a line 52 wide."""
    points = [
        (x, base - 300 / spread * math.exp(-0.5 * ((x - center) / spread) ** 2))
        for x in range(104, 157, 2)
    ]
    return "M" + "L".join(f"{x} {y:.1f}" for x, y in points)


def bars(pen: Pen, x: float, base: float, heights: Any) -> Iterator[str]:
    """Probabilities of three classes."""
    for place, height in enumerate(heights):
        yield pen.box(x + 17 * place, base - 44 * height, 14, 44 * height, fill="mcbn")
    yield pen.path(f"M{x - 3:g} {base:g}h54", color="soft", width=1)


@dataclass(frozen=True)
class Chart:
    """Where values of the right half are drawn."""

    width: float
    left: float = 36.0
    top: float = 92.0
    bottom: float = 246.0
    low: float = 0.19
    high: float = 0.4

    def x(self, batch_size: float) -> float:
        """Batch sizes from 8 to 1,024, on a logarithmic scale."""
        first, last = self.left + 14, self.width - 16
        return first + (last - first) * math.log2(batch_size / 8) / 7

    def y(self, value: float) -> float:
        """Negative log-likelihoods."""
        share = (value - self.low) / (self.high - self.low)
        return self.bottom - (self.bottom - self.top) * share


def help_of_mcbn(pen: Pen, width: float) -> Iterator[str]:
    """When it helps: the score against the batch size, beside a temperature and augmentation."""
    images, others = (
        json.loads((RESULTS / f"{name}.json").read_text()) for name in ("images", "alternatives")
    )
    chart, rows = Chart(width), images["sizes"]["rows"]
    yield pen.text(0, 16, "When it helps", size=17, bold=True)
    yield pen.text(0, 38, "Over-confident network, small batches, and", color="soft")
    yield pen.text(0, 55, "neither labels nor augmentation, which do more.", color="soft")
    yield pen.text(0, 80, "Negative log-likelihood, lower is better", size=12.5)
    for tick in (0.2, 0.25, 0.3, 0.35, 0.4):
        yield pen.path(f"M{chart.left} {chart.y(tick):.1f}h-4", color="line")
        yield pen.text(
            30, chart.y(tick) + 4.5, f"{tick:.2f}", color="soft", anchor="end", size=12.5
        )
    yield pen.path(f"M{chart.left} {chart.top}V{chart.bottom}H{width}", color="line")
    yield from levels(pen, chart, others["methods"], labels=others["images"]["test"] // 2)
    yield from curve(pen, chart, images["plain"]["nll"][0], rows)
    yield from sizes(pen, chart, {size: row["mutual information"] for size, row in rows.items()})
    words = f"CIFAR-10 ResNet20, {images['settings']['images']:,} images; bars: 95%, paired"
    yield pen.text(0, 354, words, color="soft", size=12.5)


def levels(pen: Pen, chart: Chart, methods: dict[str, Any], *, labels: int) -> Iterator[str]:
    """The methods that have no batch size, each a line with its name and its value.

    The temperature of one half of the images is fitted on the other.
    """
    plain, augmented = (methods[name]["nll"] for name in ("plain", "TTA"))
    for value, name, color, below in (
        (plain["test"][0], "plain network", "ink", False),
        (plain["test TS"][0], f"temperature, {labels} labels", "labels", True),
        (augmented["test"][0], "test-time augmentation", "augmented", True),
    ):
        y = chart.y(value)
        yield pen.path(f"M{chart.left} {y:.1f}H{chart.width}", color=color, dashes="6 4")
        words = f"{name} {value:.3f}"
        if below:
            yield pen.text(chart.width, y - 6, words, color=color, anchor="end", size=12.5)
        else:
            yield pen.text(chart.left + 4, y - 5, words, color=color, size=12.5)


def curve(pen: Pen, chart: Chart, plain: float, rows: dict[str, Any]) -> Iterator[str]:
    """The score of MCBN at each batch size, with the interval of its difference from plain."""
    points = []
    for size, row in rows.items():
        x, y = chart.x(int(size)), chart.y(row["nll"][0])
        low, high = (chart.y(plain + end) for end in row["nll minus plain"][1:])
        yield pen.path(f"M{x:.1f} {low:.1f}V{high:.1f}", color="mcbn", width=1.5)
        yield pen.disc(x, y, 4, fill="mcbn")
        points.append(f"{x:.1f} {y:.1f}")
    yield pen.path("M" + "L".join(points), color="mcbn", width=2)
    best = min(rows, key=lambda size: rows[size]["nll"][0])
    words = f"MCBN {rows[best]['nll'][0]:.3f} at M = {best}"
    yield pen.text(chart.left + 4, chart.y(0.344), words, color="mcbn", size=12.5, bold=True)


def sizes(pen: Pen, chart: Chart, information: dict[str, float]) -> Iterator[str]:
    """The axis of batch sizes, and below each a disc whose area is the mutual information."""
    for size in information:
        yield pen.text(chart.x(int(size)), 264, size, color="soft", anchor="middle", size=12.5)
    yield pen.text(0, 284, "Batch size M of the mini-batches", size=12.5)
    for size, value in information.items():
        yield pen.disc(chart.x(int(size)), 305, 30 * math.sqrt(value), fill="mcbn")
    first, *_, last = information.values()
    yield pen.text(0, 333, f"Epistemic uncertainty falls as 1/M: {first:.2f} to {last:.3f} nats",
                   size=12.5)  # fmt: skip


def drawn_figure(colors: dict[str, str], *, wide: bool) -> str:
    """The whole figure: its halves side by side, or one below the other."""
    pen = Pen(colors)
    width, height = (840, 362) if wide else (340, 716)
    place = "translate(390 0)" if wide else "translate(0 354)"
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" role="img" font-family="{FONT}">',
        "<title>What MCBN does, and when it helps</title>",
        f"<desc>{escape(DESCRIPTION)}</desc>",
        *sketch(pen),
        f'<g transform="{place}">',
        *help_of_mcbn(pen, 450 if wide else 340),
        "</g>",
        "</svg>",
        "",
    ])  # fmt: skip


def pictures() -> dict[str, str]:
    """Name and content of each file."""
    return {
        f"landing-{layout}-{theme}.svg": drawn_figure(colors, wide=layout == "wide")
        for layout in ("wide", "narrow")
        for theme, colors in (("light", LIGHT), ("dark", DARK))
    }


if __name__ == "__main__":
    for name, content in pictures().items():
        (DOCS / "_static" / name).write_text(content)
