"""Parametric posteriors: moments compared with those of the bank, and seeds."""

import pytest
import torch
from models import examples, make_network
from torch.testing import assert_close

import mcbn

pytestmark = pytest.mark.filterwarnings("ignore::mcbn.InconsistentBankWarning")
KINDS = [mcbn.JointPosterior, mcbn.FactorizedPosterior]
NAME = "1d of 2-D"


@pytest.fixture(scope="module")
def model():
    return make_network(NAME)


@pytest.fixture(scope="module")
def bank(model):
    return mcbn.collect(model, mcbn.minibatches(examples(NAME, 400), batch_size=16, draws=24))


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


def matrix(bank):
    """Means and log(v + epsilon), computed independently of the package: (draws, statistics)."""
    rows = [
        (v + 1e-5).log() if n.endswith("var") else v for n, v in sorted(bank.statistics.items())
    ]
    return torch.cat(rows, 1)


def test_a_sample_is_a_bank_of_the_same_model(kind, bank, model):
    drawn = kind.from_bank(bank).sample(7, seed=3)
    assert len(drawn) == 7
    fields = ("batch_size", "population", "model", "weights", "trained")
    assert [getattr(drawn, f) for f in fields] == [getattr(bank, f) for f in fields]
    assert {n: v.dtype for n, v in drawn.statistics.items()} == {
        n: v.dtype for n, v in bank.statistics.items()
    }
    assert "posterior, seed 3" in drawn.source
    assert "24 draws" in drawn.source
    assert mcbn.MCBatchNorm(model, drawn)(examples(NAME, 5)).shape == (7, 5, 3)


def test_the_first_draws_of_many_are_those_of_a_shorter_run(kind, bank):
    posterior = kind.from_bank(bank)
    long, short = posterior.sample(9, seed=1), posterior.sample(4, seed=1)
    assert_close(dict(long.first(4).statistics), dict(short.statistics), rtol=0, atol=0)
    assert (matrix(posterior.sample(4, seed=2)) - matrix(short)).abs().min() > 0
    assert (matrix(long)[1:] - matrix(long)[:-1]).abs().min() > 0


def test_float32_banks_stay_float32(kind):
    model = make_network(NAME, torch.float32)
    data = examples(NAME, 400, torch.float32)
    bank = mcbn.collect(model, mcbn.minibatches(data, batch_size=16, draws=5))
    assert {v.dtype for v in kind.from_bank(bank).sample(3).statistics.values()} == {torch.float32}


def standardized_moments(kind, bank, draws=20_000):
    """Sample mean and covariance of a posterior in units of the bank's standard deviations."""
    rows = matrix(bank)
    drawn = (matrix(kind.from_bank(bank).sample(draws)) - rows.mean(0)) / rows.std(0)
    return drawn.mean(0), torch.cov(drawn.T), torch.corrcoef(rows.T)


@pytest.mark.unchecked
def test_the_joint_posterior_has_the_mean_and_covariance_of_the_bank(bank):
    """Between channels and layers too; 5 standard errors of 20,000 draws, 300 moments."""
    mean, covariance, expected = standardized_moments(mcbn.JointPosterior, bank)
    assert mean.abs().max() < 5 * 20_000**-0.5
    # The variance of a sample covariance of Gaussians of unit variance is (1 + r^2) / n.
    error = ((1 + expected**2) / 20_000).sqrt()
    assert ((covariance - expected) / error).abs().max() < 5
    assert (expected - torch.eye(24)).abs().max() > 0.8, "there is something to lose"


@pytest.mark.unchecked
def test_the_factorised_posterior_keeps_the_variances_and_loses_the_correlations(bank):
    mean, covariance, expected = standardized_moments(mcbn.FactorizedPosterior, bank)
    assert mean.abs().max() < 5 * 20_000**-0.5
    error = ((1 + torch.eye(24)) / 20_000).sqrt()
    assert ((covariance - torch.eye(24)) / error).abs().max() < 5
    assert ((covariance - expected) / error).abs().max() > 50


def test_the_joint_posterior_never_leaves_the_span_of_the_bank(bank):
    rows = matrix(bank)
    deviations = rows - rows.mean(0)
    drawn = matrix(mcbn.JointPosterior.from_bank(bank.first(5)).sample(50))
    few = rows[:5] - rows[:5].mean(0)
    assert torch.linalg.matrix_rank(deviations) > 4
    centered = drawn - rows[:5].mean(0)
    assert torch.linalg.matrix_rank(torch.cat([few, centered]), rtol=1e-10) == 4


def test_the_posterior_of_a_rescaled_bank_is_the_rescaled_posterior(kind, bank):
    """Both are linear in the deviations."""
    wide = kind.from_bank(bank.rescale(4.0))
    narrow = kind.from_bank(bank)
    first, second = (matrix(posterior.sample(6)) for posterior in (wide, narrow))
    centers = [matrix(b).mean(0) for b in (bank.rescale(4.0), bank)]
    factor = (16 / 4 * (400 - 4) / (400 - 16)) ** 0.5
    assert_close(first - centers[0], factor * (second - centers[1]), rtol=1e-9, atol=1e-12)


def test_a_single_draw_has_no_spread_to_fit(kind, bank):
    with pytest.raises(ValueError, match="expected a bank of at least 2 draws, got 1"):
        kind.from_bank(bank.first(1))


def test_no_draws_are_refused(kind, bank):
    posterior = kind.from_bank(bank)
    with pytest.raises(ValueError, match="at least 1 draw"):
        posterior.sample(0)
    with pytest.raises(ValueError, match="seeds of at least 0"):
        posterior.sample(2, seed=-1)
