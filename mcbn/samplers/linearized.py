"""Every draw of a large bank for the price of a few: the network linearised in its statistics.

Outputs are nearly linear in batch-norm statistics. One forward pass at the mean of the bank and
one backward pass an output give all draws to first order; a few exact draws correct their mean and
show how far they may be trusted.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import Module

from mcbn.bank.bank import Bank, require_bank
from mcbn.bank.posteriors import JointPosterior
from mcbn.network.batchnorm import (
    VARIANCE,
    batch_norm_layers,
    require_finite_weights,
    statistics_names,
    unwrapped,
)
from mcbn.network.inputs import Inputs, count, device_of, forward, moved, require_finite
from mcbn.network.isolation import eval_mode
from mcbn.samplers.loop import Output, passes, tensor_output

# Largest residual, as a share of the spread over draws, that is called linear enough: up to it,
# linear rows were measured to be better than as many plain passes (docs/fewer_draws.md).
LIMIT = 0.5


@dataclass(frozen=True)
class Linearity:
    """How well the linear rows met the exact ones, over a few draws of a bank.

    Attributes:
        exact: the number of draws compared.
        batch_size: M, the mini-batch size the draws stand for.
        residual: root mean square over inputs and outputs of the standard deviation over draws of
            exact less linear, as a share of that of the linear rows; 0 is perfectly linear.
        bias: root mean square of the mean of exact less linear, in the same unit; the sampler
            takes it off.
        outputs: the residual of each output alone.
    """

    exact: int
    batch_size: float
    residual: float
    bias: float
    outputs: tuple[float, ...]

    @property
    def trusted(self) -> bool:
        """Whether the linear rows may stand for exact ones."""
        return self.residual <= LIMIT

    def __str__(self) -> str:
        found = (
            f"linear rows miss {self.residual:.0%} of the spread over draws (M = "
            f"{self.batch_size:g}, compared on {self.exact} exact draws, limit {LIMIT:.0%})"
        )
        if self.trusted:
            return f"Trusted: {found}."
        return (
            f"Not to be trusted: {found}. The batch size is too small, or the network too far from "
            "linear in its statistics; use MCBatchNorm."
        )


@dataclass(frozen=True, eq=False)
class LinearizedBatchNorm:
    """Monte Carlo batch normalisation to first order in the statistics, corrected by exact draws.

    Row t is `f(c) + J (s_t - c) + b`: s_t are the means and log-variances of draw t, c their mean
    over the bank, J the Jacobian of an example's outputs, and b the mean of exact less linear over
    the exact draws, whose own rows are exact. The cost is one forward and one backward pass an
    output, and one forward pass an exact draw, however many draws the bank holds; so it pays for
    few outputs and many draws. No gradients flow to the inputs.

    Args:
        model: the trained network; its outputs have the axes (batch, outputs).
        bank: draws of its batch-norm statistics, from `collect`; a few hundred.
        exact: how many draws, the first of the bank, are passed through the network itself.
        top: how many outputs of each example move with the draws, its largest at c; the others
            stay at `f(c) + b`. All if not given. For many classes, few of which matter.
        output: picks the output tensor where the network answers with something else.

    Raises:
        TypeError: the model is no module, or the bank none.
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
            raise ValueError(f"expected exact of at least 0, got {self.exact}; give 4 or so")
        if self.top is not None and self.top < 1:
            raise ValueError(f"expected top of at least 1 output, got {self.top}; leave it for all")
        require_bank(self.bank)
        if len(self.bank) < 2:
            raise ValueError(
                f"expected a bank of at least 2 draws, got {len(self.bank)}; collect 256 or so"
            )
        object.__setattr__(self, "model", unwrapped(self.model))
        require_finite_weights(self.model)
        self.bank.require_model(self.model)

    def __len__(self) -> int:
        return len(self.bank)

    def passes(self, inputs: Inputs) -> Iterator[Tensor]:
        """Yield the output for all inputs under one draw after another; computed all at once."""
        yield from self(inputs)

    def __call__(self, inputs: Inputs) -> Float[Tensor, "draws batch outputs"]:
        """All draws stacked.

        Raises:
            ValueError: an input is NaN or infinite, the outputs have other axes, or no derivative
                with respect to the statistics of each example can be had.
            TypeError: the network's output is no tensor.
        """
        passed = min(self.exact, len(self))
        if passed == len(self):
            return self._exact(inputs, passed)
        rows = self._linear(inputs)
        if passed > 0:
            exact = self._exact(inputs, passed)
            rows += (exact - rows[:passed]).mean(0)
            rows[:passed] = exact
        return rows

    def linearity(self, inputs: Inputs, *, draws: int = 16) -> Linearity:
        """Compare the linear rows of a few inputs with exact ones.

        Args:
            inputs: some of those to predict; a hundred will do.
            draws: how many to compare, the first of the bank.

        Raises:
            ValueError: `draws` is out of range, or as for `passes`.
        """
        if not 2 <= draws <= len(self):
            raise ValueError(
                f"expected from 2 to {len(self)} draws, all of the bank, got {draws}; give 16"
            )
        linear = self._linear(inputs).double()
        missed = self._exact(inputs, draws).double() - linear[:draws]
        spread = linear.var(0).mean(0)
        return Linearity(
            exact=draws,
            batch_size=self.bank.size,
            residual=float(_share(missed.var(0).mean(0).sum(), spread.sum())),
            bias=float(_share(missed.mean(0).square().mean(0).sum(), spread.sum())),
            outputs=tuple(_share(missed.var(0).mean(0), spread).tolist()),
        )

    def _exact(self, inputs: Inputs, draws: int) -> Tensor:
        states = (self.bank.state(draw) for draw in range(draws))
        with torch.no_grad():
            return torch.stack(list(passes(self.model, states, inputs, output=self.output)))

    def _linear(self, inputs: Inputs) -> Float[Tensor, "draws batch outputs"]:
        """All draws to first order."""
        require_finite(inputs, "the inputs")
        inputs = moved(inputs, device_of(self.model))
        # The caller may be in inference mode, where nothing is recorded.
        with eval_mode(self.model), torch.inference_mode(False), torch.enable_grad():
            posterior = JointPosterior.from_bank(self.bank)
            record = recorded(self.model, posterior.center, inputs, self.output)
            moved_by = [posterior.deviations[name] for name in record.names]
            deviations = torch.cat(moved_by, dim=1).to(record.layers[0].mean)
            outputs = record.outputs.detach()
            rows = outputs.expand(len(self), -1, -1).clone()
            # One output after another: gradients of all of them would be the larger by far.
            for chosen in self._outputs(outputs):
                column = record.outputs.gather(1, chosen[:, None])[:, 0]
                steps = (deviations @ record.gradients(column).T).to(rows)
                place = chosen[None, :, None].expand(len(self), -1, 1)
                rows.scatter_add_(2, place, steps[:, :, None])
        return rows

    def _outputs(self, outputs: Tensor) -> Iterable[Tensor]:
        """One choice of an output for each example after another: (batch,)."""
        if self.top is not None and self.top < outputs.shape[1]:
            return outputs.topk(self.top, dim=1).indices.unbind(1)
        every = torch.arange(outputs.shape[1], device=outputs.device)
        return every[:, None].expand(-1, len(outputs))


def _share(part: Tensor, whole: Tensor) -> Tensor:
    """The root of part/whole; 0/0, an output that does not vary at all, counts as linear."""
    return torch.where(part == 0, 0.0, part / whole).sqrt()


@dataclass(frozen=True, eq=False)
class _Layer:
    """A batch-norm layer at the centre of the bank, and the activations it was fed.

    A gradient in the statistics would sum over the examples that share them; that in the
    activations a is each example's own. The layer's output depends on `(a - m) / sqrt(v + eps)`
    alone, so `df/dm = -sum df/da` and `df/dlog v = -v / (v + eps) / 2 sum (a - m) df/da`.
    """

    module: Module
    names: tuple[str, str]
    mean: Tensor
    factor: Tensor
    fed: list[Tensor]

    def feed(
        self, _: Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Keep the activations; hand on a copy, whose gradient no other branch adds to."""
        key = None if args else next(iter(kwargs))
        copy = (args[0] if key is None else kwargs[key]).clone()
        if not copy.requires_grad:
            copy.requires_grad_()
        self.fed.append(copy)
        return ((copy, *args[1:]), kwargs) if key is None else (args, {**kwargs, key: copy})

    def gradients(self, found: Tensor, activations: Tensor) -> Tensor:
        """In the mean and the log-variance, from that in the activations."""
        shape = (*activations.shape[:2], -1)
        kind = self.mean.dtype
        found, activations = (x.detach().reshape(shape).to(kind) for x in (found, activations))
        shift = found.sum(2)
        scale = torch.linalg.vecdot(found, activations) - self.mean * shift
        return torch.cat([-shift, self.factor * scale], dim=1)


def _layers(model: Module, center: Mapping[str, Tensor]) -> list[_Layer]:
    """Those that the bank has draws of."""
    modules, buffers = batch_norm_layers(model), dict(model.named_buffers())
    found = []
    for name, (mean, variance) in statistics_names(modules).items():
        if mean in center:
            epsilon = getattr(modules[name], "eps", None)
            if not isinstance(epsilon, (int, float)):
                raise ValueError(
                    f"expected a batch-norm layer with a known epsilon, got {name!r} "
                    f"({type(modules[name]).__name__}) without the attribute eps; use MCBatchNorm"
                )
            factor = -0.5 / (1 + epsilon / center[variance].exp())
            # Sums over positions are taken in float32 or better.
            kind = torch.promote_types(buffers[mean].dtype, torch.float32)
            like = torch.empty(0, dtype=kind, device=buffers[mean].device)
            numbers = (center[mean].to(like), factor.to(like))
            found.append(_Layer(modules[name], (mean, variance), *numbers, fed=[]))
    return found


@dataclass(frozen=True, eq=False)
class Record:
    """A pass at one value of the statistics, with the graph behind it.

    Attributes:
        outputs: the answer, (batch, outputs).
        layers: those whose statistics count, each with the activations it was fed.
    """

    outputs: Tensor
    layers: Sequence[_Layer]

    @property
    def names(self) -> list[str]:
        """The statistics in the order of `gradients`."""
        return [name for layer in self.layers for name in layer.names]

    def gradients(self, column: Float[Tensor, " batch"]) -> Float[Tensor, "batch statistics"]:
        """Of one output of every example, in all means and log-variances."""
        fed = [activations for layer in self.layers for activations in layer.fed]
        # Examples do not mix in eval mode, so the gradient of the sum holds each one's own.
        found = iter(
            torch.autograd.grad(column.sum(), fed, retain_graph=True, materialize_grads=True)
        )
        parts = []
        for layer in self.layers:
            zero = layer.mean.new_zeros(len(column), 2 * len(layer.mean))
            each = (layer.gradients(next(found), activations) for activations in layer.fed)
            parts.append(sum(each, start=zero))
        return torch.cat(parts, dim=1)


def recorded(
    model: Module, center: Mapping[str, Tensor], inputs: Inputs, output: Output | None
) -> Record:
    """Pass `inputs` through `model` with the statistics `center`, gradients on.

    Args:
        model: the network, in eval mode.
        centre: means and log-variances, under the names of their buffers.
        inputs: of the network.
        output: picks the output tensor.

    Raises:
        ValueError: the answer is no (batch, outputs), records no gradients, or mixes examples.
        TypeError: the network's output is no tensor.
    """
    layers = _layers(model, center)
    # Detached, so that nothing is left on the weights.
    state = {name: weight.detach() for name, weight in model.named_parameters()}
    buffers = dict(model.named_buffers())
    for name, values in center.items():
        variance = name.endswith(VARIANCE)
        state[name] = (values.exp() if variance else values).to(buffers[name])
    handles = [x.module.register_forward_pre_hook(x.feed, with_kwargs=True) for x in layers]
    try:
        raw = forward(model, state, inputs)
    finally:
        for handle in handles:
            handle.remove()
    outputs = tensor_output(raw, output)
    _require_separable(outputs, layers, count(inputs))
    return Record(outputs, layers)


def _require_separable(outputs: Tensor, layers: Sequence[_Layer], examples: int) -> None:
    """Check that a gradient of each output of each example can be had, and cheaply."""
    if outputs.ndim != 2 or len(outputs) != examples:
        raise ValueError(
            f"expected outputs of the axes (batch, outputs) for {examples} inputs, got "
            f"{tuple(outputs.shape)}; give output=function that makes them so, or use MCBatchNorm"
        )
    if not outputs.requires_grad:
        raise ValueError(
            "expected differentiable outputs, got a network that records no gradients (no_grad, "
            "argmax or detach inside); use MCBatchNorm"
        )
    for name, fed in ((layer.names[0], fed) for layer in layers for fed in layer.fed):
        if len(fed) != examples:
            raise ValueError(
                f"expected activations of {examples} examples at {name!r}, got the shape "
                f"{tuple(fed.shape)}, in which they cannot be told apart; use MCBatchNorm"
            )
