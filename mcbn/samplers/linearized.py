"""Every draw of a large bank for the price of a few: the network linearised in its statistics.

Outputs are nearly linear in batch-norm statistics. One forward pass at the mean of the bank and
one backward pass an output give all draws to first order; a few exact draws correct their mean and
show how far they may be trusted.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import Module

from mcbn.bank.bank import Bank, require_bank
from mcbn.bank.posteriors import JointPosterior
from mcbn.network.batchnorm import require_finite_weights, unwrapped
from mcbn.network.inputs import Inputs, device_of, moved, require_finite
from mcbn.network.isolation import as_found, eval_mode
from mcbn.samplers.jacobian import recorded
from mcbn.samplers.loop import Output, passes

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

    @as_found
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

    @as_found
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
            record = recorded(self.model, posterior.centre, inputs, self.output)
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
