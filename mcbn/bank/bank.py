"""A bank: T draws of a network's batch-norm statistics, to predict with, keep and rescale."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import Module

from mcbn import validation
from mcbn.io.plain import matches_type
from mcbn.io.tensors import read_tensors, write_tensors
from mcbn.network.batchnorm import (
    MEAN,
    VARIANCE,
    batch_norm_layers,
    fingerprint,
    statistics_names,
    unwrapped,
)
from mcbn.network.isolation import model_lock

KIND = "bank"
HEADER: Mapping[str, Any] = {  # what a file says of a bank, and the types it says it in
    "batch_size": float,
    "population": int | None,
    "model": str,
    "weights": str,
    "source": str,
}
# Below every layer's epsilon, so that a dead channel has a logarithm.
SMALLEST_VARIANCE = 1e-12
# Statistics of the trained network are filed beside the draws under this prefix.
TRAINED = "trained/"


@dataclass(frozen=True, eq=False)
class Bank:
    """T draws of batch-norm statistics: a dictionary of buffers with a leading axis of draws.

    Attributes:
        statistics: for each buffer name a tensor of shape (draws, channels); means, and biased
            variances, of one mini-batch a row.
        trained: the network's own running statistics under the same names, (channels).
        batch_size: M, the mini-batch size the draws stand for.
        population: N, the number of training examples, if known.
        model: class name of the network.
        weights: digest of the network's weights.
        source: where the mini-batches came from, in words.
    """

    statistics: Mapping[str, Tensor]
    trained: Mapping[str, Tensor]
    batch_size: float | Tensor
    population: int | None = None
    model: str = ""
    weights: str = ""
    source: str = ""

    def __len__(self) -> int:
        return len(next(iter(self.statistics.values())))

    def __repr__(self) -> str:
        return (
            f"Bank({len(self)} draws of {len(self.statistics) // 2} layers, "
            f"batch_size={self.size:g}, model={self.model!r})"
        )

    @property
    def size(self) -> float:
        """M as a plain number, though `batch_size` may be a tensor that wants gradients."""
        size = self.batch_size
        return float(size.detach()) if isinstance(size, Tensor) else float(size)

    def state(self, draw: int) -> dict[str, Tensor]:
        """Draw `draw` as a dictionary of buffers for `torch.func.functional_call`.

        Raises:
            IndexError: there is no such draw.
        """
        if not -len(self) <= draw < len(self):
            raise IndexError(f"expected a draw from 0 to {len(self) - 1}, got {draw}")
        return {name: rows[draw] for name, rows in self.statistics.items()}

    def first(self, draws: int) -> "Bank":
        """The bank of the first `draws` draws.

        Raises:
            ValueError: there are fewer.
        """
        if not 1 <= draws <= len(self):
            raise ValueError(f"expected from 1 to {len(self)} draws, got {draws}; collect more")
        return replace(self, statistics={k: v[:draws] for k, v in self.statistics.items()})

    def thin(self, draws: int) -> "Bank":
        """The bank of the `draws` draws that together stand best for all, in their old order.

        Herded on means and log-variances. Their predictive mean is as good as that of two to four
        times as many plain draws; their spread is little better. See docs/fewer_draws.md.

        Raises:
            ValueError: there are fewer draws.
        """
        points = torch.cat([rows.detach().cpu() for rows in self.coordinates().values()], 1)
        kept = sorted(herd(points, draws))
        return replace(self, statistics={k: v[kept] for k, v in self.statistics.items()})

    def rescale(self, batch_size: float | Tensor) -> "Bank":
        """The same draws as if the mini-batches had held `batch_size` examples.

        To second order a draw is population + bias / M + deviation / sqrt(M), so deviations (of
        the mean, and of the log-variance) are multiplied by sqrt(M / M') and the bias of the
        log-variance by M / M'. Population statistics are those of all draws pooled. Any real
        M' > 0 goes, and the result is differentiable in it if it is a tensor. The finite-population
        factor stays that of the bank. See docs/method.md.

        Raises:
            ValueError: `batch_size` is not a positive number.
        """
        if not bool(torch.as_tensor(batch_size) > 0):
            raise ValueError(f"expected a positive batch_size, got {batch_size}")
        ratio = self.batch_size / torch.as_tensor(batch_size, dtype=torch.float64)
        population = _coordinates(self.pooled())
        moved = {}
        for name, values in self.coordinates().items():
            center, factor, limit = values.mean(0), ratio.to(values.device), population[name]
            moved[name] = limit + (center - limit) * factor + (values - center) * factor.sqrt()
        return replace(self.with_coordinates(moved), batch_size=batch_size)

    def coordinates(self) -> dict[str, Tensor]:
        """Means and log-variances of all draws, in float64: where their spread is additive."""
        return _coordinates(self.statistics)

    def with_coordinates(self, coordinates: Mapping[str, Tensor]) -> "Bank":
        """This bank with other draws, given as means and log-variances."""
        statistics = {
            name: (values.exp() if name.endswith(VARIANCE) else values).to(
                self.statistics[name].dtype
            )
            for name, values in coordinates.items()
        }
        return replace(self, statistics=statistics)

    def pooled(self) -> dict[str, Tensor]:
        """Mean and biased variance of all mini-batches taken together (law of total variance).

        Exact for the first layer; deeper ones normalise by each batch's own statistics before.
        """
        pooled = {}
        for name, rows in self.statistics.items():
            pooled[name] = rows.double().mean(0)
            if name.endswith(VARIANCE):
                means = self.statistics[_partner(name)].double()
                pooled[name] = pooled[name] + means.var(0, correction=0)
        return pooled

    def require_model(self, model: Module) -> None:
        """Check that the bank's draws belong to `model`.

        Raises:
            ValueError: the layers, their sizes or the weights differ; names the first difference.
        """
        model = unwrapped(model)
        found = type(model).__name__
        with model_lock(model):  # else another thread's draw may be in their place
            shapes = {name: held.shape for name, held in model.named_buffers()}
        known = {n for pair in statistics_names(batch_norm_layers(model)).values() for n in pair}
        for name, rows in self.statistics.items():
            if name not in known:
                raise ValueError(
                    f"expected a model with the buffer {name!r}, as {self.model} has, got {found} "
                    "without it; collect a bank from this model"
                )
            if shapes[name] != rows.shape[1:]:
                raise ValueError(
                    f"expected {rows.shape[1]} channels in {name!r}, as {self.model} has, got "
                    f"{tuple(shapes[name])} in {found}; collect a bank from this model"
                )
        if self.weights and self.weights != fingerprint(model):
            raise ValueError(
                f"expected the weights of {self.model} that this bank was drawn from, got a "
                f"{found} with other weights (trained further, reloaded or cast); collect again"
            )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the bank as a safetensors file; nothing half-written ever replaces a whole file."""
        trained = {TRAINED + name: value for name, value in self.trained.items()}
        header = {
            "batch_size": self.size,
            "population": self.population,
            "model": self.model,
            "weights": self.weights,
            "source": self.source,
        }
        write_tensors(path, {**self.statistics, **trained}, kind=KIND, header=header)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Bank":
        """Read a bank that `save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is truncated, corrupted, foreign or of another version.
        """
        tensors, header = read_tensors(path, kind=KIND)
        trained = {name: v for name, v in tensors.items() if name.startswith(TRAINED)}
        statistics = {name: v for name, v in tensors.items() if name not in trained}
        for name, kind in HEADER.items():
            if not (name in header and matches_type(header[name], kind)):
                found = f"{header[name]!r:.80}" if name in header else "nothing"
                raise ValueError(
                    f"expected {name!r} in the header of a bank, got {found} in {path}; collect "
                    "again"
                )
        bank = cls(
            statistics,
            {name.removeprefix(TRAINED): value for name, value in trained.items()},
            **{name: header[name] for name in HEADER},
        )
        _require_whole(bank, path)
        return bank


def require_bank(found: object) -> None:
    """Check that something is a bank.

    Raises:
        TypeError: it is not.
    """
    validation.require_type(found, Bank, "a bank", "load the file of one by mcbn.Bank.load")


def _require_whole(bank: Bank, path: str | os.PathLike[str]) -> None:
    """Check what the rest of the house trusts: paired, equally long, finite, not negative."""
    shapes = {name: tuple(rows.shape) for name, rows in bank.statistics.items()}
    paired = all(_partner(name) in shapes for name in shapes)
    sizes = {shape[0] for shape in shapes.values() if len(shape) == 2}
    whole = (
        shapes
        and paired
        and len(sizes) == 1
        and all(len(shape) == 2 and shape == shapes[_partner(n)] for n, shape in shapes.items())
        and {name: shape[1:] for name, shape in shapes.items()}
        == {name: tuple(value.shape) for name, value in bank.trained.items()}
        and bank.size > 0
    )
    if not whole:
        raise ValueError(
            f"expected a mean and a variance of shape (draws, channels) for each layer, got {path} "
            f"with {shapes}; collect again"
        )
    for name, rows in bank.statistics.items():
        validation.finite(rows, f"{name} of {path}")
        if name.endswith(VARIANCE) and rows.min() < 0:
            raise ValueError(
                f"expected variances of at least 0 in {name!r} of {path}, got "
                f"{float(rows.min()):.4g}; collect again"
            )


def _coordinates(statistics: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        name: values.double().clamp_min(SMALLEST_VARIANCE).log()
        if name.endswith(VARIANCE)
        else values.double()
        for name, values in statistics.items()
    }


def _partner(name: str) -> str:
    """The variance's name for a mean's, the mean's for a variance's."""
    stem, _, last = name.rpartition(".")
    other = {MEAN: VARIANCE, VARIANCE: MEAN}.get(last, "")
    return f"{stem}.{other}" if stem else other


def herd(points: Float[Tensor, "points features"], count: int) -> list[int]:
    """Pick points one by one so that their mean in a kernel space nears that of all.

    Each feature counts in units of its spread; one without spread does not count. The kernel is
    Gaussian, as wide as the median distance. No randomness: ties go to the first.

    Args:
        points: one a row; a few thousand at most, since all pairs are compared.
        count: how many to pick.

    Raises:
        ValueError: there are fewer points, or none is asked for.

    Reference:
        Chen, Welling and Smola 2010, "Super-samples from kernel herding", equation 8.
    """
    if not 1 <= count <= len(points):
        raise ValueError(f"expected from 1 to {len(points)} draws, got {count}; collect more")
    rows = points.double() - points.double().mean(0)
    spread = rows.square().mean(0).sqrt()
    rows = rows / torch.where(spread > 0, spread, 1.0)
    squares = torch.cdist(rows, rows).square()
    width = squares.median()
    kernel = (-squares / torch.where(width > 0, width, 1.0)).exp()
    chosen: list[int] = []
    for step in range(count):
        score = kernel.mean(1) - kernel[:, chosen].sum(1) / (step + 1)
        score[chosen] = -torch.inf
        chosen.append(int(score.argmax()))
    return chosen
