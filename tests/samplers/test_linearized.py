"""The laws of the linearised sampler: the right slope, the right order of error, exact draws."""

import dataclasses
import threading

import numpy as np
import pytest
import torch
from models import CASES, examples, make_network, without_seed
from scipy import special, stats
from snapshots import assert_same, snapshot
from torch import nn
from torch.func import functional_call, jvp
from torch.testing import assert_close

import mcbn
from mcbn.samplers.linearized import LinearizedBatchNorm, correction

pytestmark = pytest.mark.filterwarnings("ignore::mcbn.InconsistentBankWarning")
FLAT = [name for name in CASES if name != "2d"]


def flat(answer):
    """Some networks answer with images; every position is an output then."""
    return answer.flatten(1)


def bank_of(model, name, *, size=8, draws=6):
    batches = mcbn.minibatches(examples(name, 90), batch_size=size, draws=draws, replacement=True)
    return mcbn.collect(model, batches)


def sampler_of(name, **options):
    model = make_network(name)
    return LinearizedBatchNorm(model, bank_of(model, name), output=flat, **options)


def statistics_of(coordinates, epsilon):
    """Means, and variances from log(v + epsilon)."""
    return {
        n: v.exp() - epsilon.get(n, 0.0) if n.endswith("var") else v for n, v in coordinates.items()
    }


def oracle(sampler, x):
    """Forward-mode derivatives of the network called with other buffers, through plain formulas.

    PyTorch's batch norm has no derivative in its buffers, so its formula is written out here, in
    place of the layer's, for networks whose layers are PyTorch's own.
    """
    coordinates = sampler.bank.coordinates()
    center = {name: rows.mean(0) for name, rows in coordinates.items()}
    rows = []

    def network(values):
        statistics = statistics_of(values, sampler.bank.epsilon)
        return flat(functional_call(sampler.model, statistics, x))

    for draw in range(len(sampler)):
        step = {name: values[draw] - center[name] for name, values in coordinates.items()}
        h = 1e-4
        up = network({name: center[name] + h * step[name] for name in center})
        down = network({name: center[name] - h * step[name] for name in center})
        rows.append(network(center) + (up - down) / (2 * h))
    return torch.stack(rows).detach()


@pytest.mark.parametrize("name", CASES)
def test_the_slope_is_that_of_central_differences(name):
    """Of the network itself, called with other buffers; float64, the step's own error 1e-8."""
    sampler, x = sampler_of(name, exact=0), examples(name, 5, seed=4)
    actual = sampler(x)
    assert_close(actual, oracle(sampler, x), rtol=1e-6, atol=1e-6)
    assert actual.std(0).max() > 1e-2
    assert not actual.requires_grad


@pytest.mark.parametrize("top", [1, 2, 99])
@pytest.mark.parametrize("name", ["1d of 2-D", "2d"])
def test_only_the_largest_outputs_vary(name, top):
    """The deviations of a bank sum to zero, so the mean row is the answer at its centre."""
    sampler, x = sampler_of(name, exact=0), examples(name, 5, seed=4)
    whole = sampler(x)
    center = whole.mean(0)
    order = center.argsort(dim=1, descending=True).argsort(dim=1)
    actual = dataclasses.replace(sampler, top=top)(x)
    assert_close(actual, torch.where(order < top, whole, center), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("layers", ["first 1", 1, ["1", "5"]])
def test_layers_that_are_left_out_keep_their_running_statistics(layers):
    name = "1d of 2-D"
    sampler, x = sampler_of(name, exact=0), examples(name, 5, seed=4)
    drawn = mcbn.MCBatchNorm(sampler.model, sampler.bank, layers=layers)._statistics()
    bank = dataclasses.replace(sampler.bank, statistics={
        key: rows if key in drawn else sampler.bank.trained[key].expand(len(rows), -1)
        for key, rows in sampler.bank.statistics.items()
    })  # fmt: skip
    chosen = dataclasses.replace(sampler, layers=layers)
    assert_close(
        chosen(x), oracle(dataclasses.replace(sampler, bank=bank), x), rtol=1e-6, atol=1e-6
    )
    exact = dataclasses.replace(chosen, exact=len(bank))(x)
    expected = mcbn.MCBatchNorm(sampler.model, sampler.bank, layers=layers)(x)
    assert_close(exact, expected, rtol=1e-10, atol=1e-10)
    with pytest.raises(ValueError, match="a number of last layers from 1 to 2"):
        dataclasses.replace(sampler, layers=3)


class Written(nn.Module):
    """A batch norm whose formula is plain arithmetic, which forward mode differentiates."""

    def __init__(self, layer):
        super().__init__()
        self.weight, self.bias, self.eps = layer.weight, layer.bias, layer.eps
        self.register_buffer("running_mean", layer.running_mean)
        self.register_buffer("running_var", layer.running_var)

    def forward(self, x):
        return (x - self.running_mean) / (self.running_var + self.eps).sqrt() * self.weight + (
            self.bias
        )


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
def test_the_slope_is_that_of_forward_mode():
    """Exact derivatives by an independent route, to rounding."""
    name = "1d of 2-D"
    sampler, x = sampler_of(name, exact=0), examples(name, 5, seed=4)
    twin = nn.Sequential(
        *(Written(part) if isinstance(part, nn.BatchNorm1d) else part for part in sampler.model)
    )
    coordinates = sampler.bank.coordinates()
    center = {key: rows.mean(0) for key, rows in coordinates.items()}

    def network(values):
        return functional_call(twin, statistics_of(values, sampler.bank.epsilon), x)

    for draw, row in enumerate(sampler(x)):
        step = {key: rows[draw] - center[key] for key, rows in coordinates.items()}
        base, slope = jvp(network, (center,), (step,))
        assert_close(row, base + slope, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["1d of 3-D", "3d", "timm BatchNormAct2d", "eps"])
def test_the_error_falls_as_the_square_of_the_deviations(name):
    """Halving the deviations, at a fixed centre, quarters the error: a slope of 2 within 0.1."""
    sampler, x = sampler_of(name, exact=0), examples(name, 5, seed=4)
    bank = sampler.bank
    coordinates = bank.coordinates()
    errors = []
    for factor in (2.0**-9, 2.0**-10):
        moved = {n: v.mean(0) + factor * (v - v.mean(0)) for n, v in coordinates.items()}
        small = bank.with_coordinates(moved)
        linear = LinearizedBatchNorm(sampler.model, small, exact=0, output=flat)(x)
        exact = mcbn.MCBatchNorm(sampler.model, small, output=flat)(x)
        errors.append((linear - exact).square().mean().sqrt())
    assert torch.log2(errors[0] / errors[1]).item() == pytest.approx(2, abs=0.1)


def test_rescaling_the_bank_to_a_larger_batch_makes_it_linear():
    sampler, x = sampler_of("timm BatchNormAct2d"), examples("timm BatchNormAct2d", 5, seed=4)
    actual = [
        LinearizedBatchNorm(sampler.model, sampler.bank.rescale(size)).linearity(x, draws=6)
        for size in (8, 32, 128)
    ]
    residuals = torch.tensor([each.residual for each in actual])
    # Four times M halves the deviations and so the error relative to them; 20% for third order.
    assert_close(residuals[1:] / residuals[:-1], torch.tensor([0.5, 0.5]), rtol=0.2, atol=0)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("exact", [1, 4, 6, 9])
def test_exact_draws_are_those_of_the_network(name, exact):
    sampler, x = sampler_of(name, exact=exact), examples(name, 5, seed=4)
    expected = mcbn.MCBatchNorm(sampler.model, sampler.bank, output=flat)(x)
    actual = sampler(x)
    assert actual.shape == expected.shape
    assert_close(actual[:exact], expected[:exact], rtol=1e-12, atol=1e-12)


def shrunk_mean(missed):
    """The positive-part rule of James and Stein, example by example, in numpy."""
    draws, outputs = len(missed), missed.shape[2]
    rows = []
    for example in missed.numpy().transpose(1, 0, 2):
        mean = example.mean(0)
        variances = example.var(0, ddof=1) / draws if draws > 1 else np.zeros(outputs)
        freedom = outputs * (draws - 1)
        # (d - 2) S / (m + 2) / |b|^2, where S is variance times chi-squared of m degrees.
        pooled = freedom * variances.mean()
        factor = 1 - (outputs - 2) * pooled / (freedom + 2) / (mean @ mean)
        rows.append(mean * (max(factor, 0.0) if outputs > 2 else 1.0))
    return torch.tensor(np.array(rows))


@pytest.mark.parametrize("exact", [1, 2, 4])
def test_the_other_draws_are_corrected_by_the_shrunk_mean_error_of_the_exact_ones(exact):
    x = examples("eps", 5, seed=4)
    linear, actual = sampler_of("eps", exact=0)(x), sampler_of("eps", exact=exact)(x)
    moved = shrunk_mean(actual[:exact] - linear[:exact])
    assert_close(actual[exact:], linear[exact:] + moved, rtol=1e-10, atol=1e-10)
    assert moved.abs().max() > 1e-3


@pytest.mark.parametrize("columns", [1, 2])
def test_few_outputs_are_corrected_by_the_mean_error_itself(columns):
    missed = torch.randn(4, 5, columns, generator=torch.Generator().manual_seed(0))
    assert torch.equal(correction(missed), missed.mean(0))
    assert torch.equal(correction(missed[:1]), missed[0])
    assert torch.equal(correction(torch.zeros(4, 5, 3)), torch.zeros(5, 3))


@pytest.mark.parametrize("size", [0.0, 0.3, 1.0, 3.0])
def test_the_shrunk_correction_is_nearer_to_the_truth_than_the_mean(size):
    """James and Stein: at every true bias, here of 10 normal outputs; 20,000 examples, fixed seed.

    At a bias of 0 the positive part leaves less than 0.3 of the squared error.
    """
    generator = torch.Generator().manual_seed(1)
    bias = size * torch.randn(20_000, 10, generator=generator, dtype=torch.float64)
    noise = torch.randn(4, 20_000, 10, generator=generator, dtype=torch.float64)
    risks = [(found - bias).square().sum(1) for found in (
        correction(bias + noise), (bias + noise).mean(0))]  # fmt: skip
    gap = risks[1] - risks[0]
    assert gap.mean() > 4 * gap.std() / len(gap) ** 0.5
    if size == 0:
        assert risks[0].mean() < 0.3 * risks[1].mean()


def test_many_exact_draws_are_not_shrunk():
    generator = torch.Generator().manual_seed(1)
    missed = 1 + torch.randn(4000, 3, 5, generator=generator, dtype=torch.float64)
    assert_close(correction(missed), missed.mean(0), rtol=1e-3, atol=0)


def test_a_network_that_is_linear_in_the_means_is_reproduced_exactly():
    model = make_network("is batch norm")
    bank = bank_of(model, "is batch norm")
    same = {n: v.mean(0).expand_as(v) if "var" in n else v for n, v in bank.coordinates().items()}
    bank, x = bank.with_coordinates(same), examples("is batch norm", 5, seed=4)
    sampler = LinearizedBatchNorm(model, bank, exact=0)
    assert_close(sampler(x), mcbn.MCBatchNorm(model, bank)(x), rtol=1e-12, atol=1e-12)
    check = sampler.linearity(x, draws=3)
    assert check.residual < 1e-12
    ratio = check.ratio
    assert_close(torch.tensor([ratio.value, ratio.low, ratio.high]), torch.ones(3))
    assert check.trusted


@pytest.mark.parametrize("name", FLAT)
def test_an_example_does_not_depend_on_its_neighbours_or_order(name):
    sampler, x = sampler_of(name), examples(name, 11, seed=8)
    whole = sampler(x)
    order = torch.arange(10, -1, -1)
    assert_close(sampler(x[order])[:, order], whole, rtol=1e-12, atol=1e-12)
    pieces = torch.cat([sampler(part) for part in x.split(4)], dim=1)
    assert_close(pieces, whole, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("training", [False, True])
def test_the_model_is_left_unchanged(training):
    sampler, x = sampler_of("timm BatchNormAct2d"), examples("timm BatchNormAct2d", 5)
    model = sampler.model.train(training)
    before = snapshot(model)
    expected = sampler(x)
    assert_close(sampler(x), expected, rtol=0, atol=0)
    assert_close(torch.stack(list(sampler.passes(x))), expected, rtol=0, atol=0)
    next(iter(sampler.passes(x)))
    with pytest.raises(RuntimeError):
        sampler(torch.zeros(2, 9, 3, 3, dtype=torch.float64))
    assert_same(before, snapshot(model))


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_the_callers_gradient_mode_does_not_matter(context):
    sampler, x = sampler_of("1d of 2-D"), examples("1d of 2-D", 5)
    expected = sampler(x)
    with context():
        actual = sampler(x)
        assert_close(actual, expected, rtol=0, atol=0)
        assert_close(sampler(x + 0), expected, rtol=0, atol=0)
    assert not actual.requires_grad


def test_predictions_do_not_depend_on_the_batch_size():
    sampler, x = sampler_of("1d of 2-D"), examples("1d of 2-D", 11)
    whole = mcbn.predict(sampler, x)
    pieces = mcbn.predict(sampler, x, batch_size=4)
    assert_close(pieces.probabilities, whole.probabilities, rtol=1e-12, atol=1e-12)
    assert_close(whole.probabilities, sampler(x).softmax(-1).mean(0), rtol=1e-12, atol=1e-12)
    regression = mcbn.predict(sampler, x, likelihood=mcbn.Gaussian(precision=2.0))
    assert_close(regression.means, sampler(x), rtol=1e-12, atol=1e-12)


def test_eight_threads_get_the_serial_answer():
    sampler, x = sampler_of("1d of 2-D"), examples("1d of 2-D", 5)
    sampler.model.train()
    expected, actual = sampler(x), [None] * 8

    def work(index):
        actual[index] = sampler(x)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for each in actual:
        assert_close(each, expected, rtol=0, atol=0)


class Shared(nn.Module):
    """One layer called twice, with a branch that goes round it."""

    def __init__(self):
        super().__init__()
        self.norm, self.mix = nn.BatchNorm1d(4), nn.Linear(4, 4)

    def forward(self, x):
        once = torch.tanh(self.norm(self.mix(x)))
        return self.norm(once) + x * once


def test_a_layer_called_twice_with_a_branch_around_it():
    """`collect` refuses the first, but a bank from elsewhere may hold such a layer."""
    model = without_seed(Shared).double().eval()
    means, logs = examples("two places", 6, seed=2).split(3)
    statistics = {"norm.running_mean": means / 4, "norm.running_var": (logs / 4).exp()}
    bank = mcbn.Bank(statistics, {}, batch_size=8)
    x = examples("two places", 5, seed=4)
    sampler = LinearizedBatchNorm(model, bank, exact=0)
    assert_close(sampler(x), oracle(sampler, x), rtol=1e-6, atol=1e-6)


def test_float32_agrees_with_float64():
    name = "timm BatchNormAct2d"
    double = sampler_of(name)
    x = examples(name, 5)
    single = make_network(name, torch.float32)
    bank = mcbn.collect(single, mcbn.minibatches(x.float(), batch_size=5, draws=6))
    bank = bank.with_coordinates(double.bank.coordinates())
    actual = LinearizedBatchNorm(single, bank)(x.float())
    assert actual.dtype == torch.float32
    assert_close(actual.double(), double(x), rtol=1e-4, atol=1e-4)


def test_linearity_is_trusted_for_a_nearly_linear_network_only():
    """A dense net at M = 2 must not be trusted; its own bank as if M were 1,000 must be."""
    model = make_network("1d of 2-D")
    bank, x = bank_of(model, "1d of 2-D", size=2, draws=80), examples("1d of 2-D", 60, seed=4)
    wrong = LinearizedBatchNorm(model, bank).linearity(x)
    right = LinearizedBatchNorm(model, bank.rescale(1000)).linearity(x)
    assert right.trusted
    assert not wrong.trusted
    assert right.residual < wrong.residual
    assert str(right).startswith("Trusted: the linear draws have 1.")
    assert str(wrong).startswith(("Undecided", "Not to be trusted"))
    assert "times the mutual information" in str(wrong)
    assert "same 64 draws passed exactly, at M = 2. " in str(wrong)
    assert "use MCBatchNorm" in str(wrong)
    assert len(right.outputs) == 3


def test_linearity_is_a_ratio_of_standard_deviations():
    sampler, x = sampler_of("eps", exact=0), examples("eps", 7, seed=4)
    linear, exact = sampler(x), mcbn.MCBatchNorm(sampler.model, sampler.bank)(x)
    missed, spread = (exact - linear).var(0).mean(0), linear.var(0).mean(0)
    actual = sampler.linearity(x, draws=6)
    assert actual.residual == pytest.approx((missed.sum() / spread.sum()).sqrt().item())
    assert_close(torch.tensor(actual.outputs).double(), (missed / spread).sqrt())
    bias = ((exact - linear).mean(0).square().mean(0).sum() / spread.sum()).sqrt()
    assert actual.bias == pytest.approx(bias.item())


class Squared(nn.Module):
    """Batch norm of one channel, squared."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(1, eps=0.5)

    def forward(self, x):
        return self.norm(x).square()


def squared_with_means(means):
    """The network and a bank in which only the mean varies, and the variance plus epsilon is 1."""
    means = torch.tensor(means, dtype=torch.float64)[:, None]
    statistics = {"norm.running_mean": means, "norm.running_var": torch.full_like(means, 0.5)}
    epsilon = {"norm.running_var": 0.5}
    bank = mcbn.Bank(statistics, {}, batch_size=8, epsilon=epsilon)
    return without_seed(Squared).double().eval(), bank


def test_the_ratio_of_variances_of_a_square_is_that_of_its_closed_form():
    """Of `(x - m)^2` with m in {-a, 0, a} a third each: 1 / (1 + a^2 / (12 mean x^2))."""
    model, bank = squared_with_means([-0.9, 0.0, 0.9] * 20)
    x = examples("two places", 50)[:, :1]
    check = LinearizedBatchNorm(model, bank).linearity(x, draws=60)
    expected = 1 / (1 + 0.9**2 / (12 * x.square().mean()))
    assert check.ratio.value == pytest.approx(expected.item(), rel=1e-10)
    assert check.ratio.low <= check.ratio.value <= check.ratio.high
    assert check.ratio.of == "variance"
    assert check.trusted
    # Where the slope is 0 the linear draws do not vary at all.
    flat_place = LinearizedBatchNorm(model, bank).linearity(torch.zeros(3, 1).double())
    assert flat_place.ratio.value < 1e-10
    assert not flat_place.trusted
    assert "Not to be trusted" in str(flat_place)


@pytest.mark.parametrize("exact", [0, 1, 3, 6])
def test_the_ratio_of_mutual_information_is_that_of_the_corrected_draws(exact):
    """By entropies of scipy; the correction is the sampler's, from its own exact draws."""
    sampler, x = sampler_of("eps", exact=exact), examples("eps", 7, seed=4)
    linear = sampler_of("eps", exact=0)(x)
    passed = mcbn.MCBatchNorm(sampler.model, sampler.bank)(x)
    if exact:
        linear += shrunk_mean((passed - linear)[:exact])
    check = sampler.linearity(x, draws=6)
    assert check.ratio.value == pytest.approx(information(linear) / information(passed), rel=1e-9)
    assert check.ratio.of == "mutual information"
    variance = sampler.linearity(x, draws=6, of="variance").ratio
    expected = linear.numpy().var(0).mean() / passed.numpy().var(0).mean()
    assert variance.value == pytest.approx(expected, rel=1e-9)


def information(logits):
    """Mean mutual information."""
    p = special.softmax(logits.numpy(), axis=2)
    return (stats.entropy(p.mean(0), axis=1) - stats.entropy(p, axis=2).mean(0)).mean()


def test_64_draws_are_compared_or_all_of_a_smaller_bank():
    model, x = make_network("1d of 2-D"), examples("1d of 2-D", 5)
    for draws, expected in ((70, 64), (9, 9)):
        sampler = LinearizedBatchNorm(model, bank_of(model, "1d of 2-D", draws=draws))
        assert sampler.linearity(x).exact == expected


def test_probabilities_are_compared_by_their_variance():
    sampler, x = sampler_of("1d of 2-D"), examples("1d of 2-D", 30)
    ends_in_softmax = dataclasses.replace(sampler, output=lambda y: y.softmax(1))
    assert sampler.linearity(x).ratio.of == "mutual information"
    assert ends_in_softmax.linearity(x).ratio.of == "variance"


# Networks and batch sizes: some nearly linear, some not, some near the limit.
ZOO = [("1d of 2-D", 4), ("1d of 2-D", 16), ("1d of 2-D", 64), ("eps", 2), ("eps", 8), ("eps", 16),
       ("momentum=None", 24), ("1d of 3-D", 2), ("1d of 3-D", 16), ("timm BatchNormAct2d", 4),
       ("3d", 8)]  # fmt: skip


@pytest.fixture(scope="module")
def checked_zoo():
    """For each network: what is said, and the ratio over the whole bank of 256 draws."""
    found = {}
    for name, size in ZOO:
        model = make_network(name)
        x = examples(name, 40, seed=4)
        data = mcbn.minibatches(examples(name, 400), batch_size=size, draws=256, replacement=True)
        sampler = LinearizedBatchNorm(model, mcbn.collect(model, data))
        exact = mcbn.MCBatchNorm(model, sampler.bank)(x)
        found[name, size] = sampler.linearity(x), information(sampler(x)) / information(exact)
    return found


@pytest.mark.unchecked
def test_what_is_trusted_is_within_15_percent_over_the_whole_bank(checked_zoo):
    """All 256 draws passed exactly: there is no Monte Carlo error in the truth."""
    for case, (check, truth) in checked_zoo.items():
        if check.trusted:
            assert truth == pytest.approx(1, abs=0.15), case
    trusted = [check.trusted for check, _ in checked_zoo.values()]
    assert sum(trusted) >= 4
    assert sum(abs(truth - 1) > 0.15 for _, truth in checked_zoo.values()) >= 3


def test_errors_name_the_remedy():
    model = make_network("1d of 2-D")
    bank, x = bank_of(model, "1d of 2-D"), examples("1d of 2-D", 5)
    with pytest.raises(ValueError, match="exact of at least 0, got -1; give"):
        LinearizedBatchNorm(model, bank, exact=-1)
    with pytest.raises(ValueError, match="at least 2 draws, got 1"):
        LinearizedBatchNorm(model, bank.first(1))
    with pytest.raises(ValueError, match="collect a bank from this model"):
        LinearizedBatchNorm(make_network("is batch norm"), bank)
    with pytest.raises(ValueError, match="from 2 to 6 draws"):
        LinearizedBatchNorm(model, bank).linearity(x, draws=7)
    with pytest.raises(ValueError, match=r"axes \(batch, outputs\)"):
        LinearizedBatchNorm(model, bank, output=lambda y: y[:, 0])(x)
    with pytest.raises(ValueError, match="without gradients"):
        LinearizedBatchNorm(model, bank, output=lambda y: y.detach())(x)
    with pytest.raises(TypeError, match="got dict"):
        LinearizedBatchNorm(model, bank, exact=0, output=lambda y: {"y": y})(x)
    x[3, 1] = float("nan")
    with pytest.raises(ValueError, match=r"first at index \(3, 1\)"):
        LinearizedBatchNorm(model, bank)(x)
    weight = model[0].bias
    with torch.no_grad():
        weight[0] = float("nan")
    with pytest.raises(ValueError, match=r"0\.bias"):
        LinearizedBatchNorm(model, bank)


@pytest.mark.unchecked
def test_an_unknown_uncertainty_is_refused():
    sampler = sampler_of("1d of 2-D")
    with pytest.raises(ValueError, match=r"of among .*'variance'.*got 'entropy'"):
        sampler.linearity(examples("1d of 2-D", 5), of="entropy")


class Folded(nn.Module):
    """Frames folded into the batch axis, where examples can no longer be told apart."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(2)

    def forward(self, x):
        return self.norm(x.reshape(-1, 2)).reshape(len(x), -1)


def test_a_network_that_mixes_examples_is_refused():
    model = Folded().double().eval()
    x = examples("two places", 5)
    bank = mcbn.collect(model, mcbn.minibatches(examples("two places", 60), batch_size=8, draws=3))
    with pytest.raises(ValueError, match=r"expected activations of 5 examples at 'norm.*'"):
        LinearizedBatchNorm(model, bank, exact=0)(x)
