"""A choice of batch size held to draws really collected."""

import json
import math

import pytest
import torch
from models import without_seed
from one_unit import by_log_score, one_unit, standard_normals
from scipy import stats
from torch import nn
from torch.testing import assert_close
from torch.utils.data import DataLoader, TensorDataset

import mcbn
from mcbn.predictive.likelihood import as_likelihood
from mcbn.study.batch_size import _vertices
from mcbn.study.confirmation import interpolated, source_of_batches, whole_sizes
from mcbn.study.criterion import ELBO, Objective

pytestmark = [
    pytest.mark.filterwarnings("ignore::mcbn.InconsistentBankWarning"),
    pytest.mark.filterwarnings("ignore:draws collected at"),
]
N = 3000
PRECISION = 4.0


@pytest.fixture(scope="module")
def data():
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(N + 200, 6, dtype=torch.float64, generator=generator)
    inputs = noise.sign() * noise.abs() ** 1.5
    targets = (inputs[:, :2].sum(1, keepdim=True) / 3).tanh()
    return inputs, targets


@pytest.fixture(scope="module")
def network(data):
    """Two hidden layers, trained for a moment; the second has a bias in M."""
    model = without_seed(
        lambda: nn.Sequential(
            nn.Linear(6, 30), nn.BatchNorm1d(30), nn.ReLU(),
            nn.Linear(30, 30), nn.BatchNorm1d(30), nn.ReLU(), nn.Linear(30, 1),
        )
    ).double()  # fmt: skip
    inputs, targets = data
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    generator = torch.Generator().manual_seed(0)
    for _ in range(150):
        rows = torch.randint(N, (64,), generator=generator)
        optimizer.zero_grad()
        (model(inputs[rows]) - targets[rows]).square().mean().backward()
        optimizer.step()
    return model.eval()


def batches_of(data, size, draws=64, seed=0):
    return mcbn.minibatches(data[0][:N], batch_size=size, draws=draws, seed=seed)


def chosen(network, data, bank, **options):
    inputs, targets = data[0][N:], data[1][N:]
    likelihood = mcbn.Gaussian(precision=PRECISION)
    return mcbn.choose_batch_size(
        network, bank, inputs, targets, likelihood=likelihood, resamples=60, points=9, **options
    )


@pytest.fixture(scope="module")
def bank(network, data):
    return mcbn.collect(network, batches_of(data, 32))


def test_collected_draws_are_those_of_the_predictive(network, data, bank):
    """The value at each size is the log score of a bank of other mini-batches of that size."""
    choice = chosen(network, data, bank, batches=batches_of(data, 32), confirm=16)
    found = choice.confirmation
    assert found.batch_sizes == tuple(sorted({8, round(choice.best), 128}))
    assert found.draws == 16
    for size, value, gap in zip(found.batch_sizes, found.values, found.gaps, strict=True):
        score = log_score(network, data, bank.first(16).rescale(size))
        assert value - gap == pytest.approx(score, abs=1e-9)
        others = [
            log_score(network, data, mcbn.collect(network, batches_of(data, size, 16, seed=seed)))
            for seed in range(50, 62)
        ]
        error = stats.tstd(others)
        assert abs(value - sum(others) / 12) < 4 * error, size
    assert set(found.disagreeing) == {
        size for size, low, high in zip(found.batch_sizes, found.low, found.high, strict=True)
        if low > 0 or high < 0
    }  # fmt: skip


def log_score(network, data, a_bank):
    likelihood = mcbn.Gaussian(precision=PRECISION)
    sampler = mcbn.MCBatchNorm(network, a_bank)
    return -float(mcbn.predict(sampler, data[0][N:], likelihood).log_prob(data[1][N:]).mean())


@pytest.mark.filterwarnings("error::mcbn.InconsistentBankWarning")
def test_collecting_says_nothing_of_few_draws(network, data, bank):
    shifted = data[0] + 3.0, data[1]
    choice = chosen(network, data, bank, batches=batches_of(shifted, 32), confirm=4)
    assert choice.confirmation.draws == 4


def test_other_mini_batches_are_collected_than_those_of_the_bank(network, data, bank):
    choice = chosen(network, data, bank, batches=batches_of(data, 32), bounds=(32, 128))
    assert choice.confirmation.batch_sizes[0] == 32
    assert choice.confirmation.gaps[0] != 0


def test_the_gap_of_a_wrong_bank_is_told_and_widens_the_interval(network, data, bank):
    """Statistics of another scale: the curve is wrong, and collected draws show it."""
    wrong = mcbn.Bank(
        {n: v if "var" in n else v + 0.5 for n, v in bank.statistics.items()},
        bank.trained, 32, population=N, epsilon=bank.epsilon, bias=bank.bias,
    )  # fmt: skip
    source = batches_of(data, 32)
    with pytest.warns(mcbn.RescalingWarning, match="draws collected at .* otherwise than rescaled"):
        choice = chosen(network, data, wrong, batches=source)
    assert choice.confirmation.disagreeing
    assert "collect a bank at the best size" in str(choice)
    plain, right = chosen(network, data, wrong), chosen(network, data, bank)
    assert width(choice) > width(plain)
    assert choice.interval[0] <= right.best <= choice.interval[1]


def width(choice):
    low, high = choice.interval
    ends = float(choice.batch_sizes[0]), float(choice.batch_sizes[-1])
    return math.log(min(high, ends[1]) / max(low, ends[0]))


def test_a_choice_that_could_not_be_confirmed_says_so(network, data, bank):
    choice = chosen(network, data, bank)
    assert choice.confirmation is None
    assert "not confirmed by collected draws; give batches=" in str(choice)
    assert json.loads(json.dumps(choice.to_dict()))["confirmation"] is None
    confirmed = chosen(network, data, bank, batches=batches_of(data, 32), confirm=4)
    assert "collected at 8: " in str(confirmed)
    assert json.loads(json.dumps(confirmed.to_dict()))["confirmation"]["draws"] == 4


def test_the_same_question_has_the_same_answer(network, data, bank):
    answers = [
        chosen(network, data, bank, batches=batches_of(data, 32), confirm=4).to_dict()
        for _ in range(2)
    ]
    assert answers[0] == answers[1]


def test_loaders_are_taken_for_the_inputs_and_for_the_mini_batches(network, data, bank):
    loader = DataLoader(TensorDataset(data[0][N:], data[1][N:]), batch_size=32)
    training = DataLoader(TensorDataset(data[0][:N], data[1][:N]), batch_size=32, shuffle=True)
    likelihood = mcbn.Gaussian(precision=PRECISION)
    options = {"likelihood": likelihood, "resamples": 20, "points": 3, "confirm": 4}
    found, expected = (
        mcbn.choose_batch_size(network, bank, inputs, data[1][N:], batches=source, **options)
        for inputs, source in ((loader, training), (data[0][N:], batches_of(data, 32)))
    )
    assert_close(found.values, expected.values)
    assert found.confirmation.batch_sizes == expected.confirmation.batch_sizes


@pytest.mark.unchecked
def test_what_no_other_size_can_be_drawn_from_is_refused(network, data, bank):
    with pytest.raises(TypeError, match=r"expected batches to be mcbn.minibatches\(...\) or"):
        chosen(network, data, bank, batches=[data[0][:32]])
    with pytest.raises(ValueError, match="expected confirm of at least 2 draws, got 1"):
        chosen(network, data, bank, batches=batches_of(data, 32), confirm=1)
    drawn = batches_of(data, 32)
    assert source_of_batches(DataLoader(drawn, batch_size=None)) is drawn


def test_sizes_are_whole_and_within_the_population():
    assert whole_sizes([0.4, 2.4, 31.7, 500.0], 400) == (2, 32, 400)


def test_gaps_between_the_sizes_are_those_of_a_parabola():
    grid = torch.linspace(math.log(4), math.log(64), 7, dtype=torch.float64)

    def parabola(log):
        return 0.3 - 0.2 * log + 0.05 * log**2

    gaps = torch.tensor([[parabola(math.log(size))] for size in (4, 20, 64)], dtype=torch.float64)
    assert_close(interpolated(gaps, (4, 20, 64), grid)[:, 0], parabola(grid))


def test_an_end_of_the_search_that_is_reached_is_open(network, data, bank):
    noise = standard_normals(50)[:, None]
    inside = by_log_score(0.3 + 0.19 * noise, resamples=20)
    assert all(map(math.isfinite, inside.interval))
    narrow = by_log_score(0.3 + 0.01 * noise, resamples=20)
    assert narrow.at_bound == "upper"
    assert narrow.interval[1] == math.inf
    assert "or more]" in str(narrow)
    assert narrow.to_dict()["interval"][1] is None
    wide = by_log_score(0.3 + 5.0 * noise, resamples=20)
    assert (wide.at_bound, wide.interval[0]) == ("lower", 0.0)
    assert "or less]" in str(wide)


def test_the_dimensions_of_the_elbo_are_told():
    model, bank = one_unit(gamma=0.7, sigma=1.2, draws=16, size=50_000)
    x = torch.zeros(3, 1, dtype=torch.float64)
    choice = mcbn.choose_batch_size(
        model, bank, x, x + 1, criterion=mcbn.ELBO(dimensions=4, population=1000),
        likelihood=mcbn.Gaussian(precision=2.0), bounds=(20, 3000), resamples=20,
    )  # fmt: skip
    assert choice.dimensions == 4
    assert "by ELBO in 4 dimensions" in str(choice)
    assert by_log_score(x + 0.3, resamples=5).dimensions is None


@pytest.mark.parametrize("elbo", [None, ELBO(dimensions=3, population=100)])
def test_the_value_of_draws_is_the_mean_of_the_losses(network, data, bank, elbo):
    family = as_likelihood(mcbn.Gaussian(precision=PRECISION))
    objective = Objective(network, bank, data[0][N:], data[1][N:], family, elbo, None)
    value = objective.value(objective.by_draw(bank), 32.0)
    assert value == pytest.approx(float(objective(math.log(32)).mean()), abs=1e-12)


def test_vertices_of_curves_at_an_end_are_the_end():
    grid = torch.linspace(0, 1, 5, dtype=torch.float64)
    assert _vertices(grid, grid[:, None] * torch.ones(5, 2, dtype=torch.float64)).tolist() == [0, 0]
