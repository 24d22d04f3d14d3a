"""What is amiss in a network, or may surprise, each in a sentence or two with what to do."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch.nn import Module
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.parameter import is_lazy

from mcbn.inspection.noise import Observation
from mcbn.network.batchnorm import (
    HALF_PRECISION,
    MEAN,
    VARIANCE,
    WRAPPERS,
    frozen_layers,
    incompatibility,
    is_plain,
    owns_statistics,
    require_finite_weights,
    unwrapped,
)
from mcbn.network.isolation import model_lock

# Normalisers that no mini-batch enters, by their class's name: most libraries write their own.
WITHIN_EXAMPLE = re.compile(r"(Layer|RMS|Group|Instance|Response)Norm|LocalResponse|EvoNorm\w*S\d")
CONVOLUTIONS = (
    torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d,
    torch.nn.ConvTranspose1d, torch.nn.ConvTranspose2d, torch.nn.ConvTranspose3d,
)  # fmt: skip


@dataclass(frozen=True)
class BatchNormLayer:
    """A batch-norm layer that MCBN can draw.

    Attributes:
        name: where it is in the network.
        kind: its class.
        channels: how many means and variances it holds.
        eps: what is added to the variance; None if the layer does not say.
        momentum: of its running statistics; None for a plain average, or if it does not say.
        affine: whether it has a scale and a shift of its own.
        frozen: never used batch statistics in training.
        plain: does what PyTorch's layer does and nothing else; a subclass may have an activation.
    """

    name: str
    kind: str
    channels: int
    eps: float | None
    momentum: float | None
    affine: bool
    frozen: bool
    plain: bool


@dataclass(frozen=True)
class SkippedLayer:
    """A layer that looks like batch norm and whose statistics are not drawn.

    Attributes:
        name: where it is in the network.
        kind: its class.
        reason: why, in words.
        refused: `collect` refuses the whole network because of it.
    """

    name: str
    kind: str
    reason: str
    refused: bool


def batch_norm_layers_of(model: Module) -> tuple[BatchNormLayer, ...]:
    """Every batch-norm layer that MCBN can draw, in the order of the network."""
    return tuple(
        BatchNormLayer(
            name,
            class_name(layer),
            layer.get_buffer(MEAN).numel(),
            getattr(layer, "eps", None),
            getattr(layer, "momentum", None),
            getattr(layer, "weight", None) is not None,
            bool(frozen_layers({name: layer})),
            is_plain(layer),
        )
        for name, layer in model.named_modules()
        if owns_statistics(layer) and incompatibility(name, layer) is None
    )


def skipped_layers(model: Module) -> tuple[SkippedLayer, ...]:
    """Every layer that one might take for batch norm and that is not drawn, and why."""
    return tuple(_skipped(model))


def _skipped(model: Module) -> Iterator[SkippedLayer]:
    for name, layer in model.named_modules():
        kind = class_name(layer)
        kept = {MEAN, VARIANCE} & {key for key, _ in layer.named_buffers(recurse=False)}
        if reason := incompatibility(name, layer):
            yield SkippedLayer(name, kind, reason, refused=True)
        elif isinstance(layer, _InstanceNorm) or WITHIN_EXAMPLE.search(kind):
            yield SkippedLayer(
                name, kind, "normalises each example by itself: no mini-batch enters", refused=False
            )
        elif len(kept) == 1:
            text = f"keeps {kept.pop()} alone, and MCBN draws a mean and a variance"
            yield SkippedLayer(name, kind, text, refused=False)


def class_name(module: Module) -> str:
    """Name of a module's class; of the one it was written as, where it is TorchScript."""
    return str(getattr(module, "original_name", type(module).__name__))


def has_lazy_layers(model: Module) -> bool:
    """Whether some layers have no weights yet."""
    return any(is_lazy(tensor) for tensor in (*model.parameters(), *model.buffers()))


def trained_part(model: Module) -> str | None:
    """Name of the one child with weights in a Lightning module; "" if several, None in others.

    Told by the form, so that Lightning need not be installed.
    """
    if not callable(getattr(model, "training_step", None)):
        return None
    parts = [name for name, child in model.named_children() if any(map(_weighs, child.modules()))]
    return parts[0] if len(parts) == 1 else ""


def after_last(model: Module) -> tuple[int, int]:
    """How many layers with weights come after the last batch norm, and how many there are."""
    after = total = 0
    for module in model.modules():
        if owns_statistics(module):
            after = 0
        elif _weighs(module):
            after, total = after + 1, total + 1
    return after, total


def _weighs(module: Module) -> bool:
    weight = getattr(module, "weight", None)
    return isinstance(weight, torch.Tensor) and weight.ndim > 1


def folded(model: Module) -> str:
    """What speaks for batch norm that was folded into convolutions, in words; "" if nothing."""
    left = [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Identity) and re.search(r"bn|norm", name, re.IGNORECASE)
    ]
    if left:
        return f"{len(left)} empty layers are left where it was, the first {left[0]!r}: folded away"
    convolutions = [m for m in model.modules() if isinstance(m, CONVOLUTIONS)]
    biased = sum(module.bias is not None for module in convolutions)
    if convolutions and biased == len(convolutions):
        return f"every convolution ({biased}) has a bias: it was folded away or never there"
    if convolutions:
        return f"{len(convolutions) - biased} of {len(convolutions)} convolutions have no bias"
    return "it was never there"


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


def diagnose(
    model: Module,
    layers: tuple[BatchNormLayer, ...],
    skipped: tuple[SkippedLayer, ...],
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
    if wrapper in WRAPPERS:
        yield Finding(
            f"{wrapper} holds a {class_name(model)}: what is inside is used, under its own "
            "names, so a bank fits both."
        )


def _of_form(
    model: Module, layers: tuple[BatchNormLayer, ...], skipped: tuple[SkippedLayer, ...]
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
            f"There is no batch norm to draw; {folded(model)}. If it was folded (fuse, "
            "fuse_modules, freeze, export), give the network from before that.",
            blocking=True,
        )
    if (part := trained_part(model)) is not None:
        network = f"model.{part}" if part else "the network inside it"
        yield Finding(
            f"{type(model).__name__} has a training step, as Lightning modules do. If its forward "
            "is the network's it can be given as it is, but its bank fits only its kind: give "
            f"{network} to have a bank of the network itself."
        )


def _of_tensors(model: Module, layers: tuple[BatchNormLayer, ...]) -> Iterator[Finding]:
    if any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers())):
        yield Finding("The weights are on the meta device: only the form of the network was seen.")
        return
    if has_lazy_layers(model):
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
        with model_lock(model):  # else another thread's draw may be in their place
            mean, variance = module.get_buffer(MEAN), module.get_buffer(VARIANCE)
        if not mean.any() and bool((variance == 1).all()):
            untrained.append(layer.name)
        if count := int((variance <= DEAD * (layer.eps or 0)).sum()):
            dead[layer.name] = count
        if {mean.dtype, *(p.dtype for p in module.parameters())} & {*HALF_PRECISION}:
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


def _of_layers(layers: tuple[BatchNormLayer, ...], batch_size: int) -> Iterator[Finding]:
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
    layers: tuple[BatchNormLayer, ...], observation: Observation, batch_size: int
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


def _of_place(model: Module, layers: tuple[BatchNormLayer, ...]) -> Iterator[Finding]:
    after, total = after_last(model)
    if total and after / total > LARGEST_REST:
        yield Finding(
            f"Batch norm ends at {layers[-1].name!r}: {after} of {total} layers with weights come "
            "after it and are the same in every draw."
        )


def _of(names: list[str], layers: tuple[BatchNormLayer, ...]) -> str:
    """These layers as a subject in the singular."""
    if len(names) == 1:
        return f"Layer {names[0]!r}"
    which = "Each of the" if len(names) == len(layers) else f"Each of {len(names)} of the"
    return f"{which} {len(layers)} layers (the first {names[0]!r})"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
