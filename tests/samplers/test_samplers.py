"""Laws that every sampler obeys: each is tested by being listed."""

import copy
import subprocess
import sys
import threading
from dataclasses import replace

import pytest
import torch
from models import examples, make_network
from posteriors import LastLayerPosterior, Posterior
from snapshots import assert_same, snapshot
from torch import nn
from torch.testing import assert_close

import mcbn

pytestmark = pytest.mark.filterwarnings("ignore::mcbn.InconsistentBankWarning")
NAME = "1d of 2-D"


def mc_batch_norm(model):
    batches = mcbn.minibatches(examples(NAME, 60), batch_size=8, draws=5)
    return mcbn.MCBatchNorm(model, mcbn.collect(model, batches))


def rescaled(model):
    sampler = mc_batch_norm(model)
    return mcbn.MCBatchNorm(model, sampler.bank.rescale(batch_size=3.5))


def mc_dropout(model):
    return mcbn.MCDropout(model, draws=5, seed=2)


def deep_ensemble(model):
    other = copy.deepcopy(model)
    with torch.no_grad():
        other[0].weight.mul_(1.1)
    return mcbn.DeepEnsemble([model, other])


def last_layer(model):
    return mcbn.MCBatchNorm(model, mc_batch_norm(model).bank, layers=1)


def dropout_put_in(model):
    """Into the layers of the network without its dropout, which are hooked where they are."""
    kept = [layer for layer in model if not isinstance(layer, nn.Dropout)]
    return mcbn.MCDropout(nn.Sequential(*kept), draws=5, seed=2, insert=0.3, at=["1", "5"])


def noisy(example):
    return example * (1 + 0.1 * torch.rand((), dtype=torch.float64))


def augmented(model):
    return mcbn.Augmented(mc_batch_norm(model), noisy, seed=2)


def augmented_at_once(model):
    return mcbn.Augmented(model, mcbn.RandomShift((1,), "circular"), draws=5, seed=2)


def last_layer_laplace(model):
    data = examples(NAME, 60), torch.arange(60) % 3
    return mcbn.LastLayerLaplace.fit(model, *data, draws=5, seed=2)


def laplace_torch(model):
    return mcbn.LaplaceSampler(Posterior(model), draws=5, seed=2)


def laplace_torch_last_layer(model):
    own = copy.deepcopy(model)  # as laplace-torch makes, for its hook
    return mcbn.LaplaceSampler(LastLayerPosterior(own, own[-1]), draws=5)


SAMPLERS = {
    "Augmented": augmented,
    "Augmented at once": augmented_at_once,
    "MCBatchNorm": mc_batch_norm,
    "MCBatchNorm last layer": last_layer,
    "MCBatchNorm rescaled": rescaled,
    "MCDropout": mc_dropout,
    "MCDropout put in": dropout_put_in,
    "DeepEnsemble": deep_ensemble,
    "Deterministic": mcbn.Deterministic,
    "LaplaceSampler": laplace_torch,
    "LaplaceSampler last layer": laplace_torch_last_layer,
    "LastLayerLaplace": last_layer_laplace,
}


@pytest.fixture(params=SAMPLERS)
def kind(request):
    return request.param


@pytest.fixture
def model():
    return make_network(NAME)


@pytest.fixture
def x():
    return examples(NAME, 11, seed=8)


def test_axes_are_draws_then_batch(kind, model, x):
    sampler = SAMPLERS[kind](model)
    assert sampler(x).shape == (len(sampler), 11, 3)


def test_passes_yield_the_draws_of_the_call(kind, model, x):
    sampler = SAMPLERS[kind](model)
    assert_close(torch.stack(list(sampler.passes(x))), sampler(x), rtol=0, atol=0)


def test_two_calls_return_the_same(kind, model, x):
    sampler = SAMPLERS[kind](model)
    assert_close(sampler(x), sampler(x), rtol=0, atol=0)


def test_an_example_does_not_depend_on_its_neighbours_or_order(kind, model, x):
    sampler = SAMPLERS[kind](model)
    whole = sampler(x)
    order = torch.arange(10, -1, -1)
    assert_close(sampler(x[order])[:, order], whole, rtol=1e-12, atol=1e-12)
    pieces = torch.cat([sampler(part) for part in x.split(4)], dim=1)
    assert_close(pieces, whole, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("training", [False, True])
def test_the_model_is_left_unchanged(kind, model, x, training):
    model.train(training)
    before = snapshot(model)
    sampler = SAMPLERS[kind](model)
    sampler(x)
    next(iter(sampler.passes(x)))
    with pytest.raises(RuntimeError):
        sampler(torch.zeros(2, 9, dtype=torch.float64))
    assert_same(before, snapshot(model))


def test_the_mode_of_the_network_does_not_matter(kind, model, x):
    sampler = SAMPLERS[kind](model)
    expected = sampler(x)
    model.train()
    assert_close(sampler(x), expected, rtol=0, atol=0)


def test_gradients_flow_to_inputs_that_require_them(kind, model, x):
    sampler = SAMPLERS[kind](model)
    assert not sampler(x).requires_grad
    wanted = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(sampler(wanted).sum(), wanted)
    assert gradient.abs().max() > 0
    with torch.no_grad():
        assert not sampler(wanted).requires_grad


def test_inputs_that_are_not_finite_are_refused(kind, model, x):
    x[3, 1] = float("inf")
    with pytest.raises(ValueError, match=r"first at index \(3, 1\)"):
        SAMPLERS[kind](model)(x)


def test_weights_that_are_not_finite_are_refused(kind, model):
    sampler = SAMPLERS[kind]
    with torch.no_grad():
        model[0].bias[0] = float("nan")
    with pytest.raises(ValueError, match=r"0\.bias"):
        sampler(model)


def test_outputs_that_are_not_a_tensor_need_a_function_that_picks_one(kind, x):
    class Answers(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = make_network(NAME)

        def forward(self, inputs):
            return {"logits": self.net(inputs), "other": 1}

    builders = {
        "MCBatchNorm": lambda m, **o: mcbn.MCBatchNorm(
            m, mcbn.collect(m, [examples(NAME, 8)]), **o
        ),
        "MCDropout": lambda m, **o: mcbn.MCDropout(m, draws=2, **o),
        "DeepEnsemble": lambda m, **o: mcbn.DeepEnsemble([m], **o),
        "Deterministic": mcbn.Deterministic,
        "LastLayerLaplace": lambda m, **o: mcbn.LastLayerLaplace.fit(
            m, examples(NAME, 8), torch.arange(8) % 3, layer="net.6", draws=2, **o
        ),
        "LaplaceSampler": lambda m, **o: mcbn.LaplaceSampler(Posterior(m), draws=2, **o),
    }
    if kind not in builders:
        pytest.skip("the output is picked by the same class as in another case, or by the sampler")
    with pytest.raises(TypeError, match=r"keys \['logits', 'other'\]"):
        builders[kind](Answers())(x)
    picked = builders[kind](Answers(), output=lambda answer: answer["logits"])
    assert picked(x).shape[1:] == (11, 3)


def test_eight_threads_get_the_serial_answer(kind, model, x):
    model.train()
    sampler = SAMPLERS[kind](model)
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
    assert model.training


def test_the_ensemble_of_one_is_the_plain_network(model, x):
    expected = model.eval()(x).detach()
    assert_close(mcbn.Deterministic(model)(x)[0], expected, rtol=0, atol=0)
    assert_close(mcbn.DeepEnsemble([model])(x)[0], expected, rtol=0, atol=0)


DROPOUTS = {
    "Dropout": (nn.Dropout, (2, 3)),
    "Dropout1d": (nn.Dropout1d, (2, 3)),
    "Dropout2d": (nn.Dropout2d, (2, 3, 3)),
    "Dropout3d": (nn.Dropout3d, (2, 2, 2, 2)),
    "AlphaDropout": (nn.AlphaDropout, (2, 3)),
    "FeatureAlphaDropout": (nn.FeatureAlphaDropout, (2, 3, 3)),
    "in place": (lambda p: nn.Dropout(p, inplace=True), (2, 3)),
}


@pytest.mark.unchecked
@pytest.mark.parametrize("name", DROPOUTS)
def test_every_dropout_has_the_distribution_of_its_train_mode(name):
    """Means, second moments and the values themselves; 5 standard errors, fixed seeds."""
    build, shape = DROPOUTS[name]
    layer = build(0.3)
    x = torch.ones(1, *shape, dtype=torch.float64) * 2
    sampled = mcbn.MCDropout(layer, draws=3000)(x)[:, 0]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        trained = layer.train()(torch.ones(3000, *shape, dtype=torch.float64) * 2)
    assert_close(sampled.unique(), trained.unique(), rtol=1e-6, atol=1e-6)
    error = 5 * (2 / 3000) ** 0.5 * trained.std().item()
    assert (sampled.mean(0) - trained.mean(0)).abs().max().item() < error
    # Whole channels fall together, or each unit alone.
    together = sampled[:, 0] == sampled[:, 0].flatten(1)[:, :1].reshape(-1, *[1] * (len(shape) - 1))
    reference = trained[:, 0] == trained[:, 0].flatten(1)[:, :1].reshape(
        -1, *[1] * (len(shape) - 1)
    )
    assert abs(together.double().mean() - reference.double().mean()).item() < 0.05


def test_a_dropout_layer_called_twice_gets_two_masks():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.drop = nn.Dropout(0.5)

        def forward(self, x):
            return torch.stack([self.drop(x), self.drop(x)], 1)

    actual = mcbn.MCDropout(Twice(), draws=4)(torch.ones(1, 64))
    assert (actual[:, :, 0] != actual[:, :, 1]).any()


def test_dropout_draws_are_those_of_a_shorter_run(model, x):
    long, short = mcbn.MCDropout(model, draws=6)(x), mcbn.MCDropout(model, draws=2)(x)
    assert_close(long[:2], short, rtol=0, atol=0)
    assert (long[0] != long[1]).any()


@pytest.mark.parametrize("network", [nn.Linear(4, 3), nn.Sequential(nn.Dropout(0.0))])
def test_a_network_without_dropout_is_refused(network):
    with pytest.raises(ValueError, match="functional dropout"):
        mcbn.MCDropout(network)


def test_no_draws_and_no_networks_are_refused(model):
    with pytest.raises(ValueError, match="at least 1 draw"):
        mcbn.MCDropout(model, draws=0)
    with pytest.raises(ValueError, match="at least one network"):
        mcbn.DeepEnsemble([])


ISOLATION = """
import random, sys, numpy as np, torch
import mcbn
assert "torchvision" not in sys.modules, "import mcbn must not import torchvision"
assert "matplotlib.pyplot" not in sys.modules
model = torch.nn.Sequential(torch.nn.BatchNorm1d(3), torch.nn.Dropout(0.5))
def state():
    streams = torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()
    return streams, torch.cuda.is_initialized(), torch.get_num_threads()
before = state()
data = torch.utils.data.TensorDataset(torch.rand(40, 3, generator=torch.Generator()))
loader = torch.utils.data.DataLoader(data, batch_size=8, shuffle=True)
import warnings; warnings.simplefilter("ignore")
bank = mcbn.collect(model, loader, draws=7)
mcbn.collect(model, mcbn.minibatches(data, batch_size=8, draws=3))
for sampler in (mcbn.MCBatchNorm(model, bank), mcbn.MCDropout(model)):
    actual = mcbn.predict(sampler, data)
    mcbn.evaluate(actual, torch.arange(40) % 3, resamples=3)
assert state() == before, "a global random stream was moved"
"""


@pytest.mark.unchecked
def test_a_whole_run_leaves_every_global_stream_and_needs_no_torchvision():
    done = subprocess.run([sys.executable, "-c", ISOLATION], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_copies_of_a_sampler_do_not_disturb_each_other(kind, model, x):
    """Copying a wrapped model, or wrapping a second one, must not disturb the first."""
    sampler = SAMPLERS[kind](model)
    expected = sampler(x)
    twin = copy.deepcopy(sampler)
    SAMPLERS[kind](make_network("1d of 2-D"))
    assert_close(twin(x), expected, rtol=0, atol=0)
    assert_close(sampler(x), expected, rtol=0, atol=0)


def test_layers_that_are_left_out_keep_their_running_statistics(model, x):
    bank = mc_batch_norm(model).bank
    names = list(bank.statistics)
    for layers, drawn in ((1, names[2:]), (["1"], names[:2]), ("5", names[2:]), (2, names)):
        statistics = {
            name: rows if name in drawn else bank.trained[name].expand(len(bank), -1)
            for name, rows in bank.statistics.items()
        }
        expected = mcbn.MCBatchNorm(model, replace(bank, statistics=statistics), engine="loop")(x)
        actual = mcbn.MCBatchNorm(model, bank, layers=layers)(x)
        assert_close(actual, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("layers", [0, 3, ["1", "nowhere"], []])
def test_layers_that_are_not_there_are_refused(model, layers):
    with pytest.raises(
        ValueError, match=r"expected (a number of last layers from 1 to 2|batch-norm layers among)"
    ):
        mcbn.MCBatchNorm(model, mc_batch_norm(model).bank, layers=layers)
