"""How networks treat their inputs: found when they are first seen, and told."""

import copy
import random
import threading
import time
import warnings

import numpy as np
import pytest
import torch
from models import dense, examples, make_network, without_seed
from torch import nn
from torch.nn import functional
from torch.testing import assert_close

import mcbn
from mcbn.network import known_conducts
from mcbn.network.isolation import restored
from mcbn.network.passes import Lender

pytestmark = pytest.mark.filterwarnings("ignore::mcbn.InconsistentBankWarning")


class Forward(nn.Module):
    """A network of one batch norm whose forward is a function of it and the inputs."""

    def __init__(self, run):
        super().__init__()
        self.run, self.first, self.norm, self.last = (
            run, nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 3),
        )  # fmt: skip
        self.calls = 0

    def plain(self, x):
        return self.last(self.norm(self.first(x)).relu())

    def forward(self, x):
        return self.run(self, x)


def network(run):
    return without_seed(lambda: Forward(run)).double().eval()


def collected(net):
    return mcbn.collect(net, mcbn.minibatches(DATA, batch_size=8, draws=3), progress=False)


DATA = examples("1d of 2-D", 40)


def through_numpy(net, x):
    x.detach().numpy()[...] *= 0.5
    return net.plain(x)


def through_data(net, x):
    x.data.mul_(0.5)
    return net.plain(x)


WRITES = {
    "in place": lambda net, x: net.plain(x.mul_(0.5)),
    "a slice": lambda net, x: net.plain(torch.cat([x[:, :2].mul_(0.5), x[:, 2:]], 1)),
    "through .data": through_data,
    "through numpy": through_numpy,
    "a clamp": lambda net, x: net.plain(x.clamp_(-0.5, 0.5)),
}
SAMPLERS = {
    **{engine: lambda net, bank, engine=engine: mcbn.MCBatchNorm(net, bank, engine=engine)
       for engine in ("auto", "loop", "batched", "folded")},
    "ensemble": lambda net, bank: mcbn.DeepEnsemble([net, net]),
    "plain": lambda net, bank: mcbn.Deterministic(net),
}  # fmt: skip


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("name", WRITES)
def test_every_draw_gets_the_inputs_as_they_were(name, sampler):
    net = network(WRITES[name])
    bank, given = collected(net), DATA.clone()
    states = (
        [bank.state(t) for t in range(3)]
        if sampler in ("auto", "loop", "batched", "folded")
        else [{}]
    )
    expected = [torch.func.functional_call(net, dict(s), (DATA.clone(),)) for s in states]
    outputs = SAMPLERS[sampler](net, bank)(given)
    for actual, one in zip(outputs, expected * 3, strict=False):
        assert_close(actual, one, rtol=1e-9, atol=1e-9)
    assert torch.equal(given, DATA)


def test_a_lender_copies_only_what_was_written_to():
    x = torch.ones(3)
    lender = Lender({"x": x})
    first = lender.lend()["x"]
    assert lender.lend()["x"] is first
    first.add_(1)
    assert torch.equal(lender.lend()["x"], x)
    assert lender.lend() is not lender.lend()  # an entry that is taken out is there the next time


def count_calls(net, x):
    net.calls += 1
    return net.plain(x)


def keep(net, x):
    net.kept = x
    return net.plain(x)


def go_on(net, x):
    net.norm.running_mean.mul_(0.9)
    return net.plain(x)


def renormalize(net, x):
    with torch.no_grad():
        net.first.weight.div_(2)
    return net.plain(x)


@pytest.mark.parametrize("run", [count_calls, keep, go_on, renormalize])
def test_what_a_pass_changes_in_the_network_is_put_back(run):
    net = network(lambda net, x: net.plain(x))
    net.run = run
    state = {name: value.clone() for name, value in net.state_dict().items()}
    bank = collected(net)
    outputs = mcbn.MCBatchNorm(net, bank)(DATA)
    assert_close(mcbn.MCBatchNorm(net, bank)(DATA), outputs, rtol=0, atol=0)
    mcbn.inspect(net, DATA)
    assert net.calls == 0
    assert not hasattr(net, "kept")
    for name, value in net.state_dict().items():
        assert torch.equal(value, state[name]), name


@pytest.mark.parametrize("engine", ["auto", "folded", "batched", "loop"])
def test_a_buffer_that_a_draw_stands_for_is_put_back_too(engine):
    """Written after the layer was used, so that no draw shows it."""

    def run(net, x):
        outputs = net.plain(x)
        net.norm.running_mean.add_(0.1)
        return outputs

    net = network(run)
    state = {name: value.clone() for name, value in net.state_dict().items()}
    sampler = mcbn.MCBatchNorm(net, collected(net), engine=engine)
    assert_close(sampler(DATA), sampler(DATA), rtol=0, atol=0)
    mcbn.Deterministic(net)(DATA)
    for name, value in net.state_dict().items():
        assert torch.equal(value, state[name]), name


def test_a_block_says_what_was_changed():
    net = network(count_calls)
    with restored(net) as changed:
        net(DATA)
        net.norm.running_var.add_(1)
    assert sorted(changed) == ["calls", "norm.running_var"]


RANDOM = {
    "functional dropout": lambda net, x: functional.dropout(net.plain(x), 0.5),
    "noise": lambda net, x: net.plain(x) + torch.randn(3).to(x),
    "once in many calls": lambda net, x: net.plain(x) * (1 if torch.rand(()) < 0.999 else 2),
    "Python's stream": lambda net, x: net.plain(x) * (1 + random.random()),
    "NumPy's stream": lambda net, x: net.plain(x) * (1 + np.random.random()),  # noqa: NPY002
    "the time": lambda net, x: net.plain(x) + time.perf_counter(),
}


@pytest.mark.parametrize("name", RANDOM)
def test_randomness_in_eval_mode_is_told(name):
    net = network(RANDOM[name])
    before = torch.get_rng_state()
    with pytest.warns(UserWarning, match="outputs are random in eval mode"):
        mcbn.Deterministic(net)(DATA)
    assert torch.equal(torch.get_rng_state(), before)
    assert any("random in eval mode" in f.text for f in mcbn.inspect(net, DATA).findings)


def test_a_stream_that_another_thread_moves_is_not_the_networks():
    """As the event loop of a server does, a few times a second."""
    moves = []

    def run(net, x):
        if moves:
            other = threading.Thread(target=moves.pop())
            other.start()
            other.join()
        return net.plain(x)

    net = network(run)
    bank = collected(net)
    expected = mcbn.MCBatchNorm(net, bank)(DATA)
    net = copy.deepcopy(net)  # of which nothing is known yet
    moves, state = [random.random], random.getstate()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        actual = mcbn.MCBatchNorm(net, bank)(DATA)
    random.setstate(state)
    assert not moves
    # By the same engine, to the last bit.
    assert_close(actual, expected, rtol=0, atol=0)


def attended(y):
    return torch.softmax(y @ y.mT, 1) @ y


MIXING = {
    "centred": lambda net, x: net.plain(x - x.mean(0)),
    "the largest": lambda net, x: net.plain(x) / x.abs().max(),
    "attention": lambda net, x: attended(net.plain(x)),
    "their number": lambda net, x: net.plain(x) / len(x),
    "their order": lambda net, x: net.plain(x).sort(0).values,
}


@pytest.mark.parametrize("engine", ["auto", "batched", "folded", "loop"])
@pytest.mark.parametrize("name", MIXING)
def test_batches_of_a_network_that_mixes_examples_are_passed_whole(name, engine):
    net = network(MIXING[name])
    with pytest.warns(UserWarning, match="depends on the other examples"):
        bank = collected(net)
    expected = [torch.func.functional_call(net, bank.state(t), (DATA,)) for t in range(3)]
    with pytest.warns(UserWarning, match="depends on the other examples"):
        outputs = mcbn.MCBatchNorm(net, bank, engine=engine)(DATA)
    assert_close(outputs, torch.stack(expected), rtol=1e-9, atol=1e-9)


@pytest.mark.filterwarnings("ignore:The network's output")
def test_data_are_not_cut_for_a_network_that_mixes_examples():
    net = network(MIXING["centred"])
    sampler = mcbn.MCBatchNorm(net, collected(net))
    with pytest.raises(ValueError, match="give a DataLoader with the batches that belong together"):
        mcbn.predict(sampler, DATA, batch_size=16)
    loader = torch.utils.data.DataLoader(DATA, batch_size=16)
    predictive = mcbn.predict(sampler, loader, keep_draws=True)
    expected = torch.cat([sampler(batch) for batch in DATA.split(16)], 1)
    assert_close(predictive.draws, expected, rtol=0, atol=0)


class ByTheBatch(nn.BatchNorm1d):
    def forward(self, x):
        return functional.batch_norm(x, self.running_mean, self.running_var, training=True)


def switch_on(net, x):
    net.norm.train()
    return net.plain(x)


ON_THE_BATCH = {
    "a layer": (lambda: without_seed(lambda: dense(ByTheBatch(6))).double().eval(), "'1'"),
    "train() in forward": (lambda: network(switch_on), "'norm'"),
    "a call of its own": (
        lambda: network(
            lambda net, x: functional.batch_norm(net.plain(x), None, None, training=True)
        ),
        "training=True",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ON_THE_BATCH)
def test_batch_norm_by_the_batch_at_hand_is_refused_by_name(name):
    build, named = ON_THE_BATCH[name]
    net = build()
    state = {key: value.clone() for key, value in net.state_dict().items()}
    for call in (lambda: mcbn.Deterministic(net)(DATA), lambda: collected(net)):
        with pytest.raises(ValueError, match=f"running statistics in eval mode, got .*{named}"):
            call()
    assert any(named in f.text and f.blocking for f in mcbn.inspect(net, DATA).findings)
    assert all(torch.equal(value, state[key]) for key, value in net.state_dict().items())
    assert not any(module.training for module in net.modules())


@pytest.fixture
def passed(monkeypatch):
    """The number of examples in each pass of a network."""
    original, rows = nn.Sequential.forward, []
    monkeypatch.setattr(nn.Sequential, "forward",
                        lambda self, x: rows.append(len(x)) or original(self, x))  # fmt: skip
    return rows


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_examples_are_enough_to_remember_a_network(passed, count):
    sampler = mcbn.Deterministic(make_network("1d of 2-D").eval())
    sampler(DATA[:count])
    passed.clear()
    sampler(DATA[:count])
    assert passed == [count]


@pytest.mark.parametrize("count", [2, 3])
def test_equal_examples_say_nothing_of_a_network(passed, count):
    """One that confuses them would not have been noticed, so it is asked again."""
    sampler = mcbn.Deterministic(make_network("1d of 2-D").eval())
    sampler(DATA[:1].repeat(count, 1))
    passed.clear()
    sampler(DATA[:1].repeat(count, 1))
    assert len(passed) > 1


def test_a_network_is_tried_once_for_a_state_and_a_kind_of_inputs(passed):
    """At most twice a few examples, and nothing that grows with its use."""
    net = make_network("1d of 2-D").eval()
    sampler = mcbn.Deterministic(net)
    for _ in range(3):
        sampler(DATA)
    assert passed == [4, 40, 4, 40, 40]
    net.temperature = 2.0
    sampler(DATA)
    assert passed[5:] == [4, 40, 4]


def test_what_is_remembered_keeps_no_network_alive():
    net = network(lambda net, x: net.plain(x))
    mcbn.Deterministic(net)(DATA)
    assert len(list(known_conducts.seen(net))) == 1
    known = len(known_conducts._known)
    del net
    torch.ones(1)
    assert len(known_conducts._known) <= known


def test_a_buffer_of_nan_that_stays_so_has_not_changed():
    net = network(lambda net, x: net.plain(x))
    net.register_buffer("unknown", torch.tensor([torch.nan, 1.0]))
    with restored(net) as changes:
        net(DATA)
    assert changes == []
    with restored(net) as changes:
        net.unknown.data[0] = 0.0
    assert changes == ["unknown"]
    assert net.unknown[0].isnan()


def test_each_mini_batch_meets_the_weights_as_they_are():
    def rewrites(net, x):
        with torch.no_grad():
            net.first.weight.mul_(1.5)
        return net.plain(x)

    net = network(rewrites)
    before = net.first.weight.detach().clone()
    batches = [DATA[:8], DATA[8:16], DATA[16:24]]
    bank = mcbn.collect(net, batches, limit=None, progress=False)
    assert_close(net.first.weight.detach(), before, rtol=0, atol=0)
    for batch, variance in zip(batches, bank.statistics["norm.running_var"], strict=True):
        hidden = functional.linear(batch, 1.5 * before, net.first.bias)
        assert_close(variance.double(), hidden.var(0, correction=0), rtol=1e-5, atol=0)
