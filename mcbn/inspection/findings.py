"""What is amiss in a network, or may surprise, each in a sentence or two with what to do."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch.nn import Module

from mcbn.inspection import anatomy
from mcbn.inspection.anatomy import Normaliser, Skipped
from mcbn.inspection.noise import Observation
from mcbn.network.batchnorm import HALF, HOLDERS, MEAN, VARIANCE, require_finite_weights, unwrapped
from mcbn.network.isolation import alone

# Noise of all layers together, in units of the spread of a normalised output, below which MCBN has
# nothing to say. In a convnet on digits a logit moved by this share of its spread, within a tenth.
# Mutual information was 0.0004 nats at 0.044 and 0.0001 at 0.022, at most 0.018 and 0.004 on any
# image: less than the scores of thousands of test images can show.
LEAST_NOISE = 0.03
# A channel whose variance is this share of epsilon or less answers with its shift alone.
DEAD = 1e-3
# Share of the layers with weights that may come after the last batch norm.
LARGEST_REST = 0.5


@dataclass(frozen=True)
class Finding:
    """Something amiss.

    Attributes:
        text: what, and what to do.
        blocking: MCBN cannot serve the network because of it.
    """

    text: str
    blocking: bool = False


def symptoms(
    model: Module,
    layers: tuple[Normaliser, ...],
    skipped: tuple[Skipped, ...],
    *,
    observation: Observation | None,
    batch_size: int,
) -> tuple[Finding, ...]:
    """Everything amiss, what keeps MCBN from the network first."""
    wrapper, model = type(model).__name__, unwrapped(model)
    found = [
        *_of_wrapper(wrapper, model),
        *_of_form(model, layers, skipped),
        *_of_tensors(model, layers),
        *_of_layers(layers, batch_size),
    ]
    if observation is not None:
        found += _of_pass(layers, observation, batch_size)
    if layers:
        found += _of_place(model, layers)
    return tuple(sorted(found, key=lambda finding: not finding.blocking))


def _of_wrapper(wrapper: str, model: Module) -> Iterator[Finding]:
    if wrapper in HOLDERS:
        yield Finding(
            f"{wrapper} holds a {anatomy.kind_of(model)}: what is inside is used, under its own "
            "names, so a bank fits both."
        )


def _of_form(
    model: Module, layers: tuple[Normaliser, ...], skipped: tuple[Skipped, ...]
) -> Iterator[Finding]:
    if isinstance(model, torch.jit.ScriptModule):
        yield Finding(
            "The network is TorchScript, whose layers cannot be observed; give the network it was "
            "scripted from.",
            blocking=True,
        )
        return
    for reason in [layer.reason for layer in skipped if layer.refused][:1]:
        refused = sum(layer.refused for layer in skipped)
        yield Finding(f"{_count(refused, 'layer')} cannot be drawn: {reason}.", blocking=True)
    if not layers and not any(layer.refused for layer in skipped):
        yield Finding(
            f"There is no batch norm to draw; {anatomy.folded(model)}. If it was folded (fuse, "
            "fuse_modules, freeze, export), give the network from before that.",
            blocking=True,
        )
    if (part := anatomy.trained_part(model)) is not None:
        network = f"model.{part}" if part else "the network inside it"
        yield Finding(
            f"{type(model).__name__} has a training step, as Lightning modules do. If its forward "
            "is the network's it can be given as it is, but its bank fits only its kind: give "
            f"{network} to have a bank of the network itself."
        )


def _of_tensors(model: Module, layers: tuple[Normaliser, ...]) -> Iterator[Finding]:
    if any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers())):
        yield Finding("The weights are on the meta device: only the form of the network was seen.")
        return
    if anatomy.lazy(model):
        yield Finding(
            "Lazy layers have no weights yet, so no pass was made; run one batch through the "
            "network first, and train it."
        )
    try:
        require_finite_weights(model)
    except ValueError as error:
        yield Finding(f"A weight is not finite: {error}.", blocking=True)
    untrained, dead, half = [], {}, []
    for layer in layers:
        module = model.get_submodule(layer.name)
        with alone(model):  # else another thread's draw may be in their place
            mean, variance = module.get_buffer(MEAN), module.get_buffer(VARIANCE)
        if not mean.any() and bool((variance == 1).all()):
            untrained.append(layer.name)
        if count := int((variance <= DEAD * (layer.eps or 0)).sum()):
            dead[layer.name] = count
        if {mean.dtype, *(p.dtype for p in module.parameters())} & {*HALF}:
            half.append(layer.name)
    if untrained:
        yield Finding(
            f"{_of(untrained, layers)} still has running mean 0 and variance 1: never trained, or "
            "the checkpoint was not loaded. MCBN wants a trained network."
        )
    if dead:
        first, channels = next(iter(dead.items()))
        yield Finding(
            f"{_count(sum(dead.values()), 'channel')} in {_count(len(dead), 'layer')} are dead "
            f"(variance at most {DEAD:g} of eps; {channels} in {first!r}): they carry no noise."
        )
    if half:
        yield Finding(
            f"{_of(half, layers)} is in half precision: 16-bit activations round by up to 0.4 %, "
            "which hides small noise. Collect and predict with model.float()."
        )


def _of_layers(layers: tuple[Normaliser, ...], batch_size: int) -> Iterator[Finding]:
    frozen = [layer.name for layer in layers if layer.frozen]
    if frozen:
        rest = "no layer has noise that it was trained under" if len(frozen) == len(layers) else (
            "the spread drawn there is not one it was trained under"
        )  # fmt: skip
        yield Finding(f"{_of(frozen, layers)} was frozen in training: {rest}. `collect` warns.")
    averaged = [layer.name for layer in layers if layer.momentum is None and not layer.frozen]
    if averaged:
        yield Finding(
            f"{_of(averaged, layers)} has momentum=None: its running statistics average all of "
            "training, the first steps included. MCBN's draws do not, so they may differ from it."
        )
    if batch_size == 1:
        yield Finding(
            "M = 1: a layer with one position has one value, whose variance is zero, and `collect` "
            "refuses it. Take M of at least 2."
        )


def _of_pass(
    layers: tuple[Normaliser, ...], observation: Observation, batch_size: int
) -> Iterator[Finding]:
    if observation.failure:
        yield Finding(
            f"The pass of the given inputs failed: {observation.failure}. Give inputs as the "
            "network is called with.",
            blocking=True,
        )
        return
    calls = observation.calls
    twice = [name for name, times in calls.items() if times > 1]
    if twice:
        yield Finding(
            f"{_of(twice, layers)} is called {max(calls.values())} times a pass, and one pair of "
            "buffers cannot hold two statistics; give each call a layer of its own.",
            blocking=True,
        )
    missed = [name for name, times in calls.items() if times == 0]
    if missed:
        yield Finding(
            f"{_of(missed, layers)} is not reached by the pass: nothing is drawn there.",
            blocking=len(missed) == len(layers),
        )
    single = [name for name, values in observation.values.items() if values < 2]
    if single:
        yield Finding(
            f"{_of(single, layers)} has one value a channel at M = {batch_size}, whose variance "
            "is zero; take M of at least 2.",
            blocking=True,
        )
    total = sum(noise.variance for noise in observation.noise.values()) ** 0.5
    if observation.noise and total < LEAST_NOISE:
        enough = int(batch_size * (total / LEAST_NOISE) ** 2)
        yield Finding(
            f"At M = {batch_size} the draws are nearly alike: all layers together move a "
            f"normalised output by {total:.1%} of its spread, and below {LEAST_NOISE:.0%} no score "
            "shows it. MCBN will answer as the plain network does; "
            + (f"take M of at most {enough}." if enough > 1 else "no M is small enough.")
        )


def _of_place(model: Module, layers: tuple[Normaliser, ...]) -> Iterator[Finding]:
    after, total = anatomy.after_last(model)
    if total and after / total > LARGEST_REST:
        yield Finding(
            f"Batch norm ends at {layers[-1].name!r}: {after} of {total} layers with weights come "
            "after it and are the same in every draw."
        )


def _of(names: list[str], layers: tuple[Normaliser, ...]) -> str:
    """These layers as a subject in the singular."""
    if len(names) == 1:
        return f"Layer {names[0]!r}"
    which = "Each of the" if len(names) == len(layers) else f"Each of {len(names)} of the"
    return f"{which} {len(layers)} layers (the first {names[0]!r})"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
