"""Train many small dense networks at once as stacked tensors, each as if it were trained alone."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from experiments.data.uci_data import Data, Generators

EPSILON = 1e-10  # of batch norm, as in the authors' code
WEIGHT_SD = 0.1  # of the initial weights, from a normal truncated at two standard deviations
LEARNING_RATE = 1e-3  # of Adam
SHRINK = 0.75  # a stack is reduced once at most this share of it is still training

Moments = list[tuple[Tensor, Tensor]]  # mean and biased variance of each hidden layer


@dataclass(frozen=True)
class Settings:
    """Settings of each configuration, and settings common to a stack.

    Attributes:
        decays: lambda, in the loss as lambda |W|^2 / 2; each configuration trains one network per
            data set.
        rates: dropout rates of inputs and hidden units; None for batch norm on hidden layers.
        batch_size: examples per step; at most all examples.
        epochs: maximum number of epochs.
        hidden: units of each hidden layer.
        check_every: epochs between evaluations on the held-out parts; 0 trains to the end.
        patience: evaluations without improvement before a configuration stops.
        keep_rest: whether the remaining examples of an epoch form a smaller batch.
    """

    decays: tuple[float, ...]
    rates: tuple[float, ...] | None
    batch_size: int
    epochs: int
    hidden: tuple[int, ...] = (50, 50)
    check_every: int = 0
    patience: int = 10
    keep_rest: bool = False


@dataclass(frozen=True, eq=False)
class Layer:
    """A dense layer of every network; `scale` is that of batch norm, if any."""

    weight: Float[Tensor, "nets out in"]
    shift: Float[Tensor, "nets out 1"]
    scale: Float[Tensor, "nets out 1"] | None = None

    def parameters(self) -> list[Tensor]:
        """The trainable tensors of the layer."""
        return [self.weight, self.shift] + ([] if self.scale is None else [self.scale])

    def rows(self, index: Int[Tensor, " nets"]) -> "Layer":
        """A copy of the layer for some of the networks."""
        return Layer(*(each.detach()[index] for each in self.parameters()))


@dataclass(frozen=True, eq=False)
class Trained:
    """Networks of all configurations at their best epoch, ordered by configuration."""

    layers: list[Layer]
    epochs: Int[Tensor, " configurations"]
    settings: Settings

    def only(self, index: int, sets: int) -> "Trained":
        """The networks of one configuration."""
        one, rows = slice(index, index + 1), torch.arange(index * sets, (index + 1) * sets)
        rates = self.settings.rates and self.settings.rates[one]
        settings = replace(self.settings, decays=self.settings.decays[one], rates=rates)
        return Trained([layer.rows(rows) for layer in self.layers], self.epochs[one], settings)


@dataclass(frozen=True, eq=False)
class _Run:
    """Networks still in training: their layers, optimiser and configurations."""

    layers: list[Layer]
    adam: torch.optim.Adam
    active: Int[Tensor, " configurations"]


def train(data: Data, settings: Settings) -> Trained:
    """Train one network per configuration and data set, by Adam."""
    sets, count = len(data.seeds), len(settings.decays)
    generators = data.generators()
    best = [
        layer.rows(data.sources(sets * count)) for layer in _initial(data, settings, generators)
    ]
    run = _started(best, torch.arange(sets * count), torch.arange(count))
    errors = torch.full((count,), math.inf)
    epochs = torch.full((count,), settings.epochs)
    looks = torch.zeros(count, dtype=torch.long)  # consecutive evaluations without improvement
    for epoch in range(1, settings.epochs + 1):
        _epoch(run, data, settings, generators)
        if settings.check_every == 0 or epoch % settings.check_every:
            continue
        held_errors = torch.full((count,), math.inf)
        held_errors[run.active] = _held_errors(run.layers, data).view(-1, sets).mean(1)
        gained = (held_errors <= errors) & (looks < settings.patience)
        looks = torch.where(gained, 0, looks + 1)
        errors, epochs = (
            torch.where(gained, held_errors, errors),
            torch.where(gained, epoch, epochs),
        )
        _keep(best, run, gained, sets)
        going = looks[run.active] < settings.patience
        if not bool(going.any()):
            break
        if int(going.sum()) <= SHRINK * len(going):
            run = _shrunk(run, going, sets)
    final = best if settings.check_every else [layer.rows(...) for layer in run.layers]
    return Trained(final, epochs, settings)


def _started(layers: list[Layer], rows: Tensor, active: Tensor) -> _Run:
    own = [layer.rows(rows) for layer in layers]
    parameters = [each.requires_grad_() for layer in own for each in layer.parameters()]
    return _Run(own, torch.optim.Adam(parameters, lr=LEARNING_RATE, fused=True), active)


def _shrunk(run: _Run, going: Tensor, sets: int) -> _Run:
    """The run without the stopped configurations."""
    rows = going.repeat_interleave(sets).nonzero().flatten()
    smaller = _started(run.layers, rows, run.active[going])
    for before, after in zip(run.layers, smaller.layers, strict=True):
        for old, new in zip(before.parameters(), after.parameters(), strict=True):
            kept = run.adam.state[old]
            smaller.adam.state[new] = {
                name: value if name == "step" else value[rows] for name, value in kept.items()
            }
    return smaller


def _keep(best: list[Layer], run: _Run, gained: Tensor, sets: int) -> None:
    """Copy the networks of the configurations that improved."""
    rows = gained[run.active].repeat_interleave(sets).nonzero().flatten()
    places = (run.active[:, None] * sets + torch.arange(sets)).flatten()[rows]
    for kept, layer in zip(best, run.layers, strict=True):
        for target, source in zip(kept.parameters(), layer.rows(rows).parameters(), strict=True):
            target[places] = source


def _initial(data: Data, settings: Settings, generators: Generators) -> list[Layer]:
    """Initial weights of one network per data set, distributed as in the authors' code."""
    sizes = [data.inputs.shape[1], *settings.hidden, 1]
    layers = []
    for index, (wide, units) in enumerate(pairwise(sizes)):
        last = index == len(settings.hidden)
        weight = torch.stack([_normal((units, wide), each) for each in generators])
        shift = torch.stack([_normal((units, 1), each) for each in generators])
        if not last:
            shift = shift.abs() if settings.rates else torch.zeros_like(shift)
        scale = None if last or settings.rates else torch.ones_like(shift)
        layers.append(Layer(weight, shift, scale))
    return layers


def _normal(shape: tuple[int, int], generator: torch.Generator) -> Tensor:
    values, end = torch.empty(shape), 2 * WEIGHT_SD
    return nn.init.trunc_normal_(values, 0.0, WEIGHT_SD, -end, end, generator=generator)


def _epoch(run: _Run, data: Data, settings: Settings, generators: Generators) -> None:
    """One pass over the examples, in a separate order for each data set."""
    count = data.targets.shape[1]
    size = min(settings.batch_size, count)
    order = torch.stack([torch.randperm(count, generator=each) for each in generators])
    inputs = data.inputs.gather(2, order[:, None].expand_as(data.inputs))
    targets = data.targets.gather(1, order)
    source = data.sources(len(run.layers[0].weight))
    decays = _of_nets(settings.decays, run.active, data)
    rates = settings.rates and _of_nets(settings.rates, run.active, data)
    for start in range(0, count if settings.keep_rest else count // size * size, size):
        x, y = (each[..., start : start + size][source] for each in (inputs, targets))
        masks = None if rates is None else _masks(run.layers, rates, generators, x.shape[2])
        loss = 0.5 * (forward(run.layers, x, masks) - y).square().mean(1).sum()
        run.adam.zero_grad()
        loss.backward()
        for layer in run.layers:
            layer.weight.grad.addcmul_(layer.weight.detach(), decays)
        run.adam.step()


def _of_nets(values: Sequence[float], active: Tensor, data: Data) -> Float[Tensor, "nets 1 1"]:
    return torch.tensor(values)[active].repeat_interleave(len(data.seeds))[:, None, None]


def _masks(
    layers: list[Layer], rates: Tensor, generators: Generators, examples: int
) -> list[Tensor]:
    """Dropout masks for the inputs of each layer; networks on one set share random numbers."""
    masks = []
    for layer in layers:
        shape = (layer.weight.shape[2], examples)
        uniform = torch.stack([torch.rand(shape, generator=each) for each in generators])
        uniform = uniform.repeat(len(rates) // len(generators), 1, 1)
        masks.append((uniform >= rates) / (1 - rates))
    return masks


def forward(
    layers: list[Layer],
    x: Tensor,
    masks: list[Tensor] | None = None,
    moments: Moments | None = None,
) -> Float[Tensor, "nets batch"]:
    """Outputs; batch norm uses the statistics of the batch unless `moments` are given."""
    for index, layer in enumerate(layers):
        x = x if masks is None else x * masks[index]
        if layer.scale is None:
            x = torch.baddbmm(layer.shift, layer.weight, x)
        elif moments is None:
            x = torch.bmm(layer.weight, x)
            flat, own = x.view(1, -1, x.shape[2]), (layer.scale.flatten(), layer.shift.flatten())
            x = functional.batch_norm(flat, None, None, *own, True, 0.0, EPSILON).view_as(x)
        else:
            x = _normalized(layer, torch.bmm(layer.weight, x), moments[index])
        x = x.relu() if index < len(layers) - 1 else x
    return x[:, 0]


def statistics(layers: list[Layer], x: Float[Tensor, "nets features batch"]) -> Moments:
    """Batch statistics of each hidden layer in one consistent pass; empty without batch norm."""
    moments: Moments = []
    for layer in layers[:-1] if layers[0].scale is not None else []:
        x = torch.bmm(layer.weight, x)
        variance, mean = torch.var_mean(x, 2, correction=0, keepdim=True)
        moments.append((mean, variance))
        x = _normalized(layer, x, moments[-1]).relu()
    return moments


def _normalized(layer: Layer, x: Tensor, moments: tuple[Tensor, Tensor]) -> Tensor:
    mean, variance = moments
    factor = layer.scale * torch.rsqrt(variance + EPSILON)
    return torch.addcmul(layer.shift - mean * factor, x, factor)


@torch.no_grad()
def _held_errors(layers: list[Layer], data: Data) -> Float[Tensor, " nets"]:
    """Held-out RMSE with the statistics of the whole training part."""
    source = data.sources(len(layers[0].weight))
    moments = statistics(layers, data.inputs[source])
    return _rmse(forward(layers, data.held_inputs[source], moments=moments), data)


def _rmse(outputs: Float[Tensor, "nets held"], data: Data) -> Float[Tensor, " nets"]:
    """RMSE in original units."""
    source = data.sources(len(outputs))
    error = (outputs - data.held_targets[source]).square().mean(1).sqrt()
    return error * data.scales[source].float()


@torch.no_grad()
def passes(data: Data, trained: Trained, draws: int) -> Iterator[Float[Tensor, "nets held"]]:
    """Yield stochastic passes over the held-out parts, each with a new mini-batch or new masks."""
    settings, layers, generators = trained.settings, trained.layers, data.generators()
    source, every = data.sources(len(layers[0].weight)), torch.arange(len(settings.decays))
    held = data.held_inputs[source]
    rates = settings.rates and _of_nets(settings.rates, every, data)
    for _ in range(draws):
        if rates is not None:
            yield forward(layers, held, _masks(layers, rates, generators, 1))
            continue
        rows = [torch.randperm(data.targets.shape[1], generator=each) for each in generators]
        chosen = torch.stack(rows)[:, None, : settings.batch_size]
        batch = data.inputs.gather(2, chosen.expand(-1, data.inputs.shape[1], -1))
        yield forward(layers, held, moments=statistics(layers, batch[source]))


def mc_errors(data: Data, trained: Trained, draws: int) -> Float[Tensor, " configurations"]:
    """Held-out RMSE of the mean over draws, averaged over sets; in original units."""
    mean = torch.stack(list(passes(data, trained, draws))).mean(0)
    return _rmse(mean, data).view(-1, len(data.seeds)).mean(1)


def module(data: Data, trained: Trained, net: int) -> nn.Sequential:
    """One network as a torch module in eval mode, with the statistics of its training part."""
    sets, rates = len(data.seeds), trained.settings.rates
    layers = [layer.rows(torch.tensor([net])) for layer in trained.layers]
    moments = statistics(layers, data.inputs[[net % sets]])
    blocks: list[nn.Module] = []
    for index, layer in enumerate(layers):
        units, wide = layer.weight.shape[1:]
        blocks += [nn.Dropout(rates[net // sets])] if rates else []
        blocks.append(nn.utils.skip_init(nn.Linear, wide, units, bias=layer.scale is None))
        values = {"weight": layer.weight[0]}
        if layer.scale is not None:
            blocks[-1].load_state_dict(values)
            blocks.append(nn.BatchNorm1d(units, eps=EPSILON))
            mean, variance = (each.flatten() for each in moments[index])
            values = {"weight": layer.scale.flatten(), "running_mean": mean}
            values |= {"running_var": variance, "num_batches_tracked": torch.tensor(1)}
        blocks[-1].load_state_dict(values | {"bias": layer.shift.flatten()})
        blocks += [nn.ReLU()] if index < len(layers) - 1 else []
    return nn.Sequential(*blocks).eval()
