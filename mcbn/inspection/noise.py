"""How noisy the statistics of a mini-batch are, layer by layer, from one pass of a few examples."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import Module

from mcbn.bank.collect import collect
from mcbn.network.batchnorm import HALF_PRECISION, statistics_names
from mcbn.network.inputs import Inputs, count, device_of, forward, slice_examples, to_device
from mcbn.network.isolation import intercepted, own_warnings, random_streams

# With three, squares about their mean have the same relative spread whatever the values are.
MIN_EXAMPLES = 4
# The examples are cut into at least so many mini-batches, of so many examples: the noise of fewer
# than four is far from that of many, and more than eight are better spent on more mini-batches.
MIN_GROUPS, MIN_GROUP_EXAMPLES, MAX_GROUP_EXAMPLES = 4, 4, 8
# Share of a variance below which it is rounding.
ROUNDING = 1e-10


@dataclass(frozen=True)
class Noisiness:
    """How noisy one layer's mean and variance are over draws, to first order in 1 / M.

    Attributes:
        independent: how many independent values have a mean as noisy as that of M examples as
            they are; from M (positions all say the same) to M times the positions (each says
            something new), and above it where all examples share a pattern of positions.
        mean_sd: standard deviation of the mean, in units of the layer's own.
        log_variance_sd: standard deviation of the logarithm of the variance.
    """

    independent: float
    mean_sd: float
    log_variance_sd: float

    @property
    def variance(self) -> float:
        """What the draws add to the normalised output, in units of its own variance.

        A mean off by a shifts it by a; a log-variance off by b scales it by 1 - b/2.
        """
        return self.mean_sd**2 + self.log_variance_sd**2 / 4


@dataclass(frozen=True)
class Observation:
    """What one pass of a few examples showed of the layers, by name, for mini-batches of M.

    Attributes:
        examples: how many went through.
        calls: how often each layer was called.
        values: values behind each channel's mean and variance: M times the positions.
        noise: how noisy the statistics are; layers are left out where that cannot be told.
        drawn: the noise is that of small mini-batches that were drawn; else that of the examples
            as they are, which overstates it in all layers but the first, since a draw takes out
            what earlier layers share.
        failure: what the network raised, in words; "" if the pass ended well.
    """

    examples: int
    calls: Mapping[str, int]
    values: Mapping[str, int]
    noise: Mapping[str, Noisiness]
    drawn: bool = False
    failure: str = ""


@dataclass(frozen=True)
class _Call:
    """One call of a layer: values a channel and an example, and `relative_spread` if known."""

    values: float
    spread: tuple[float, float] | None


def observe(
    model: Module, layers: Mapping[str, Module], inputs: Inputs, *, batch_size: int
) -> Observation:
    """Send a few examples through and look at the inputs of `layers`; keeps none of them.

    One pass in eval mode. Where there are enough examples another one, in small mini-batches,
    each on its own statistics, as `collect` does.
    """
    calls, failure = _eval_pass(model, layers, inputs)
    once = {name: found[0] for name, found in calls.items() if len(found) == 1}
    noise = {
        name: noise_at(call.spread, batch_size)
        for name, call in once.items()
        if call.spread is not None
    }
    drawn = {} if failure or not noise else _drawn(model, inputs, batch_size)
    return Observation(
        count(inputs),
        {name: len(found) for name, found in calls.items()},
        {name: round(call.values * batch_size) for name, call in once.items()},
        {
            name: replace(each, mean_sd=drawn[name][0], log_variance_sd=drawn[name][1])
            if name in drawn
            else each
            for name, each in noise.items()
        },
        bool(drawn),
        failure,
    )


def _eval_pass(
    model: Module, layers: Mapping[str, Module], inputs: Inputs
) -> tuple[dict[str, list[_Call]], str]:
    """The calls of each layer, and what the network raised."""
    calls: dict[str, list[_Call]] = {name: [] for name in layers}
    hooks = {layer: partial(_look, calls[name], count(inputs)) for name, layer in layers.items()}
    failure = ""
    try:
        with random_streams(0, "inspect"), torch.no_grad(), intercepted(model, {}, hooks):
            forward(model, {}, to_device(inputs, device_of(model)))
    except Exception as error:  # whatever a user's network raises on inputs not made for it
        failure = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
    return calls, failure


def _drawn(model: Module, inputs: Inputs, batch_size: int) -> dict[str, tuple[float, float]]:
    """Noise of mean and log-variance over mini-batches of the examples, scaled to M.

    Empty where the examples are too few, or the network cannot be drawn.
    """
    size = min(count(inputs) // MIN_GROUPS, MAX_GROUP_EXAMPLES)
    if size < MIN_GROUP_EXAMPLES:
        return {}
    starts = range(0, count(inputs) - size + 1, size)
    groups = [slice_examples(inputs, start, start + size) for start in starts]
    try:
        with own_warnings():
            warnings.simplefilter("ignore")
            bank = collect(model, groups, select=lambda batch: batch, progress=False)
    except Exception:  # `symptoms` says what it is
        return {}
    rows, pooled = bank.coordinates(), bank.pooled()
    found = {}
    for name, (mean, variance) in statistics_names(dict(model.named_modules())).items():
        if mean in rows and bool((alive := pooled[variance] > 0).any()):
            of_mean = rows[mean].var(0)[alive] / pooled[variance][alive]
            ratio = size / batch_size
            found[name] = (
                float((of_mean.mean() * ratio).sqrt()),
                float((rows[variance].var(0)[alive].mean() * ratio).sqrt()),
            )
    return found


def _look(
    calls: list[_Call],
    examples: int,
    _layer: Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> None:
    activations = args[0] if args else next(iter(kwargs.values()))
    values = activations.numel() / activations.shape[1] / examples
    calls.append(_Call(values, _spread(activations, examples)))


def _spread(activations: Tensor, examples: int) -> tuple[float, float] | None:
    rows, channels = activations.shape[:2]
    if examples < MIN_EXAMPLES or rows % examples or activations.is_meta:
        return None
    if activations.dtype in HALF_PRECISION:
        activations = activations.float()
    # A network of clips or crops has several rows an example, one after the other.
    grouped = activations.reshape(examples, rows // examples, channels, -1).transpose(1, 2)
    return relative_spread(grouped.flatten(2))


def relative_spread(
    values: Float[Tensor, "batch channels positions"],
) -> tuple[float, float] | None:
    r"""Variance of a mini-batch's mean and of its log-variance, times M, relative to the layer's.

    With $a_i$ the mean over positions of example $i$, $w_i$ its variance over positions (divided
    by their number), and $\sigma^2 = E[w] + \operatorname{Var}(a)$ the variance of all values,

    $$M \operatorname{Var}(\mu) / \sigma^2 = \operatorname{Var}(a) / \sigma^2, \qquad
    M \operatorname{Var}(\log v) = \operatorname{Var}(w + (a - E a)^2) / \sigma^4 .$$

    Both are means over channels; a channel without variance does not count. For independent
    positions they are 1/P and (kappa + 2)/P, with excess kurtosis kappa; for constant ones 1 and
    kappa + 2. Squares about a mean of B examples spread too little; that is undone as for normal
    values, exactly where positions are constant. With few examples heavy tails are missed, and
    the first figure is low by up to 15 % at B = 4 and 6 % at B = 8, between the two limits.

    Returns:
        None if no channel varies, or a value is not finite.
    """
    examples = len(values)
    within, means = torch.var_mean(values, dim=2, correction=0)
    within, means = within.double(), means.double()
    total = within.mean(0) + means.var(0)
    alive = total > ROUNDING * means.square().mean(0)
    if not bool(torch.isfinite(total).all()) or not bool(alive.any()):
        return None
    within, means, total = within[:, alive], means[:, alive], total[alive]
    squares = (means - means.mean(0)).square()
    # For normal values the sample variance of squares is 2 (B - 2) / B on average, and that of
    # the squared variance that it is divided by (B + 1) / (B - 1), independently.
    undone = (examples * (examples + 1) / ((examples - 2) * (examples - 1))) ** 0.5
    scatter = (within - within.mean(0)) + undone * (squares - squares.mean(0))
    of_mean = means.var(0) / total
    of_log_variance = scatter.square().sum(0) / (examples - 1) / total.square()
    return float(of_mean.mean()), float(of_log_variance.mean())


def noise_at(spread: tuple[float, float], batch_size: int) -> Noisiness:
    """The noise of a layer of that relative spread at mini-batches of `batch_size` examples."""
    of_mean, of_log_variance = spread
    return Noisiness(
        batch_size / max(of_mean, ROUNDING),
        (of_mean / batch_size) ** 0.5,
        (of_log_variance / batch_size) ** 0.5,
    )
