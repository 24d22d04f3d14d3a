"""Choosing the batch size: closed forms, its intervals, and banks really drawn at other sizes."""

import dataclasses
import json
import math

import pytest
import torch
from models import examples, make_network
from one_unit import by_log_score, drawn_targets, one_unit, standard_normals
from torch import nn
from torch.testing import assert_close

import mcbn
from mcbn.predictive.likelihood import as_likelihood
from mcbn.study.batch_size import _vertices
from mcbn.study.criterion import elbo_of
from mcbn.tasks.training import build

pytestmark = pytest.mark.filterwarnings("ignore::mcbn.InconsistentBankWarning")


ONE_UNIT = [
    # N, tau, gamma, sigma, s
    (1000, 2.0, 0.7, 1.5**0.5, 3.0),
    (50, 0.5, 1.3, 2.0, 0.4),
    (20_000, 4.0, 0.2, 0.6, 0.05),
    (300, 1.0, 0.5, 1.0, 10.0),
]


@pytest.mark.parametrize(("count", "precision", "gamma", "sigma", "prior"), ONE_UNIT)
def test_the_elbo_of_one_unit_has_its_optimum_at_the_closed_form(
    count, precision, gamma, sigma, prior
):
    """M* = N tau gamma^2 + sigma^2 / s^2, to 1%."""
    expected = count * precision * gamma**2 + sigma**2 / prior**2
    model, bank = one_unit(gamma=gamma, sigma=sigma, draws=16, size=100 * expected)
    x = torch.linspace(-1, 2, 7, dtype=torch.float64)[:, None]
    targets = torch.linspace(2, -1, 7, dtype=torch.float64)[:, None]
    choice = mcbn.choose_batch_size(
        model,
        bank,
        x,
        targets,
        criterion=mcbn.ELBO(prior_batch_size=(sigma / prior) ** 2, population=count),
        likelihood=mcbn.Gaussian(precision=precision),
        bounds=(expected / 8, expected * 20),
        resamples=50,
    )
    assert choice.best == pytest.approx(expected, rel=0.01)


def test_the_elbo_in_more_dimensions_wants_smaller_batches():
    """M* = N tau gamma^2 / K + M_p: each direction pays its own divergence."""
    model, bank = one_unit(gamma=0.7, sigma=1.2, draws=16, size=50_000)
    x, targets = torch.zeros(3, 1, dtype=torch.float64), torch.ones(3, 1, dtype=torch.float64)
    choice = mcbn.choose_batch_size(
        model, bank, x, targets,
        criterion=mcbn.ELBO(prior_batch_size=7.0, dimensions=4, population=1000),
        likelihood=mcbn.Gaussian(precision=2.0), bounds=(20, 3000), resamples=20,
    )  # fmt: skip
    assert choice.best == pytest.approx(1000 * 2 * 0.7**2 / 4 + 7, rel=0.01)


def test_the_value_of_the_elbo_is_the_one_written_out():
    """At every size: N E[log p] - KL, with the mean square of the error by its closed form."""
    model, bank = one_unit(gamma=0.7, sigma=1.2, draws=16, size=50_000)
    x = torch.tensor([[0.1], [2.0]], dtype=torch.float64)
    targets = torch.tensor([[1.0], [0.5]], dtype=torch.float64)
    choice = mcbn.choose_batch_size(
        model, bank, x, targets, criterion=mcbn.ELBO(prior_batch_size=3.0, population=100),
        likelihood=mcbn.Gaussian(precision=2.0), bounds=(20, 200), resamples=20,
    )  # fmt: skip
    gaps = targets - (0.7 * (x - 0.4) / 1.2 + 0.3)
    for size, value in zip(choice.batch_sizes, choice.values, strict=True):
        square = gaps.square().mean() + 0.7**2 / size
        likelihood = -0.5 * math.log(2 * math.pi / 2.0) - 0.5 * 2.0 * square
        divergence = 0.5 * (3 / size - 1 - torch.log(3 / size))
        assert_close(value, -(likelihood - divergence / 100), rtol=1e-6, atol=0)


def test_the_log_score_of_one_unit_has_its_optimum_at_the_closed_form():
    """The predictive variance gamma^2 / M + 1 / tau is that of the targets; 32 components: 2%."""
    noise = standard_normals(101)[:, None]
    targets = 0.3 + (1 / 25 + 1 / 50) ** 0.5 * noise
    assert by_log_score(targets, draws=32, resamples=20).best == pytest.approx(25, rel=0.02)


def test_the_interval_holds_the_true_size_and_so_does_the_flat_region():
    """25 data sets of 200 targets: at least 19 intervals of 95%; below that by chance 1e-4."""
    inside = flat = 0
    for seed in range(25):
        targets = drawn_targets(gamma=1.0, size=25, precision=50.0, count=200, seed=seed)
        choice = by_log_score(targets, resamples=200, points=9)
        assert choice.flat[0] <= choice.best <= choice.flat[1]
        inside += choice.interval[0] <= 25 <= choice.interval[1]
        flat += choice.flat[0] / 1.2 <= 25 <= choice.flat[1] * 1.2
    assert inside >= 19
    assert flat >= 19


def test_the_lowest_point_of_a_resample_is_that_of_its_parabola():
    """Exactly, if the curve is one; at an end of the grid it is the end."""
    grid = torch.linspace(0, 4, 9, dtype=torch.float64)
    lowest = torch.tensor([1.1, 2.6, 3.24, 9.0, -2.0], dtype=torch.float64)
    curves = 0.3 * (grid[:, None] - lowest).square() + 1.5
    expected = torch.tensor([1.1, 2.6, 3.24, 4.0, 0.0], dtype=torch.float64)
    assert_close(_vertices(grid, curves), expected)


def test_more_examples_know_the_size_better():
    few, many = (
        by_log_score(
            drawn_targets(gamma=1.0, size=25, precision=50.0, count=count, seed=0),
            resamples=200,
            points=9,
        )
        for count in (100, 1600)
    )
    for name in ("interval", "flat"):
        widths = [math.log(high / low) for low, high in (getattr(c, name) for c in (few, many))]
        assert widths[1] < widths[0] / 2
    assert few.interval[0] < 25 < few.interval[1]


NAME = "1d of 2-D"


@pytest.fixture(scope="module")
def model():
    return make_network(NAME)


@pytest.fixture(scope="module")
def bank(model):
    return mcbn.collect(model, mcbn.minibatches(examples(NAME, 400), batch_size=16, draws=12))


@pytest.fixture(scope="module")
def held_out():
    """600 examples, so that more than one pass is needed, with labels at random."""
    generator = torch.Generator().manual_seed(3)
    return examples(NAME, 600, seed=5), torch.randint(3, (600,), generator=generator)


def evaluated(model, bank, size, held_out, resamples=0):
    predictive = mcbn.predict(mcbn.MCBatchNorm(model, bank.rescale(size)), held_out[0])
    return mcbn.evaluate(predictive, held_out[1], resamples=resamples, seed=4)


def test_the_curve_is_the_score_of_the_rescaled_banks(model, bank, held_out):
    choice = mcbn.choose_batch_size(model, bank, *held_out, points=5, resamples=20)
    for size, value in zip(choice.batch_sizes, choice.values, strict=True):
        expected = evaluated(model, bank, float(size), held_out)["nll"].value
        assert float(value) == pytest.approx(expected, rel=1e-9)
    assert choice.value <= choice.values.min()
    assert (choice.low <= choice.values).all()
    assert (choice.values <= choice.high).all()
    assert choice.value == pytest.approx(
        evaluated(model, bank, choice.best, held_out)["nll"].value, rel=1e-9
    )


def test_sizes_differ_from_the_best_as_paired_evaluations_do(model, bank, held_out):
    """The same resamples by another route: `Evaluation.minus`. Labels of the plain network."""
    x = held_out[0][:300]
    labels = mcbn.Deterministic(model)(x)[0].argmax(1)
    choice = mcbn.choose_batch_size(
        model, bank, x, labels, bounds=(2, 400), points=6, resamples=30, seed=4
    )
    best = evaluated(model, bank, choice.best, (x, labels), resamples=30)
    tied = []
    for size in choice.batch_sizes.tolist():
        found = evaluated(model, bank, size, (x, labels), resamples=30)
        tied.append(found.minus(best)["nll"].low <= 0)
    low, high = choice.flat
    inside = [low <= 1.0001 * size <= 1.0002 * high for size in choice.batch_sizes.tolist()]
    assert inside == tied
    assert any(tied)
    assert not all(tied)


def test_the_default_range_is_that_of_validity_and_never_above_n(model, held_out):
    data = examples(NAME, 40)
    few = mcbn.collect(model, mcbn.minibatches(data, batch_size=16, draws=6))
    choice = mcbn.choose_batch_size(model, few, *held_out, points=3, resamples=5)
    assert choice.batch_sizes.tolist() == pytest.approx([4, 160**0.5, 40])


def test_sizes_are_whole_although_the_search_is_over_logarithms(model, bank, held_out):
    for bounds in ((3, 28), (8, 34)):
        choice = mcbn.choose_batch_size(
            model, bank, *held_out, bounds=bounds, points=3, resamples=5
        )
        assert (choice.batch_sizes[0], choice.batch_sizes[-1]) == bounds


def test_an_optimum_at_a_bound_says_so(model, bank, held_out):
    """Labels at random want as much spread as there is, or less of it without bound."""
    choice = mcbn.choose_batch_size(model, bank, *held_out, bounds=(2, 3), points=3, resamples=5)
    other = mcbn.choose_batch_size(model, bank, *held_out, bounds=(2, 400), resamples=5)
    assert (choice.at_bound is not None) == (not 2.02 < other.best < 2.97)
    assert choice.extrapolated
    assert f"at the {choice.at_bound} end of the search: collect a bank" in str(choice)
    assert "not between 0.5 and 4 times as many, and often wrong beyond" in str(choice)
    assert choice.to_dict()["doubts"] == list(choice.doubts)
    inner = by_log_score(0.3 + 0.2 * standard_normals(50)[:, None], resamples=5)
    assert inner.at_bound is None
    assert "end of the search" not in str(inner)


def test_it_reads_as_a_sentence_and_as_json(model, bank, held_out):
    choice = mcbn.choose_batch_size(model, bank, *held_out, points=5, resamples=20)
    assert f"best batch size {choice.best:.4g}" in str(choice)
    assert "with 12 draws collected at 16" in str(choice)
    found = json.loads(json.dumps(choice.to_dict()))
    assert found["best"] == choice.best
    assert found["criterion"] == "log_score"
    assert len(found["batch_sizes"]) == len(found["values"]) == len(found["low"]) == 5


def test_the_same_question_has_the_same_answer(model, bank, held_out):
    first, second = (
        mcbn.choose_batch_size(model, bank, *held_out, points=3, resamples=20) for _ in range(2)
    )
    assert first.to_dict() == second.to_dict()


def test_dimensions_are_by_default_the_rank_of_the_deviations(model, bank, held_out):
    given, found = (
        mcbn.choose_batch_size(
            model, bank, *held_out, points=3, resamples=5,
            criterion=mcbn.ELBO(dimensions=dimensions),
        )
        for dimensions in (11, None)
    )  # fmt: skip
    assert given.to_dict() == found.to_dict(), "12 draws of 24 statistics span 11 directions"
    word = mcbn.choose_batch_size(model, bank, *held_out, points=3, resamples=5, criterion="elbo")
    assert word.to_dict() == found.to_dict()


def test_rounding_of_a_float32_bank_is_no_direction(model, bank, held_out):
    """Means in a plane, but for their last bit; equal variances."""
    generator = torch.Generator().manual_seed(0)
    plane = {}
    for name, rows in bank.statistics.items():
        spread = 0.1 * torch.randn(len(bank), 1, generator=generator).float()
        row = torch.randn(1, rows.shape[1], generator=generator).float()
        plane[name] = torch.ones_like(rows) if name.endswith("var") else spread * row + row / 3
    flat = dataclasses.replace(bank, statistics=plane)
    directions = len(plane) // 2
    given, found = (
        mcbn.choose_batch_size(
            model, flat, *held_out, points=3, resamples=5,
            criterion=mcbn.ELBO(dimensions=dimensions),
        )
        for dimensions in (directions, None)
    )  # fmt: skip
    assert given.to_dict() == found.to_dict()


def in_float32(bank, **changed):
    """The bank in float32, with other values of some statistics."""
    statistics = {name: rows.float() for name, rows in (dict(bank.statistics) | changed).items()}
    return dataclasses.replace(bank, statistics=statistics)


def test_the_units_of_one_layer_hide_no_direction_of_another(bank):
    """In units of their own the means of a layer vary a million times as much as the others."""
    name = next(name for name in bank.statistics if name.endswith("mean"))
    larger = in_float32(bank, **{name: 1e6 * bank.statistics[name]})
    assert elbo_of("elbo", larger).dimensions == elbo_of("elbo", bank).dimensions == 11


def test_a_statistic_that_moves_in_its_last_bit_alone_is_no_direction(bank):
    """All statistics but two are 3 in every draw, or the next number of float32."""
    generator = torch.Generator().manual_seed(0)
    after = torch.nextafter(torch.tensor(3.0), torch.tensor(4.0))
    still = {
        name: torch.where(torch.rand(rows.shape, generator=generator) < 0.5, after, 3.0)
        for name, rows in bank.statistics.items()
    }
    name = next(name for name in still if name.endswith("mean"))
    still[name][:, :2] = bank.statistics[name][:, :2].float()
    assert elbo_of("elbo", in_float32(bank, **still)).dimensions == 2


def test_positions_are_averaged_in_the_score_and_joint_in_the_elbo():
    dense = build(lambda: nn.Sequential(nn.BatchNorm2d(2), nn.Conv2d(2, 3, 1)), seed=0).eval()
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(20, 2, 4, 5, generator=generator)
    targets = torch.randint(3, (20, 4, 5), generator=generator)
    bank = mcbn.collect(dense, mcbn.minibatches(x, batch_size=8, draws=4))
    options = {"bounds": (4, 16), "points": 3, "resamples": 5}
    choice = mcbn.choose_batch_size(dense, bank, x, targets, **options)
    predictive = mcbn.predict(mcbn.MCBatchNorm(dense, bank.rescale(4.0)), x)
    expected = -predictive.log_probabilities.gather(1, targets[:, None]).mean()
    assert_close(choice.values[0], expected, rtol=1e-6, atol=0)
    elbo = mcbn.choose_batch_size(dense, bank, x, targets, criterion=mcbn.ELBO(4.0), **options)
    logits = mcbn.MCBatchNorm(dense, bank.rescale(4.0))(x).double()
    joint = logits.log_softmax(2).gather(2, targets.expand(4, 20, 4, 5)[:, :, None])
    assert_close(elbo.values[0], -joint.sum((2, 3, 4)).mean(), rtol=1e-6, atol=0)


def test_tuples_of_inputs_are_cut_along(model, bank, held_out):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = model

        def forward(self, x, shift):
            return {"logits": self.net(x + shift)}

    two = Two().eval()
    x, targets = held_out
    pair = (x - 1, torch.ones_like(x))
    batches = [tuple(part[start : start + 16] for part in pair) for start in (0, 16)]
    own = mcbn.collect(two, batches, select=lambda batch: batch)
    found = mcbn.choose_batch_size(
        two, own, pair, targets, output=lambda a: a["logits"], points=3, resamples=5
    )
    statistics, bias, epsilon = (
        {name.removeprefix("net."): value for name, value in values.items()}
        for values in (own.statistics, own.bias, own.epsilon)
    )
    plain = mcbn.Bank(statistics, {}, batch_size=16, bias=bias, epsilon=epsilon)
    expected = mcbn.choose_batch_size(model, plain, x, targets, points=3, resamples=5)
    assert_close(found.values, expected.values)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bounds": (8, 4)}, "expected bounds 0 < smallest < largest <= N = 400"),
        ({"bounds": (0, 4)}, "expected bounds"),
        ({"bounds": (4, 500)}, "expected bounds"),
        ({"points": 2}, "at least 3 points"),
        ({"resamples": 0}, "at least 1 resample"),
        ({"level": 95.0}, "between 0 and 1"),
    ],
)
def test_arguments_out_of_range_are_refused(model, bank, held_out, options, message):
    with pytest.raises(ValueError, match=message):
        mcbn.choose_batch_size(model, bank, *held_out, **options)


def test_unknown_words_are_refused(bank):
    """Asked of the checks themselves: in tests the annotation refuses such words before."""
    with pytest.raises(ValueError, match="expected the criterion 'log_score', 'elbo'"):
        elbo_of("nll", bank)
    with pytest.raises(ValueError, match="expected the likelihood 'categorical'"):
        as_likelihood("poisson")


@pytest.mark.parametrize(
    "options",
    [{"prior_batch_size": 0.0}, {"dimensions": 0}, {"population": -1},
     {"prior_batch_size": math.inf}],
)  # fmt: skip
def test_impossible_priors_are_refused(options):
    with pytest.raises(ValueError, match=f"expected a positive {next(iter(options))}"):
        mcbn.ELBO(**options)


def test_data_and_banks_that_do_not_fit_are_refused(model, bank, held_out):
    x, targets = held_out
    with pytest.raises(ValueError, match="got 600 inputs and 599 targets"):
        mcbn.choose_batch_size(model, bank, x, targets[1:])
    with pytest.raises(ValueError, match="expected a bank whose draws differ, got 1 equal"):
        mcbn.choose_batch_size(model, bank.first(1), x, targets)
    lost = mcbn.Bank(bank.statistics, bank.trained, batch_size=16)
    with pytest.raises(ValueError, match=r"does not know it; use criterion=mcbn\.ELBO"):
        mcbn.choose_batch_size(model, lost, x, targets, criterion="elbo")
    with pytest.raises(ValueError, match="labels from 0 to 2"):
        mcbn.choose_batch_size(model, bank, x, targets + 1)
