"""SVG as matplotlib writes it, made small: what is drawn, in the colours of the page.

Lines of one style are one path, coordinates are rounded to what can be seen, and what is not
visible is left out. What a series draws stands in groups with its index, so that it can be hidden.
"""

import html
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from xml.etree import ElementTree

SERIES = "series-"  # what the ids of the artists of a series begin with
PER_UNIT = 10  # coordinates are whole tenths of a point
SEGMENT = re.compile(r"([A-Za-z])([^A-Za-z]*)")
# What elements have without saying so, here or by the outermost element.
USUAL = {
    "stroke-linecap": "square", "stroke-linejoin": "miter", "stroke-width": "1", "opacity": "1",
    "stroke-dashoffset": "0", "text-anchor": "start",
}  # fmt: skip

Style = tuple[tuple[str, str], ...]
Box = tuple[float, float, float, float]
Path = tuple[tuple[str, tuple[float, ...]], ...]


@dataclass(frozen=True)
class Shape:
    """One visible element.

    Attributes:
        style: attributes that say how it looks.
        path: its coordinates; none of a text.
        text: the element of a text.
        clip: the frame that it is cut at, if it reaches beyond it.
        series: index of its series, or nothing.
        joins: whether it can be one path with others of its style.
    """

    style: Style
    path: Path = ()
    text: str = ""
    clip: Box | None = None
    series: str = ""
    joins: bool = False


def compacted(text: str, *, name: str, label: str, colors: Mapping[str, str], size: float,
              extra: str = "", below: Sequence["Shape"] = ()) -> str:  # fmt: skip
    """An SVG of matplotlib as a small one for a page.

    Args:
        text: what matplotlib wrote.
        name: prefix of every id, unique on the page.
        label: what the figure shows, for screen readers; any text.
        colors: what stands on the page for each colour.
        size: of letters, in points.
        extra: further attributes of the outermost element.
        below: shapes that are drawn first, such as those of axes.
    """
    root = ElementTree.fromstring(text)  # noqa: S314 - our own text
    shapes = _merged([*below, *_Reader(root, colors, f"{size:g}px").shapes()])
    return (
        f'<svg role="img" aria-label="{html.escape(label)}" viewBox="{root.get("viewBox", "")}" '
        f'font-size="{size:g}" font-family="var(--figure-font)" fill="none" '
        f'stroke-linejoin="round"{extra}>{"".join(_groups(shapes, name))}</svg>'
    )


@dataclass(frozen=True)
class _Reader:
    """The visible elements of an SVG of matplotlib."""

    root: ElementTree.Element
    colors: Mapping[str, str]
    letters: str

    def shapes(self) -> Iterator[Shape]:
        """In the order in which they are drawn."""
        known = {each.get("id", ""): each for each in self.root.iter() if each.get("id")}
        yield from self._within(self.root, known, None, "")

    def _within(
        self,
        parent: ElementTree.Element,
        known: Mapping[str, ElementTree.Element],
        clip: Box | None,
        series: str,
    ) -> Iterator[Shape]:
        for each in parent:
            tag = _tag(each)
            cut = _frame(each, known) or clip
            if tag == "g":
                found = each.get("id", "")
                inner = found.removeprefix(SERIES) if found.startswith(SERIES) else series
                yield from self._within(each, known, cut, inner)
            elif tag == "text":
                yield Shape(self._style(each), text=_text(each), series=series)
            elif tag in ("path", "use"):
                path, style = _points(each.get("d", "")), self._style(each)
                if tag == "use":
                    path, style = _placed(each, known[_reference(each)], style)
                shape = Shape(style, path, series=series, joins=tag == "use" or _is_line(style))
                if path and {"fill", "stroke"} & set(dict(style)):
                    outside = cut is not None and not _is_inside(path, cut, 3.0)
                    yield replace(shape, clip=cut) if outside else shape

    def _style(self, each: ElementTree.Element) -> Style:
        """The attributes that are not the usual ones, with the colours of the page."""
        pairs = (part.split(":", 1) for part in each.get("style", "").split(";") if ":" in part)
        found = {key.strip(): value.strip() for key, value in pairs}
        if _tag(each) != "text":
            found = {"fill": "#000000", **found}
        kept = {}
        for key, value in found.items():
            plain = key in ("font-family", "font-style") or value == USUAL.get(key)
            if plain or value in ("none", self.letters):
                continue
            text = self.colors.get(value, value)
            kept[key] = ",".join(text.replace(",", " ").split()) if "dash" in key else text
        if kept.get("fill-opacity") == "0":
            kept = {key: value for key, value in kept.items() if not key.startswith("fill")}
        if "stroke" not in kept:
            kept = {key: value for key, value in kept.items() if not key.startswith("stroke")}
        return tuple(sorted(kept.items()))


def _text(each: ElementTree.Element) -> str:
    turn = re.match(r"rotate\((-?[\d.]+)", each.get("transform", ""))
    x, y = (float(each.get(side, 0)) for side in "xy")
    return text_element(x, y, each.text or "", turn=float(turn[1]) if turn else 0.0)


def text_element(x: float, y: float, text: str, *, turn: float = 0.0) -> str:
    """A text at a place, turned by so many degrees; any text."""
    across, down = _number(_units(x)), _number(_units(y))
    turned = f' transform="rotate({turn:g} {across} {down})"' if turn else ""
    return f'<text x="{across}" y="{down}"{turned}>{html.escape(text)}</text>'


def _placed(
    each: ElementTree.Element, mark: ElementTree.Element, style: Style
) -> tuple[Path, Style]:
    """A marker, a tick or a band where it is drawn.

    A round one is a line without a length, whose wide round ends are the circle.
    """
    place = float(each.get("x", 0)), float(each.get("y", 0))
    path, look = _points(mark.get("d", "")), dict(style)
    if "fill" in look and any(command == "C" for command, _ in path):
        radius = max(x for _, numbers in path for x in numbers[::2])
        edge = float(look.get("stroke-width", 1)) if "stroke" in look else 0.0
        round_ = {"stroke": look.get("fill", ""), "stroke-linecap": "round",
                  "stroke-width": f"{2 * radius + edge:.3g}"}  # fmt: skip
        if "fill-opacity" in look:
            round_["stroke-opacity"] = look["fill-opacity"]
        return (("M", place), ("L", place)), tuple(sorted(round_.items()))
    if len(path) < 3:  # a tick, which has no inside
        look.pop("fill", None)
    moved = tuple(
        (command, tuple(n + place[i % 2] for i, n in enumerate(numbers)))
        for command, numbers in path
    )
    return moved, tuple(look.items())


def _is_line(style: Style) -> bool:
    """Whether lines can be one path: not where they are translucent, or filled."""
    return not {"fill", "opacity", "stroke-opacity"} & set(dict(style))


def _merged(shapes: Iterable[Shape]) -> list[Shape]:
    """Shapes with those of one style, such as the lines of the grid, joined into one path.

    Text comes last, by style, so that nothing covers it.
    """
    merged: dict[object, Shape] = {}
    for index, shape in enumerate(shapes):
        key = (shape.style, shape.clip, shape.series) if shape.joins else index
        if key in merged:
            merged[key] = replace(shape, path=merged[key].path + shape.path)
        else:
            merged[key] = shape
    paths = [shape for shape in merged.values() if not shape.text]
    texts = [shape for shape in merged.values() if shape.text]
    return paths + sorted(texts, key=lambda shape: (shape.series, shape.style))


def _groups(shapes: Sequence[Shape], name: str) -> Iterator[str]:
    """Neighbours of one series and one frame together, with what they share said once."""
    frames: dict[Box, str] = {}
    for (clip, series), each in itertools.groupby(shapes, lambda s: (s.clip, s.series)):
        attributes = f' data-series="{series}"' if series else ""
        if clip is not None:
            if clip not in frames:
                frames[clip] = f"{name}-frame-{len(frames)}"
                x, y, width, height = clip
                yield (f'<clipPath id="{frames[clip]}"><rect x="{x:g}" y="{y:g}" '
                       f'width="{width:g}" height="{height:g}"/></clipPath>')  # fmt: skip
            attributes += f' clip-path="url(#{frames[clip]})"'
        text = "".join(_elements(list(each)))
        yield f"<g{attributes}>{text}</g>" if attributes else text


def _elements(shapes: Sequence[Shape]) -> Iterator[str]:
    for (style, is_text), each in itertools.groupby(shapes, lambda s: (s.style, bool(s.text))):
        if is_text:
            yield f"<g{_attributes(style)}>{''.join(shape.text for shape in each)}</g>"
        else:
            yield "".join(f'<path d="{_written(s.path)}"{_attributes(style)}/>' for s in each)


def _attributes(style: Style) -> str:
    return "".join(f' {key}="{html.escape(value)}"' for key, value in style)


def _tag(each: ElementTree.Element) -> str:
    return each.tag.rpartition("}")[2]


def _reference(each: ElementTree.Element) -> str:
    return each.get("{http://www.w3.org/1999/xlink}href", "").removeprefix("#")


def _frame(each: ElementTree.Element, known: Mapping[str, ElementTree.Element]) -> Box | None:
    """The rectangle that an element is clipped by."""
    found = re.match(r"url\(#(.*)\)", each.get("clip-path", ""))
    if not found:
        return None
    x, y, width, height = (
        round(float(known[found[1]][0].get(side, 0)), 1) for side in ("x", "y", "width", "height")
    )
    return x, y, width, height


def _points(text: str) -> Path:
    return tuple(
        (command, tuple(float(n) for n in rest.split())) for command, rest in SEGMENT.findall(text)
    )


def _is_inside(path: Path, box: Box, margin: float) -> bool:
    left, top, width, height = box
    return all(
        left - margin <= x <= left + width + margin for _, each in path for x in each[::2]
    ) and all(top - margin <= y <= top + height + margin for _, each in path for y in each[1::2])


def _units(value: float) -> int:
    return round(PER_UNIT * value)


def _number(units: int) -> str:
    """A coordinate of so many units, as short as it can be written."""
    text = f"{units / PER_UNIT:g}" if units % PER_UNIT else str(units // PER_UNIT)
    return text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text


def _written(path: Path) -> str:
    """Coordinates of a path relative to the point before, without sums of rounding errors."""
    parts: list[str] = []
    at = start = (0, 0)
    last = ""
    for index, (command, numbers) in enumerate(path):
        if command in "zZ":
            parts.append("z")
            at, last = start, "z"
            continue
        units = [_units(n) for n in numbers]
        steps = [n - at[i % 2] for i, n in enumerate(units)]
        letter = command.lower() if index else "M"
        if command == "L" and 0 in steps:
            if steps == [0, 0] and last not in ("m", "M"):
                continue  # a point that is where the last one was cannot be seen
            letter, steps = ("h", steps[:1]) if steps[1] == 0 else ("v", steps[1:])
        words = [_number(n) for n in steps]
        text = words[0] + "".join(w if w.startswith("-") else f" {w}" for w in words[1:])
        if letter == last and letter in "lhvqc":
            text = text if text.startswith("-") else f" {text}"
        else:
            text = letter + text
        parts.append(text)
        at, last = (units[-2], units[-1]), letter
        start = at if command == "M" else start
    return "".join(parts)
