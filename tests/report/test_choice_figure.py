"""The picture of a choice of batch size has its numbers."""

from dataclasses import replace

import matplotlib.pyplot as plt
import pytest
import torch
from matplotlib.figure import Figure
from one_unit import by_log_score, standard_normals

import mcbn
from mcbn.report.choice_figure import choice_table, draw_choice
from mcbn.study.confirmation import Confirmation
from mcbn.study.layer_choice import LayerChoice


@pytest.fixture(scope="module")
def choice():
    return by_log_score(0.3 + 0.19 * standard_normals(50)[:, None], resamples=20, points=9)


def labelled(ax):
    handles, labels = ax.get_legend_handles_labels()
    return dict(zip(labels, handles, strict=True))


def test_the_curve_the_best_size_and_its_interval_are_drawn(choice):
    parts = labelled(draw_choice(choice))
    names = {"interval of the best size", "best size", "rescaled draws"}
    assert parts.keys() == names | {"their interval over examples"}
    assert parts["rescaled draws"].get_xdata() == pytest.approx(choice.batch_sizes.tolist())
    assert parts["rescaled draws"].get_ydata() == pytest.approx(choice.values.tolist())
    assert parts["best size"].get_xdata() == [choice.best] * 2
    shaded = parts["interval of the best size"].get_extents()
    assert plt.get_fignums() == [], "no figure of pyplot is left open"
    assert shaded.width > 0


def test_collected_draws_stand_beside_as_many_rescaled_ones(choice):
    found = Confirmation((4, 32), (-0.2, -0.3), (0.1, -0.05), (0.05, -0.1), (0.2, 0.1), 16)
    ax = Figure().subplots()
    assert draw_choice(replace(choice, confirmation=found), ax) is ax
    parts = labelled(ax)
    assert parts["16 rescaled draws"].get_ydata() == pytest.approx([-0.3, -0.25])
    points, _, bars = parts["16 collected draws"]
    assert points.get_ydata() == pytest.approx([-0.2, -0.3])
    ends = [segment[:, 1].tolist() for segment in bars[0].get_segments()]
    assert torch.tensor(ends).flatten().tolist() == pytest.approx([-0.25, -0.1, -0.35, -0.15])
    rescaled, collected = choice_table(replace(choice, confirmation=found))
    assert list(rescaled.columns["M"]) == choice.batch_sizes.tolist()
    assert list(collected.columns["low"]) == pytest.approx([-0.25, -0.35])
    assert list(collected.columns["high"]) == pytest.approx([-0.1, -0.15])


def test_an_open_interval_ends_with_the_search(choice):
    ax = draw_choice(replace(choice, interval=(0.0, float("inf"))))
    assert ax.get_xlim()[0] == pytest.approx(2, rel=0.5)
    assert all(text.get_text() for text in ax.get_xticklabels())


def test_candidates_of_layers_stand_beside_all_layers():
    losses = 1 + 0.1 * standard_normals(120).reshape(3, 40)
    names = [("all", ["a", "b"]), ("first 1", ["a"]), ("last 1", ["b"])]
    choice = LayerChoice.from_losses(losses, names, draws=4, bank_size=8.0, resamples=50)
    ax = Figure().subplots()
    assert mcbn.plot.choice(choice, ax=ax) is ax
    parts = labelled(ax)
    assert parts["all layers"].get_xdata() == [0, 0]
    order = sorted(choice.candidates[1:], key=lambda each: -each.value)
    ticks = [label.get_text() for label in ax.get_yticklabels()]
    assert ticks == ["chosen, cross-fitted", *(each.name for each in order)]
    points, _, bars = parts["candidates"]
    assert points.get_xdata() == pytest.approx([each.difference for each in order])
    ends = [segment[:, 0].tolist() for segment in bars[0].get_segments()]
    assert ends == [pytest.approx(each.difference_interval) for each in order]
    points, _, bars = parts["chosen, cross-fitted"]
    assert points.get_xdata() == pytest.approx([choice.gain])
    assert bars[0].get_segments()[0][:, 0].tolist() == pytest.approx(choice.gain_interval)
