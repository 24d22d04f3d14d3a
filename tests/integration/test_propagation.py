"""Perturbations passed on by the experiment's rules against derivatives; its table in the docs."""

import importlib
import json
import re
from pathlib import Path

import pytest
import torch
from scipy import integrate, stats
from torch import fx, nn

import mcbn
from mcbn.tasks.networks import convnet, resnet20

ROOT = Path(__file__).parents[2]
DRAWS = 12
# The running statistics are random numbers.
pytestmark = pytest.mark.filterwarnings("ignore::mcbn.bank.consistency.InconsistentBankWarning")


@pytest.fixture
def rules(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module("experiments.cost.propagation_rules")


def drawn(network, *shape):
    """The network in eval mode with weights and statistics of no special value, a bank, inputs."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in [*network.parameters(), *network.buffers()]:
            if value.is_floating_point():
                value.copy_(torch.rand(value.shape, generator=generator) - 0.4)
        for name, value in network.named_buffers():
            if name.endswith("running_var"):
                value.abs_().add_(0.5)
    network.eval()
    batches = torch.randn(DRAWS, 6, *shape, generator=generator).unbind()
    bank = mcbn.collect(network, batches, limit=None, progress=False)
    return network, bank, torch.randn(5, *shape, generator=generator)


@pytest.fixture(params=["pooled", "residual", "dense"])
def network(request):
    """Each kind of network that the experiment walks."""
    with torch.random.fork_rng():
        if request.param == "pooled":
            return drawn(convnet(2, 3, width=3, dropout=0.0), 2, 9, 8)
        if request.param == "residual":
            return drawn(resnet20(3), 3, 8, 8)
        layers = [nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU()]
        layers += [nn.Linear(5, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3)]
        return drawn(nn.Sequential(*layers), 4)


def linear_draws(model, bank, inputs):
    """Deviations of all draws to first order, by the package's own sampler."""
    rows = mcbn.LinearizedBatchNorm(model, bank, exact=0)(inputs)
    return rows - rows.mean(0)


def head(model):
    return [each for each in model.modules() if isinstance(each, nn.Linear)][-1]


@torch.no_grad()
def test_tangents_along_all_deviations_are_the_linear_draws(rules, network):
    model, bank, inputs = network
    spread = rules.spreads(bank)
    features = rules.walk(fx.symbolic_trace(model), inputs, rules.Tangents(spread))
    moved = features.change.unflatten(0, (DRAWS, -1)) @ head(model).weight.T
    expected = linear_draws(model, bank, inputs) / DRAWS**0.5
    scale = expected.abs().max()
    torch.testing.assert_close(moved / scale, expected / scale, rtol=0, atol=1e-4)
    center = torch.func.functional_call(model, rules.state_at(model, spread), (inputs,))
    torch.testing.assert_close(head(model)(features.value), center, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_one_gradient_has_the_variance_of_the_linear_draws(rules, network):
    model, bank, inputs = network
    outputs, steps = rules.gradients(
        model, rules.spreads(bank), lambda z: z[:, 0] - 2 * z[:, 2], inputs
    )
    expected = linear_draws(model, bank, inputs) @ torch.tensor([1.0, 0.0, -2.0])
    scale = expected.abs().max()
    torch.testing.assert_close(steps.T / scale, expected / DRAWS**0.5 / scale, rtol=0, atol=1e-4)
    assert outputs.shape == (5, 3)
    assert not any(each._forward_pre_hooks for each in model.modules())


@torch.no_grad()
def test_mixed_deviations_are_combinations_of_tangents(rules, network):
    model, bank, inputs = network
    weights = torch.tensor([[1.0, -2.0] + [0.0] * (DRAWS - 2)])
    mixed = {name: each.mixed(weights) for name, each in rules.spreads(bank).items()}
    features = rules.walk(fx.symbolic_trace(model), inputs, rules.Tangents(mixed))
    draws = linear_draws(model, bank, inputs) / DRAWS**0.5
    scale = draws.abs().max()
    expected = (draws[0] - 2 * draws[1]) / scale
    moved = features.change @ head(model).weight.T / scale
    torch.testing.assert_close(moved, expected, rtol=0, atol=1e-4)


@torch.no_grad()
def test_variances_are_exact_in_a_network_of_one_layer_with_independent_channels(rules):
    """Oracle: finite differences in the statistics of each channel, weighted by its covariance."""
    with torch.random.fork_rng():
        layers = [nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3)]
        model, bank, inputs = drawn(nn.Sequential(*layers), 4)
    model, inputs = model.double(), inputs.double()
    spread = rules.spreads(bank)
    found = rules.walk(fx.symbolic_trace(model.float()), inputs.float(), rules.Variances(spread))
    variances = rules.Variances(spread).mix(head(model), found).change
    model, of, step = model.double(), spread["1"], 1e-5
    expected = torch.zeros(5, 3, dtype=torch.float64)

    def outputs(mean, log):
        state = {"1.running_mean": mean, "1.running_var": log.exp() - 1e-5}
        return torch.func.functional_call(model, state, (inputs,))

    mean, log = of.mean.double(), of.log.double()
    for unit in torch.eye(5, dtype=torch.float64) * step:
        by_mean = outputs(mean + unit, log) - outputs(mean - unit, log)
        by_log = outputs(mean, log + unit) - outputs(mean, log - unit)
        channel = int(unit.argmax())
        for m, v in zip(of.mean_deviations[:, channel], of.log_deviations[:, channel], strict=True):
            expected += ((by_mean * m + by_log * v) / (2 * step)).square()
    torch.testing.assert_close(variances.double(), expected, rtol=1e-4, atol=1e-6)


@torch.no_grad()
def test_batch_norm_adds_its_own_variance_to_what_arrives(rules):
    with torch.random.fork_rng():
        model, bank, _ = drawn(nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5)), 4)
    value, variance = torch.arange(10.0).view(2, 5) - 4, torch.arange(10.0).view(2, 5)
    spread, layer = rules.spreads(bank), model[1]
    own, whole = (
        rules.Variances(spread).normalize("1", layer, rules.Moving(value, change)).change
        for change in (None, variance)
    )
    gain = layer.weight.square() / spread["1"].log.exp()
    torch.testing.assert_close(whole, own + variance * gain, rtol=1e-5, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("stride", [1, 2])
def test_variances_where_positions_move_together(rules, stride):
    """Oracle: draws of one normal number per channel, which moves each position by its own sd."""
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        layer = nn.Conv2d(3, 4, 3, stride=stride, padding=1, bias=True)
    value, sd = (torch.rand(2, 3, 6, 5, generator=generator) for _ in range(2))
    together = rules.Variances({}, together=True)
    mixed = together.mix(layer, rules.Moving(value, sd.square()))
    moved = torch.eye(3)[:, None, :, None, None] * sd
    expected = sum((layer(value + each) - layer(value)).square() for each in moved)
    torch.testing.assert_close(mixed.change, expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(mixed.value, layer(value))

    def mean(tensor):
        return tensor.mean((2, 3))

    averaged = together.average(mean, rules.Moving(value, sd.square()))
    torch.testing.assert_close(averaged.change, mean(sd).square())
    alone = rules.Variances({}).average(mean, rules.Moving(value, sd.square()))
    torch.testing.assert_close(alone.change, mean(sd.square()) / 30)
    independent = rules.Variances({}).mix(layer, rules.Moving(value, sd.square())).change
    elements = torch.eye(90).view(90, 1, 3, 6, 5) * sd
    expected = sum((layer(value + each) - layer(value)).square() for each in elements)
    torch.testing.assert_close(independent, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("mean", [-1.5, 0.0, 0.4, 3.0])
def test_moments_of_a_rectified_normal(rules, mean):
    """Oracle: quadrature."""
    sd = 0.8
    found = rules.Variances({}, matched=True).rectify(
        rules.Moving(torch.tensor([mean]), torch.tensor([sd**2]))
    )
    first, second = (
        integrate.quad(lambda x, p=power: x**p * stats.norm.pdf(x, mean, sd), 0, 20)[0]
        for power in (1, 2)
    )
    assert float(found.value) == pytest.approx(first, rel=1e-5)
    assert float(found.change) == pytest.approx(second - first**2, rel=1e-5)


@torch.no_grad()
def test_fitted_factors_give_the_true_variances_of_channels(rules, network):
    model, bank, inputs = network
    spread, graph = rules.spreads(bank), fx.symbolic_trace(model)
    states = [bank.state(draw) for draw in range(DRAWS)]
    truth = rules.channel_variances(model, states, spread, inputs)
    first = next(iter(spread))
    seen = []
    hook = model.get_submodule(first).register_forward_hook(lambda *call: seen.append(call[2]))
    for state in states:
        torch.func.functional_call(model, state, (inputs,))
    hook.remove()
    expected = torch.stack(seen).var(0, correction=0).transpose(0, 1).flatten(1).mean(1)
    torch.testing.assert_close(truth[first], expected, rtol=1e-4, atol=1e-7)
    fitting = rules.Variances(spread, truth=truth)
    rules.walk(graph, inputs, fitting)
    assert set(fitting.factors) == set(spread)
    fitted = rules.Variances(spread, factors=fitting.factors)
    layer, received = graph.get_submodule(first), arrives(rules, model, first, inputs)
    moved = fitted.normalize(first, layer, received).change
    moved = moved.transpose(0, 1).flatten(1).mean(1)
    torch.testing.assert_close(moved, expected, rtol=1e-3, atol=1e-7)


def arrives(rules, model, name, inputs):
    """What the first batch-norm layer receives."""
    seen = []
    hook = model.get_submodule(name).register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    model(inputs)
    hook.remove()
    return rules.Moving(seen[0])


NETWORKS = ("resnet20", "convnet", "concrete", "energy")


def test_the_table_of_the_page_is_that_of_the_result():
    result = json.loads((ROOT / "experiments" / "results" / "propagation.json").read_text())
    page = (ROOT / "docs" / "fewer_draws.md").read_text().partition("\n## Without draws\n")[2]
    lines = [line.split("|")[1:-1] for line in page.splitlines() if re.match(r"\| .*\.\d", line)]
    assert len(lines) >= 8
    for name, *cells in lines:
        for network, cell in zip(NETWORKS, cells, strict=True):
            rows = {row["method"]: row for row in result[network]["methods"]}
            if cell.strip() == "-":
                assert name.strip() not in rows
                continue
            row = rows[name.strip()]
            ranks, passes = re.fullmatch(r"\s*(\S+)(?: \((\S+)\))?\s*", cell).groups()
            expected = row["other_bank"] if name.strip() == "256 draws" else row["spearman"]
            assert float(ranks) == pytest.approx(expected, abs=5.1e-4)
            assert (passes is None) == ("passes" not in row)
            if passes:
                assert float(passes) == pytest.approx(row["passes"], abs=0.051)
