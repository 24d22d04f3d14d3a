"""BatchBALD against brute force, networks trained together against each alone, and the summary."""

import itertools
import math

import pytest
import torch

from experiments.uses.acquisition import area, labels_to
from experiments.uses.acquisition_model import convolutional
from experiments.uses.acquisition_scores import batch_bald, gaussian_batch_bald
from experiments.uses.acquisition_stack import train_together
from mcbn.tasks.datasets import LabeledData
from mcbn.tasks.networks import mlp
from mcbn.tasks.training import build, train

DRAWS, COUNT, CLASSES = 4, 6, 3


@pytest.fixture(scope="module")
def chances():
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(DRAWS, COUNT, CLASSES, generator=generator, dtype=torch.float64)
    return logits.softmax(2)


def joint_information(chances, rows):
    """Mutual information of the labels of some rows and the draws, over all their labellings."""
    total = 0.0
    for labels in itertools.product(range(CLASSES), repeat=len(rows)):
        each = [
            math.prod(float(draw[row, label]) for row, label in zip(rows, labels, strict=True))
            for draw in chances
        ]
        mean = sum(each) / len(each)
        total += sum(p * math.log(p / mean) for p in each) / len(each)
    return total


def greedy(information, size):
    rows, found = [], [0.0]
    for _ in range(size):
        values = {row: information([*rows, row]) for row in range(COUNT) if row not in rows}
        rows.append(max(values, key=values.get))
        found.append(values[rows[-1]])
    return rows, [b - a for a, b in itertools.pairwise(found)]


def test_batch_bald_is_the_greedy_joint_mutual_information(chances):
    rows, gains = greedy(lambda each: joint_information(chances, each), 4)
    choice = batch_bald(chances, 4, labellings=3**4, generator=torch.Generator())
    assert choice.rows == rows
    assert choice.gains == pytest.approx(gains, rel=1e-10)


def test_sampled_batch_bald_agrees_with_brute_force_within_four_standard_errors(chances):
    """The false-alarm rate of four standard errors is 6e-5."""
    # Of four examples the last gain alone is sampled, and it is not the largest of several.
    few = chances[:, :4]
    exact = joint_information(few, range(4))
    totals = []
    for seed in range(100):
        generator = torch.Generator().manual_seed(seed)
        choice = batch_bald(few, 4, labellings=20, generator=generator)
        totals.append(sum(choice.gains) - exact)
    gaps = torch.tensor(totals, dtype=torch.float64)
    error = float(gaps.std()) / math.sqrt(len(gaps))
    assert 0 < error < 0.01
    assert abs(float(gaps.mean())) < 4 * error


def test_batch_bald_takes_one_of_two_equal_examples_where_bald_takes_both():
    # Draws disagree about examples 0 and 1 in the same way; about 2 less, in another.
    sure, half = [0.99, 0.01], [0.8, 0.2]
    rows = torch.tensor([
        [sure, sure, half],
        [sure, sure, half[::-1]],
        [sure[::-1], sure[::-1], half],
        [sure[::-1], sure[::-1], half[::-1]],
    ])  # fmt: skip
    choice = batch_bald(rows, 2, labellings=4, generator=torch.Generator())
    assert choice.rows == [0, 2]


def test_lazy_scores_choose_as_all_scores_do_among_many_candidates():
    """More candidates than are scored together."""
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(8, 300, 3, generator=generator) * torch.rand(300, 1, generator=generator)
    chances = logits.double().softmax(2)
    choice = batch_bald(chances, 2, labellings=9, generator=generator)
    single = [joint_information(chances, [row]) for row in range(300)]
    first = max(range(300), key=single.__getitem__)
    pairs = {row: joint_information(chances, [first, row]) for row in range(300) if row != first}
    assert choice.rows == [first, max(pairs, key=pairs.get)]


def test_gaussian_batch_bald_is_the_greedy_log_determinant():
    outputs = torch.randn(7, COUNT, generator=torch.Generator().manual_seed(0)).double()
    covariance = torch.cov(outputs.T, correction=0)

    def information(rows):
        return float(torch.logdet(torch.eye(len(rows)) + covariance[rows][:, rows] / 0.3)) / 2

    rows, gains = greedy(information, 4)
    choice = gaussian_batch_bald(outputs, 4, noise_variance=0.3)
    assert choice.rows == rows
    assert choice.gains == pytest.approx(gains, rel=1e-10)


BUILDERS = {
    "images": (lambda: convolutional(8, dropout=0.0), (1, 8, 8), "cross_entropy"),
    "table": (lambda: mlp(3, 1, width=5, depth=2, dropout=0.0), (3,), "mse"),
}


@pytest.mark.parametrize("kind", BUILDERS)
def test_networks_trained_together_are_those_trained_alone(kind):
    builder, shape, loss = BUILDERS[kind]
    generator = torch.Generator().manual_seed(0)
    parts = []
    for _ in range(3):
        inputs = torch.randn(20, *shape, generator=generator, dtype=torch.float64)
        real = torch.randn(20, 1, generator=generator, dtype=torch.float64)
        labels = torch.randint(10, (20,), generator=generator)
        parts.append(LabeledData(inputs, real if loss == "mse" else labels))
    options = {"epochs": 3, "batch_size": 10, "seed": 4, "loss": loss}
    together = [build(lambda: builder().double(), seed=seed) for seed in range(3)]
    train_together(together, parts, **options)
    for seed, (net, part) in enumerate(zip(together, parts, strict=True)):
        alone = build(lambda: builder().double(), seed=seed)
        before = alone.eval()(part.inputs).detach()
        train(alone, part, **options)
        # The small constant of AdamW's denominator is not scaled with the loss.
        torch.testing.assert_close(net(part.inputs), alone(part.inputs), rtol=1e-5, atol=1e-5)
        assert float((alone(part.inputs) - before).detach().abs().max()) > 0.05
        assert not net.training


def test_area_and_labels_of_a_straight_line():
    labels = [20, 30, 40, 50]
    assert area([0.2, 0.4, 0.6, 0.8]) == pytest.approx(0.5)
    assert area([0.8, 0.4, 0.6, 0.8]) == pytest.approx(0.6)
    assert labels_to([0.2, 0.4, 0.6, 0.8], labels, 0.5) == pytest.approx(35)
    assert labels_to([0.6, 0.4, 0.6, 0.8], labels, 0.5) == 20
    assert labels_to([-0.8, -0.7, -0.5, -0.6], labels, -0.6) == pytest.approx(35)
    assert math.isnan(labels_to([0.2, 0.4, 0.6, 0.8], labels, 0.9))
