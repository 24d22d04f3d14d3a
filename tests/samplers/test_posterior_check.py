"""Posteriors against their bank: closed forms for a square and for channels that move together."""

import pytest
import torch
from models import examples, make_network, without_seed
from scipy import special, stats
from torch import nn

import mcbn

pytestmark = pytest.mark.filterwarnings("ignore::mcbn.InconsistentBankWarning")
KINDS = [mcbn.JointPosterior, mcbn.FactorizedPosterior]
NAME = "1d of 2-D"
DRAWS = 5000
ERROR = (2 / DRAWS) ** 0.5  # of the variance of so many normal draws, relative to it


class Summed(nn.Module):
    """The sum over channels of a power of batch norm."""

    def __init__(self, channels, power):
        super().__init__()
        self.norm, self.power = nn.BatchNorm1d(channels, eps=0.5), power

    def forward(self, x):
        return self.norm(x).pow(self.power).sum(1, keepdim=True)


def moving_means(means, power=1):
    """A network and a bank in which only means vary, and the variance plus epsilon is 1."""
    means = torch.as_tensor(means, dtype=torch.float64)
    statistics = {"norm.running_mean": means, "norm.running_var": torch.full_like(means, 0.5)}
    epsilon = {"norm.running_var": 0.5}
    model = without_seed(lambda: Summed(means.shape[1], power)).double().eval()
    return model, mcbn.Bank(statistics, {}, batch_size=8, epsilon=epsilon)


def test_a_linear_network_loses_nothing_by_a_joint_posterior():
    """To 5 standard errors; the interval is 3.92 of them, give or take what resampling gives."""
    model, bank = moving_means([[-1.0], [0.3], [0.7]])
    check = mcbn.check_posterior(
        model, mcbn.JointPosterior.from_bank(bank), torch.ones(3, 1).double(), draws=DRAWS
    )
    assert check.ratio.value == pytest.approx(1, abs=5 * ERROR)
    assert check.ratio.of == "variance"
    assert check.trusted
    assert check.ratio.high - check.ratio.low == pytest.approx(3.92 * ERROR, rel=0.15)


def test_channels_that_move_together_have_half_the_variance_when_taken_apart():
    """The variance of the sum of two is 4 times that of each, and 2 times if independent."""
    model, bank = moving_means([[-1.0, -1.0], [0.3, 0.3], [0.7, 0.7]])
    x = torch.ones(3, 2).double()
    joint, factorized = (
        mcbn.check_posterior(model, kind.from_bank(bank), x, draws=DRAWS) for kind in KINDS
    )
    assert joint.ratio.value == pytest.approx(1, abs=5 * ERROR)
    assert factorized.ratio.value == pytest.approx(0.5, abs=5 * ERROR / 2)
    assert joint.trusted
    assert not factorized.trusted
    assert str(factorized).startswith(f"Not to be trusted: {DRAWS} sampled draws have 0.")
    assert "Use the bank itself" in str(factorized)


def test_a_square_has_the_ratio_of_its_closed_form():
    """Of `(x - m)^2` with m in {-a, 0, a}, and with a normal m of the same unbiased variance s^2.

    The variances are `4 x^2 s^2 + a^4 2/9 T/(T-1)` and `4 x^2 s^2 + 2 s^4`.
    """
    a, draws = 1.5, 60
    model, bank = moving_means([[-a], [0.0], [a]] * (draws // 3), power=2)
    x = examples("two places", 20)[:, :1] / 4
    unbiased = draws / (draws - 1)
    spread = a**2 * 2 / 3 * unbiased
    slope = 4 * x.square().mean().item() * spread
    expected = (slope + 2 * spread**2) / (slope + a**4 * 2 / 9 * unbiased)
    posterior = mcbn.JointPosterior.from_bank(bank)
    found = mcbn.check_posterior(model, posterior, x, draws=DRAWS).ratio
    # The standard error is a quarter of the interval.
    assert found.value == pytest.approx(expected, abs=5 * (found.high - found.low) / 4)
    assert (found.high - found.low) / expected < 0.2
    assert abs(expected - 1) > 0.3
    assert not found.trusted


@pytest.mark.parametrize("kind", KINDS)
def test_mutual_information_is_that_of_scipy(kind):
    model, x = make_network(NAME), examples(NAME, 9, seed=4)
    batches = mcbn.minibatches(examples(NAME, 400), batch_size=16, draws=12)
    posterior = kind.from_bank(mcbn.collect(model, batches))

    def information(bank):
        p = special.softmax(mcbn.MCBatchNorm(model, bank)(x).numpy(), axis=2)
        whole = stats.entropy(p.mean(0), axis=1) - stats.entropy(p, axis=2).mean(0)
        return whole.mean() * len(p) / (len(p) - 1)

    expected = information(posterior.sample(30, seed=5)) / information(posterior.bank)
    found = mcbn.check_posterior(model, posterior, x, draws=30, seed=5)
    assert found.ratio.value == pytest.approx(expected, rel=1e-9)
    assert found.ratio.of == "mutual information"
    assert (found.draws, found.batch_size) == (30, 16)
    variance = mcbn.check_posterior(model, posterior, x, draws=30, of="variance").ratio
    assert variance.of == "variance"


@pytest.mark.unchecked
def test_what_is_trusted_is_within_15_percent():
    """Against 3,000 other draws of the posterior, and 2 standard errors of those."""
    trusted = []
    for name, size in ((NAME, 4), (NAME, 64), ("eps", 4), ("1d of 3-D", 32)):
        model, x = make_network(name), examples(name, 30, seed=4)
        data = mcbn.minibatches(examples(name, 400), batch_size=size, draws=64, replacement=True)
        posterior = mcbn.JointPosterior.from_bank(mcbn.collect(model, data))
        said = mcbn.check_posterior(model, posterior, x)
        truth = mcbn.check_posterior(model, posterior, x, draws=3000, seed=1).ratio
        trusted.append(said.trusted)
        if said.trusted:
            error = (truth.high - truth.low) / 2
            assert truth.value == pytest.approx(1, abs=0.15 + error), (name, size)
    assert any(trusted)
    assert not all(trusted)


def test_outputs_with_positions_are_compared():
    model, x = make_network("2d"), examples("2d", 4)
    bank = mcbn.collect(model, mcbn.minibatches(examples("2d", 60), batch_size=16, draws=6))
    found = mcbn.check_posterior(model, mcbn.JointPosterior.from_bank(bank), x, draws=8)
    assert found.ratio.of == "mutual information"
    assert 0 < found.ratio.low < found.ratio.high


def test_errors_name_the_remedy():
    model, bank = moving_means([[-1.0], [0.3], [0.7]])
    posterior, x = mcbn.JointPosterior.from_bank(bank), torch.ones(3, 1).double()
    with pytest.raises(ValueError, match="at least 2 draws, got 1; give 1000"):
        mcbn.check_posterior(model, posterior, x, draws=1)
    with pytest.raises(ValueError, match="seeds of at least 0"):
        mcbn.check_posterior(model, posterior, x, seed=-1)


@pytest.mark.unchecked
def test_a_bank_for_a_posterior_and_an_unknown_uncertainty_are_refused():
    model, bank = moving_means([[-1.0], [0.3], [0.7]])
    posterior, x = mcbn.JointPosterior.from_bank(bank), torch.ones(3, 1).double()
    with pytest.raises(TypeError, match=r"a posterior, got Bank; fit one by JointPosterior\.from"):
        mcbn.check_posterior(model, bank, x)
    with pytest.raises(ValueError, match="got 'entropy'"):
        mcbn.check_posterior(model, posterior, x, of="entropy")
