"""Estimate the noise of each layer's mini-batch statistics, from a pass of a few examples."""

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
from mcbn.inspection.trial import mini_batch
from mcbn.io.display import Display, Displayed
from mcbn.network.batchnorm import HALF_PRECISION, statistics_names
from mcbn.network.conduct import network_conduct
from mcbn.network.inputs import Inputs, can_be_cut, count, slice_examples, to_network
from mcbn.network.isolation import intercepted, own_warnings, random_streams, restored
from mcbn.network.passes import forward

# Of three values the squares about the mean have the same relative spread, whatever the values are.
MIN_EXAMPLES = 4
# The examples are split into mini-batches: at least 4 of them, of 4 to 8 examples. The noise of
# smaller ones is far from that of large ones; beyond 8 examples more mini-batches are better.
MIN_GROUPS, MIN_GROUP_EXAMPLES, MAX_GROUP_EXAMPLES = 4, 4, 8
# A variance below this fraction of the squared mean is rounding.
ROUNDING = 1e-10


@dataclass(frozen=True)
class Noisiness:
    """Noise of one layer's mean and variance over draws, to first order in 1 / M.

    Attributes:
        independent: number of independent values whose mean is as noisy as that of M examples:
            from M (all positions equal) to M times the positions (all independent), and above it
            where all examples share a pattern of positions.
        mean_sd: standard deviation of the mean, in units of that of the activations.
        log_variance_sd: standard deviation of the logarithm of the variance.
    """

    independent: float
    mean_sd: float
    log_variance_sd: float

    @property
    def variance(self) -> float:
        """Variance that the draws add to the normalised output, in units of its own variance.

        A mean off by a shifts the output by a; a log-variance off by b scales it by 1 - b/2.
        """
        return self.mean_sd**2 + self.log_variance_sd**2 / 4


@dataclass(frozen=True, repr=False)
class Observation(Displayed):
    """What a pass of a few examples showed of the layers, by name, for mini-batches of M.

    Attributes:
        examples: their number.
        calls: number of calls of each layer.
        values: number of values per channel in a mean and variance: M times the positions.
        noise: noise of the statistics; layers for which it is not known are left out.
        drawn: whether the noise is that of small mini-batches that were drawn. Otherwise it is
            computed from the spread of the examples, which overstates it in all layers but the
            first, since batch norm in earlier layers removes what a mini-batch has in common.
        failure: the error that the network raised; "" if there was none.
    """

    examples: int
    calls: Mapping[str, int]
    values: Mapping[str, int]
    noise: Mapping[str, Noisiness]
    drawn: bool = False
    failure: str = ""

    def display(self) -> Display:
        """What was seen of each layer."""
        heading = f"Observation of {self.examples} examples"
        heading += f", which failed: {self.failure}" if self.failure else ""
        return Display(heading, ("layer", "calls", "values", "sd of mean", "sd of log variance"), [
            (name or "(itself)", str(calls), str(self.values.get(name, "-")),
             *_noise_cells(self.noise.get(name)))
            for name, calls in self.calls.items()
        ])  # fmt: skip


def _noise_cells(noise: Noisiness | None) -> tuple[str, str]:
    if noise is None:
        return "-", "-"
    return f"{noise.mean_sd:.3g}", f"{noise.log_variance_sd:.3g}"


@dataclass(frozen=True)
class _Call:
    """One call of a layer: values per channel and example, and `relative_spread` if known."""

    values: float
    spread: tuple[float, float] | None


def observe(
    model: Module, layers: Mapping[str, Module], inputs: Inputs, *, batch_size: int
) -> Observation:
    """Pass a few examples through the network and observe the activations that enter `layers`.

    There is one pass in eval mode. With enough examples they are also passed in small mini-batches,
    each normalised by its own statistics, as `collect` does.
    """
    calls, failure = _eval_pass(model, layers, inputs)
    if any(len(of_layer) > 1 for of_layer in calls.values()):
        # Virtual batch norm calls a layer on pieces, of which a mini-batch may have only one.
        calls, failure = _eval_pass(model, layers, mini_batch(inputs, batch_size))
    once = {name: of_layer[0] for name, of_layer in calls.items() if len(of_layer) == 1}
    noise = {
        name: noise_at(call.spread, batch_size)
        for name, call in once.items()
        if call.spread is not None
    }
    drawn = {} if failure or not noise else _drawn_noise(model, inputs, batch_size)
    return Observation(
        count(inputs),
        {name: len(of_layer) for name, of_layer in calls.items()},
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
    """The calls of each layer, and the error that the network raised."""
    calls: dict[str, list[_Call]] = {name: [] for name in layers}
    hooks = {layer: partial(_record, calls[name], count(inputs)) for name, layer in layers.items()}
    failure = ""
    try:
        with (
            random_streams(0, "inspect"),
            torch.no_grad(),
            restored(model, parameters=True),
            intercepted(model, {}, hooks),
        ):
            forward(model, {}, to_network(model, inputs))
    except Exception as error:  # whatever a user's network raises on inputs not made for it
        failure = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
    return calls, failure


def _drawn_noise(model: Module, inputs: Inputs, batch_size: int) -> dict[str, tuple[float, float]]:
    """Noise of mean and log-variance over mini-batches of the examples, scaled to M, by layer.

    Empty where there are too few examples, or the network is incompatible.
    """
    size = min(count(inputs) // MIN_GROUPS, MAX_GROUP_EXAMPLES)
    if size < MIN_GROUP_EXAMPLES or not can_be_cut(inputs):
        return {}
    starts = range(0, count(inputs) - size + 1, size)
    groups = [slice_examples(inputs, start, start + size) for start in starts]
    try:
        with own_warnings():
            warnings.simplefilter("ignore")
            if not network_conduct(model, to_network(model, inputs)).separable:
                return {}  # its rows are no examples
            bank = collect(model, groups, select=lambda batch: batch, limit=None, progress=False)
    except Exception:  # `diagnose` explains it
        return {}
    rows, pooled = bank.coordinates(), bank.pooled()
    noise = {}
    for name, (mean, variance) in statistics_names(dict(model.named_modules())).items():
        if mean in rows and bool((alive := pooled[variance] > 0).any()):
            of_mean = rows[mean].var(0)[alive] / pooled[variance][alive]
            ratio = size / batch_size
            noise[name] = (
                float((of_mean.mean() * ratio).sqrt()),
                float((rows[variance].var(0)[alive].mean() * ratio).sqrt()),
            )
    return noise


def _record(
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
    # A network of video clips or crops has several rows per example, one after the other.
    grouped = activations.reshape(examples, rows // examples, channels, -1).transpose(1, 2)
    return relative_spread(grouped.flatten(2))


def relative_spread(
    values: Float[Tensor, "batch channels positions"],
) -> tuple[float, float] | None:
    r"""Variance of a mini-batch's mean, relative to that of the values, and of its log-variance.

    Both are times the number M of examples.

    With $a_i$ the mean over positions of example $i$, $w_i$ its variance over positions (divided
    by their number), and $\sigma^2 = E[w] + \operatorname{Var}(a)$ the variance of all values,

    $$M \operatorname{Var}(\mu) / \sigma^2 = \operatorname{Var}(a) / \sigma^2, \qquad
    M \operatorname{Var}(\log v) = \operatorname{Var}(w + (a - E a)^2) / \sigma^4 .$$

    Both are means over channels; channels without variance are left out. For P independent
    positions they are 1/P and (kappa + 2)/P, with excess kurtosis kappa; for constant ones 1 and
    kappa + 2. Squares about the mean of B examples spread too little; this is corrected as for
    normal values, exactly where positions are constant. With few examples heavy tails are missed,
    and between the two limits the first value is low by up to 15% at B = 4 and 6% at B = 8.

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
    # For normal values the sample variance of squares is 2 (B - 2) / B on average, and the mean of
    # the squared variance that it is divided by is (B + 1) / (B - 1), independently.
    correction = (examples * (examples + 1) / ((examples - 2) * (examples - 1))) ** 0.5
    scatter = (within - within.mean(0)) + correction * (squares - squares.mean(0))
    of_mean = means.var(0) / total
    of_log_variance = scatter.square().sum(0) / (examples - 1) / total.square()
    return float(of_mean.mean()), float(of_log_variance.mean())


def noise_at(spread: tuple[float, float], batch_size: int) -> Noisiness:
    """Noise of a layer with that `relative_spread`, in mini-batches of `batch_size` examples."""
    of_mean, of_log_variance = spread
    return Noisiness(
        batch_size / max(of_mean, ROUNDING),
        (of_mean / batch_size) ** 0.5,
        (of_log_variance / batch_size) ** 0.5,
    )
