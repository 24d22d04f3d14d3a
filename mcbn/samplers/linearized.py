"""MCBN with the network linearised in its batch-norm statistics: many draws for the price of a few.

Outputs are nearly linear in batch-norm statistics. One forward pass at the mean of the bank and
one backward pass per output give all draws to first order; a few exact draws correct their mean and
show how good the approximation is.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import Module

from mcbn import validation
from mcbn.bank.bank import Bank, require_bank
from mcbn.bank.posteriors import JointPosterior
from mcbn.network.batchnorm import (
    MEAN,
    VARIANCE,
    batch_norm_layers,
    epsilon_of,
    require_finite_weights,
    statistics_names,
    unwrapped,
)
from mcbn.network.conduct import Conduct, conduct_of
from mcbn.network.inputs import Inputs, count
from mcbn.network.isolation import eval_mode, intercepted
from mcbn.network.passes import forward
from mcbn.network.train_mode import require_second_axis
from mcbn.samplers.chunks import states
from mcbn.samplers.loop import FirstDraw, answers, checked_inputs
from mcbn.samplers.outputs import Output, tensor_output

# Largest residual, as a fraction of the spread over draws, that counts as linear: up to it, linear
# draws were measured to be better than as many passes as they cost (docs/fewer_draws.md).
MAX_RESIDUAL = 0.5
# Rounding of gradients of rows, relative to the largest of them.
ROW_ROUNDING = 1e-3


@dataclass(frozen=True)
class Linearity:
    """How well the linear approximation agrees with exact passes, over a few draws of a bank.

    Attributes:
        exact: the number of draws compared.
        batch_size: M, the mini-batch size the draws stand for.
        residual: root mean square over inputs and outputs of the standard deviation over draws of
            exact - linear, as a fraction of that of the linear draws; 0 is perfectly linear.
        bias: root mean square of the mean of exact - linear, in the same unit; the sampler
            corrects for it.
        outputs: the residual of each output alone.
    """

    exact: int
    batch_size: float
    residual: float
    bias: float
    outputs: tuple[float, ...]

    @property
    def trusted(self) -> bool:
        """Whether the linear draws may be used in place of exact ones."""
        return self.residual <= MAX_RESIDUAL

    def __str__(self) -> str:
        residual = (
            f"linear draws miss {self.residual:.0%} of the spread over draws (M = "
            f"{self.batch_size:g}, compared on {self.exact} exact draws, limit {MAX_RESIDUAL:.0%})"
        )
        if self.trusted:
            return f"Trusted: {residual}."
        return (
            f"Not to be trusted: {residual}. The batch size is too small, or the network too far "
            "from linear in its statistics; use MCBatchNorm."
        )


@dataclass(frozen=True, eq=False)
class LinearizedBatchNorm:
    """Monte Carlo batch normalisation to first order in the statistics, corrected by exact draws.

    Draw t is `f(c) + J (s_t - c) + b`: s_t are the means and log-variances of draw t, c their mean
    over the bank, J the Jacobian of an example's outputs, and b the mean of exact - linear over
    the exact draws, which are returned as they are. The cost is one forward pass, one backward pass
    per output and one forward pass per exact draw, however many draws the bank holds; so it pays
    off for few outputs and many draws. No gradients flow to the inputs.

    Args:
        model: the trained network; its outputs have the axes (batch, outputs).
        bank: draws of its batch-norm statistics, from `collect`; a few hundred.
        exact: how many draws, the first of the bank, are passes of the network itself.
        top: how many outputs of each example vary with the draws, those largest at c; the others
            stay at `f(c) + b`. All by default. For many classes, few of which matter.
        output: picks the output tensor where the network returns something else.

    Raises:
        TypeError: the model is not a module, or the bank is not a bank.
        ValueError: `exact` is negative, `top` below 1, the bank has a single draw or belongs to
            another model, or a weight is not finite.

    Reference:
        Immer, Korzepa and Bauer 2021, "Improving predictions of Bayesian neural nets via local
        linearization", the same first order in the weights.
    """

    model: Module
    bank: Bank
    exact: int = field(default=4, kw_only=True)
    top: int | None = field(default=None, kw_only=True)
    output: Output | None = field(default=None, kw_only=True)

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

    def __len__(self) -> int:
        return len(self.bank)

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
            return self._exact(inputs, exact_count, conduct)
        outputs = self._linear(inputs)
        if exact_count > 0:
            exact = self._exact(inputs, exact_count, conduct)
            outputs += (exact - outputs[:exact_count]).mean(0)
            outputs[:exact_count] = exact
        return outputs

    def linearity(self, inputs: Inputs, *, draws: int = 16) -> Linearity:
        """Compare the linear approximation with exact passes, on a few inputs.

        Args:
            inputs: some of those to predict; a hundred are enough.
            draws: how many to compare, the first of the bank.

        Raises:
            ValueError: `draws` is out of range, or as for a call of the sampler.
        """
        if not 2 <= draws <= len(self):
            raise ValueError(
                f"expected from 2 to {len(self)} draws, all of the bank, got {draws}; give 16"
            )
        inputs, conduct = self._checked(inputs)
        linear = self._linear(inputs).double()
        missed = self._exact(inputs, draws, conduct).double() - linear[:draws]
        spread = linear.var(0).mean(0)
        return Linearity(
            exact=draws,
            batch_size=self.bank.size,
            residual=float(_root_ratio(missed.var(0).mean(0).sum(), spread.sum())),
            bias=float(_root_ratio(missed.mean(0).square().mean(0).sum(), spread.sum())),
            outputs=tuple(_root_ratio(missed.var(0).mean(0), spread).tolist()),
        )

    def _checked(self, inputs: Inputs) -> tuple[Inputs, Conduct]:
        """The inputs, and how the network treats them, which has to be each by itself."""
        inputs = checked_inputs(self.model, inputs)
        first = FirstDraw(self.model, self.bank.state(0), self.output)
        conduct = conduct_of(self.model, inputs, first)
        if conduct.mixes or conduct.random or conduct.changes:
            raise ValueError(
                "expected a network whose output for an example is fixed by that example, got one "
                "that mixes examples, draws random numbers in eval mode or changes itself in a "
                "pass; use MCBatchNorm"
            )
        return inputs, conduct

    def _exact(self, inputs: Inputs, draws: int, conduct: Conduct) -> Tensor:
        drawn = {name: rows[:draws].clone() for name, rows in self.bank.statistics.items()}
        with torch.no_grad():
            raws = answers(self.model, states(drawn), inputs, conduct)
            return torch.stack([tensor_output(raw, self.output) for raw in raws])

    def _linear(self, inputs: Inputs) -> Float[Tensor, "draws batch outputs"]:
        """All draws to first order."""
        # The caller may be in inference mode, where nothing is recorded.
        with eval_mode(self.model), torch.inference_mode(False), torch.enable_grad():
            posterior = JointPosterior.from_bank(self.bank)
            at_center = linearize(self.model, posterior.center, inputs, self.output)
            deviations = torch.cat([posterior.deviations[n] for n in at_center.names], dim=1)
            deviations = deviations.to(at_center.layers[0].mean)
            outputs = at_center.outputs.detach()
            draws = outputs.expand(len(self), -1, -1).clone()
            # One output at a time: the gradients of all would take far more memory.
            for chosen in self._varying(outputs):
                column = at_center.outputs.gather(1, chosen[:, None])[:, 0]
                steps = (deviations @ at_center.gradients(column).T).to(draws)
                index = chosen[None, :, None].expand(len(self), -1, 1)
                draws.scatter_add_(2, index, steps[:, :, None])
        return draws

    def _varying(self, outputs: Tensor) -> Iterable[Tensor]:
        """Indices of the outputs that vary with the draws, one for each example at a time."""
        if self.top is not None and self.top < outputs.shape[1]:
            return outputs.topk(self.top, dim=1).indices.unbind(1)
        indices = torch.arange(outputs.shape[1], device=outputs.device)
        return indices[:, None].expand(-1, len(outputs))


def _root_ratio(part: Tensor, whole: Tensor) -> Tensor:
    """The root of part/whole; 0/0, an output that does not vary at all, counts as linear."""
    return torch.where(part == 0, 0.0, part / whole).sqrt()


@dataclass(frozen=True, eq=False)
class _Layer:
    """A batch-norm layer at the centre of the bank, and the activations that it receives.

    A gradient in the statistics would sum over the examples that share them; that in the
    activations a is each example's own. The layer's output depends on `(a - m) / sqrt(v + eps)`
    alone, so `df/dm = -sum df/da` and `df/dlog v = -v / (v + eps) / 2 sum (a - m) df/da`.
    """

    module: Module
    names: tuple[str, str]
    mean: Tensor
    factor: Tensor
    received: list[Tensor]

    def receive(
        self, layer: Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Keep a copy of the activations and pass it on: no other branch adds to its gradient."""
        require_second_axis(
            layer, (args, kwargs), (layer.get_buffer(MEAN), layer.get_buffer(VARIANCE))
        )
        key = None if args else next(iter(kwargs))
        copy = (args[0] if key is None else kwargs[key]).clone()
        if not copy.requires_grad:
            copy.requires_grad_()
        self.received.append(copy)
        return ((copy, *args[1:]), kwargs) if key is None else (args, {**kwargs, key: copy})

    def gradients(self, gradient: Tensor, activations: Tensor) -> Tensor:
        """Gradients in the mean and the log-variance, from that in the activations."""
        shape = (*activations.shape[:2], -1)
        kind = self.mean.dtype
        both = (gradient, activations)
        gradient, activations = (x.detach().reshape(shape).to(kind) for x in both)
        shift = gradient.sum(2)
        scale = torch.linalg.vecdot(gradient, activations) - self.mean * shift
        return torch.cat([-shift, self.factor * scale], dim=1)


def _layers(model: Module, center: Mapping[str, Tensor]) -> list[_Layer]:
    """The layers that the bank has draws of."""
    modules, buffers = batch_norm_layers(model), dict(model.named_buffers())
    layers = []
    for name, (mean, variance) in statistics_names(modules).items():
        if mean in center:
            epsilon = epsilon_of(name, modules[name])
            factor = -0.5 / (1 + epsilon / center[variance].exp())
            # Sums over positions are taken in float32 or better.
            kind = torch.promote_types(buffers[mean].dtype, torch.float32)
            like = torch.empty(0, dtype=kind, device=buffers[mean].device)
            numbers = (center[mean].to(like), factor.to(like))
            layers.append(_Layer(modules[name], (mean, variance), *numbers, received=[]))
    return layers


@dataclass(frozen=True, eq=False)
class Linearization:
    """A pass at one value of the statistics, with the autograd graph that its gradients need.

    Attributes:
        outputs: the network's outputs, (batch, outputs).
        layers: the stochastic layers, each with the activations that it received.
    """

    outputs: Tensor
    layers: Sequence[_Layer]

    @property
    def names(self) -> list[str]:
        """The statistics in the order of `gradients`."""
        return [name for layer in self.layers for name in layer.names]

    def gradients(self, column: Float[Tensor, " batch"]) -> Float[Tensor, "batch statistics"]:
        """Gradients of one output of every example, in all means and log-variances."""
        received = [activations for layer in self.layers for activations in layer.received]
        # Examples do not mix in eval mode, so the gradient of the sum holds each one's own.
        gradients = iter(_gradients(column, received))
        parts = []
        for layer in self.layers:
            zero = layer.mean.new_zeros(len(column), 2 * len(layer.mean))
            each = (layer.gradients(next(gradients), values) for values in layer.received)
            parts.append(sum(each, start=zero))
        return torch.cat(parts, dim=1)


def _gradients(column: Tensor, received: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Gradients of the sum of a column of outputs in all activations.

    Raises:
        ValueError: PyTorch cannot differentiate the network.
    """
    try:
        return torch.autograd.grad(
            column.sum(), received, retain_graph=True, materialize_grads=True
        )
    except RuntimeError as error:
        raise ValueError(
            f"expected a network that can be differentiated, got an error of PyTorch: "
            f"{str(error).splitlines()[0]}; write nothing in place after batch norm, or use "
            "MCBatchNorm"
        ) from error


def linearize(
    model: Module, center: Mapping[str, Tensor], inputs: Inputs, output: Output | None
) -> Linearization:
    """Pass `inputs` through `model` with the statistics `center`, with gradients enabled.

    Args:
        model: the network, in eval mode.
        center: means and log-variances, under the names of their buffers.
        inputs: of the network, from `checked_inputs`.
        output: picks the output tensor.

    Raises:
        ValueError: the outputs have other axes than (batch, outputs), have no gradients, or mix
            examples.
        TypeError: the network's output is not a tensor.
    """
    layers = _layers(model, center)
    # Detached, so that nothing is left on the weights.
    state = {name: weight.detach() for name, weight in model.named_parameters()}
    buffers = dict(model.named_buffers())
    for name, values in center.items():
        variance = name.endswith(VARIANCE)
        state[name] = (values.exp() if variance else values).to(buffers[name])
    with intercepted(model, {}, {layer.module: layer.receive for layer in layers}):
        raw = forward(model, state, inputs)
    outputs = validation.finite(tensor_output(raw, output), "the network's outputs")
    _require_separable(outputs, layers, count(inputs))
    at_center = Linearization(outputs, layers)
    _require_own_rows(at_center)
    return at_center


def _require_own_rows(at_center: Linearization) -> None:
    """Check that an example's output depends on its own row of the activations alone.

    A network may sort its examples, or gather them, and put them back: with the outputs weighted by
    example, the gradient in each row has to be that example's times its weight.

    Raises:
        ValueError: rows of activations are not those of the examples.
    """
    column = at_center.outputs[:, 0]
    weights = torch.linspace(1, 2, len(column), dtype=column.dtype, device=column.device)
    alone, weighted = at_center.gradients(column), at_center.gradients(column * weights)
    expected = alone * weights[:, None].to(alone)
    gap = (weighted - expected).abs().max()
    if len(column) > 1 and float(gap) > ROW_ROUNDING * float(expected.abs().max()):
        raise ValueError(
            "expected activations whose rows are the examples, in their order, got a network that "
            "sorts or mixes them on the way; use MCBatchNorm"
        )


def _require_separable(outputs: Tensor, layers: Sequence[_Layer], examples: int) -> None:
    """Check that each output of each example has a gradient of its own."""
    if outputs.ndim != 2 or len(outputs) != examples:
        raise ValueError(
            f"expected outputs with the axes (batch, outputs) for {examples} inputs, got "
            f"{tuple(outputs.shape)}; give output=function that reshapes them, or use MCBatchNorm"
        )
    if outputs.is_complex():
        raise ValueError(
            f"expected real outputs, got {outputs.dtype}; give output=function that makes real "
            "numbers of them, or use MCBatchNorm"
        )
    if not outputs.requires_grad:
        raise ValueError(
            "expected differentiable outputs, got a network without gradients (no_grad, argmax or "
            "detach inside); use MCBatchNorm"
        )
    for layer in layers:
        for activations in layer.received:
            if len(activations) != examples:
                raise ValueError(
                    f"expected activations of {examples} examples at {layer.names[0]!r}, got the "
                    f"shape {tuple(activations.shape)}, whose rows are not examples; use "
                    "MCBatchNorm"
                )
