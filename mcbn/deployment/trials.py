"""Trials of an export: examples and what `predict` answers for them, which a file has to answer."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from mcbn.deployment.onnx import reason
from mcbn.network.inputs import Inputs, count
from mcbn.network.isolation import own_warnings, random_streams
from mcbn.network.output_kind import output_kind
from mcbn.predictive.bernoulli import Bernoulli, probabilities_met
from mcbn.predictive.categorical import Categorical, seen_outputs
from mcbn.samplers.outputs import map_tensors
from mcbn.samplers.sampler import Sampler

# The user's own examples that a file is tried on, and numbers of others made from them.
MAX_EXAMPLES = 5
OTHER_EXAMPLES = (1, 3, 7)
# Largest difference at the scale of what is compared: that of a draw from the mean of the draws,
# a variance, an entropy.
AGREEMENT = 1e-3
# Rounding of a network's outputs, relative to the largest of them.
ROUNDING = {torch.float64: 1e-10, torch.float32: 1e-5}
HALF_ROUNDING = 8.0  # times the type's own
# Smallest difference of probabilities, and of entropies in nats, that counts.
LEAST = 1e-9


@dataclass(frozen=True, eq=False)
class Trial:
    """Some examples and the answers of `predict` for them.

    Attributes:
        inputs: of the network.
        draws: its outputs under each draw, in float64.
        expected: the outputs that the file is to have, by name.
    """

    inputs: Inputs
    draws: Tensor
    expected: Mapping[str, Tensor]


def cycled(example: Inputs, number: int) -> Inputs:
    """Return `number` examples: the first ones, repeated where there are fewer."""
    return _rows(example, torch.arange(number) % count(example))


def _rows(example: Inputs, rows: Tensor) -> Inputs:
    examples: Inputs = map_tensors(lambda tensor: tensor.detach()[rows], example)
    return examples


def settled(likelihood: Any, plain: Module, example: Inputs) -> Any:
    """Return the likelihood, knowing whether the network gives logits or probabilities.

    Args:
        likelihood: `Categorical`, `Bernoulli` or `Gaussian`.
        plain: the network with a single draw, in eval mode.
        example: inputs of one or more examples.

    Raises:
        ValueError: the network does not take the example, answers differently when it is asked
            again, or gives neither logits nor probabilities.
    """
    inputs = cycled(example, min(count(example), MAX_EXAMPLES))
    with _words(inputs):
        answer = _repeated(plain, inputs)[:, 0]
    if isinstance(likelihood, Bernoulli):
        if likelihood.outputs is None and output_kind(answer) != "logits":
            raise probabilities_met("values from 0 to 1")
        return Bernoulli(outputs=likelihood.outputs or "logits")
    if not isinstance(likelihood, Categorical):
        return likelihood
    return Categorical(outputs=likelihood.outputs or seen_outputs(answer))


def trials(
    sampler: Sampler, likelihood: Any, example: Inputs, outputs: Sequence[str]
) -> list[Trial]:
    """Return trials on the user's examples, and on others made from them.

    The others are in another order and other numbers, and their real values are changed, unless
    the network takes no such values. A trace may be right for one number of examples only, and
    examples that are equal would not tell a network that mixes them.

    Args:
        sampler: whose draws a file is to hold.
        likelihood: of the outputs, from `settled`.
        example: inputs of one or more examples.
        outputs: names of what the file returns.

    Raises:
        ValueError: the network does not take any number of examples, or does not answer for each.
    """
    first = cycled(example, min(count(example), MAX_EXAMPLES))
    made = [_trial(sampler, likelihood, first, outputs)]
    for seed, number in enumerate(OTHER_EXAMPLES):
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(max(number, count(example)), generator=generator)[:number]
        rows = _rows(example, order % count(example))
        with own_warnings():
            warnings.simplefilter("ignore")  # the user has seen those of the first trial
            try:
                other = _trial(sampler, likelihood, _changed(rows, generator), outputs)
            except Exception:  # its values may have to be positive, say
                other = _trial(sampler, likelihood, rows, outputs)
        made.append(other)
    return made


@contextmanager
def _words(inputs: Inputs) -> Iterator[None]:
    """Say in words what PyTorch says of inputs that a network does not take."""
    try:
        yield
    except Warning:
        raise
    except Exception as error:
        if isinstance(error, (TypeError, ValueError)) and ", got " in str(error):
            raise  # in words of its own
        raise ValueError(
            "expected inputs that the network takes, in any number of examples along the first "
            f"axis, got {reason(error)} for {count(inputs)}; give what the network is called with, "
            "or use mcbn.predict"
        ) from error


def _changed(example: Inputs, generator: torch.Generator) -> Inputs:
    """Examples with noise in their real values, half as wide as these."""

    def noisy(tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point():
            return tensor
        spread = float(tensor.double().std(correction=0)) or 1.0
        noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
        return (tensor + 0.5 * spread * noise).to(tensor.dtype)

    changed: Inputs = map_tensors(noisy, example)
    return changed


def _trial(sampler: Sampler, likelihood: Any, inputs: Inputs, outputs: Sequence[str]) -> Trial:
    examples = count(inputs)
    with _words(inputs), torch.no_grad(), random_streams(0, "export"):
        passes = list(sampler.passes(inputs))
    if any(draw.shape[:1] != (examples,) for draw in passes):
        raise ValueError(
            "expected a network with one output per example along the first axis, got the shape "
            f"{tuple(passes[0].shape)} for {examples} examples; an exported file holds no other: "
            "use mcbn.predict"
        )
    predicted = likelihood.summarize(iter(passes))
    expected = {name: getattr(predicted, name) for name in outputs}
    return Trial(inputs, torch.stack(passes).double(), expected)


def _repeated(network: Module, inputs: Inputs) -> Tensor:
    """What a network answers twice alike."""
    answers: list[Tensor] = []
    for seed in (0, 1):
        with torch.no_grad(), random_streams(seed, "export"):
            answers.append(network(inputs))
    if not answers[0].equal(answers[1]):
        raise ValueError(
            "expected a network whose answers are fixed in eval mode, got one that draws at random "
            "or remembers its calls: asked twice it differs by "
            f"{max_difference(*answers):.3g}; switch that off in eval mode"
        )
    return answers[0]


def lowest_precision(models: Sequence[Module]) -> torch.dtype:
    """Return the least precise floating type of the networks' tensors."""
    types = {
        tensor.dtype
        for model in models
        for tensor in (*model.parameters(), *model.buffers())
        if tensor.is_floating_point()
    }
    return min(types, key=lambda dtype: dtype.itemsize, default=torch.float32)


def max_difference(actual: Tensor, expected: Tensor) -> float:
    """Return the largest absolute difference; infinite between different shapes."""
    if actual.shape != expected.shape:
        return float("inf")
    return float((actual.detach().double() - expected).abs().max())


def require_draws(network: Module, trial: Trial, dtype: torch.dtype) -> None:
    """Check each draw of a network at the scale on which the draws differ.

    Args:
        network: returns all draws, (batch, draws, ...).
        trial: what it is to return for which inputs.
        dtype: that it computes in.

    Raises:
        ValueError: a draw differs by more than rounding.
    """
    with torch.no_grad():
        found, expected = network(trial.inputs).double().movedim(1, 0), trial.draws
    spread = _largest(expected - expected.mean(0))
    limit = AGREEMENT * spread + _rounding(expected, dtype)
    _require(found, expected, limit, "the draws of the exported network")


def require_outputs(actual: Mapping[str, Tensor], trial: Trial, dtype: torch.dtype) -> None:
    """Check each output at its own scale.

    Raises:
        ValueError: an output differs by more than rounding; names it.
    """
    limits = _class_limits if "probabilities" in trial.expected else _real_limits
    for name, limit in limits(trial, dtype):
        _require(
            actual[name].detach().double(), trial.expected[name], limit, f"the exported {name}"
        )


def _require(found: Tensor, expected: Tensor, limit: Tensor, what: str) -> None:
    if found.shape != expected.shape:
        raise ValueError(
            f"expected {what} of shape {tuple(expected.shape)} as in mcbn.predict, got "
            f"{tuple(found.shape)}; use mcbn.predict for this network"
        )
    excess = (found - expected).abs() / limit.expand(expected.shape)
    excess = torch.where(found == expected, 0.0, excess)  # 0 / 0
    if not bool((excess <= 1).all()):  # NaN is none of these
        worst = excess.nan_to_num(torch.inf).argmax()
        got, wanted = (float(values.flatten()[worst]) for values in (found, expected))
        raise ValueError(
            f"expected {what} to equal those of mcbn.predict, got {got:.4g} in place of "
            f"{wanted:.4g}; use mcbn.predict for this network"
        )


def _largest(draws: Tensor) -> Tensor:
    """The largest magnitude of each output, over draws, examples and positions."""
    axes = [axis for axis in range(draws.ndim) if axis != 2]
    return draws.abs().amax(axes, keepdim=True)


def _rounding(draws: Tensor, dtype: torch.dtype) -> Tensor:
    """What rounding changes in each output of a network."""
    return _relative_rounding(dtype) * _largest(draws)


def _relative_rounding(dtype: torch.dtype) -> float:
    return ROUNDING.get(dtype, HALF_ROUNDING * torch.finfo(dtype).eps)


def _class_limits(trial: Trial, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    """The differences that rounding of the logits explains, to first order or above it."""
    logits = float(_rounding(trial.draws, dtype).max())
    relative = AGREEMENT + 4 * logits
    for name, values in trial.expected.items():
        limit = relative * values + LEAST
        if name == "mutual_information":
            limit = limit + logits * values.sqrt() + logits**2
        yield name, limit


def _real_limits(trial: Trial, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    expected, rounding = trial.expected, _rounding(trial.draws, dtype)[0]
    if expected["mean"].shape != trial.draws.shape[1:]:  # means, then log-variances
        rounding, noise = rounding.chunk(2, 1)
    else:
        noise = torch.zeros(())
    epistemic = expected["epistemic_variance"]
    sd = epistemic.sqrt()
    spread = 2 * AGREEMENT * epistemic + 2 * rounding * sd + rounding**2
    yield "mean", AGREEMENT * sd + rounding
    yield "epistemic_variance", spread
    yield "variance", spread + (AGREEMENT + noise) * expected["variance"]
