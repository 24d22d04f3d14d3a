"""Bank: draws of a network's batch-norm statistics, to predict with, save, thin and rescale."""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import Module

from mcbn import validation
from mcbn.bank.herding import herd, require_draws
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
HEADER: Mapping[str, Any] = {  # attributes in the header of a file, and their types
    "batch_size": float,
    "population": int | None,
    "model": str,
    "weights": str,
    "source": str,
}
# Below every layer's epsilon, so that a dead channel has a logarithm.
SMALLEST_VARIANCE = 1e-12
# Prefix of the trained network's running statistics in a file.
TRAINED = "trained/"


@dataclass(frozen=True, eq=False)
class Bank:
    """T draws of the batch-norm statistics of a network.

    Attributes:
        statistics: for each buffer name a tensor of shape (draws, channels): in each row the mean,
            or the biased variance, of one mini-batch. Buffers of another shape keep it.
        trained: the network's running statistics under the same names, of shape (channels).
        batch_size: M, the mini-batch size of the draws; a tensor if gradients in it are wanted.
        population: N, the number of training examples, if known.
        model: class name of the network.
        weights: digest of the network's weights.
        source: description of the mini-batches.
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
        """M as a plain number, without gradients."""
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
        """A bank of the first `draws` draws.

        Raises:
            ValueError: there are fewer.
        """
        require_draws(draws, len(self))
        return self._select(slice(draws))

    def thin(self, draws: int) -> "Bank":
        """A bank of the `draws` draws that best represent all, in their order in this bank.

        Chosen by kernel herding on means and log-variances. Their predictive mean is as good as
        that of two to four times as many random draws; their spread is little better. See
        docs/fewer_draws.md.

        Raises:
            ValueError: there are fewer draws.
        """
        require_draws(draws, len(self))
        return self._select(sorted(herd(self.points(), draws)))

    def _select(self, draws: slice | list[int]) -> "Bank":
        return replace(self, statistics={k: v[draws] for k, v in self.statistics.items()})

    def rescale(self, batch_size: float | Tensor) -> "Bank":
        """The same draws rescaled to mini-batches of `batch_size` examples.

        To second order a draw is population + bias / M + deviation / sqrt(M), so deviations (of
        the mean, and of the log-variance) are multiplied by sqrt(M / M') and the bias of the
        log-variance by M / M'. Population statistics are those of all draws pooled. M' may be any
        positive real number; the result is differentiable in it if it is a tensor. The
        finite-population factor stays that of the bank. See docs/method.md.

        Raises:
            ValueError: `batch_size` is not a positive and finite number, or too small for these
                draws.
        """
        ratio = self.batch_size / _positive(batch_size)
        population = _coordinates(self.pooled())
        rescaled = {}
        for name, values in self.coordinates().items():
            center, factor, limit = values.mean(0), ratio.to(values.device), population[name]
            rescaled[name] = limit + (center - limit) * factor + (values - center) * factor.sqrt()
        bank = replace(self.with_coordinates(rescaled), batch_size=batch_size)
        for name, rows in bank.statistics.items():
            # Of less than an example there is no variance; above, one far below epsilon may vanish.
            tiny = name.endswith(VARIANCE) and bank.size < 1
            vanished = tiny and bool((rows <= 0).any())
            if vanished or not bool(rows.detach().isfinite().all()):
                raise ValueError(
                    f"expected a batch_size at which the draws of {name!r} are numbers, got "
                    f"{batch_size!r:.80}, at which they overflow; give one nearer to their "
                    f"{self.size:g}"
                )
        return bank

    def coordinates(self) -> dict[str, Tensor]:
        """Means and log-variances of all draws, in float64."""
        return _coordinates(self.statistics)

    def points(self) -> Float[Tensor, "draws coordinates"]:
        """All coordinates of a draw as one row, on the CPU and without gradients."""
        rows = [values.detach().cpu() for values in self.coordinates().values()]
        return torch.cat([values.reshape(len(self), -1) for values in rows], 1)

    def with_coordinates(self, coordinates: Mapping[str, Tensor]) -> "Bank":
        """A bank with the attributes of this one, and draws given as means and log-variances."""
        statistics = {
            name: (values.exp() if name.endswith(VARIANCE) else values).to(
                self.statistics[name].dtype
            )
            for name, values in coordinates.items()
        }
        return replace(self, statistics=statistics)

    def pooled(self) -> dict[str, Tensor]:
        """Mean and biased variance of all mini-batches together, by the law of total variance.

        Exact for the first layer; the activations of deeper layers depend on the batch's statistics
        in earlier ones.
        """
        pooled = {}
        for name, rows in self.statistics.items():
            pooled[name] = rows.double().mean(0)
            if name.endswith(VARIANCE):
                means = self.statistics[_partner(name)].double()
                pooled[name] = pooled[name] + means.var(0, correction=0)
        return pooled

    def require_model(self, model: Module) -> None:
        """Check that the bank was drawn from `model`.

        Raises:
            ValueError: the layers, their sizes or the weights differ; names the first difference.
        """
        model = unwrapped(model)
        given = type(model).__name__
        with model_lock(model):  # else another thread's draw may be in the buffers
            shapes = {name: buffer.shape for name, buffer in model.named_buffers()}
        known = {n for pair in statistics_names(batch_norm_layers(model)).values() for n in pair}
        for name, rows in self.statistics.items():
            if name not in known:
                raise ValueError(
                    f"expected a model with the buffer {name!r}, as {self.model} has, got {given} "
                    "without it; collect a bank from this model"
                )
            if shapes[name] != rows.shape[1:]:
                raise ValueError(
                    f"expected {rows.shape[1]} channels in {name!r}, as {self.model} has, got "
                    f"{tuple(shapes[name])} in {given}; collect a bank from this model"
                )
        if self.weights and self.weights != fingerprint(model):
            raise ValueError(
                f"expected the weights of {self.model} that this bank was drawn from, got a "
                f"{given} with other weights (trained further, reloaded or cast); collect again"
            )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the bank as a safetensors file, atomically."""
        trained = {TRAINED + name: value for name, value in self.trained.items()}
        header = {name: getattr(self, name) for name in HEADER} | {"batch_size": self.size}
        write_tensors(path, {**self.statistics, **trained}, kind=KIND, header=header)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Bank":
        """Read a bank that `save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is not a readable mcbn bank file, or one of another version.
        """
        tensors, header = read_tensors(path, kind=KIND)
        trained = {name: v for name, v in tensors.items() if name.startswith(TRAINED)}
        statistics = {name: v for name, v in tensors.items() if name not in trained}
        for name, annotation in HEADER.items():
            if not (name in header and matches_type(header[name], annotation)):
                got = f"{header[name]!r:.80}" if name in header else "nothing"
                raise ValueError(
                    f"expected {name!r} in the header of a bank, got {got} in {path}; collect again"
                )
        bank = cls(
            statistics,
            {name.removeprefix(TRAINED): value for name, value in trained.items()},
            **{name: header[name] for name in HEADER},
        )
        _require_valid(bank, path)
        return bank


def require_bank(bank: object) -> None:
    """Check that an argument is a bank.

    Raises:
        TypeError: it is not.
    """
    validation.require_type(bank, Bank, "a bank", "load the file of one by mcbn.Bank.load")


def _positive(batch_size: float | Tensor) -> Tensor:
    """A batch size in float64, with its gradients.

    Raises:
        ValueError: it is not a positive and finite number.
    """
    try:
        size = torch.as_tensor(batch_size, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        size = torch.tensor(torch.nan)
    if size.numel() != 1 or not 0 < float(size.detach()) < math.inf:
        raise ValueError(
            f"expected a positive and finite batch_size, got {batch_size!r:.80}; give the number "
            "of examples in a mini-batch"
        )
    return size


def _require_valid(bank: Bank, path: str | os.PathLike[str]) -> None:
    """Check that statistics from a file are paired, equally long, finite and not negative."""
    shapes = {name: tuple(rows.shape) for name, rows in bank.statistics.items()}
    paired = all(_partner(name) in shapes for name in shapes)
    draw_counts = {shape[0] for shape in shapes.values() if shape}
    consistent = (
        shapes
        and paired
        and len(draw_counts) == 1
        and all(shape and shape == shapes[_partner(name)] for name, shape in shapes.items())
        and {name: shape[1:] for name, shape in shapes.items()}
        == {name: tuple(value.shape) for name, value in bank.trained.items()}
        and bank.size > 0
    )
    if not consistent:
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
    """The buffer name of the variance for that of a mean, and the other way round."""
    stem, _, last = name.rpartition(".")
    other = {MEAN: VARIANCE, VARIANCE: MEAN}.get(last, "")
    return f"{stem}.{other}" if stem else other
