"""A batch size for each direction of the batch-norm statistics, from the curvature of the loss."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor
from torch.nn import Module

from mcbn import validation
from mcbn.bank.bank import Bank, require_bank
from mcbn.bank.rescaling import rescaled
from mcbn.io.display import Display, Displayed
from mcbn.io.progress import progress_bar
from mcbn.network.inputs import Select, select_inputs
from mcbn.network.isolation import derived_seed, random_streams
from mcbn.network.loaders import Data, ordered_loader
from mcbn.samplers.curvature import LastLayerLikelihood, OutputLikelihood
from mcbn.samplers.linearized import LinearizedBatchNorm
from mcbn.samplers.outputs import Output


@dataclass(frozen=True, eq=False, repr=False)
class CurvaturePosterior(Displayed):
    r"""The Laplace posterior of batch-norm statistics: a batch size for each direction.

    The prior is the Gaussian of the statistics of `prior_batch_size` examples, with the covariance
    of the bank; the likelihood is that of the N training examples, to second order. In the
    directions that diagonalise both, statistics are independent, with the variance of mini-batches
    of

    $$M_k = N g_k + M_p$$

    examples, where $g_k$ is the curvature of an example's loss along the deviation of a single
    example. One batch-norm unit has the closed form $N \tau \gamma^2 + M_p$. See docs/method.md.
    Make it by `fit`.

    Attributes:
        bank: the bank whose deviations span the directions.
        center: of the posterior: the limit of large batches, in the coordinates of the bank.
        directions: by buffer name, how far a single example moves each coordinate along each
            direction.
        weights: the share of each draw of the bank in each direction; columns are orthonormal.
        curvatures: $g_k$, per training example, from the largest to the smallest.
        population: N.
        prior_batch_size: M_p.

    Reference:
        Derived here. MacKay 1992, "A practical Bayesian framework for backpropagation networks",
        for Laplace's method; Bishop, Etherton and Majumdar 2001, "Adaptive sampling with the
        ensemble transform Kalman filter", for the posterior within the span of an ensemble.
    """

    bank: Bank
    center: Mapping[str, Tensor]
    directions: Mapping[str, Tensor]
    weights: Float64[Tensor, "draws directions"]
    curvatures: Float64[Tensor, " directions"]
    population: int = field(kw_only=True)
    prior_batch_size: float = field(default=1.0, kw_only=True)

    @classmethod
    def fit(
        cls,
        model: Module,
        bank: Bank,
        data: Data,
        *,
        likelihood: LastLayerLikelihood = "categorical",
        prior_batch_size: float = 1.0,
        population: int | None = None,
        output: Output | None = None,
        batch_size: int | None = None,
        select: Select | None = None,
        progress: bool = True,
    ) -> "CurvaturePosterior":
        """Fit to training examples, in one forward pass and one backward pass per output.

        Args:
            model: the trained network; its outputs have the axes (batch, outputs).
            bank: draws of its statistics, more of them than there are directions that matter.
            data: training inputs, as for prediction; a few hundred are enough. Targets are ignored.
            likelihood: "categorical" for logits of classes, "bernoulli" for logits of several
                labels an example, `mcbn.Gaussian(precision=...)` for real targets.
            prior_batch_size: M_p; 1 is a prior as wide as the statistics of a single example.
            population: N, all training examples; by default that of the bank.
            output: picks the output tensor where the network returns something else.
            batch_size: examples per pass where the data are no loader; 256 by default.
            select: picks the network's inputs out of a batch where the default rule does not apply.
            progress: show a progress bar, on a terminal only.

        Raises:
            TypeError: the model is not a module, the bank is not a bank, or other data.
            ValueError: the draws are all equal or belong to another network, N is not known, a
                number is out of range, there are no data, or the network's outputs have no
                derivatives or other axes.
        """
        require_bank(bank)
        family = OutputLikelihood.of(likelihood)
        count = _population(bank, population)
        if not 0 < prior_batch_size < float("inf"):
            raise ValueError(
                f"expected a positive, finite prior_batch_size, got {prior_batch_size}; leave it "
                "out for 1"
            )
        center, deviations = _single_examples(bank)
        basis = _basis(deviations, bank)
        spread = {name: _turned(basis, rows) for name, rows in deviations.items()}
        # As far from the center as the draws themselves: a variance below 0 would be cut off.
        step = bank.size**-0.5
        moved = _around(bank, center, spread, step)
        linear = LinearizedBatchNorm(model, moved, exact=0, output=output)
        gram, examples = basis.new_zeros(basis.shape[1], basis.shape[1]), 0
        loader = ordered_loader(data, batch_size)
        with random_streams(0, "curvature"):  # from which a data set may draw
            for batch in progress_bar(loader, label="fit", unit="batch", shown=progress):
                inputs = select_inputs(batch, select)
                part, seen = _curvature(linear(inputs).double().cpu(), family)
                gram, examples = gram + part, examples + seen
        if examples == 0:
            raise ValueError("expected at least one example to fit to, got none; check the data")
        values, vectors = torch.linalg.eigh(gram / (examples * step**2))
        values, vectors = values.flip(0).clamp(min=0), vectors.flip(1)
        directions = {name: _turned(vectors, rows) for name, rows in spread.items()}
        return cls(bank, center, directions, basis @ vectors, values,
                   population=count, prior_batch_size=prior_batch_size)  # fmt: skip

    @property
    def batch_sizes(self) -> Float64[Tensor, " directions"]:
        """M_k = N g_k + M_p of each direction, from the largest to the smallest."""
        return self.population * self.curvatures + self.prior_batch_size

    @property
    def effective_dimensions(self) -> float:
        """How many directions the training data determine: the sum of N g_k / M_k."""
        return float((1 - self.prior_batch_size / self.batch_sizes).sum())

    @property
    def batch_size(self) -> float:
        """The one batch size that is as uncertain of the training data, to first order."""
        total = float(self.curvatures.sum())
        if total == 0:
            return self.prior_batch_size
        return total / float((self.curvatures / self.batch_sizes).sum())

    def display(self) -> Display:
        """How many directions there are, and their batch sizes."""
        sizes = self.batch_sizes
        return Display(
            f"CurvaturePosterior of {self.bank.model}: {len(sizes)} directions of "
            f"{len(self.bank)} draws, batch sizes from {float(sizes[-1]):.3g} to "
            f"{float(sizes[0]):.3g}, N = {self.population:,}, "
            f"{self.effective_dimensions:.3g} directions determined"
        )

    def rescaled(self) -> Bank:
        """The bank's own draws, with every direction rescaled to its batch size.

        They have the covariance of the posterior exactly, and its center as their mean. `rescale`
        of the bank returned widens or narrows all directions alike, from `batch_size`.
        """
        scale = ((len(self.bank) - 1) / self.batch_sizes).sqrt()
        weights = self.weights * scale
        coordinates = {
            name: center + _product(weights, self.directions[name])
            for name, center in self.center.items()
        }
        return self._as_bank(coordinates, "a batch size per direction")

    def sample(self, draws: int, *, seed: int = 0) -> Bank:
        """Sample a bank of `draws` new draws; draw t depends only on `seed` and t.

        Raises:
            ValueError: `draws` or `seed` is out of range.
        """
        if validation.integer(draws, "draws") < 1:
            raise ValueError(f"expected at least 1 draw, got {draws}; give 64 or so")
        scale = self.batch_sizes.rsqrt()
        rows: dict[str, list[Tensor]] = {name: [] for name in self.center}
        for draw in range(draws):
            # One product per draw, since a larger matrix product rounds differently.
            generator = torch.Generator().manual_seed(derived_seed(seed, draw, "curvature"))
            noise = torch.randn(len(scale), generator=generator, dtype=torch.float64)
            for name, center in self.center.items():
                shift = _product((scale * noise)[None], self.directions[name])[0]
                rows[name].append(center + shift)
        stacked = {name: torch.stack(values) for name, values in rows.items()}
        return self._as_bank(stacked, f"curvature posterior, seed {seed}")

    def _as_bank(self, coordinates: Mapping[str, Tensor], kind: str) -> Bank:
        """A bank of these draws, which larger batches would shrink to the center."""
        bias = {name: rows.mean(0) - self.center[name] for name, rows in coordinates.items()}
        drawn = self.bank.with_coordinates(coordinates)
        source = f"{kind}, of {len(self.bank)} draws ({self.bank.source})"
        # The posterior is not one of draws without replacement, so it is rescaled by 1/M alone.
        return replace(drawn, batch_size=self.batch_size, bias=bias, source=source,
                       population=None, replacement=None)  # fmt: skip


def _population(bank: Bank, given: int | None) -> int:
    """N, which the posterior cannot do without."""
    population = bank.population if given is None else validation.integer(given, "population")
    if population is None or population < 1:
        raise ValueError(
            f"expected the number of training examples, got {population}; give population=, such "
            "as len(training_data)"
        )
    return population


def _single_examples(bank: Bank) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The limit of large batches, and deviations whose squares add up to those of one example.

    Of T draws the sum of the outer products of these deviations is the variance per example: the
    unbiased covariance of the draws, divided by u(M) = 1/M, or 1/M - 1/N without replacement.

    Raises:
        ValueError: all draws are equal.
    """
    whole = bank.population if bank.replacement is False else None
    scale = 1 / bank.size - (0.0 if whole is None else 1 / whole)
    coordinates = {name: rows.detach() for name, rows in bank.coordinates().items()}
    equal = all(bool((rows == rows[:1]).all()) for rows in coordinates.values())
    if len(bank) < 2 or equal or scale <= 0:
        raise ValueError(
            f"expected a bank of several draws that differ, got {len(bank)} at batch size "
            f"{bank.size:g} of N = {bank.population}; collect 256 or so, at a batch size far "
            "below N"
        )
    limit = rescaled(bank.statistics, bank.epsilon, bank.bias, torch.zeros((), dtype=torch.float64))
    center = {name: rows[0].detach() for name, rows in limit.items()}
    factor = ((len(bank) - 1) * scale) ** -0.5
    return center, {name: factor * (rows - rows.mean(0)) for name, rows in coordinates.items()}


def _basis(deviations: Mapping[str, Tensor], bank: Bank) -> Float64[Tensor, "draws directions"]:
    """Orthonormal combinations of the draws, in which these differ by more than rounding."""
    rows = torch.cat([each.reshape(len(bank), -1).cpu() for each in deviations.values()], 1)
    # In units of their own spread: the means of one layer may vary far less than those of another.
    spread = rows.square().sum(0).sqrt()
    left, lengths, _ = torch.linalg.svd(rows / torch.where(spread > 0, spread, 1.0),
                                        full_matrices=False)  # fmt: skip
    dtype = next(iter(bank.statistics.values())).dtype
    kept: Tensor = lengths > max(rows.shape) * torch.finfo(dtype).eps * lengths[0]
    basis: Tensor = left[:, kept]
    return basis


def _turned(vectors: Tensor, rows: Tensor) -> Tensor:
    """Combinations of rows, by the columns of a matrix."""
    return _product(vectors.T, rows)


def _product(weights: Tensor, rows: Tensor) -> Tensor:
    """A matrix and rows of any shape, multiplied on the device of the rows."""
    flat: Tensor = weights.to(rows.device) @ rows.reshape(len(rows), -1)
    return flat.reshape(len(weights), *rows.shape[1:])


def _around(
    bank: Bank, center: Mapping[str, Tensor], spread: Mapping[str, Tensor], step: float
) -> Bank:
    """A bank whose draws are the center moved along each direction, both ways: its mean stays."""
    coordinates = {
        name: torch.cat([center[name] + step * rows, center[name] - step * rows])
        for name, rows in spread.items()
    }
    return bank.with_coordinates(coordinates)


def _curvature(outputs: Float64[Tensor, "draws batch outputs"], family: Any) -> tuple[Tensor, int]:
    """The curvature of the loss along all pairs of directions, summed over a batch of examples."""
    forth, back = outputs.chunk(2)
    hessians = family.hessians((forth[0] + back[0]) / 2)
    steps = (forth - back) / 2
    # Directions and outputs by example: J^T Lambda J, with the Jacobian along the directions.
    curved = torch.einsum("boq,kbq->kbo", hessians, steps)
    return curved.flatten(1) @ steps.flatten(1).T, outputs.shape[1]
