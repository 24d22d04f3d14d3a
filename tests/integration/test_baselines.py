"""What the comparisons over networks compute from kept draws."""

import importlib
from itertools import product
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from mcbn.tasks.examples import LabeledData

FOLDER = Path(__file__).parents[2]


def module(name):
    return importlib.import_module(f"experiments.comparisons.{name}")


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))


def draws(*shape, seed=0, scale=1.0):
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed)).double()


def test_mutual_information_of_close_draws_is_half_the_weighted_variance():
    """Of draws that differ by 0.01 the next order is some 0.01 of it."""
    logits = 2 * draws(1, 50, 4) + draws(64, 50, 4, seed=1, scale=0.01)
    weight, variance = module("mutual_information").first_order(logits)
    exact = module("baselines_scores").predicted(logits, count=64).mutual_information
    assert_close(weight * variance / 2, exact.double(), rtol=0.03, atol=0)


def test_the_weighted_variance_of_two_classes_is_that_of_their_difference():
    logits = draws(16, 30, 2)
    weight, variance = module("mutual_information").first_order(logits)
    p = logits.mean(0).softmax(1)[:, 0]
    assert_close(weight, 2 * p * (1 - p))
    difference = logits[..., 0] - logits[..., 1]
    assert_close(weight * variance, p * (1 - p) * difference.var(0, correction=0))


def test_auroc_counts_the_pairs_in_order_and_half_of_the_ties():
    inside, outside = torch.tensor([0.1, 0.4, 0.4]), torch.tensor([0.4, 0.9, 0.0])
    pairs = [float(o > i) + 0.5 * float(o == i) for i, o in product(inside, outside)]
    assert module("baselines_scores").auroc(inside, outside) == pytest.approx(sum(pairs) / 9)


def case(targets):
    baselines = module("baselines_cases")
    clean = LabeledData(torch.zeros(len(targets), 1), targets)
    odd = LabeledData(torch.zeros(len(targets) // 2, 1), targets[1::2])
    return baselines.Case(
        None, None, None, None, None, clean, {"noise": odd}, {}
    )  # fmt: skip


def test_the_temperature_of_a_shift_comes_from_clean_images_that_are_not_shifted_in_it():
    targets = torch.randint(0, 3, (80,), generator=torch.Generator().manual_seed(2))
    given = {"clean": draws(4, 80, 3, seed=3), "noise": draws(4, 40, 3, seed=4)}
    tempered = module("baselines_scores").tempered
    before = tempered(case(targets), given, "noise")
    scored = torch.arange(80) % 2 == 1
    moved = given["clean"].clone()
    moved[:, scored] *= 5
    assert tempered(case(targets), {**given, "clean": moved}, "noise") == before
    moved[:, ~scored] *= 5
    assert tempered(case(targets), {**given, "clean": moved}, "noise") != before


def test_each_half_of_the_clean_images_is_scored_at_the_temperature_of_the_other():
    """Logits of one half that are ten times as large do not raise their own temperature."""
    targets = torch.randint(0, 3, (80,), generator=torch.Generator().manual_seed(2))
    logits = draws(4, 80, 3, seed=3)
    logits[:, 1::2] *= 10
    scores = module("baselines_scores")
    even, odd = scores.halves(80)
    expected = [
        scores.nll(
            scores.fitted(logits[:, fit], targets[fit])(scores.predicted(logits[:, held])),
            targets[held],
        )
        for fit, held in ((even, odd), (odd, even))
    ]
    found = scores.tempered(case(targets), {"clean": logits}, "clean")
    assert found == pytest.approx(sum(expected) / 2)
    assert scores.nll(scores.predicted(logits), targets) != found


BREAK_EVEN = {
    "between two": ({5: 0.2, 50: 0.1, 500: -0.1}, 50 * 10**0.5),
    "at once": ({5: -0.2, 50: -0.1, 500: -0.1}, 5),
    "never": ({5: 0.2, 50: 0.1, 500: 0.1}, None),
    "for good": ({5: 0.1, 10: -0.1, 50: 0.3, 500: -0.1}, 50 * 10**0.75),
}


@pytest.mark.parametrize(("gaps", "expected"), BREAK_EVEN.values(), ids=BREAK_EVEN)
def test_the_break_even_is_where_the_difference_changes_its_sign_for_good(gaps, expected):
    labels = module("labels")
    row = {"nll": {
        labels.SCALED: {str(count): 1 + gap for count, gap in gaps.items()},
        "MCBN, M = 32": {"0": 1.0},
    }}  # fmt: skip
    found = labels.break_even(row, "MCBN, M = 32")
    assert found is None if expected is None else found == pytest.approx(expected)


def test_stages_are_thirds_of_the_layers_in_their_order():
    which = importlib.import_module("experiments.choosing.which_layers")
    layers = [f"layer {number}" for number in range(19)]
    stages = which.stages(layers)
    assert [len(stages[name]) for name in which.STAGES] == [6, 7, 6, 19]
    assert stages["early"] + stages["middle"] + stages["late"] == stages["all"] == layers


def test_corrupted_inputs_are_in_the_units_of_the_inputs():
    """Standardised pictures of a bright disc: a weak compression hardly changes them."""
    cases = module("baselines_cases")
    axis = torch.linspace(-1, 1, 28)
    disc = (1 - (axis[:, None] ** 2 + axis**2)).clamp(0, 1)
    inputs = ((disc - 0.13) / 0.31).expand(3, 1, 28, 28)
    black, white = -0.13 / 0.31, 0.87 / 0.31
    made = cases.corrupted_inputs(inputs, black, white)
    assert len(made) == 14
    assert all(black - 1e-4 <= float(each.min()) for each in made.values())
    assert all(float(each.max()) <= white + 1e-4 for each in made.values())
    assert_close(made["compression, weak"], inputs, atol=0.2, rtol=0)
    assert_close(
        made["brightness, strong"], (inputs + 0.15 / 0.31).clamp(max=white), atol=0.05, rtol=0
    )
