"""Pictures of results on given axes: what is drawn are the numbers of the results."""

import builtins
import inspect

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from regression_reports import predictions as regression_predictions
from reports import comparison
from synthetic_studies import classification_plan, classification_scores, made_study
from torch import nn

import mcbn
from mcbn.drawing.heat import heat
from mcbn.drift.drift_test import LayerDrift
from mcbn.evaluation.convergence import Convergence
from mcbn.evaluation.reliability import Reliability
from mcbn.predictive.predictions import Predictions


def classes(positions=(), draws=4):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(draws, 50, 3, *positions, generator=generator)
    targets = torch.randint(3, (50, *positions), generator=generator)
    targets.view(-1)[:9] = 7
    predictive = mcbn.Categorical().summarize(logits)
    return Predictions("M", predictive, targets, "fifty", ("a", "b", "c"), ignore_index=7)


def study():
    return made_study(classification_plan(), classification_scores)


def monitored():
    network = nn.Sequential(nn.BatchNorm1d(2)).eval()
    batches = list(torch.randn(30, 8, 2, generator=torch.Generator().manual_seed(0)))
    monitor = mcbn.DriftMonitor(network, mcbn.collect(network, batches[:20]))
    for batch in batches[20:]:
        monitor.update(batch + 5)
    assert monitor.alarm
    return monitor


DRIFT = mcbn.DriftTest(
    0.01, 0.05, (1.0, 2.5), tuple(k / 20 for k in range(40)),
    (LayerDrift("1", 2.0, 0.01, 0.01),), 8, 8,
)  # fmt: skip
CURVE = Convergence((1, 2, 4), (0.9, 0.8, 0.7), (0.2, 0.1, float("nan")))
DRAWN = {
    "reliability": lambda ax: mcbn.plot.reliability(comparison(), ax=ax),
    "reliability of predictions": lambda ax: mcbn.plot.reliability(classes(), ax=ax),
    "risk_coverage": lambda ax: mcbn.plot.risk_coverage(comparison(), ax=ax),
    "out_of_distribution": lambda ax: mcbn.plot.out_of_distribution(comparison(), ax=ax),
    "score": lambda ax: mcbn.plot.score(study(), ax=ax),
    "score mutual_information": lambda ax: mcbn.plot.score(study(), "mutual_information", ax=ax),
    "monte_carlo_error": lambda ax: mcbn.plot.monte_carlo_error(CURVE, ax=ax),
    "pit": lambda ax: mcbn.plot.pit(regression_predictions("right", 1.0), ax=ax),
    "drift": lambda ax: mcbn.plot.drift(DRIFT, ax=ax),
    "drift of a monitor": lambda ax: mcbn.plot.drift(monitored(), ax=ax),
    "uncertainty_map": lambda ax: mcbn.plot.uncertainty_map(classes((4, 5)), 3, ax=ax),
}


@pytest.mark.parametrize("draw", DRAWN.values(), ids=DRAWN)
def test_it_is_drawn_on_the_axes_that_are_given_or_on_new_ones(draw):
    figure = Figure()
    left, right = figure.subplots(1, 2)
    assert draw(right) is right
    assert not left.has_data()
    assert right.has_data()
    alone = draw(None)
    assert alone.figure is not figure
    assert [axes.has_data() for axes in alone.figure.axes] == [True]
    figure.canvas.draw()  # nothing that cannot be shown


def test_a_figure_is_one_of_pyplot_only_in_a_notebook_which_shows_and_closes_it(monkeypatch):
    plt.switch_backend("agg")
    before = plt.get_fignums()
    mcbn.plot.reliability(comparison())
    assert plt.get_fignums() == before
    monkeypatch.setattr(builtins, "__IPYTHON__", True, raising=False)
    for draw in DRAWN.values():
        ax = draw(None)
        assert plt.get_fignums() == [*before, ax.figure.number]
        plt.close(ax.figure)
    given = Figure().subplots()
    mcbn.plot.reliability(comparison(), ax=given)
    assert plt.get_fignums() == before


def test_every_function_is_tried():
    names = {name for name in mcbn.plot.__all__ if name != "choice"}  # see `test_choice_figure`
    assert names == {name.split()[0] for name in DRAWN}
    for name in mcbn.plot.__all__:
        assert inspect.signature(getattr(mcbn.plot, name)).parameters["ax"].default is None


@pytest.mark.parametrize("method", [None, "Plain", "MCBN"])
def test_points_of_reliability_are_those_of_its_bins(method):
    compared = comparison(names=("Plain", "MCBN"))
    entry = compared.entries[method or "Plain"]
    correct = entry.predictive.prediction == compared.targets
    expected = Reliability.from_predictions(entry.predictive.confidence, correct)
    ax = mcbn.plot.reliability(compared, method=method)
    x, y = ax.collections[1].get_offsets().T
    filled = expected.counts > 0
    np.testing.assert_allclose(x, expected.confidence[filled])
    np.testing.assert_allclose(y, expected.accuracy[filled])


def test_predictions_leave_out_what_is_not_labelled():
    given = classes((4, 5))
    known = given.targets != 7
    confidence = given.predictive.confidence[known]
    correct = (given.predictive.prediction == given.targets)[known]
    expected = Reliability.from_predictions(confidence, correct)
    ax = mcbn.plot.reliability(given)
    _, y = ax.collections[1].get_offsets().T
    np.testing.assert_allclose(y, expected.accuracy[expected.counts > 0])


def test_lines_of_a_score_are_its_means_over_seeds():
    made = study()
    ax = mcbn.plot.score(made, "nll", trained_at=64)
    expected = [
        np.mean(list(made.values("nll", "MCBN", training_batch_size=64, batch_size=size).values()))
        for size in made.batch_sizes
    ]
    drawn = [list(line.get_ydata()) for line in ax.lines]
    assert any(values == pytest.approx(expected) for values in drawn)
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    assert names == list(made.methods)


def test_methods_of_a_single_draw_do_not_stretch_the_axis_of_a_spread():
    """What is computed as their mutual information is rounding error."""

    def scores(cell):
        rounded = cell.method in ("Deterministic", "Population BN")
        return classification_scores(cell) | ({"mutual_information": 5e-17} if rounded else {})

    ax = mcbn.plot.score(made_study(classification_plan(), scores), "mutual_information")
    assert ax.get_ylim()[0] > 1e-5
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    assert "MCBN" in names
    assert not {"Deterministic", "Population BN"} & set(names)


def test_a_map_has_the_colours_of_its_values():
    given = classes((4, 5))
    ax = mcbn.plot.uncertainty_map(given, 3, "entropy")
    expected = heat(given.predictive.entropy[3].numpy(), np.log(3))
    np.testing.assert_array_equal(ax.images[0].get_array(), expected)


@pytest.mark.parametrize(
    ("draw", "reason"),
    [
        (lambda: mcbn.plot.reliability(comparison(), method="mine"), "expected a method among"),
        (lambda: mcbn.plot.reliability(regression_predictions("r", 1.0)), "mcbn.plot.pit"),
        (lambda: mcbn.plot.pit(classes()), "draw mcbn.plot.reliability"),
        (lambda: mcbn.plot.score(study(), "beauty"), "over batch sizes, got 'beauty'; it has"),
        (lambda: mcbn.plot.score(study(), trained_at=5), "expected trained_at among"),
        (lambda: mcbn.plot.out_of_distribution(comparison(ood=False)), "give mcbn.compare outside"),
        (lambda: mcbn.plot.uncertainty_map(classes(), 0), "without positions"),
        (
            lambda: mcbn.plot.uncertainty_map(classes((4, 5), 1), 0, "mutual information"),
            "expected a quantity among",
        ),
    ],
)
def test_what_cannot_be_drawn_is_refused(draw, reason):
    with pytest.raises(ValueError, match=reason):
        draw()


def test_the_axes_of_labels_say_what_they_are_of():
    generator = torch.Generator().manual_seed(4)
    logits = torch.randn(3, 30, 4, generator=generator)
    targets = (torch.randn(30, 4, generator=generator) > 0).long()
    predictive = mcbn.Bernoulli("logits").summarize(logits)
    given = mcbn.Predictions("M", predictive, targets, "findings")
    drawn = mcbn.plot.reliability(given)
    assert (drawn.get_xlabel(), drawn.get_ylabel()) == ("Probability", "Frequency")
    assert mcbn.plot.risk_coverage(given).get_xlabel() == "Share of labels answered"
    text = mcbn.Report.from_predictions([given], resamples=5).to_html()
    assert ">Labels</text>" in text  # of the bars
    assert "Share of examples answered" not in text
