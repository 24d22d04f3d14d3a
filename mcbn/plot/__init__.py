"""Pictures of results, one call and one Axes each: the figures of a report, wherever wanted.

Every function draws on `ax`, or on a figure of its own, and returns the axes, whose `figure` can be
saved, as in `mcbn.plot.reliability(comparison).figure.savefig("reliability.pdf")`. A notebook shows
the figure under its cell.
"""

import builtins
import importlib
from collections.abc import Mapping
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mcbn.drawing import figures
from mcbn.drift.drift_test import DriftTest
from mcbn.drift.monitor import DriftMonitor
from mcbn.evaluation.compare import compared, entry
from mcbn.evaluation.comparison import Comparison
from mcbn.evaluation.convergence import Convergence
from mcbn.evaluation.evaluate import what_is_scored
from mcbn.predictive.gaussian import GaussianPredictive
from mcbn.predictive.predictions import Predictions
from mcbn.report import maps, panels, study_panels
from mcbn.report.choice_figure import draw_choice, draw_layer_choice
from mcbn.report.drift_figure import draw_monitor, draw_test
from mcbn.report.panels import Panel, PanelGroup
from mcbn.study.choice import BatchSizeChoice
from mcbn.study.layer_choice import LayerChoice
from mcbn.study.results import Study

SIZE = (5.0, 3.6)  # inches, of a figure of its own
Quantity = Literal["truth", "prediction", "entropy", "mutual information", "standard deviation",
                   "epistemic sd", "error"]  # fmt: skip


def reliability(
    given: Comparison | Predictions, *, method: str | None = None, ax: Axes | None = None
) -> Axes:
    """Draw accuracy against confidence in bins, with intervals and the band of a calibrated one.

    Of several labels an example it is the frequency of a label against its probability.

    Args:
        given: of classes or labels, with targets.
        method: of a comparison; by default its baseline.
        ax: where to draw.

    Raises:
        ValueError: there is no such method, or predictions are of real values or have no targets.
    """
    compared = _compared(given)
    x, *_ = panels.words_of(compared)
    return _drawn(_chosen(panels.reliability_group(compared), method), ax, xlabel=x)


def risk_coverage(given: Comparison | Predictions, *, ax: Axes | None = None) -> Axes:
    """Draw the error rate among answered examples against their share, a line per method.

    Args:
        given: of classes or labels, with targets.
        ax: where to draw.

    Raises:
        ValueError: predictions are of real values, or have no targets.
    """
    group = panels.selective_group(_compared(given))
    return _with_legend(_drawn(group.panels[0], ax), group)


def out_of_distribution(
    comparison: Comparison,
    *,
    method: str | None = None,
    uncertainty: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw histograms of the uncertainty of test and of out-of-distribution examples.

    Args:
        comparison: with out-of-distribution sets.
        method: whose uncertainty; by default the baseline.
        uncertainty: name of a score that methods were compared by, or of a detector, which is of no
            method; by default the first score.
        ax: where to draw.

    Raises:
        ValueError: there is no such method, score or set.
    """
    if not comparison.entries[comparison.baseline].outside:
        raise ValueError(
            "expected a comparison with out-of-distribution sets, got none; give mcbn.compare "
            "outside={name: inputs}"
        )
    group = panels.out_of_distribution_group(comparison)
    whose = _known(method, list(comparison.entries), comparison.baseline)
    scores = [*comparison.entries[whose].uncertainties, *comparison.detectors]
    if uncertainty is not None and uncertainty not in scores:
        raise ValueError(
            f"expected a score of {whose!r} among {scores}, got {uncertainty!r}; choose one of them"
        )
    name = uncertainty or scores[0]
    title = panels.histogram_title("" if name in comparison.detectors else whose, name)
    panel = next(each for each in group.panels if each.title == title)
    return _with_legend(_drawn(panel, ax), group)


def score(
    study: Study, name: str = "nll", *, trained_at: int | None = None, ax: Axes | None = None
) -> Axes:
    """Draw a score of every method against the batch size M; those without an M are level lines.

    Args:
        study: of `run_study` or `sweep`.
        name: of the score, such as "nll", "accuracy" or "mutual_information".
        trained_at: training batch size of the networks; by default the smallest.
        ax: where to draw.

    Raises:
        ValueError: the study has no such score, or no such networks.
    """
    group = study_panels.score_group(study, name) if name in _scores_of(study) else None
    if group is None or not study.batch_sizes:
        raise ValueError(
            f"expected a score of the study over batch sizes, got {name!r}; it has "
            f"{', '.join(sorted(_scores_of(study))) or 'none'}"
        )
    sizes = study.training_batch_sizes
    size = sizes[0] if trained_at is None else trained_at
    if size not in sizes:
        raise ValueError(
            f"expected trained_at among {sizes}, got {trained_at}; leave it out for the smallest"
        )
    return _with_legend(_drawn(group.panels[sizes.index(size)], ax), group)


def monte_carlo_error(curve: Convergence, *, ax: Axes | None = None) -> Axes:
    """Draw the NLL of averages of T draws against T, with its spread over groups of draws.

    Args:
        curve: of `mcbn.evaluation.convergence.convergence`.
        ax: where to draw.
    """
    return _drawn(panels.convergence_group({"": curve}).panels[0], ax)


def pit(predictions: Predictions, *, level: float = 0.95, ax: Axes | None = None) -> Axes:
    """Draw the histogram of the probability integral transforms of real targets.

    Args:
        predictions: of real values, with targets.
        level: of the band in which the bars of a calibrated forecaster would end.
        ax: where to draw.

    Raises:
        ValueError: predictions are of classes, or have no targets.
    """
    scored = predictions.scored
    if not isinstance(scored, GaussianPredictive):
        raise ValueError(
            f"expected predictions of real values, got others by {predictions.method!r}; draw "
            "mcbn.plot.reliability"
        )
    transforms = panels.Transforms.of(scored, predictions.known_targets)
    group = panels.pit_group({predictions.method: transforms}, level=level)
    return _drawn(group.panels[0], ax)


def choice(choice: BatchSizeChoice | LayerChoice, *, ax: Axes | None = None) -> Axes:
    """Draw the criterion of `choose_batch_size` against M, or the candidates of `choose_layers`.

    Args:
        choice: of batch size, see `draw_choice`; or of layers, whose held-out NLLs minus that of
            all layers are drawn, with intervals that hold for all candidates at once, over that of
            the cross-fitted choice.
        ax: where to draw.
    """
    if isinstance(choice, LayerChoice):
        return draw_layer_choice(choice, _axes(ax))
    return draw_choice(choice, _axes(ax))


def drift(given: DriftTest | DriftMonitor, *, ax: Axes | None = None) -> Axes:
    """Draw distances of mini-batches beside those of a bank's draws, or the e value of a monitor.

    Args:
        given: of `drift_test`, whose mini-batches are marked over a histogram of the calibration
            draws; or a monitor, whose e value is drawn after each mini-batch.
        ax: where to draw.
    """
    if isinstance(given, DriftTest):
        return draw_test(given, _axes(ax))
    return draw_monitor(given, _axes(ax))


def uncertainty_map(
    predictions: Predictions,
    index: int,
    quantity: Quantity = "mutual information",
    *,
    ax: Axes | None = None,
) -> Axes:
    """Draw a map of one example of a segmentation, in the colours of the report.

    Args:
        predictions: of classes at positions of a height and a width.
        index: of the example.
        quantity: what is shown.
        ax: where to draw.

    Raises:
        ValueError: there are no such positions, or it is not known, as the mutual information of
            a single draw or the truth without targets.
    """
    found = {name.lower(): pixels for name, pixels in maps.every_map(predictions, index)}
    if quantity not in found:
        raise ValueError(
            f"expected a quantity among {list(found)}, got {quantity!r}; choose one of them"
        )
    drawn = _axes(ax)
    drawn.imshow(found[quantity])
    drawn.set_axis_off()
    drawn.set_title(f"{quantity.capitalize()} of example {index}")
    return drawn


def _compared(given: Comparison | Predictions) -> Comparison:
    """A comparison of one method, if it is not one already."""
    if isinstance(given, Comparison):
        return given
    scored = given.scored
    if isinstance(scored, GaussianPredictive):
        raise ValueError(
            f"expected predictions of classes, got real values by {given.method!r}; draw "
            "mcbn.plot.pit"
        )
    rows = what_is_scored(scored, given.known_targets, ignore_index=given.ignore_index)
    alone = entry(rows, outside={}, resamples=0, progress=False)
    return compared({given.method: alone}, rows, given.classes)


def _known(method: str | None, names: list[str], default: str) -> str:
    if method is not None and method not in names:
        raise ValueError(f"expected a method among {names}, got {method!r}; choose one of them")
    return default if method is None else method


def _chosen(group: PanelGroup, method: str | None) -> Panel:
    """The panel of a method, which is its title; the first by default."""
    by_name = {panel.title: panel for panel in group.panels}
    return by_name[_known(method, list(by_name), group.panels[0].title)]


def _axes(ax: Axes | None) -> Axes:
    """The axes that were given, or those of a new figure.

    A notebook shows the figures of pyplot alone, and closes them; elsewhere pyplot would keep each
    in memory until it is closed.
    """
    if ax is not None:
        return ax
    if getattr(builtins, "__IPYTHON__", False):  # set by IPython and by every notebook
        pyplot = importlib.import_module("matplotlib.pyplot")  # which chooses a window system
        axes: Axes = pyplot.subplots(figsize=SIZE, layout="constrained")[1]
        return axes
    return Figure(figsize=SIZE, layout="constrained").subplots()


def _drawn(panel: Panel, ax: Axes | None, **labels: str) -> Axes:
    drawn = _axes(ax)
    panel.draw(drawn)
    drawn.set(**labels)
    return drawn


def _with_legend(ax: Axes, group: PanelGroup) -> Axes:
    """A legend of the lines, which a page has beside its figures."""
    figures.draw_legend(ax, group.key)
    return ax


def _scores_of(study: Study) -> Mapping[str, None]:
    """The names of the scores that a study has."""
    names = dict.fromkeys(name for result in study.results for name in result.scores)
    return names | dict.fromkeys(f"auroc_{name}" for name in study.outside)


__all__ = [
    "choice", "drift", "monte_carlo_error", "out_of_distribution", "pit", "reliability",
    "risk_coverage", "score", "uncertainty_map",
]  # fmt: skip
