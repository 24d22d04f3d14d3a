"""Linear draws in bfloat16: what rounding does to them, and what the exact draws take away."""

import copy
import json
from dataclasses import replace
from pathlib import Path

import as_found
import pytest
import small_images
import torch
from small_images import small_convnet
from snapshots import assert_same, snapshot
from torch import nn
from torch.testing import assert_close

import mcbn
from mcbn.samplers import linearization
from mcbn.samplers.precision import precision_text

pytestmark = pytest.mark.filterwarnings("ignore::mcbn.InconsistentBankWarning")
# Half a unit in the last of the 8 bits of bfloat16.
UNIT = 2.0**-9


def net(dtype=torch.float32):
    return small_convnet(dtype, width=8, dropout=0.0)


def images(count=12, seed=0):
    return small_images.images(count, seed)


def bank_of(model, draws=10):
    kind = next(model.parameters()).dtype
    batches = [images(16, seed).to(kind) for seed in range(10, 10 + draws)]
    return mcbn.collect(model, batches, limit=None, progress=False)


def pair(model, **options):
    """The same sampler in both precisions."""
    exact = mcbn.LinearizedBatchNorm(model, bank_of(model), **options)
    return exact, replace(exact, precision="bfloat16")


def nearer(bank, factor):
    """The draws of a bank, at a fraction of their distance from its centre."""
    moved = {n: v.mean(0) + factor * (v - v.mean(0)) for n, v in bank.coordinates().items()}
    return bank.with_coordinates(moved)


class Affine(nn.Module):
    """Batch norm with a linear head: linear in the means of its statistics."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Linear(6, 5), nn.BatchNorm1d(5)
        self.last = nn.Linear(5, 3)

    def forward(self, x):
        return self.last(self.norm(self.first(x)))


@pytest.mark.parametrize("exact", [0, 2])
@pytest.mark.parametrize(("precision", "rounding"), [("float32", 2.0**-23), ("bfloat16", UNIT)])
def test_a_network_linear_in_its_statistics_is_reproduced_to_rounding(precision, rounding, exact):
    """Two products and a normalisation: within 8 units of the largest output."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Affine().eval()
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(20, 6, generator=generator)
    means = torch.randn(9, 5, generator=generator)
    bank = mcbn.Bank(
        {"norm.running_mean": means, "norm.running_var": torch.full((9, 5), 0.7)},
        {}, batch_size=8,
    )  # fmt: skip
    sampler = mcbn.LinearizedBatchNorm(model, bank, exact=exact, precision=precision)
    expected = mcbn.MCBatchNorm(model, bank)(x)
    limit = 8 * rounding * float(expected.abs().max())
    assert_close(sampler(x), expected, rtol=0, atol=limit)
    assert expected.std(0).max() > 10 * limit


def smooth():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.Tanh(),
            nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.Tanh(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4),
        ).eval()  # fmt: skip


@pytest.mark.parametrize(("make", "limit"), [(smooth, 0.015), (net, 0.1)])
def test_the_slope_is_that_of_float32_to_the_rounding_of_a_few_layers(make, limit):
    """Root mean square of the difference, as a fraction of that of the slope.

    Where two values of a pool are equal in bfloat16 the slope is that of the other one.
    """
    exact, rounded = pair(make(), exact=0)
    x = images(60)
    steps = [rows - rows.mean(0) for rows in (exact(x), rounded(x))]
    missed = (steps[1] - steps[0]).square().mean().sqrt() / steps[0].square().mean().sqrt()
    assert 0 < missed < limit


@pytest.mark.parametrize("layers", [None, 1])
@pytest.mark.parametrize("number", [1, 4, 10])
def test_exact_draws_are_those_of_float32_bit_for_bit(number, layers):
    model, x = net(), images()
    exact, rounded = pair(model, exact=number, layers=layers)
    passed = mcbn.MCBatchNorm(model, exact.bank, layers=layers)(x)
    assert torch.equal(rounded(x)[:number], exact(x)[:number])
    assert torch.equal(rounded(x)[:number], passed[:number])


def test_exact_draws_take_away_what_rounding_does_to_the_centre():
    """For draws so near each other that rounding is nearly all that is wrong with them."""
    model, x = net(), images()
    bank = nearer(bank_of(model), 1e-2)
    passed = mcbn.MCBatchNorm(model, bank)(x)
    errors = [
        (mcbn.LinearizedBatchNorm(model, bank, exact=number, precision="bfloat16")(x) - passed)
        .abs().mean()
        for number in (0, 4)
    ]  # fmt: skip
    assert errors[1] < 0.1 * errors[0]
    assert errors[0] > 1e-4


def test_all_is_float32_and_left_as_it_was():
    model, x = net().train(), images()
    _, sampler = pair(model)
    before = as_found.process(), snapshot(model), x.clone()
    outputs = sampler(x)
    sampler.linearity(x, draws=5)
    with pytest.raises(RuntimeError):
        sampler(torch.zeros(2, 3, 12, 12))
    assert outputs.dtype == torch.float32
    assert not outputs.requires_grad
    assert not torch.is_autocast_enabled("cpu")
    assert as_found.process() == before[0]
    assert_same(snapshot(model), before[1])
    assert torch.equal(x, before[2])
    assert all(weight.grad is None for weight in model.parameters())


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_the_callers_gradient_mode_changes_nothing(context):
    _, sampler = pair(net())
    expected = sampler(images())
    with context():
        assert torch.equal(sampler(images()), expected)


def test_steps_are_not_rounded_by_an_autocast_around():
    """Only the pass and its gradients are; the product with the deviations is no pass."""
    exact, rounded = pair(net(), exact=0)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = rounded(images())
    assert_close(outputs, rounded(images()), rtol=0, atol=1e-6)
    assert not torch.equal(outputs, exact(images()))


def test_a_network_is_told_apart_in_linearity_by_either_precision():
    model, x = net(), images(40)
    bank = nearer(bank_of(model, draws=24), 0.2)
    for precision in ("float32", "bfloat16"):
        check = mcbn.LinearizedBatchNorm(model, bank, precision=precision).linearity(x)
        assert check.ratio.value == pytest.approx(1, abs=0.05)


def test_the_precision_is_said():
    model, x = net(), images()
    exact, rounded = pair(model)
    assert repr(rounded).endswith("4 exact draws, precision bfloat16")
    assert "precision" not in repr(exact)
    assert str(rounded.precision_choice) == precision_text(rounded) == "bfloat16"
    assert str(exact.precision_choice) == "float32"
    methods = {"plain": mcbn.Deterministic(model), "linear": rounded}
    comparison = mcbn.compare(methods, x, torch.arange(12) % 4, resamples=0, progress=False)
    assert comparison.to_dict()["methods"]["linear"]["precision"] == "bfloat16"
    assert copy.deepcopy(rounded).precision_choice == rounded.precision_choice


@pytest.mark.unchecked
@pytest.mark.parametrize("name", ["auto", "half", None])
def test_another_precision_is_refused(name):
    model = net()
    with pytest.raises(
        ValueError, match=r"a precision among \('float32', 'bfloat16'\), got"
    ) as told:
        mcbn.LinearizedBatchNorm(model, bank_of(model), precision=name)
    assert 'give "bfloat16"' in str(told.value)


def test_a_network_of_float64_stays_there():
    model = net(torch.float64)
    with pytest.raises(ValueError, match=r"got torch\.float64; leave precision out"):
        mcbn.LinearizedBatchNorm(model, bank_of(model), precision="bfloat16")
    assert mcbn.LinearizedBatchNorm(model, bank_of(model))(images().double()).dtype == torch.float64


class Sorting(nn.Module):
    """A network that sorts its examples on the way, and puts them back."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.sorts = inner, True

    def forward(self, x):
        if not self.sorts:
            return self.inner(x)
        order = x.flatten(1).sum(1).argsort()
        return self.inner(x[order])[order.argsort()]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_network_that_sorts_its_examples_is_refused_every_time(precision):
    model = Sorting(net())
    bank = bank_of(model)
    sampler = mcbn.LinearizedBatchNorm(model, bank, precision=precision)
    for _ in range(2):
        with pytest.raises(ValueError, match="sorts or mixes them on the way"):
            sampler(images())
    model.sorts = False
    sampler(images())
    model.sorts = True
    with pytest.raises(ValueError, match="sorts or mixes them on the way"):
        sampler(images())


class SortsSome(Sorting):
    """Sorts batches of a positive mean alone."""

    def forward(self, x):
        return super().forward(x) if bool(x.mean() > 0) else self.inner(x)


def test_a_network_that_sorts_some_batches_alone_is_refused_for_these():
    model = SortsSome(net())
    sampler = mcbn.LinearizedBatchNorm(model, bank_of(model))
    sampler(-images().abs())
    with pytest.raises(ValueError, match="sorts or mixes them on the way"):
        sampler(images().abs())


def test_rows_are_checked_once_for_a_kind_of_inputs(monkeypatch):
    calls, check = [], linearization._require_own_rows
    monkeypatch.setattr(
        linearization, "_require_own_rows", lambda each: calls.append(each) or check(each)
    )
    sampler, _ = pair(net())
    sampler(images(1))
    assert not calls  # one example alone is its own row
    for x in (images(), images(5, seed=3), images()):
        sampler(x)
    assert len(calls) == 1
    sampler(torch.cat([images(), images()], dim=2))
    assert len(calls) == 2
    sampler.model.register_forward_hook(lambda *_: None)
    sampler(images())
    assert len(calls) == 3


def test_one_backward_pass_an_output_and_none_for_weights(monkeypatch):
    asked, grad = [], torch.autograd.grad
    monkeypatch.setattr(
        torch.autograd, "grad",
        lambda outputs, inputs, **rest: asked.append(inputs) or grad(outputs, inputs, **rest),
    )  # fmt: skip
    _, sampler = pair(net())
    sampler(images())
    asked.clear()
    sampler(images())
    assert len(asked) == 4
    weights = {id(weight) for weight in sampler.model.parameters()}
    assert not weights & {id(tensor) for each in asked for tensor in each}


ROOT = Path(__file__).parents[2]
NETWORKS = {
    "ResNet20": "resnet20", "conv net": "convnet", "concrete": "concrete", "energy": "energy",
}  # fmt: skip
SCORES = ("mean", "epistemic", "nll", "ood_auroc")


def test_the_table_of_fewer_passes_is_that_of_the_experiment():
    page = (ROOT / "docs" / "performance.md").read_text().partition("## Fewer passes")[2]
    result = json.loads((ROOT / "experiments/results/linearized_bfloat16.json").read_text())
    lines = [line for line in page.splitlines() if "exact |" in line]
    assert len(lines) == 8
    for line in lines:
        network, method, passes, *errors = (cell.strip() for cell in line.strip("|").split("|"))
        known = [short for full, short in NETWORKS.items() if full in network]
        case = result[known[0]] if known else case
        name = method.replace(",", " +")
        written = dict(zip(SCORES, filter(None, errors), strict=False))
        assert float(passes) == pytest.approx(case["passes"][name], abs=0.5)
        for score, figure in written.items():
            found = case["errors_by_monte_carlo"][name][score]
            assert float(figure) == pytest.approx(found, abs=0.0051)
