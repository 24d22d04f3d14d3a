"""Every line, bar, band and label of a plot has the numbers that it should have."""

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from regression_reports import predictions as regression_predictions
from reports import comparison
from scipy import stats
from synthetic_studies import classification_plan, classification_scores, made_study

import mcbn
from mcbn.drawing.figures import SERIES
from mcbn.evaluation.convergence import Convergence
from mcbn.evaluation.detection import risk_coverage
from mcbn.evaluation.reliability import Reliability

NAMES = ("Plain", "MCBN", "Dropout")


def labels(ax):
    return ax.get_xlabel(), ax.get_ylabel()


def legend(ax):
    """The names of the lines with their colours."""
    found = ax.get_legend()
    return {
        text.get_text(): line.get_color()
        for text, line in zip(found.get_texts(), found.get_lines(), strict=True)
    }


def steps(ax):
    """The heights of each histogram that is drawn as an outline, by its colour."""
    return {
        patch.get_edgecolor()[:3]: patch.get_data().values
        for patch in ax.patches
        if patch.get_linewidth() > 0
    }


def forecast(entry, compared):
    return entry.predictive.confidence, entry.predictive.prediction == compared.targets


def test_intervals_and_band_of_reliability_have_their_level():
    compared = comparison(names=NAMES)
    ax = mcbn.plot.reliability(compared, method="MCBN")
    expected = Reliability.from_predictions(*forecast(compared.entries["MCBN"], compared))
    filled = expected.counts > 0
    low, high = (end[filled] for end in expected.consistency_band(level=0.95))
    boxes = [patch.get_bbox() for patch in ax.patches]
    np.testing.assert_allclose([box.y0 for box in boxes], low, atol=1e-12)
    np.testing.assert_allclose([box.y1 for box in boxes], high, atol=1e-12)
    np.testing.assert_allclose([box.x0 for box in boxes], expected.edges[:-1][filled])
    bars = np.array(ax.collections[0].get_segments())[:, :, 1]
    ends = torch.stack([end[filled] for end in expected.interval(level=0.95)], 1)
    np.testing.assert_allclose(bars, ends, atol=1e-12)
    assert labels(ax) == ("Confidence", "Accuracy")


def test_lines_of_risk_and_coverage_are_those_of_every_method():
    compared = comparison(names=NAMES)
    ax = mcbn.plot.risk_coverage(compared)
    by_color = {line.get_color(): line for line in ax.lines}
    named = legend(ax)
    assert list(named) == list(NAMES)
    for name, entry in compared.entries.items():
        confidence, correct = forecast(entry, compared)
        expected = risk_coverage(1 - confidence, ~correct)
        line = by_color[named[name]]
        np.testing.assert_allclose(line.get_xdata(), expected.coverage)
        np.testing.assert_allclose(line.get_ydata(), expected.risk)
    assert labels(ax) == ("Share of examples answered", "Error rate among them")


@pytest.mark.parametrize(
    ("method", "measure"),
    [(None, "entropy"), ("MCBN", "mutual_information"), ("Dropout", "entropy")],
)
def test_histograms_are_of_the_uncertainty_of_each_set(method, measure):
    """A single draw, as of the baseline, has only its entropy, which is shown of all methods."""
    compared = comparison(names=NAMES)
    entry = compared.entries[method or "Plain"]
    ax = mcbn.plot.out_of_distribution(compared, method=method, uncertainty=measure)
    named, drawn = legend(ax), steps(ax)
    assert list(named) == ["Test examples", "noise"]
    edges = np.unique(np.concatenate([patch.get_data().edges for patch in ax.patches]))
    sets = {"Test examples": entry.predictive, "noise": entry.outside["noise"]}
    for name, predictive in sets.items():
        values = getattr(predictive, measure).numpy().clip(edges[0], edges[-1])
        shares = np.histogram(values, edges)[0] / len(values)
        np.testing.assert_allclose(drawn[to_rgb(named[name])], shares)
    assert labels(ax) == (f"{measure.replace('_', ' ').capitalize()} (nats)", "Share of examples")


@pytest.mark.parametrize(("score", "power"), [("mutual_information", -1), ("epistemic_sd", -0.5)])
def test_the_thin_line_of_a_spread_falls_as_theory_says(score, power):
    made = made_study(classification_plan(), classification_scores)
    ax = mcbn.plot.score(made, score, trained_at=64)
    (theory,) = [line for line in ax.lines if line.get_color() not in SERIES]
    sizes = np.array(made.batch_sizes, dtype=float)
    np.testing.assert_array_equal(theory.get_xdata(), sizes)
    values = np.array(theory.get_ydata())
    np.testing.assert_allclose(values / values[0], (sizes / sizes[0]) ** power)
    assert ax.get_xlabel() == "Inference batch size, M"


def test_every_method_of_a_score_has_its_line_or_its_level_with_its_interval():
    made = made_study(classification_plan(), classification_scores)
    ax = mcbn.plot.score(made, "nll", trained_at=64)
    levels = {"Deterministic", "Population BN", "MC Dropout", "Deep ensemble"}
    for method in made.methods:
        sizes = [None] if method.split(",")[0] in levels else made.batch_sizes
        values = [
            list(made.values("nll", method, training_batch_size=64, batch_size=size).values())
            for size in sizes
        ]
        means = [np.mean(each) for each in values]
        half = [stats.t.ppf(0.975, len(v) - 1) * stats.sem(v) for v in values]
        lines = [np.array(line.get_ydata()) for line in ax.lines]
        wanted = means if len(means) > 1 else 2 * means  # a level has two ends
        assert any(np.array_equal(line.shape, np.shape(wanted)) and np.abs(line - wanted).max()
                   < 1e-12 for line in lines), method  # fmt: skip
        if len(means) > 1:
            bands = [each.get_paths()[0].vertices[:, 1] for each in ax.collections]
            for mean, width in zip(means, half, strict=True):
                ends = [mean - width, mean + width]
                assert any(np.abs(band[:, None] - ends).min(0).max() < 1e-12 for band in bands)
        else:
            boxes = [patch.get_bbox() for patch in ax.patches]
            gaps = [(box.y0 - means[0] + half[0], box.y1 - means[0] - half[0]) for box in boxes]
            assert np.abs(gaps).max(1).min() < 1e-12, method


def test_the_monte_carlo_error_is_a_band_around_the_score():
    curve = Convergence((1, 2, 4), (0.9, 0.8, 0.7), (0.2, 0.1, float("nan")))
    ax = mcbn.plot.monte_carlo_error(curve)
    (line,) = ax.lines
    np.testing.assert_array_equal(line.get_xdata(), curve.draws)
    np.testing.assert_array_equal(line.get_ydata(), curve.nll)
    (band,) = ax.collections
    corners = {(x, round(y, 12)) for x, y in band.get_paths()[0].vertices}
    assert corners == {(1.0, 0.7), (1.0, 1.1), (2.0, 0.7), (2.0, 0.9)}
    assert labels(ax) == ("Draws averaged, T", "NLL (nats)")


@pytest.mark.parametrize("level", [0.95, 0.5])
def test_bars_of_pit_are_the_density_of_the_transforms(level):
    given = regression_predictions("right", 1.0)
    ax = mcbn.plot.pit(given, level=level)
    transforms = stats.norm.cdf(
        given.targets, given.predictive.mean, given.predictive.variance.sqrt()
    )
    band, *bars = ax.patches
    expected, edges = np.histogram(transforms, 20, (0, 1), density=True)
    np.testing.assert_allclose([bar.get_height() for bar in bars], expected)
    np.testing.assert_allclose([bar.get_x() for bar in bars], edges[:-1], atol=1e-12)
    ends = stats.binom.interval(level, len(given.targets), 1 / 20)
    wanted = [20 * end / len(given.targets) for end in ends]
    np.testing.assert_allclose([band.get_bbox().y0, band.get_bbox().y1], wanted)
    assert labels(ax) == ("Forecast distribution at the true value", "Density")


def test_a_map_says_of_what_and_of_which_example_it_is():
    logits = torch.randn(4, 5, 3, 6, 7, generator=torch.Generator().manual_seed(0))
    given = mcbn.Predictions("M", mcbn.Categorical().summarize(logits), None, "maps")
    ax = mcbn.plot.uncertainty_map(given, 3)
    assert ax.get_title() == "Mutual information of example 3"


def test_a_choice_is_drawn_on_the_axes_that_are_given():
    sizes = torch.tensor([4.0, 8.0, 16.0]).double()
    chosen = mcbn.BatchSizeChoice(
        8.0, 0.1, (4.0, 16.0), (5.0, 12.0), sizes, 1 / sizes, 0.9 / sizes, 1.1 / sizes,
        "log_score", 8.0, 16, 0.95,
    )  # fmt: skip
    left, right = Figure().subplots(1, 2)
    assert mcbn.plot.choice(chosen, ax=right) is right
    assert right.has_data()
    assert not left.has_data()
    assert mcbn.plot.choice(chosen).figure is not right.figure
