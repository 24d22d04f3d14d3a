"""Which figures the reports of predictions show, and the numbers behind each."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from mcbn.drawing import figures
from mcbn.drawing.figures import INK, SERIES, Curve
from mcbn.drawing.plotted import Plotted, bars_table, bins_table
from mcbn.evaluation import glossary
from mcbn.evaluation.comparison import Comparison
from mcbn.evaluation.convergence import Convergence
from mcbn.evaluation.distributions import binomial_quantile
from mcbn.evaluation.evaluation import Evaluation
from mcbn.evaluation.reliability import Reliability
from mcbn.evaluation.subgroups import Subgroup
from mcbn.evaluation.uncertain_images import UncertainImages, shares_in_bins
from mcbn.predictive.gaussian import GaussianPredictive
from mcbn.predictive.positions import pieces

SIZE = (3.6, 2.9)  # inches, at which text is as large as the small print of the page
DECADES, BINS = 5, 20  # of the histograms of uncertainty: at most, and in all
REST = 0.001  # share of each set that may lie below the first bin, and is counted in it
PIT_BINS = 20
QUANTILES = tuple(k / 20 for k in range(1, 20))


@dataclass(frozen=True, eq=False)
class Panel:
    """One figure.

    Attributes:
        title: above it; any text.
        label: what it shows, for screen readers.
        draw: draws it on empty axes.
        numbers: the numbers drawn.
        size: in inches; of one width, so that text is as large in all figures.
        below: draws what stands below it, with the same x axis; None where nothing does.
        plotted: the same numbers as a table, by series.
    """

    title: str
    label: str
    draw: Callable[[Axes], object]
    numbers: Mapping[str, Any]
    size: tuple[float, float] = SIZE
    below: Callable[[Axes], object] | None = None
    plotted: tuple[Plotted, ...] = ()

    def on_figure(self, figure: Figure) -> None:
        """Draw all of it on an empty figure."""
        if self.below is None:
            self.draw(figure.subplots())
            return
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        self.draw(upper)
        self.below(lower)
        figure.align_ylabels([upper, lower])


@dataclass(frozen=True, eq=False)
class PanelGroup:
    """Figures that share a heading and a legend (name and style of each line)."""

    title: str
    key: tuple[tuple[str, int], ...]
    panels: tuple[Panel, ...]


def reliability_group(comparison: Comparison) -> PanelGroup:
    """A reliability diagram of each method, with the counts of its bins."""
    panels = []
    x, y, unit = words_of(comparison)
    for name, entry in comparison.entries.items():
        reliability = comparison.forecasts(name).reliability()
        level = entry.evaluation.level
        low, high = reliability.interval(level=level)
        band_low, band_high = reliability.consistency_band(level=level)
        numbers = {
            "edges": reliability.edges, "counts": reliability.counts,
            "confidence": reliability.confidence, "accuracy": reliability.accuracy,
            "low": low, "high": high, "band_low": band_low, "band_high": band_high,
        }  # fmt: skip
        plain = {key: value.tolist() for key, value in numbers.items()}
        label = f"Reliability diagram of {name}: {y.lower()} against {x.lower()} in bins"
        notes = _calibration_notes(reliability, entry.evaluation)
        draw = partial(figures.draw_reliability, reliability, level=level, ylabel=y, notes=notes)
        below = partial(figures.draw_counts, reliability, xlabel=x, unit=unit)
        table = bins_table(name, plain, (x.lower(), y.lower(), unit))
        panels.append(Panel(name, label, draw, plain, (SIZE[0], 4.0), below, (table,)))
    return PanelGroup("", (), tuple(panels))


def _calibration_notes(reliability: Reliability, evaluation: Evaluation) -> tuple[str, ...]:
    """What is written into a reliability diagram: calibration error, confidence minus accuracy."""
    gap = figures.mean_gap(reliability)
    notes = [f"gap {glossary.number(100 * gap, 1, signed=True)} points"]
    if "ece_debiased" in set(evaluation):
        notes.insert(0, f"ECE {glossary.number(100 * float(evaluation['ece_debiased']), 1)}%")
    return tuple(notes)


def words_of(comparison: Comparison) -> tuple[str, str, str]:
    """What the axes of a reliability diagram are called, and what is counted."""
    if comparison.has_labels:
        return "Probability", "Frequency", "labels"
    return "Confidence", "Accuracy", "examples"


def selective_group(comparison: Comparison) -> PanelGroup:
    """Risk-coverage curves of all methods in one figure."""
    curves = {name: comparison.forecasts(name).risk_coverage() for name in comparison.entries}
    numbers = {}
    for name, curve in curves.items():
        chosen = figures.thinned(len(curve.coverage))
        numbers[name] = {
            "coverage": curve.coverage.cpu().numpy()[chosen].tolist(),
            "risk": curve.risk.cpu().numpy()[chosen].tolist(),
        }
    *_, unit = words_of(comparison)
    plotted = tuple(
        Plotted(name, {"share answered": each["coverage"], "error rate": each["risk"]},
                ("share answered", "error rate"), style)
        for style, (name, each) in enumerate(numbers.items())
    )  # fmt: skip
    label = f"Error rate among answered {unit} against their share, for " + ", ".join(curves)
    draw = partial(figures.draw_risk_coverage, list(curves.values()), unit=unit)
    panel = Panel("", label, draw, numbers, plotted=plotted)
    return PanelGroup("", key_of(curves), (panel,))


def out_of_distribution_group(comparison: Comparison) -> PanelGroup:
    """Histograms of uncertainty on test and OOD examples, a figure per method and score."""
    base = comparison.entries[comparison.baseline]
    by_score = {
        measure: {
            name: values
            for name, entry in comparison.entries.items()
            if (values := entry.ranked(measure)) is not None
        }
        for measure in comparison.uncertainties
    }
    edges = {
        measure: _edges([each for sets in methods.values() for each in sets], measure)
        for measure, methods in by_score.items()
        if methods
    }
    panels = [
        _histogram_panel(name, measure, by_score[measure][name], edges[measure], list(base.outside))
        for name in comparison.entries
        for measure in edges
        if name in by_score[measure]
    ]
    for name, detector in comparison.detectors.items():
        sets = [detector.values, *detector.outside.values()]
        panels.append(_histogram_panel("", name, sets, _edges(sets, name), list(base.outside)))
    names = ["Test examples", *base.outside]
    return PanelGroup("", key_of(names), tuple(panels))


def histogram_title(method: str, measure: str) -> str:
    """The title of the histograms of a score of a method, or of a detector, which is of none."""
    words = glossary.uncertainty(measure)
    return f"{method}: {words}" if method else words.capitalize()


def _histogram_panel(
    method: str, measure: str, sets: Sequence[Any], edges: np.ndarray, names: Sequence[str]
) -> Panel:
    # The first bin also holds everything below it, zero among them.
    shares = [_shares(each, measure, edges) for each in sets]
    words = glossary.uncertainty(measure)
    numbers = {
        "uncertainty": measure,
        "edges": edges.tolist(),
        "inside": shares[0].tolist(),
        "outside": {name: share.tolist() for name, share in zip(names, shares[1:], strict=True)},
    }
    unit = " (nats)" if measure in glossary.IN_NATS else ""
    draw = partial(figures.draw_histograms, shares, edges, label=f"{words.capitalize()}{unit}")
    of = f" of {method}" if method else ""
    label = f"Histograms of the {words}{of} for the test examples, " + ", ".join(names)
    sets_drawn = ("Test examples", *names)
    plotted = tuple(
        bars_table(name, edges, share, ("uncertainty", "share"), style)
        for style, (name, share) in enumerate(zip(sets_drawn, shares, strict=True))
    )
    return Panel(histogram_title(method, measure), label, draw, numbers, plotted=plotted)


def convergence_group(curves: Mapping[str, Convergence]) -> PanelGroup:
    """NLL and its Monte Carlo error against the number of draws, one figure per method."""
    panels = []
    for name, curve in curves.items():
        low = tuple(y - s for y, s in zip(curve.nll, curve.spread, strict=True))
        high = tuple(y + s for y, s in zip(curve.nll, curve.spread, strict=True))
        line = Curve(name, curve.draws, curve.nll, low, high, 0)
        label = f"Negative log-likelihood of {name} against the number of draws"
        draw = partial(_draw_convergence, line, curve.draws)
        plotted = (line.plotted("draws", "NLL"),)
        panels.append(Panel(name, label, draw, curve.to_dict(), plotted=plotted))
    return PanelGroup("", (), tuple(panels))


def subgroup_group(column: str, methods: Mapping[str, Sequence[Subgroup]]) -> PanelGroup:
    """Scores of the groups of a column with their intervals, one figure per score."""
    panels = []
    first = next(iter(methods.values()))
    for name in first[0].scores:
        scored = {method: groups for method, groups in methods.items() if name in groups[0].scores}
        scale = 100 if glossary.unit(name) else 1
        lines = []
        for style, (method, groups) in enumerate(scored.items()):
            group_scores = [group.scores[name] for group in groups]
            value, low, high = (
                tuple(scale * getattr(score, part) for score in group_scores)
                for part in ("value", "low", "high")
            )
            group_numbers = tuple(range(1, len(groups) + 1))
            lines.append(Curve(method, group_numbers, value, low, high, style))
        label = f"{glossary.label(name)}{' (%)' if glossary.unit(name) else ''}"
        numbers = {line.name: {"y": line.y, "low": line.low, "high": line.high} for line in lines}
        about = f"{glossary.label(name)} of each group by {column}, for {', '.join(scored)}"
        size = (SIZE[0], max(SIZE[1], 0.9 + 0.16 * len(lines) * len(lines[0].x)))
        names = [group.name for group in first]
        draw = partial(_draw_groups, names, lines, label)
        plotted = tuple(
            Plotted(
                line.name,
                {"group": names, label: line.y, "low": line.low, "high": line.high},
                (label, ""),
                line.style,
                figures.group_rows(line, index, len(lines)).tolist(),
            )
            for index, line in enumerate(lines)
        )
        panels.append(Panel(glossary.label(name), about, draw, numbers, size, plotted=plotted))
    return PanelGroup(column, key_of(methods), tuple(panels))


def _edges(sets: Sequence[Any], measure: str) -> np.ndarray:
    """Edges of bins up to the largest uncertainty of any set: logarithmic, if none is below 0.

    They begin with the decades that hold all but `REST` of each set.
    """
    top = max(_top(each, measure) for each in sets)
    low = min(0.0 if isinstance(each, UncertainImages) else float(each.min()) for each in sets)
    if low < 0:
        return np.linspace(low, top if top > low else low + 1, BINS + 1)
    top = top if top > 0 else 1.0
    fine = np.geomspace(top / 10**DECADES, top, 10 * DECADES + 1)
    below = np.max([np.cumsum(_shares(each, measure, fine)) for each in sets], axis=0)
    # At least one decade, of which the last fine bins are.
    first = min(int((below <= REST).sum()), 10 * (DECADES - 1))
    return np.geomspace(fine[first], top, BINS + 1)


def _top(given: Any, measure: str) -> float:
    """The largest uncertainty of a set."""
    return given.top(measure) if isinstance(given, UncertainImages) else float(given.max())


def _shares(given: Any, measure: str, edges: np.ndarray) -> np.ndarray:
    """The share of a set in each bin of uncertainty."""
    if isinstance(given, UncertainImages):
        return given.shares(measure, edges)
    return shares_in_bins(given.flatten().numpy(), edges)


def key_of(names: Iterable[str]) -> tuple[tuple[str, int], ...]:
    """A legend: names with their styles, in order."""
    return tuple((name, style) for style, name in enumerate(names))


def _draw_groups(names: Sequence[str], lines: Sequence[Curve], label: str, ax: Axes) -> None:
    figures.draw_groups(names, lines, ax).set_xlabel(label)


def _draw_convergence(line: Curve, draws: Sequence[int], ax: Axes) -> None:
    figures.draw_curves([line], ax)
    figures.doubling_axis(draws, ax, label="Draws averaged, T")
    ax.set_ylabel("NLL (nats)")


@dataclass(frozen=True, eq=False)
class Transforms:
    """Counts of probability integral transforms: distribution functions at the true values.

    Attributes:
        bins: how many are in each of `PIT_BINS` bins of equal width.
        below: how many are not above each of `QUANTILES`.
    """

    bins: np.ndarray
    below: np.ndarray

    @classmethod
    def of(cls, scored: GaussianPredictive, targets: Tensor) -> "Transforms":
        """Those of predictions of real values."""
        whole = cls(np.zeros(PIT_BINS), np.zeros(len(QUANTILES)))
        for part, of_part in pieces(scored, targets):
            counts = cls.of_values(part.cdf(of_part).flatten().cpu().numpy())
            whole = cls(whole.bins + counts.bins, whole.below + counts.below)
        return whole

    @classmethod
    def of_values(cls, values: np.ndarray) -> "Transforms":
        """The counts of known transforms."""
        below = np.array([(values <= point).sum() for point in QUANTILES])
        return cls(np.histogram(values, PIT_BINS, (0, 1))[0], below)

    @property
    def count(self) -> int:
        """How many there are."""
        return int(self.bins.sum())


def pit_group(transforms: Mapping[str, Transforms], *, level: float) -> PanelGroup:
    """A histogram of each method's probability integral transforms, with its band.

    Args:
        transforms: those of the forecasts, by method.
        level: of the band.
    """
    panels = []
    for name, each in transforms.items():
        ends = _binomial_band(each.count, np.array([1 / PIT_BINS]), level)
        low, high = (float(end[0]) * PIT_BINS for end in ends)
        heights = each.bins * PIT_BINS / each.count
        numbers = {"height": heights.tolist(), "band_low": low, "band_high": high}
        label = f"Histogram of the probability integral transforms of {name}: flat if calibrated"
        words = ("distribution function", "density")
        plotted = (bars_table(name, np.linspace(0, 1, PIT_BINS + 1), heights, words),)
        draw = partial(_draw_pit, heights, low, high)
        panels.append(Panel(name, label, draw, numbers, plotted=plotted))
    return PanelGroup("", (), tuple(panels))


def quantile_group(transforms: Mapping[str, Transforms], *, level: float) -> PanelGroup:
    """Share of true values below each quantile of each method's forecasts, with its band."""
    panels = []
    for name, each in transforms.items():
        shares = each.below / each.count
        low, high = _binomial_band(each.count, np.array(QUANTILES), level)
        numbers = {"level": list(QUANTILES), "share": shares.tolist(), "band_low": low.tolist(),
                   "band_high": high.tolist()}  # fmt: skip
        label = f"Share of true values below each quantile of {name}: the diagonal if calibrated"
        columns = {"quantile": QUANTILES, "share below": shares.tolist(),
                   "band low": low.tolist(), "band high": high.tolist()}  # fmt: skip
        plotted = (Plotted(name, columns, ("quantile", "share below")),)
        draw = partial(_draw_quantiles, shares, low, high)
        panels.append(Panel(name, label, draw, numbers, plotted=plotted))
    return PanelGroup("", (), tuple(panels))


def _binomial_band(count: int, shares: np.ndarray, level: float) -> tuple[Any, Any]:
    """Pointwise interval of the observed share among `count` examples, for each true share."""
    tail = (1 - level) / 2
    low, high = (binomial_quantile(end, count, shares) / count for end in (tail, 1 - tail))
    return low, high


def _draw_pit(heights: np.ndarray, low: float, high: float, ax: Axes) -> None:
    ax.add_patch(Rectangle((0, low), 1, high - low, facecolor=INK, alpha=0.15, linewidth=0))
    ax.axhline(1, color=INK, linewidth=0.8, dashes=(4, 3))
    ax.bar(np.arange(PIT_BINS) / PIT_BINS, heights, width=1 / PIT_BINS, align="edge",
           color=SERIES[0], alpha=0.6, linewidth=0)  # fmt: skip
    ax.set(xlim=(0, 1), xlabel="Forecast distribution at the true value", ylabel="Density")


def _draw_quantiles(shares: np.ndarray, low: np.ndarray, high: np.ndarray, ax: Axes) -> None:
    ax.fill_between(QUANTILES, low, high, color=INK, alpha=0.15, linewidth=0)
    ax.plot([0, 1], [0, 1], color=INK, linewidth=0.8, dashes=(4, 3))
    ax.plot(QUANTILES, shares, "o", color=SERIES[0], markersize=4)
    ax.set(xlim=(0, 1), ylim=(0, 1), xlabel="Quantile of the forecast",
           ylabel="Share of true values below it")  # fmt: skip
