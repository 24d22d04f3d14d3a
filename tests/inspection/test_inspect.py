"""Inspecting a network: every kind of layer, its noise, problems and notes."""

import copy
import json

import pytest
import timm
import torch
import torchvision
from graphs import Batch, Classifier, graphs
from models import (
    CASES,
    Act,
    Frozen,
    dense,
    examples,
    make_network,
    randomized,
    train_mode_output,
    without_seed,
)
from torch import nn
from torch.testing import assert_close

import mcbn
from mcbn.inspection.noise import observe, relative_spread


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def texts(inspection, *, blocking=None):
    chosen = [f for f in inspection.findings if blocking in (None, f.blocking)]
    return " | ".join(finding.text for finding in chosen)


# The estimator, on values whose spread is known.

CHANNELS = 4000


@pytest.mark.parametrize("count", [4, 8, 32])
@pytest.mark.parametrize(("positions", "constant"), [(1, False), (5, True), (50, False)])
def test_independent_positions_count_each_and_constant_ones_once(count, positions, constant):
    values = normal(count, CHANNELS, 1 if constant else positions)
    values = 3.0 + 2.0 * values.expand(-1, -1, positions)
    of_mean, of_log_variance = relative_spread(values)
    effective = 1 if constant else positions
    # A ratio's relative spread over channels is at most sqrt(2 / (B - 1)) for the mean and, as
    # measured, 2 for the log-variance; the neglected second order in 1/P is below 1/P.
    error = 4 * (2 / (count - 1) / CHANNELS) ** 0.5 + (1 / positions if effective > 1 else 0)
    assert_close(of_mean * effective, 1.0, rtol=error, atol=0)
    error = 4 * 2 / CHANNELS**0.5 + (1 / positions if effective > 1 else 0)
    assert_close(of_log_variance * effective, 2.0, rtol=error, atol=0)


def test_half_correlated_positions_lie_between():
    values = normal(64, CHANNELS, 1) + normal(64, CHANNELS, 10, seed=1)
    # Half the variance is the example's own, half is averaged over 10 positions.
    assert_close(relative_spread(values)[0], 0.5 + 0.5 / 10, rtol=0.02, atol=0)


def test_the_spread_of_the_log_variance_depends_on_kurtosis():
    uniform = torch.rand(256, 4000, 1, generator=torch.Generator().manual_seed(0)).double()
    # Excess kurtosis -1.2; 256 examples give each of the moments to about 1 / 256.
    assert_close(relative_spread(uniform)[1], 0.8, rtol=0.03, atol=0)


def test_a_pattern_that_all_examples_share_is_not_noise():
    pattern = torch.linspace(-5, 5, 40, dtype=torch.float64)
    of_mean, _ = relative_spread(pattern + 0.1 * normal(16, 50, 40))
    assert of_mean < 0.1**2 / 40 / pattern.var(correction=0) * 2


def test_units_and_dead_channels_do_not_matter():
    values = normal(8, 6, 5)
    scaled = torch.cat([values * 100 - 7, torch.full((8, 1, 5), 3.0, dtype=torch.float64)], 1)
    assert_close(relative_spread(scaled), relative_spread(values), rtol=1e-10, atol=0)
    assert relative_spread(torch.ones(8, 3, 4)) is None


def convolutional():
    return nn.Sequential(nn.Conv2d(2, 40, 3), nn.BatchNorm2d(40), nn.ReLU(), nn.Conv2d(40, 40, 1),
                         nn.BatchNorm2d(40))  # fmt: skip


@pytest.mark.filterwarnings("ignore::mcbn.InconsistentBankWarning")
def test_the_noise_is_that_of_the_draws_of_a_bank():
    model = randomized(without_seed(convolutional)).double().eval()
    # Each example has a level of its own, so that its positions are correlated.
    data = normal(4000, 2, 6, 6) + normal(4000, 2, 1, 1, seed=1)
    observation = mcbn.inspect(model, data[:400], batch_size=32).observation
    bank = mcbn.collect(model, mcbn.minibatches(data, batch_size=32, draws=300, replacement=True))
    assert observation.drawn
    for name in ("1", "4"):
        mean, variance = f"{name}.running_mean", f"{name}.running_var"
        pooled = bank.pooled()[variance]
        drawn = (bank.statistics[mean].var(0) / pooled).mean().sqrt()
        logs = bank.coordinates()[variance].var(0).mean().sqrt()
        # 50 mini-batches of 8 estimate a standard deviation to 10%; mini-batches of 8 and 32 differ
        # in the next order of 1 / M, and channels are correlated.
        assert_close(observation.noise[name].mean_sd, float(drawn), rtol=0.2, atol=0)
        assert_close(observation.noise[name].log_variance_sd, float(logs), rtol=0.25, atol=0)
    from_spread = mcbn.inspect(model, data[:15], batch_size=32).observation
    assert not from_spread.drawn
    expected = observation.noise["1"].mean_sd
    assert from_spread.noise["1"].mean_sd == pytest.approx(expected, rel=0.4)


# Layers, problems and notes.


@pytest.mark.parametrize("name", CASES)
def test_every_kind_of_batch_norm_is_listed_as_collect_draws_it(name):
    model, batch = make_network(name), examples(name, 16)
    inspection = mcbn.inspect(model, batch, batch_size=16)
    bank = mcbn.collect(model, [batch])
    assert inspection.servable, texts(inspection)
    assert [layer.name for layer in inspection.layers] == [
        key.removesuffix("running_mean").removesuffix(".")
        for key in bank.statistics
        if key.endswith("running_mean")
    ]
    assert all(inspection.observation.calls[layer.name] == 1 for layer in inspection.layers)
    assert sum(inspection.shares.values()) == pytest.approx(1)
    assert json.loads(json.dumps(inspection.to_dict(), allow_nan=False))["servable"] is True


def test_values_are_examples_times_positions():
    model = make_network("2d")
    inspection = mcbn.inspect(model, examples("2d", 1), batch_size=7)
    assert inspection.observation.values == {"first": 7 * 30, "second": 7 * 30}
    assert inspection.observation.noise == {}
    assert "noise needs 4 examples" in str(inspection)


def test_graphs_are_inspected_without_their_noise():
    model = randomized(without_seed(Classifier)).eval()
    inspection = mcbn.inspect(model, Batch.from_data_list(graphs(12)), batch_size=4)
    assert inspection.servable
    assert "noise not known for these inputs" in str(inspection)


def test_several_rows_of_one_example_are_not_independent():
    class Clips(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm1d(3)

        def forward(self, clips):
            return self.norm(clips.flatten(0, 1))

    levels = normal(12, 1, 3).expand(-1, 5, -1)
    seen = observe(Clips().double().eval(), {"norm": (model := Clips().double().eval()).norm},
                   levels, batch_size=10)  # fmt: skip
    assert seen.calls == {"norm": 0}
    seen = mcbn.inspect(model, levels, batch_size=10).observation
    assert seen.values == {"norm": 50}
    assert_close(seen.noise["norm"].independent, 10.0, rtol=1e-6, atol=0)


def twice():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.spare = nn.BatchNorm1d(4), nn.BatchNorm1d(4)

        def forward(self, x):
            return self.norm(self.norm(x))

    return Twice()


class Evo(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("running_var", torch.ones(3))


def with_weight(value):
    model = dense(nn.BatchNorm1d(6))
    with torch.no_grad():
        model[4].weight[2, 1] = value
    return model


def folded():
    model = nn.Sequential()
    model.conv, model.bn1 = nn.Conv2d(3, 4, 3), nn.Identity()
    return model


def lightning():
    model = nn.Module()
    model.net, model.loss = dense(nn.BatchNorm1d(6)), nn.CrossEntropyLoss()
    model.training_step = lambda batch: None
    return model


X = normal(20, 4).float()
INCOMPATIBLE = {
    "no batch norm": (lambda: nn.Linear(4, 3), None, "never there"),
    "folded, names left": (folded, None, "(the first 'bn1'), so it was folded"),
    "folded or never there": (lambda: nn.Conv2d(3, 4, 3), None, "every convolution (1) has a bias"),
    "layer norm only": (lambda: nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3)), None,
                        "no batch norm"),
    "no statistics": (lambda: dense(nn.BatchNorm1d(6, track_running_stats=False)), X,
                      "track_running_stats=False"),
    "lazy": (lambda: dense(nn.LazyBatchNorm1d()), None, "lazy layer '1'"),
    "fused": (lambda: torch.ao.nn.intrinsic.ConvReLU2d(nn.Conv2d(3, 4, 3), nn.ReLU()), None,
              "fused"),
    "quantised": (lambda: torch.ao.nn.quantized.BatchNorm2d(4), None, "quantisation-aware"),
    "script": (lambda: torch.jit.script(dense(nn.BatchNorm1d(6))), X, "is TorchScript"),
    "script inside": (lambda: nn.Sequential(torch.jit.script(nn.BatchNorm1d(4))), X,
                      "TorchScript layer '0'"),
    "called twice": (twice, X, "'norm' is called 2 times"),
    "not called": (lambda: nn.Sequential(nn.Identity(), nn.Linear(4, 2)).append(Unused()), X,
                   "not called"),
    "one value": (lambda: dense(nn.BatchNorm1d(6)), X, "one value per channel at M = 1"),
    "not finite": (lambda: with_weight(float("nan")), None, r"4.weight"),
    "wrong inputs": (lambda: dense(nn.BatchNorm1d(6)), X[:, :3], "RuntimeError"),
}  # fmt: skip


class Unused(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(2)

    def forward(self, x):
        return x


@pytest.mark.parametrize("kind", INCOMPATIBLE)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_an_incompatible_network_is_explained_and_refused_by_collect(kind):
    build, inputs, reason = INCOMPATIBLE[kind]
    model = without_seed(build)
    inspection = mcbn.inspect(model, inputs, batch_size=1 if kind == "one value" else 4)
    assert not inspection.servable
    assert reason in texts(inspection, blocking=True)
    assert "problem: " in str(inspection)
    json.dumps(inspection.to_dict(), allow_nan=False)
    batches = 4 * [X[:1] if kind == "one value" else X if inputs is None else inputs]
    with pytest.raises((ValueError, TypeError, RuntimeError)):  # noqa: PT012
        bank = mcbn.collect(model, batches)
        mcbn.MCBatchNorm(model, bank)(batches[0])


NOTES = {
    "frozen": (lambda: Frozen.pair("torchvision")[0], None, "not trained with the spread"),
    "momentum": (lambda: randomized(dense(nn.BatchNorm1d(6, momentum=None))), None,
                 "momentum=None"),
    "untrained": (lambda: dense(nn.BatchNorm1d(6)), None, "never trained"),
    "half": (lambda: randomized(dense(nn.BatchNorm1d(6))).half(), None, "half precision"),
    "meta": (lambda: dense(nn.BatchNorm1d(6)).to("meta"), None, "meta device"),
    "M = 1": (lambda: randomized(dense(nn.BatchNorm1d(6))), None, "Use M of at least 2"),
    "early": (lambda: nn.Sequential(nn.BatchNorm1d(4), *(nn.Linear(4, 4) for _ in range(3))), X,
              "3 of 3 layers with weights"),
    "one not called": (lambda: nn.Sequential(nn.BatchNorm1d(4), Unused()), X, "nothing is drawn"),
    "compiled": (lambda: torch.compile(dense(nn.BatchNorm1d(6)), backend="eager"), None,
                 "OptimizedModule wraps a Sequential"),
    "data parallel": (lambda: nn.DataParallel(dense(nn.BatchNorm1d(6))), X,
                      "DataParallel wraps a Sequential"),
    "lightning": (lightning, None, "give model.net"),
}  # fmt: skip


@pytest.mark.parametrize("kind", NOTES)
def test_a_network_with_a_note_is_compatible(kind):
    build, inputs, reason = NOTES[kind]
    inspection = mcbn.inspect(without_seed(build), inputs, batch_size=1 if kind == "M = 1" else 32)
    assert reason in texts(inspection, blocking=False)
    assert inspection.servable, texts(inspection)


def test_a_trained_network_without_problems_has_no_findings():
    assert mcbn.inspect(make_network("1d of 2-D"), examples("1d of 2-D", 32)).findings == ()


def test_dead_channels_are_counted():
    model = make_network("1d of 2-D")
    model[1].running_var[:2] = 1e-9
    assert "2 dead channels in 1 layer" in texts(mcbn.inspect(model))


PATTERN = torch.arange(400.0).double().reshape(1, 1, 20, 20) / 100


def test_noise_falls_as_one_over_m_and_a_note_says_where_it_is_too_small():
    model, batch = make_network("1d of 2-D"), examples("1d of 2-D", 32)
    small, large = (mcbn.inspect(model, batch, batch_size=size) for size in (10, 10**6))
    for name, noise in small.observation.noise.items():
        assert_close(noise.variance / large.observation.noise[name].variance, 1e5)
    assert "nearly equal" not in texts(small)
    assert "nearly equal" in texts(large)
    assert "no M is small enough" in texts(
        mcbn.inspect(nn.BatchNorm2d(1).double(), 100 * PATTERN + normal(16, 1, 20, 20))
    )
    advised = int(texts(large).split("M of at most ")[1].split(".")[0])
    at_most, above = (mcbn.inspect(model, batch, batch_size=m) for m in (advised, advised + 1))
    assert "nearly equal" not in texts(at_most)
    assert "nearly equal" in texts(above)


def test_layers_that_are_not_drawn_have_a_reason():
    model = nn.Sequential(nn.InstanceNorm1d(4, track_running_stats=True), nn.GroupNorm(2, 4), Evo(),
                          timm.layers.LayerNorm2d(4), nn.BatchNorm1d(4))  # fmt: skip
    inspection = mcbn.inspect(model)
    assert [(layer.name, layer.refused) for layer in inspection.skipped] == [
        (str(index), False) for index in range(4)
    ]
    assert inspection.skipped[2].reason.startswith("has only running_var")
    assert "1 GroupNorm (the first is '1')" in str(inspection)


def test_a_subclass_differs_from_a_plain_layer_and_dropout_is_listed():
    inspection = mcbn.inspect(
        nn.Sequential(Act(4), nn.BatchNorm2d(4), nn.Dropout(0.25), nn.Dropout(0))
    )
    assert [layer.plain for layer in inspection.layers] == [False, True]
    assert inspection.dropout == {"2": 0.25}
    assert "own forward" in str(inspection)
    assert "dropout: 1 of rate 0.25" in str(inspection)


@pytest.mark.parametrize("name", ["resnet18", "vgg11_bn", "swin_t", "efficientnet_b0"])
def test_networks_of_torchvision_are_inspected_without_their_weights(name):
    with torch.device("meta"):
        model = torchvision.models.get_model(name, weights=None)
    inspection = mcbn.inspect(model, torch.empty(2, 3, 64, 64, device="meta"))
    count = sum(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    assert (len(inspection.layers), inspection.servable) == (count, count > 0)
    assert max(map(len, str(inspection).splitlines())) <= 100
    if name == "resnet18":
        assert inspection.observation.values["bn1"] == 32 * 32 * 32
        assert inspection.observation.values["layer4.1.bn2"] == 32 * 2 * 2


def different_layers():
    """Two layers that have nothing in common, one with a long name."""
    model = nn.Sequential()
    name = "a_very_long_name_of_a_part_of_a_network_that_somebody_wrote"
    model.add_module(name, dense(nn.BatchNorm1d(6, eps=0.3, affine=False)))
    model.add_module("b", nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4, momentum=None)))
    return model


def test_the_widest_table_is_at_most_100_characters_wide():
    model = randomized(without_seed(different_layers))
    lines = str(mcbn.inspect(model, X)).splitlines()
    assert max(map(len, lines)) <= 100
    assert any(line.startswith("..") and "somebody_wrote.1" in line for line in lines)


# Side effects.


def test_the_network_is_left_unchanged():
    model = make_network("1d of 2-D").train()
    model[3].eval()
    twin, modes = copy.deepcopy(model), [m.training for m in model.modules()]
    batch = examples("1d of 2-D", 32)
    expected = train_mode_output(model, batch)
    mcbn.inspect(model, batch)
    assert [m.training for m in model.modules()] == modes
    assert_close(dict(model.state_dict()), dict(twin.state_dict()), rtol=0, atol=0)
    assert not any(m._forward_pre_hooks or "forward" in m.__dict__ for m in model.modules())
    assert_close(train_mode_output(model, batch), expected, rtol=0, atol=0)


@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_lazy_layers_stay_lazy():
    model = without_seed(lambda: nn.Sequential(nn.LazyLinear(6), nn.BatchNorm1d(6)))
    inspection = mcbn.inspect(model, X)
    assert isinstance(model[0].weight, nn.UninitializedParameter)
    assert inspection.observation is None
    assert "no pass was made" in texts(inspection)


def test_a_network_that_fails_is_left_unchanged():
    model = make_network("1d of 2-D").train()
    inspection = mcbn.inspect(model, examples("2d", 8))
    assert inspection.observation.failure
    assert model.training
    assert not any(m._forward_pre_hooks for m in model.modules())


def test_random_numbers_of_a_network_do_not_move_the_users_stream():
    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm1d(4)

        def forward(self, x):
            return self.norm(x + torch.rand_like(x))

    model = Noisy()
    first, second = (mcbn.inspect(model, X).to_dict() for _ in range(2))
    assert first == second


@pytest.mark.parametrize(
    ("model", "inputs", "size", "error"),
    [
        ("resnet18", None, 32, TypeError),
        (nn.BatchNorm1d(4), ["a"], 32, TypeError),
        (nn.BatchNorm1d(4), X, 0, ValueError),
        (nn.BatchNorm1d(4), X * float("nan"), 8, ValueError),
        (nn.BatchNorm1d(4), torch.tensor(1.0), 8, ValueError),
    ],
)
def test_arguments_that_are_not_a_network_or_a_batch_are_refused(model, inputs, size, error):
    with pytest.raises(error, match=r"(?i)expected"):
        mcbn.inspect(model, inputs, batch_size=size)


@pytest.mark.parametrize(
    ("last", "remedy"),
    [(nn.Softmax(1), mcbn.Categorical("probabilities")),
     (nn.Sigmoid(), mcbn.Bernoulli("probabilities"))],
)  # fmt: skip
def test_a_note_on_probabilities_names_the_likelihood_that_takes_them(last, remedy):
    model = nn.Sequential(make_network("1d of 2-D"), last).eval()
    inputs = examples("1d of 2-D", 64)
    said = texts(mcbn.inspect(model, inputs), blocking=False)
    assert f'likelihood=mcbn.{type(remedy).__name__}(outputs="probabilities")' in said
    predictive = mcbn.predict(mcbn.Deterministic(model), inputs, remedy)
    with torch.no_grad():
        assert_close(predictive.probabilities, model(inputs).double(), rtol=1e-5, atol=1e-6)
