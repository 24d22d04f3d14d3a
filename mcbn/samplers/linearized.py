"""MCBN with the network linearised in its batch-norm statistics: many draws for the price of a few.

Outputs are nearly linear in batch-norm statistics. One forward pass at the mean of the bank and
one backward pass per output give all draws to first order, in bfloat16 if wanted; a few exact draws
correct their mean and show how good the approximation is.
"""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import Module

from mcbn.bank.bank import Bank, require_bank
from mcbn.bank.coordinates import to_statistics
from mcbn.bank.posteriors import JointPosterior
from mcbn.inspection.layers import class_name
from mcbn.io.display import Display, Displayed
from mcbn.network.batchnorm import (
    require_finite_weights,
    unwrapped,
)
from mcbn.network.conduct import conduct_of
from mcbn.network.inputs import Inputs, device_of
from mcbn.network.isolation import eval_mode
from mcbn.network.known_conducts import Conduct
from mcbn.network.layer_names import Layers, layers_text
from mcbn.samplers.batch_norm import drawn_statistics
from mcbn.samplers.engines import draws
from mcbn.samplers.linearization import linearize
from mcbn.samplers.loop import FirstDraw, checked_inputs
from mcbn.samplers.outputs import Output
from mcbn.samplers.precision import ChosenPrecision, PrecisionChoice, in_own_precision
from mcbn.samplers.uncertainty_ratio import (
    Uncertainty,
    UncertaintyRatio,
    chosen_uncertainty,
    paired_ratio,
    parts,
    require_uncertainty,
)

# Exact draws that decide whether to trust: by 64, no network of those measured was trusted wrongly;
# by 16 and 32 some were, whose rare draws were not among them (docs/fewer_draws.md).
COMPARED = 64

LinearPrecision = Literal["float32", "bfloat16"]


@dataclass(frozen=True, repr=False)
class Linearity(Displayed):
    """How well the linear approximation agrees with exact passes, over some draws of a bank.

    Attributes:
        ratio: epistemic uncertainty of the linear draws, with the sampler's correction, divided by
            that of the exact ones. `trusted` goes by it alone.
        exact: the number of draws compared.
        batch_size: M, the mini-batch size the draws stand for.
        residual: root mean square over inputs and outputs of the standard deviation over draws of
            exact - linear, as a fraction of that of the linear draws; 0 is perfectly linear.
        bias: root mean square of the mean of exact - linear, in the same unit; the sampler
            corrects for it.
        outputs: the residual of each output alone.
    """

    ratio: UncertaintyRatio
    exact: int
    batch_size: float
    residual: float
    bias: float
    outputs: tuple[float, ...]

    def display(self) -> Display:
        """How close the approximation is, and the residual of each output."""
        heading = f"Linearity, {self.ratio.verdict.lower()}: {self.ratio}"
        rows = [(str(number), f"{value:.3g}") for number, value in enumerate(self.outputs)]
        rows = [("all", f"{self.residual:.3g}"), *rows]
        return Display(heading, ("output", "residual"), rows)

    @property
    def trusted(self) -> bool:
        """Whether the linear draws may be used in place of exact ones: an error of at most 15%."""
        return self.ratio.trusted

    def __str__(self) -> str:
        found = (
            f"{self.ratio.verdict}: the linear draws have {self.ratio} of the same {self.exact} "
            f"draws passed exactly, at M = {self.batch_size:g}."
        )
        return f"{found} {ADVICE[self.ratio.verdict]}".strip()


ADVICE = {
    "Trusted": "",
    "Undecided": "Compare more draws, as linearity(inputs, draws=256), or use MCBatchNorm.",
    "Not to be trusted": (
        "The batch size is too small, or the network too far from linear in its statistics; use "
        "MCBatchNorm."
    ),
}


@dataclass(frozen=True, eq=False, repr=False)
class LinearizedBatchNorm(Displayed):
    """Monte Carlo batch normalisation to first order in the statistics, corrected by exact draws.

    Draw t is `f(c) + J (s_t - c) + b`: s_t are the coordinates of draw t in its bank, c their mean
    over the bank, J the Jacobian of an example's outputs, and b the `correction` by the exact
    draws, which are returned as they are. The cost is one forward pass, one backward pass
    per output and one forward pass per exact draw, however many draws the bank holds; so it pays
    off for few outputs and many draws. No gradients flow to the inputs.

    Args:
        model: the trained network; its outputs have the axes (batch, outputs).
        bank: draws of its batch-norm statistics, from `collect`; a few hundred.
        exact: how many draws, the first of the bank, are passes of the network itself.
        top: how many outputs of each example vary with the draws, those largest at c; the others
            stay at `f(c) + b`. All by default. For many classes, few of which matter.
        output: picks the output tensor where the network returns something else.
        layers: which layers are stochastic; see `MCBatchNorm`.
        precision: of the pass at c and of the backward passes. "float32" is that of the network;
            "bfloat16" is autocast, at about half of the time on processors with units for it.
            Exact draws are in float32 all the same, so `b` takes away what rounding does to `f(c)`;
            give at least one.

    Raises:
        TypeError: the model is not a module, or the bank is not a bank.
        ValueError: `exact` is negative, `top` below 1, there is no such layer or precision, the
            bank has a single draw or belongs to another model, or a weight is not finite.

    Reference:
        Immer, Korzepa and Bauer 2021, "Improving predictions of Bayesian neural nets via local
        linearization", the same first order in the weights.
    """

    model: Module
    bank: Bank
    exact: int = field(default=4, kw_only=True)
    top: int | None = field(default=None, kw_only=True)
    output: Output | None = field(default=None, kw_only=True)
    layers: Layers = field(default=None, kw_only=True)
    precision: LinearPrecision = field(default="float32", kw_only=True)
    _precision: ChosenPrecision = field(init=False)

    def __post_init__(self) -> None:
        if self.exact < 0:
            raise ValueError(f"expected exact of at least 0, got {self.exact}; give 4, for example")
        if self.top is not None and self.top < 1:
            raise ValueError(
                f"expected top of at least 1 output, got {self.top}; leave it out for all"
            )
        require_bank(self.bank)
        if len(self.bank) < 2:
            raise ValueError(
                f"expected a bank of at least 2 draws, got {len(self.bank)}; collect 256, say"
            )
        object.__setattr__(self, "model", unwrapped(self.model))
        require_finite_weights(self.model)
        self.bank.require_model(self.model)
        self._drawn()
        object.__setattr__(self, "_precision", _precision_of(self))

    def __len__(self) -> int:
        return len(self.bank)

    @property
    def precision_choice(self) -> PrecisionChoice | None:
        """The precision of the linear draws."""
        return self._precision.choice

    def display(self) -> Display:
        """What it is made of, in one line."""
        return Display(
            f"LinearizedBatchNorm of {class_name(self.model)}: T = {len(self)}, "
            f"M = {self.bank.size:g}, {self.exact} exact draws"
            + ("" if self.layers is None else f", {layers_text(self.layers)}")
            + str(self._precision)
        )

    def passes(self, inputs: Inputs) -> Iterator[Tensor]:
        """Yield the outputs for all inputs, one draw at a time; they are computed all at once."""
        yield from self(inputs)

    def __call__(self, inputs: Inputs) -> Float[Tensor, "draws batch outputs"]:
        """All draws stacked.

        Raises:
            ValueError: an input is NaN or infinite, the outputs have other axes, or there is no
                derivative of each example's outputs with respect to the statistics.
            TypeError: the network's output is not a tensor.
        """
        inputs, conduct = self._checked(inputs)
        exact_count = min(self.exact, len(self))
        if exact_count == len(self):
            return self._exact(inputs, exact_count)
        outputs = self._linear(inputs, conduct)
        if exact_count > 0:
            exact = self._exact(inputs, exact_count)
            outputs += correction(exact - outputs[:exact_count])
            outputs[:exact_count] = exact
        return outputs

    def linearity(
        self, inputs: Inputs, *, draws: int | None = None, of: Uncertainty | None = None
    ) -> Linearity:
        """Compare the linear approximation with exact passes, on a few inputs.

        Args:
            inputs: some of those to predict; a hundred are enough.
            draws: how many to compare, the first of the bank; 64 by default, or all if it has
                fewer. Each costs a pass of the inputs.
            of: the uncertainty to compare, "mutual information" of logits or "variance" of the
                outputs. If left out, mutual information for two outputs or more that do not look
                like probabilities; give "variance" for a regression of several targets.

        Raises:
            ValueError: `draws` is out of range, there is no such uncertainty, or as for a call of
                the sampler.
        """
        draws = min(COMPARED, len(self)) if draws is None else draws
        if not 2 <= draws <= len(self):
            raise ValueError(
                f"expected from 2 to {len(self)} draws, all of the bank, got {draws}; leave it out"
            )
        require_uncertainty(of)
        inputs, conduct = self._checked(inputs)
        linear = self._linear(inputs, conduct).double()
        exact = self._exact(inputs, draws)
        return self._compared(linear, exact.double(), chosen_uncertainty(of, exact[0]))

    def _compared(self, linear: Tensor, exact: Tensor, of: Uncertainty) -> Linearity:
        """Linear draws of the whole bank, not yet corrected, against exact ones of its first."""
        draws = len(exact)
        missed = exact - linear[:draws]
        corrected = linear[:draws]
        if self.exact > 0:
            corrected = corrected + correction(missed[: self.exact])
        spread = linear.var(0).mean(0)
        return Linearity(
            ratio=paired_ratio(parts(corrected, of), parts(exact, of), of),
            exact=draws,
            batch_size=self.bank.size,
            residual=float(_root_ratio(missed.var(0).mean(0).sum(), spread.sum())),
            bias=float(_root_ratio(missed.mean(0).square().mean(0).sum(), spread.sum())),
            outputs=tuple(_root_ratio(missed.var(0).mean(0), spread).tolist()),
        )

    def _checked(self, inputs: Inputs) -> tuple[Inputs, Conduct]:
        """The inputs, and how the network treats them, which has to be each by itself."""
        inputs = checked_inputs(self.model, inputs)
        first = FirstDraw(self.model, self._drawn().state(0), self.output)
        conduct = conduct_of(self.model, inputs, first)
        if conduct.mixes or conduct.random or conduct.changes:
            raise ValueError(
                "expected a network whose output for an example is fixed by that example, got one "
                "that mixes examples, draws random numbers in eval mode or changes itself in a "
                "pass; use MCBatchNorm"
            )
        return inputs, conduct

    def _exact(self, inputs: Inputs, number: int) -> Tensor:
        """The first draws of the bank, passed through the network as `MCBatchNorm` does."""
        chosen = {name: rows[:number] for name, rows in self._drawn().statistics.items()}
        with torch.no_grad():
            return torch.stack(list(draws(self.model, chosen, inputs, output=self.output)))

    def _linear(self, inputs: Inputs, conduct: Conduct) -> Float[Tensor, "draws batch outputs"]:
        """All draws to first order."""
        # The caller may be in inference mode, where nothing is recorded.
        with eval_mode(self.model), torch.inference_mode(False), torch.enable_grad():
            bank = self._drawn()
            posterior, epsilon = JointPosterior.from_bank(bank), bank.epsilon
            center = to_statistics(posterior.center, epsilon)
            with self._autocast():
                at_center = linearize(self.model, center, epsilon, inputs, self.output, conduct)
            if self.precision == "bfloat16":
                at_center = replace(at_center, outputs=at_center.outputs.float())
            deviations = torch.cat([posterior.deviations[n] for n in at_center.names], dim=1)
            deviations = deviations.to(at_center.layers[0].mean)
            outputs = at_center.outputs.detach()
            linear = outputs.expand(len(self), -1, -1).clone()
            # One output at a time: the gradients of all would take far more memory.
            for chosen in self._varying(outputs):
                column = at_center.outputs.gather(1, chosen[:, None])[:, 0]
                with in_own_precision(inputs):
                    steps = (deviations @ at_center.gradients(column).T).to(linear)
                index = chosen[None, :, None].expand(len(self), -1, 1)
                linear.scatter_add_(2, index, steps[:, :, None])
        return linear

    def _autocast(self) -> AbstractContextManager[object]:
        """The precision of the pass whose gradients are taken."""
        if self.precision == "float32":
            return nullcontext()
        return torch.autocast(device_of(self.model).type, dtype=torch.bfloat16)

    def _drawn(self) -> Bank:
        """The draws of the stochastic layers."""
        if self.layers is None:
            return self.bank
        return replace(self.bank, statistics=drawn_statistics(self.model, self.bank, self.layers))

    def _varying(self, outputs: Tensor) -> Iterable[Tensor]:
        """Indices of the outputs that vary with the draws, one for each example at a time."""
        if self.top is not None and self.top < outputs.shape[1]:
            return outputs.topk(self.top, dim=1).indices.unbind(1)
        indices = torch.arange(outputs.shape[1], device=outputs.device)
        return indices[:, None].expand(-1, len(outputs))


def correction(missed: Float[Tensor, "draws batch outputs"]) -> Float[Tensor, "batch outputs"]:
    """What linear draws miss on average, shrunk by how well a few exact draws know it.

    The mean over k draws of exact - linear, times the factor of James and Stein of each example,
    `1 - (d - 2)/d v/(v + 2) V/B`, at least 0: B is the sum of squares of the mean over the d
    outputs, V that of its variances, and v = d (k - 1). With one draw, or two outputs or fewer, it
    is the mean itself.

    Args:
        missed: exact - linear, for each exact draw.

    Reference:
        James and Stein 1961, "Estimation with quadratic loss", with the variance estimated.
    """
    count, outputs = len(missed), missed.shape[2]
    mean = missed.mean(0)
    if count < 2 or outputs <= 2:
        return mean
    freedom = outputs * (count - 1)
    share = (outputs - 2) / outputs * freedom / (freedom + 2)
    noise = missed.var(0).sum(1, keepdim=True) / count
    size = mean.square().sum(1, keepdim=True)
    # Where nothing is missed there is nothing to shrink.
    factor = (1 - share * noise / size).clamp(min=0).where(size > 0, 0.0)
    return factor * mean


def _precision_of(sampler: LinearizedBatchNorm) -> ChosenPrecision:
    """The precision of a sampler's linear draws.

    Raises:
        ValueError: there is no such precision, or the network is not of float32.
    """
    if sampler.precision not in get_args(LinearPrecision):
        raise ValueError(
            f"expected a precision among {get_args(LinearPrecision)}, got {sampler.precision!r}; "
            'give "bfloat16" on processors with units for it, or leave it out'
        )
    return ChosenPrecision(sampler.precision, (sampler.model,), len(sampler))


def _root_ratio(part: Tensor, whole: Tensor) -> Tensor:
    """The root of part/whole; 0/0, an output that does not vary at all, counts as linear."""
    return torch.where(part == 0, 0.0, part / whole).sqrt()
