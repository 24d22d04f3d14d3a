"""Passes in bfloat16: what they compute, when they are taken by themselves, and who is told."""

import copy
from dataclasses import replace
from itertools import islice

import as_found
import pytest
import small_images
import torch
from small_images import small_convnet
from snapshots import assert_same, snapshot
from torch import nn
from torch.nn import functional
from torch.testing import assert_close

import mcbn
from mcbn.network.known_conducts import conducts_of
from mcbn.samplers import engines, precision
from mcbn.samplers.engines import HALF_ROUNDING
from mcbn.samplers.folding import scaled

ENGINES = ("auto", "loop", "batched", "folded")


def net(seed=0, dtype=torch.float32):
    return small_convnet(dtype, seed=seed, dropout=0.2)


def images(count=20, seed=0):
    return small_images.images(count, seed)


def bank(model, draws=6):
    batches = [images(8, seed).to(next(model.parameters()).dtype) for seed in range(10, 10 + draws)]
    return mcbn.collect(model, batches, limit=None, progress=False)


def mc_batch_norm(model, **options):
    return mcbn.MCBatchNorm(model, bank(model), **options)


def noisy(example):
    return example + 0.3 * torch.randn(example.shape)


SAMPLERS = {
    "MCBatchNorm": mc_batch_norm,
    "MCDropout": lambda model, **options: mcbn.MCDropout(model, draws=6, **options),
    "DeepEnsemble": lambda model, **options: mcbn.DeepEnsemble([model, net(1)], **options),
    "Augmented": lambda model, **options: mcbn.Augmented(model, noisy, draws=6, **options),
}
pytestmark = pytest.mark.filterwarnings("ignore::mcbn.InconsistentBankWarning")
each_sampler = pytest.mark.parametrize("name", SAMPLERS)


@pytest.fixture
def quick(monkeypatch):
    """As on a processor where bfloat16 takes half of the time."""
    monkeypatch.setattr(precision, "has_bfloat16_units", lambda device: True)
    monkeypatch.setattr(precision, "_time_ratio", lambda *_: 0.5)


def measured(monkeypatch, largest):
    """As if rounding were that share of the Monte Carlo error."""
    found = precision.RoundingError(largest, 0.0)
    monkeypatch.setattr(precision, "rounding_error", lambda *_: found)


@each_sampler
def test_passes_in_bfloat16_are_the_network_under_autocast(name):
    model, x = net(), images()
    exact, rounded = SAMPLERS[name](model), SAMPLERS[name](model, precision="bfloat16")
    outputs = rounded(x)
    assert outputs.dtype == torch.float32
    limit = HALF_ROUNDING * float(exact(x).abs().max())
    assert_close(outputs, exact(x), rtol=0, atol=limit)
    assert not torch.equal(outputs, exact(x))


@pytest.mark.parametrize("engine", ENGINES)
def test_every_engine_runs_in_bfloat16(engine):
    model, x = net(), images()
    sampler = mc_batch_norm(model, engine=engine)
    outputs = replace(sampler, precision="bfloat16")(x)
    expected = []
    for draw in range(len(sampler)):
        state = {name: rows[draw] for name, rows in sampler.bank.statistics.items()}
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            expected.append(torch.func.functional_call(model, state, (x,)).float())
    limit = HALF_ROUNDING * float(sampler(x).abs().max())
    assert_close(outputs, torch.stack(expected), rtol=0, atol=limit)
    assert not torch.equal(outputs, sampler(x))
    with torch.autocast("cpu", torch.bfloat16):
        state, _ = conducts_of(model)
    taken = {plan.engine for plan in engines._plans.get(state, {}).values()}
    assert taken == ({"batched"} if engine == "auto" else {engine} - {"loop"})


class Named(nn.Module):
    """Calls its products with names."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(-1, 1, 12).reshape(3, 4, 1))
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x):
        return functional.conv1d(input=self.norm(x), weight=self.weight).mean(-1)


@pytest.mark.parametrize("asked", ["float32", "bfloat16"])
def test_products_called_by_name_share_passes(asked):
    model = Named().eval()
    x = torch.randn(9, 4, 5, generator=torch.Generator().manual_seed(0))
    own = mcbn.collect(model, [x[:4], x[2:6], x[5:]], limit=None, progress=False)
    sampler = mcbn.MCBatchNorm(model, own, engine="batched", precision=asked)
    loop = replace(sampler, engine="loop")
    limit = (HALF_ROUNDING if asked == "bfloat16" else 1e-6) * float(loop(x).abs().max())
    assert_close(sampler(x), loop(x), rtol=0, atol=limit)
    engines_taken = [
        plan.engine for plans in engines._plans.values() for plan in plans.values()
        if list(plans) and plan.cost.weights == 20
    ]  # fmt: skip
    assert "batched" in engines_taken
    assert "loop" not in engines_taken


@each_sampler
def test_one_draw_is_that_of_all(name, quick):
    model, x = net(), images()
    for asked in ("bfloat16", "auto"):
        sampler = SAMPLERS[name](model, precision=asked)
        alone = sampler.draw(1, x)  # the first call: the choice is made by all draws
        assert_close(alone, sampler(x)[1], rtol=0, atol=1e-2 * float(alone.abs().max()))
        assert alone.dtype == torch.float32
        assert asked == "bfloat16" or sampler.precision_choice.rounding.largest > 0


@each_sampler
def test_auto_takes_bfloat16_within_the_budget_alone(name, quick, monkeypatch):
    model, x = net(), images()
    exact, rounded = (SAMPLERS[name](model, precision=p) for p in ("float32", "bfloat16"))
    for share, taken in ((0.25, rounded), (0.26, exact), (float("nan"), exact)):
        measured(monkeypatch, share)
        sampler = SAMPLERS[name](model, precision="auto")
        assert sampler.precision_choice is None
        torch.testing.assert_close(sampler(x), taken(x), rtol=0, atol=0)
        assert sampler.precision_choice.precision == taken.precision
        assert f"{share:.2f} of the Monte Carlo error" in sampler.precision_choice.reason


def test_the_budget_is_measured_on_the_draws_and_the_inputs(quick):
    """Draws far apart hide what rounding does; nearly equal ones do not."""
    model, x = net(), images(40)
    wide = bank(model)
    centre = {name: rows.mean(0, keepdim=True) for name, rows in wide.statistics.items()}
    near = {n: centre[n] + 1e-3 * (rows - centre[n]) for n, rows in wide.statistics.items()}
    far = mcbn.MCBatchNorm(model, wide, precision="auto")
    equal = mcbn.MCBatchNorm(model, replace(wide, statistics=near), precision="auto")
    far(x), equal(x)
    assert far.precision_choice.precision == "bfloat16"
    assert equal.precision_choice.precision == "float32"
    assert far.precision_choice.rounding.largest < 0.25 < equal.precision_choice.rounding.largest


def test_auto_takes_float32_where_bfloat16_is_no_faster(monkeypatch):
    monkeypatch.setattr(precision, "has_bfloat16_units", lambda device: True)
    measured(monkeypatch, 0.1)
    monkeypatch.setattr(precision, "_time_ratio", lambda *_: 0.95)
    sampler = mc_batch_norm(net(), precision="auto")
    sampler(images())
    assert sampler.precision_choice.precision == "float32"
    assert "takes 0.95 of its time" in str(sampler)


def test_auto_takes_float32_where_there_are_no_units(monkeypatch):
    monkeypatch.setattr(precision, "has_bfloat16_units", lambda device: False)
    sampler = mc_batch_norm(net(), precision="auto")
    assert "no units for bfloat16" in str(sampler)


def test_units_are_those_that_the_processor_names(monkeypatch):
    for units, able in (({"avx512_bf16": True}, True), ({"avx2": True}, False), ({}, False)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda units=units: units)
        assert precision.has_bfloat16_units(torch.device("cpu")) is able
    assert not precision.has_bfloat16_units(torch.device("meta"))


def test_one_draw_and_other_types_are_left_as_they_are(quick):
    single = mcbn.DeepEnsemble([net()], precision="auto")
    assert "a single draw has no Monte Carlo error" in str(single)
    double = net(dtype=torch.float64)
    assert mc_batch_norm(double, precision="auto").precision_choice.precision == "float32"
    with pytest.raises(ValueError, match=r"got torch\.float64; leave precision out"):
        mc_batch_norm(double, precision="bfloat16")


def test_a_scale_and_a_shift_are_those_of_batch_norm_in_bfloat16():
    """To a unit in the last place, in the type of the activations."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(6, 4, 5, 5, generator=generator).bfloat16()
    mean, variance = torch.randn(4, generator=generator), 0.5 + torch.rand(4, generator=generator)
    scale = variance.add(1e-5).rsqrt()
    found = scaled(x, scale, -mean * scale)
    expected = functional.batch_norm(x, mean, variance)
    assert found.dtype == torch.bfloat16
    assert_close(found, expected, rtol=2**-7, atol=1e-6)


def test_the_choice_is_made_once(quick, monkeypatch):
    sampler, calls = mc_batch_norm(net(), precision="auto"), []
    found = precision.chosen
    monkeypatch.setattr(precision, "chosen", lambda *a: calls.append(a) or found(*a))
    first = sampler(images())
    for _ in range(2):
        assert torch.equal(sampler(images()), first)
    assert len(calls) == 1


def test_passes_with_gradients_are_in_float32_and_choose_nothing(quick):
    sampler = mc_batch_norm(net(), precision="auto")
    x = images().requires_grad_()
    assert_close(sampler(x), replace(sampler, precision="float32")(x), rtol=0, atol=0)
    assert sampler.precision_choice is None


@each_sampler
@pytest.mark.parametrize("asked", ["bfloat16", "auto"])
def test_nothing_stays_switched_and_all_is_left_as_it_was(name, asked, quick):
    model, x = net(), images()
    sampler = SAMPLERS[name](model, precision=asked)
    before = as_found.process(), snapshot(model), x.clone()
    for _ in islice(sampler.passes(x), 2):
        assert not torch.is_autocast_enabled("cpu")
    assert as_found.process() == before[0]
    assert_same(snapshot(model), before[1])
    assert torch.equal(x, before[2])


def test_transforms_keep_their_own_precision():
    seen = []

    def noted(example):
        seen.append((example @ example.mT).dtype)
        return example + 0.1 * torch.rand(())

    mcbn.Augmented(net(), noted, draws=2, precision="bfloat16")(images(3))
    assert set(seen) == {torch.float32}


class Views(nn.Module):
    """A network with a step that only the usual layout allows."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.last = nn.Linear(4 * 10 * 10, 3)

    def forward(self, x):
        return self.last(self.norm(self.first(x)).view(len(x), -1))


@pytest.mark.parametrize("engine", ENGINES)
def test_a_network_that_takes_one_layout_gets_it(engine):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Views().eval()
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(9, 3, 12, 12, generator=generator)
    own = mcbn.collect(model, [x[:4], x[2:6], x[5:]], limit=None, progress=False)
    sampler = mcbn.MCBatchNorm(model, own, engine=engine)
    outputs = replace(sampler, precision="bfloat16")(x)
    limit = HALF_ROUNDING * float(sampler(x).abs().max())
    assert_close(outputs, sampler(x), rtol=0, atol=limit)


class OrderInMemory(Views):
    """Adds a little of what comes first in memory: less than bfloat16 rounds, yet wrong."""

    def forward(self, x):
        first = x.as_strided((len(x), 3), (x[0].numel(), 1))
        return self.last(self.norm(self.first(x)).reshape(len(x), -1)) + 0.01 * first


def test_a_small_effect_of_the_layout_is_seen_through_the_rounding():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = OrderInMemory().eval()
    x = torch.randn(9, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    own = mcbn.collect(model, [x[:4], x[2:6], x[5:]], limit=None, progress=False)
    outputs = mcbn.MCBatchNorm(model, own, engine="loop", precision="bfloat16")(x)
    expected = []
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        for draw in range(3):
            state = {name: rows[draw] for name, rows in own.statistics.items()}
            expected.append(torch.func.functional_call(model, state, x))
    assert torch.equal(outputs, torch.stack(expected).to(outputs.dtype))


def test_two_precisions_in_turn_are_both_remembered():
    model, x = net(), images()
    exact = mc_batch_norm(model)
    rounded = replace(exact, precision="bfloat16")
    exact(x), rounded(x)
    state, _ = conducts_of(model)
    with torch.autocast("cpu", torch.bfloat16):
        other, _ = conducts_of(model)
    exact(x), rounded(x)
    assert conducts_of(model)[0] is state is not other
    with torch.autocast("cpu", torch.bfloat16):
        assert conducts_of(model)[0] is other


def test_samplers_are_copied_with_their_choice(quick):
    sampler = mc_batch_norm(net(), precision="auto")
    sampler(images())
    assert copy.deepcopy(sampler).precision_choice == sampler.precision_choice


@pytest.mark.unchecked
def test_another_name_is_refused():
    with pytest.raises(ValueError, match=r"expected a precision among .*, got 'half'"):
        mc_batch_norm(net(), precision="half")
    with pytest.raises(ValueError, match="expected a sampler whose networks are known"):
        mcbn.Augmented(Foreign(), noisy, draws=2, precision="bfloat16")


class Foreign:
    """A sampler of another package."""

    def __len__(self):
        return 2

    def passes(self, inputs):
        yield from (inputs, inputs)

    def __call__(self, inputs):
        return torch.stack(list(self.passes(inputs)))


def test_a_comparison_says_the_precision(quick, monkeypatch):
    measured(monkeypatch, 0.2)
    model, x = net(), images()
    targets = torch.arange(20) % 4
    methods = {
        "plain": mcbn.Deterministic(model),
        "mcbn": mc_batch_norm(model, precision="auto"),
        "moved": mcbn.Augmented(mc_batch_norm(model, precision="bfloat16"), noisy),
    }
    comparison = mcbn.compare(methods, x, targets, resamples=0, progress=False)
    text = "bfloat16 (rounding is 0.20 of the Monte Carlo error, 0.50 of the time)"
    assert comparison.to_dict()["methods"]["mcbn"]["precision"] == text
    assert comparison.to_dict()["methods"]["moved"]["precision"] == "bfloat16"
    assert "precision" not in comparison.to_dict()["methods"]["plain"]
    page = mcbn.Report.from_comparison(comparison).to_html()
    assert text in page
    assert "Precision of passes" in page


def test_processes_that_share_work_need_one_precision():
    sampler = mc_batch_norm(net(), precision="auto")
    for each in (sampler, mcbn.Augmented(sampler, noisy)):
        with pytest.raises(ValueError, match="expected one precision for all processes"):
            precision.require_shared(each)
    precision.require_shared(replace(sampler, precision="bfloat16"))
