"""Problems and notes about a network, each in a sentence or two that say what to do."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch.nn import Module

from mcbn import validation
from mcbn.inspection.layers import (
    BatchNormLayer,
    SkippedLayer,
    class_name,
    folding_evidence,
    has_lazy_layers,
    layers_after_last,
    lightning_network,
)
from mcbn.inspection.noise import Observation
from mcbn.inspection.trial import Trial
from mcbn.network.batchnorm import (
    HALF_PRECISION,
    MEAN,
    VARIANCE,
    WRAPPERS,
    require_finite_weights,
    unwrapped,
)
from mcbn.network.isolation import model_lock

# Noise of all layers together, in standard deviations of a normalised output, below which MCBN
# differs too little from the plain network. In a convnet on digits a logit moved by this fraction
# of its standard deviation, within a tenth. Mutual information was 0.0004 nats at 0.044 and 0.0001
# at 0.022, at most 0.018 and 0.004 on any image: less than the scores of thousands of test images
# can show.
MIN_NOISE = 0.03
# A channel whose variance is at most this fraction of epsilon outputs its shift alone.
DEAD_VARIANCE = 1e-3
# Codes of what `collect` says as well.
FROZEN, NOT_CALLED = "MCBN112", "MCBN117"
# Fraction of the layers with weights that may come after the last batch norm.
MAX_FRACTION_AFTER = 0.5


@dataclass(frozen=True)
class Finding:
    """A problem of a network, or a note about it.

    Attributes:
        code: of the check that says it, such as "MCBN104"; docs/checks.md lists them.
        text: what it is, and what to do.
        blocking: whether it makes the network incompatible with MCBN.
    """

    code: str
    text: str
    blocking: bool = False

    def __str__(self) -> str:
        kind = "problem" if self.blocking else "note"
        return validation.coded(f"{kind}: {self.text}", self.code)


def diagnose(
    model: Module,
    layers: tuple[BatchNormLayer, ...],
    skipped: tuple[SkippedLayer, ...],
    *,
    observation: Observation | None,
    trial: Trial,
    batch_size: int,
) -> tuple[Finding, ...]:
    """All problems and notes, those that make the network incompatible first."""
    wrapper, model = type(model).__name__, unwrapped(model)
    findings = [
        *_of_wrapper(wrapper, model),
        *_of_form(model, layers, skipped),
        *_of_tensors(model, layers),
        *_of_layers(layers, batch_size),
    ]
    if observation is not None:
        findings += _of_pass(layers, observation, batch_size)
    if layers:
        findings += _of_last_layer(model, layers)
    findings += _of_trial(trial, known=findings)
    return tuple(sorted(findings, key=lambda finding: not finding.blocking))


def _of_wrapper(wrapper: str, model: Module) -> Iterator[Finding]:
    if wrapper in WRAPPERS:
        yield Finding(
            "MCBN101",
            f"{wrapper} wraps a {class_name(model)}: the inner network and its names are used, so "
            "a bank fits both.",
        )


def _of_form(
    model: Module, layers: tuple[BatchNormLayer, ...], skipped: tuple[SkippedLayer, ...]
) -> Iterator[Finding]:
    if isinstance(model, torch.jit.ScriptModule):
        yield Finding(
            "MCBN102",
            "The network is TorchScript, whose layers cannot be observed; give the network from "
            "before torch.jit.script or torch.jit.trace.",
            blocking=True,
        )
        return
    for reason in [layer.reason for layer in skipped if layer.refused][:1]:
        refused = sum(layer.refused for layer in skipped)
        yield Finding(
            "MCBN103", f"{_count(refused, 'incompatible layer')}: {reason}.", blocking=True
        )
    if not layers and not any(layer.refused for layer in skipped):
        yield Finding(
            "MCBN104",
            f"There is no batch norm: {folding_evidence(model)}. If it was folded (fuse, "
            "fuse_modules, freeze, export), give the network from before folding.",
            blocking=True,
        )
    if (part := lightning_network(model)) is not None:
        network = f"model.{part}" if part else "the network inside it"
        yield Finding(
            "MCBN105",
            f"{type(model).__name__} has a training step, as Lightning modules do. If its forward "
            "is that of the network it can be given as it is, but the bank then fits only this "
            f"wrapper; give {network} to collect a bank of the network itself.",
        )


def _of_tensors(model: Module, layers: tuple[BatchNormLayer, ...]) -> Iterator[Finding]:
    if any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers())):
        yield Finding(
            "MCBN106",
            "The weights are on the meta device, so only the structure of the network was seen.",
        )
        return
    if has_lazy_layers(model):
        yield Finding(
            "MCBN107",
            "Lazy layers have no weights yet, so no pass was made; run one batch through the "
            "network first, and train it.",
        )
    try:
        require_finite_weights(model)
    except ValueError as error:
        yield Finding("MCBN108", f"A weight is not finite: {error}.", blocking=True)
    yield from _of_statistics(model, layers)


def _of_statistics(model: Module, layers: tuple[BatchNormLayer, ...]) -> Iterator[Finding]:
    untrained, dead, half = [], {}, []
    for layer in layers:
        module = model.get_submodule(layer.name)
        with model_lock(model):  # else another thread's draw may be in the buffers
            mean, variance = module.get_buffer(MEAN), module.get_buffer(VARIANCE)
        if not mean.any() and bool((variance == 1).all()):
            untrained.append(layer.name)
        if count := int((variance <= DEAD_VARIANCE * (layer.eps or 0)).sum()):
            dead[layer.name] = count
        if {mean.dtype, *(p.dtype for p in module.parameters())} & {*HALF_PRECISION}:
            half.append(layer.name)
    if untrained:
        yield Finding(
            "MCBN109",
            f"{_subject(untrained, layers)} still has running mean 0 and variance 1: it was never "
            "trained, or the checkpoint was not loaded. MCBN needs a trained network.",
        )
    if dead:
        first, channels = next(iter(dead.items()))
        yield Finding(
            "MCBN110",
            f"{_count(sum(dead.values()), 'dead channel')} in {_count(len(dead), 'layer')} "
            f"(variance at most {DEAD_VARIANCE:g} of eps; {channels} in {first!r}): no noise "
            "there.",
        )
    if half:
        yield Finding(
            "MCBN111",
            f"{_subject(half, layers)} is in half precision: 16-bit activations round by up to "
            "0.4%, which hides small noise. Collect and predict with model.float().",
        )


def _of_layers(layers: tuple[BatchNormLayer, ...], batch_size: int) -> Iterator[Finding]:
    frozen = [layer.name for layer in layers if layer.frozen]
    if frozen:
        yield Finding(
            FROZEN,
            f"{_subject(frozen, layers)} was frozen in training, so the network was not trained "
            "with the spread that is drawn there. `collect` warns.",
        )
    averaged = [layer.name for layer in layers if layer.momentum is None and not layer.frozen]
    if averaged:
        yield Finding(
            "MCBN113",
            f"{_subject(averaged, layers)} has momentum=None: its running statistics average over "
            "all of training, the first steps included. MCBN's draws do not, so the two may "
            "differ.",
        )
    if batch_size == 1:
        yield Finding(
            "MCBN114",
            "At M = 1 a layer with one position has one value per channel, whose variance is zero, "
            "and `collect` refuses it. Use M of at least 2.",
        )


def _of_pass(
    layers: tuple[BatchNormLayer, ...], observation: Observation, batch_size: int
) -> Iterator[Finding]:
    if observation.failure:
        yield Finding(
            "MCBN115",
            f"The network failed on the given inputs: {observation.failure}. Give inputs as the "
            "network is called with.",
            blocking=True,
        )
        return
    calls = observation.calls
    twice = [name for name, times in calls.items() if times > 1]
    if twice:
        yield Finding(
            "MCBN116",
            f"{_subject(twice, layers)} is called {max(calls.values())} times per pass, and one "
            "pair of buffers cannot hold two statistics; give each call a layer of its own.",
            blocking=True,
        )
    missed = [name for name, times in calls.items() if times == 0]
    if missed:
        yield Finding(
            NOT_CALLED,
            f"{_subject(missed, layers)} is not called in a pass, so nothing is drawn there; check "
            "the network's forward.",
            blocking=len(missed) == len(layers),
        )
    single = [name for name, values in observation.values.items() if values < 2]
    if single:
        yield Finding(
            "MCBN114",
            f"{_subject(single, layers)} has one value per channel at M = {batch_size}, whose "
            "variance is zero; use M of at least 2.",
            blocking=True,
        )
    total = sum(noise.variance for noise in observation.noise.values()) ** 0.5
    if observation.noise and total < MIN_NOISE:
        largest = int(batch_size * (total / MIN_NOISE) ** 2)
        yield Finding(
            "MCBN118",
            f"At M = {batch_size} the draws are nearly equal: all layers together move a "
            f"normalised output by {total:.1%} of its standard deviation, and below "
            f"{MIN_NOISE:.0%} no score shows it. MCBN will predict as the plain network does; "
            + (f"use M of at most {largest}." if largest > 1 else "no M is small enough."),
        )


def _of_trial(trial: Trial, known: list[Finding]) -> Iterator[Finding]:
    """What `collect` says of the network, unless the reason is known already."""
    if trial.refusal and not any(finding.blocking for finding in known):
        yield Finding("MCBN119", f"`collect` refuses it: {trial.refusal}.", blocking=True)
    for code, note in trial.notes:
        # `_of_layers` and `_of_pass` have these, with more to say.
        if code not in {FROZEN, NOT_CALLED}:
            yield Finding(code, note if note.endswith(".") else f"{note}.")


def _of_last_layer(model: Module, layers: tuple[BatchNormLayer, ...]) -> Iterator[Finding]:
    after, total = layers_after_last(model)
    if total and after / total > MAX_FRACTION_AFTER:
        yield Finding(
            "MCBN120",
            f"The last batch norm is {layers[-1].name!r}: {after} of {total} layers with weights "
            "come after it and have no statistics to draw.",
        )


def _subject(names: list[str], layers: tuple[BatchNormLayer, ...]) -> str:
    """These layers as the subject of a sentence, in the singular."""
    if len(names) == 1:
        return f"Layer {names[0]!r}"
    which = "Each of the" if len(names) == len(layers) else f"Each of {len(names)} of the"
    return f"{which} {len(layers)} layers (the first {names[0]!r})"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
