"""Engines: each gives the numbers of the loop, and is the one that really runs."""

import gc
import itertools
import logging
import weakref
from dataclasses import dataclass, replace
from functools import partial

import pytest
import timm
import torch
import torchvision
from models import CASES, examples, make_network, randomized, without_seed
from snapshots import assert_same, snapshot
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

import mcbn
from mcbn.network.known_conducts import conducts_of
from mcbn.samplers import chunks, engines, vmap
from mcbn.tasks.networks import convnet, mlp, resnet20, unet

pytestmark = pytest.mark.filterwarnings("ignore::mcbn.InconsistentBankWarning")

ENGINES = ("auto", "folded", "batched")
LIMITS = {torch.float64: 1e-12, torch.float32: 1e-5}


class DenseBlock(nn.Module):
    """Batch norm before the convolution, whose input is read again: nothing may be overwritten."""

    def __init__(self):
        super().__init__()
        self.norm, self.mix = nn.BatchNorm2d(3), nn.Conv2d(3, 3, 3, padding=1)
        self.last, self.head = nn.BatchNorm2d(6), nn.Conv2d(6, 2, 1, bias=False)
        self.end = nn.BatchNorm2d(2)

    def forward(self, x):
        grown = torch.cat([x, self.mix(functional.relu(self.norm(x)))], 1)
        return self.end(self.head(functional.relu(self.last(grown), inplace=True))) + x[:, :2]


class Tangled(nn.Module):
    """Sizes of the input, positions in the batch, and a convolution that is read twice."""

    def __init__(self):
        super().__init__()
        self.mix, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.head = nn.Linear(4 * 9, 3)

    def forward(self, x):
        mixed = self.mix(x)
        hidden = torch.relu(self.norm(mixed)) + mixed
        return self.head(hidden.view(x.size(0), -1)) + torch.arange(len(x)).to(x)[:, None]


class UShaped(nn.Module):
    def __init__(self):
        super().__init__()
        self.down, self.wide = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.low, self.deep = nn.Conv2d(4, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.up, self.back = nn.ConvTranspose2d(6, 4, 2, stride=2), nn.BatchNorm2d(4)
        self.head = nn.Conv2d(8, 3, 1)

    def forward(self, x):
        full = functional.relu(self.wide(self.down(x)))
        half = functional.relu(self.deep(self.low(functional.max_pool2d(full, 2))))
        return self.head(torch.cat([full, torch.relu(self.back(self.up(half)))], 1))


class ReadTwice(nn.Module):
    """A convolution between two batch norms, and a batch norm, whose outputs are read again."""

    def __init__(self):
        super().__init__()
        self.norm, self.mix, self.last = nn.BatchNorm2d(2), nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)

    def forward(self, x):
        mixed = self.mix(self.norm(x))
        normed = self.last(mixed)
        return functional.relu(normed) + 0.5 * normed + mixed


class DenseSteps(nn.Module):
    """Steps along the last axis, a skip, and an answer that is batch norm's own."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Linear(4, 4), nn.BatchNorm1d(4)
        self.second, self.last = nn.Linear(8, 3), nn.BatchNorm1d(3)

    def forward(self, x):
        hidden = torch.softmax(self.norm(self.first(x)), -1) + x
        return self.last(self.second(torch.cat([x, hidden], 1)))


# Their path depends on what they are given.
UNTRACEABLE = ("is batch norm",)
MIXING = ("tangled",)  # the answer depends on the place in the batch
LARGER = {
    "read twice": (ReadTwice, (2, 4, 5)),
    "u-shaped": (UShaped, (2, 8, 12)),
    "dense": (lambda: mlp(4, 3, width=16), (4,)),
    "dense steps": (DenseSteps, (4,)),
    "ends in batch norm": (lambda: nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(),
                                                 nn.Linear(6, 3), nn.BatchNorm1d(3)), (4,)),
    "conv": (lambda: convnet(1, 3, width=4), (1, 9, 9)),
    "unet": (lambda: unet(3, 4, width=4), (3, 12, 8)),
    "resnet20": (resnet20, (3, 16, 16)),
    "resnet18": (lambda: torchvision.models.resnet18(num_classes=5), (3, 32, 32)),
    "mobilenet_v3_small": (lambda: torchvision.models.mobilenet_v3_small(num_classes=5),
                           (3, 32, 32)),
    "dense block": (DenseBlock, (3, 6, 5)),
    "tangled": (Tangled, (3, 5, 5)),
}  # fmt: skip
DEEP = ("resnet18", "mobilenet_v3_small")
NAMES = [
    *CASES,
    *(pytest.param(name, marks=pytest.mark.unchecked if name in DEEP else ()) for name in LARGER),
]


def network(name, dtype):
    if name in CASES:
        return make_network(name, dtype), examples(name, 21, dtype)
    build, shape = LARGER[name]
    model = without_seed(build)
    # Deep networks keep their own initial weights: random ones would blow up what rounding does.
    model = (model if name in DEEP else randomized(model)).to(dtype)
    generator = torch.Generator().manual_seed(2)
    return model.eval(), torch.randn(21, *shape, generator=generator).to(dtype)


def sampler(model, x, engine="loop", **options):
    bank = mcbn.collect(model, [x[:8], x[4:12], x[8:16], x[10:18], x[2:10]])
    return mcbn.MCBatchNorm(model, bank, engine=engine, **options)


LAST = torch.channels_last


def plan_of(model):
    state, _ = conducts_of(model)
    (plan,) = engines._plans[state].values()
    return plan


@pytest.mark.unchecked
@pytest.mark.filterwarnings("ignore:The network's output for an example depends on the other")
@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", NAMES)
def test_every_engine_gives_the_numbers_of_the_loop(name, engine, dtype):
    model, x = network(name, dtype)
    loop = sampler(model, x)
    expected = loop(x)
    limit = LIMITS[dtype] * expected.abs().max().item()
    actual = replace(loop, engine=engine)(x)
    assert_close(actual, expected, rtol=0, atol=limit)
    assert actual.is_contiguous()
    taken = "loop" if name in MIXING else plan_of(model).engine
    if name in MIXING:
        assert conducts_of(model)[0] not in engines._plans
    elif engine == "folded" and name in UNTRACEABLE:
        assert taken == "loop"
    elif engine == "auto":
        assert (taken, plan_of(model).layout) != ("loop", "as given")
    else:
        assert taken == engine


@pytest.mark.unchecked
@pytest.mark.parametrize("engine", ENGINES)
def test_a_network_that_magnifies_rounding_agrees_to_its_own_rounding_error(engine):
    """A random EfficientNet-B0 on 4 small images has channels of a variance of 1e-9.

    The last bit of an input moves its float64 logits by 2e-11 of their size, so no two orders of
    operations can agree to 1e-12: what such a bit does is the limit.
    """
    model = without_seed(lambda: timm.create_model("efficientnet_b0", num_classes=10)).double()
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, 3, 32, 32, generator=generator, dtype=torch.float64)
    loop = mcbn.MCBatchNorm(model.eval(), mcbn.collect(model, [x]), engine="loop")
    expected = loop(x)
    floor = max((loop(x * (1 + sign * 2**-52)) - expected).abs().max().item() for sign in (-1, 1))
    assert 1e-12 < floor / expected.abs().max().item() < 1e-9
    assert_close(replace(loop, engine=engine)(x), expected, rtol=0, atol=2 * floor)


@pytest.mark.parametrize("budget", [1, 300, 10**9])
@pytest.mark.parametrize("engine", ["folded", "batched"])
@pytest.mark.parametrize("name", ["dense", "ends in batch norm", "unet", "dense block"])
def test_the_cut_into_passes_does_not_matter(name, engine, budget, monkeypatch):
    model, x = network(name, torch.float64)
    loop = sampler(model, x)
    for name in ("DENSE_VALUES", "IMAGE_VALUES", "HEAVY_VALUES"):
        monkeypatch.setattr(vmap, name, budget)
    assert_close(replace(loop, engine=engine)(x), loop(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("examples", [1, 7, 10_000])
@pytest.mark.parametrize("draws", [1, 5, 500])
@pytest.mark.parametrize("values", [1, 50, 10**8])
def test_a_pass_stays_within_its_budget(examples, draws, values):
    for dense, weights in itertools.product((True, False), (10, 10**8)):
        cost = vmap.PassCost(values, dense, weights)
        piece, together = vmap.pass_size(cost, examples, draws)
        assert 1 <= piece <= examples
        assert 1 <= together <= draws
        assert piece * together == 1 or piece * together * values <= cost.budget


@pytest.mark.parametrize("engine", ENGINES)
def test_what_is_before_the_first_layer_runs_once_for_all_draws(engine):
    class Counting(TorchFunctionMode):
        calls = 0

        def __torch_function__(self, func, types, args=(), kwargs=None):
            Counting.calls += func in (torch.conv2d, functional.conv2d)
            return func(*args, **(kwargs or {}))

    model, x = network("conv", torch.float32)
    model = randomized(without_seed(lambda: nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3))))
    model.eval()
    mc = sampler(model, x, engine)
    expected = mc(x)
    with Counting():
        actual = mc(x)
    assert_close(actual, expected, rtol=0, atol=0)
    assert Counting.calls == 1


def test_dense_networks_run_features_first_where_their_steps_allow_it():
    for name, layout in (("dense", "features first"), ("dense steps", "as given")):
        model, x = network(name, torch.float64)
        sampler(model, x, "folded")(x)
        assert plan_of(model).layout == layout


def test_a_step_that_runs_draw_by_draw_is_left_to_the_loop():
    """`vmap` has no rule for the step and would only warn: here it must not be taken."""

    class Slow(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm2d(2)

        def forward(self, x):
            return functional.adaptive_avg_pool2d(self.norm(x), (1, 2)).flatten(1)

    model = randomized(without_seed(Slow)).eval()
    x = torch.randn(21, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    loop = sampler(model, x)
    assert_close(replace(loop, engine="batched")(x), loop(x), rtol=1e-6, atol=1e-6)


class ValueDependent(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x):
        hidden = self.norm(x)
        return hidden if float(hidden.sum()) > 0 else -hidden


@pytest.mark.parametrize("engine", ENGINES)
def test_a_network_that_no_engine_takes_runs_in_the_loop_and_says_so(engine, caplog):
    model = randomized(ValueDependent()).double().eval()
    x = torch.randn(20, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    loop = sampler(model, x)
    with caplog.at_level(logging.DEBUG, logger="mcbn.samplers.engines"):
        assert_close(replace(loop, engine=engine)(x), loop(x), rtol=0, atol=0)
    assert "ValueDependent does not run" in caplog.text


def shifted(right, *arguments):
    return (raw + 0.1 for raw in right(*arguments))


@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_whose_numbers_are_wrong_is_not_used(engine, monkeypatch):
    model, x = network("dense", torch.float64)
    loop = sampler(model, x)
    for name in ("_batched", "_folded", "_stacked"):
        right = getattr(chunks, name)
        monkeypatch.setattr(chunks, name, partial(shifted, right))
    assert_close(replace(loop, engine=engine)(x), loop(x), rtol=0, atol=0)


@pytest.mark.parametrize("engine", ENGINES)
def test_hooks_of_the_user_still_run(engine):
    model, x = network("dense", torch.float64)
    loop = sampler(model, x)
    mc = replace(loop, engine=engine)
    mc(x)
    handle = model[0].register_forward_hook(lambda module, args, actual: actual + 1.0)
    assert_close(mc(x), loop(x), rtol=1e-12, atol=1e-12)
    handle.remove()


@pytest.mark.parametrize("engine", ENGINES)
def test_changes_of_the_network_take_effect(engine):
    """New weights, another type, and a module that is replaced."""
    model, x = network("conv", torch.float64)
    loop = sampler(model, x)
    mc = replace(loop, engine=engine)
    mc(x)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1)
    assert_close(mc(x), loop(x), rtol=1e-12, atol=1e-12)
    model[-1] = randomized(without_seed(lambda: nn.Linear(8, 3))).double()
    assert_close(mc(x), loop(x), rtol=1e-12, atol=1e-12)
    model.float()
    assert_close(mc(x.float()), loop(x.float()), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("engine", ENGINES)
def test_replaced_parameters_take_effect(engine):
    """`load_state_dict(assign=True)` puts new tensors in the place of those a trace has seen."""

    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.scale = nn.BatchNorm1d(4), nn.Parameter(torch.ones(4))

        def forward(self, x):
            return self.norm(x) * self.scale

    model = randomized(without_seed(Scaled)).double().eval()
    x = examples("is batch norm", 21, torch.float64)
    loop = sampler(model, x)
    mc = replace(loop, engine=engine)
    assert_close(mc(x), loop(x), rtol=1e-12, atol=1e-12)
    # A bank belongs to its weights: the new network has one of its own.
    state = {name: 2 * value for name, value in model.state_dict().items() if value.ndim}
    model.load_state_dict(state, assign=True, strict=False)
    again = sampler(model, x)
    assert_close(replace(again, engine=engine)(x), again(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("training", [False, True])
def test_the_model_is_left_unchanged(engine, training):
    model, x = network("unet", torch.float64)
    mc = sampler(model, x, engine)
    model.train(training)
    before = snapshot(model)
    mc(x)
    next(iter(mc.passes(x)))
    assert_same(before, snapshot(model))


@pytest.mark.parametrize("engine", ENGINES)
def test_several_inputs_and_outputs_that_are_not_a_tensor(engine):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.norm = nn.Linear(4, 5), nn.BatchNorm1d(5)

        def forward(self, left, right, mask=None):
            hidden = self.norm(self.first(left) + right)
            return {"logits": hidden if mask is None else hidden * mask, "count": 3}

    model = randomized(without_seed(Two)).double().eval()
    generator = torch.Generator().manual_seed(0)
    left = torch.randn(16, 4, dtype=torch.float64, generator=generator)
    right = torch.randn(16, 5, dtype=torch.float64, generator=generator)
    bank = mcbn.collect(model, [((left[:8], right[:8]),), ((left[8:], right[8:]),)])
    for inputs in ((left, right), {"left": left, "right": right}):
        rows = {
            engine: mcbn.MCBatchNorm(
                model, bank, output=lambda answer: answer["logits"], engine=engine
            )(inputs)
            for engine in ("loop", engine)
        }
        assert_close(rows[engine], rows["loop"], rtol=1e-12, atol=1e-12)


def test_an_unknown_engine_is_refused():
    with pytest.raises(ValueError, match="expected an engine among"):
        engines.require_engine("fast")


@pytest.mark.parametrize("engine", ENGINES)
def test_a_plan_does_not_keep_its_network_alive(engine):
    model, x = network("conv", torch.float32)
    sampler(model, x, engine)(x)
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


def test_the_plan_is_made_once():
    model, x = network("dense", torch.float32)
    mc = sampler(model, x, "auto")
    mc(x)
    first = plan_of(model)
    mc(x)
    replace(mc)(x)
    assert plan_of(model) is first


@dataclass
class Answer:
    """What a network may return: its fields hold tensors."""

    logits: torch.Tensor
    features: torch.Tensor


CALLS = []


class CountedCalls(nn.Module):
    """Counts the calls of its forward, and returns more than one tensor."""

    def __init__(self, half):
        super().__init__()
        self.first, self.norm, self.head = nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 3)
        # Counted elsewhere: a network that changes an attribute of its own is left to the loop.
        self.half, self.note = half, CALLS.append

    def forward(self, x):
        self.note(None)
        hidden = self.norm(self.first(x))
        answer = Answer(self.head(hidden), hidden)
        if not self.half:
            return {"answer": answer}
        with torch.autocast("cpu", torch.bfloat16):
            return {"answer": answer, "half": self.head(hidden)}


def counted_calls(half=False):
    model = randomized(without_seed(lambda: CountedCalls(half))).eval()
    x = torch.randn(21, 4, generator=torch.Generator().manual_seed(0))
    return model, x, mcbn.collect(model, [x[:8], x[4:12], x[8:16]])


@pytest.mark.parametrize("engine", ENGINES)
def test_a_plan_serves_every_function_that_picks_an_output(engine):
    """Twenty samplers test the network once, and each of their calls runs it as often."""
    model, x, bank = counted_calls()
    calls = []
    for factor in range(20):
        picker = lambda raw, factor=factor: (1 + factor) * raw["answer"].logits  # noqa: E731
        sampler = mcbn.MCBatchNorm(model, bank, output=picker, engine=engine)
        before = len(CALLS)
        actual = sampler(x)
        calls.append(len(CALLS) - before)
        assert_close(actual, replace(sampler, engine="loop")(x), rtol=1e-5, atol=1e-5)
    assert calls[0] > calls[1]
    assert set(calls[1:]) == {calls[1]}
    assert plan_of(model).engine != "loop"


@pytest.mark.parametrize("engine", ENGINES)
def test_nothing_of_a_sampler_is_kept_alive_by_a_plan(engine):
    model, x, bank = counted_calls()
    captured = torch.ones(3)
    picker = lambda raw, captured=captured: raw["answer"].logits + captured  # noqa: E731
    sampler = mcbn.MCBatchNorm(model, bank, output=picker, engine=engine)
    sampler(x)
    gone = [weakref.ref(each) for each in (captured, picker, sampler, bank)]
    del captured, picker, sampler, bank
    gc.collect()
    assert [each() for each in gone] == [None] * 4


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("first", ["answer", "half"])
def test_a_plan_is_tested_on_all_that_the_network_returns(engine, first):
    """A trace leaves out the autocast, which shows in one of the tensors alone."""
    model, x, bank = counted_calls(half=True)
    pickers = {"answer": lambda raw: raw["answer"].features, "half": lambda raw: raw["half"]}
    mcbn.MCBatchNorm(model, bank, output=pickers.pop(first), engine=engine)(x)
    (second,) = pickers.values()
    loop = mcbn.MCBatchNorm(model, bank, output=second, engine="loop")
    assert_close(replace(loop, engine=engine)(x), loop(x), rtol=1e-2, atol=1e-2)


class Opaque:
    def __init__(self, logits):
        self.logits = logits


@pytest.mark.parametrize("engine", ENGINES)
def test_an_object_whose_tensors_are_not_seen_is_left_to_the_loop(engine):
    class Wrapping(nn.Sequential):
        def forward(self, x):
            logits = super().forward(x)
            return x, Opaque(logits)

    model = randomized(without_seed(lambda: Wrapping(nn.Linear(4, 5), nn.BatchNorm1d(5)))).eval()
    x = torch.randn(21, 4, generator=torch.Generator().manual_seed(0))
    bank = mcbn.collect(model, [x[:8], x[4:12]])
    loop = mcbn.MCBatchNorm(model, bank, output=lambda raw: raw[1].logits, engine="loop")
    assert_close(replace(loop, engine=engine)(x), loop(x), rtol=0, atol=0)
    assert plan_of(model).engine == "loop"


class Transposed(nn.Module):
    """Calls with names in place of places."""

    def __init__(self):
        super().__init__()
        self.up = nn.ConvTranspose2d(6, 4, 3, stride=2, groups=2)

    def forward(self, x):
        return functional.conv_transpose2d(
            input=x, weight=self.up.weight, bias=self.up.bias, stride=2, groups=2
        )


def test_multiplications_are_those_that_pytorch_counts():
    model = without_seed(lambda: nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2, groups=3), nn.BatchNorm2d(6), nn.ReLU(),
        Transposed(), nn.ConvTranspose2d(4, 2, 2), nn.Conv2d(2, 5, 3, dilation=2),
        nn.Flatten(2), nn.Conv1d(5, 3, 4), nn.Flatten(), nn.Linear(183, 7), nn.Linear(7, 2),
    )).eval()  # fmt: skip
    x = torch.zeros(3, 3, 12, 12)
    with torch.no_grad():
        model(x)
        with FlopCounterMode(display=False) as counter:
            model(x)
        with vmap.CostProbe() as probe:
            model(x)
    cost = probe.cost(model, 3)
    assert 2 * 3 * cost.multiplications == counter.get_total_flops() > 0


@pytest.mark.parametrize(
    ("examples", "values", "expected"),
    [
        (1, 300, ["batched", "loop"]),
        (7, 300, ["batched", "folded", "loop"]),
        (8, 300, ["folded", "loop"]),
        (1, vmap.IMAGE_VALUES, ["folded", "loop"]),
    ],
)
def test_draws_share_a_pass_that_is_small_and_seldom_uses_a_weight(examples, values, expected):
    """Weights are folded where activations outweigh them."""
    cost = vmap.PassCost(values, dense=False, weights=1000, multiplications=64 * 1000)
    assert list(engines._automatic(cost, examples)) == expected


def test_a_pass_of_one_draw_goes_through_the_loop_channels_last(monkeypatch):
    """Many weights and a single draw to a pass: neither folding nor `vmap` would gain anything."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
            nn.Flatten(), nn.Linear(8, 3000), nn.Linear(3000, 40),
        ).eval()  # fmt: skip
    x = torch.randn(21, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(engines, "BUSY_USES", 0)
    loop = sampler(model, x)
    actual = replace(loop, engine="auto")(x)
    assert_close(actual, loop(x), rtol=0, atol=LIMITS[torch.float32] * float(actual.abs().max()))
    assert (plan_of(model).engine, plan_of(model).layout) == ("loop", "channels last")
    layouts = []
    with torch.no_grad():
        model[0].register_forward_pre_hook(
            lambda _, given: layouts.append(given[0].is_contiguous(memory_format=LAST))
        )
        replace(loop, engine="auto")(x)
    assert sum(layouts) >= len(loop)
