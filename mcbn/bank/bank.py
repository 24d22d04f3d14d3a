"""Bank: draws of a network's batch-norm statistics, to predict with, save, thin and rescale."""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import Module

from mcbn import validation
from mcbn.bank.coordinates import partner, pooled, to_coordinates, to_statistics
from mcbn.bank.doubts import RescalingWarning, doubts
from mcbn.bank.herding import herd, require_draws
from mcbn.bank.rescaling import merged, ratio_of_scales, rescaled
from mcbn.io.display import Display, Displayed
from mcbn.io.plain import matches_type
from mcbn.io.tensors import read_tensors, write_tensors
from mcbn.network.batchnorm import (
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
    "replacement": bool | None,
}
VERSION = 2
# What files of version 1 do not say.
ABSENT: Mapping[str, Any] = {"replacement": None}
# Prefixes in a file: of the trained network's running statistics, of epsilon, and of the bias.
TRAINED, EPSILON, BIAS = "trained/", "epsilon/", "bias/"


@dataclass(frozen=True, eq=False, repr=False)
class Bank(Displayed):
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
        epsilon: what each layer adds to the variance, by the name of the variance; empty in files
            of earlier versions.
        bias: the mean over draws minus what an infinite batch would have, in `coordinates`; empty
            if not collected.
        replacement: whether an example may be in a draw twice; None if not known.
    """

    statistics: Mapping[str, Tensor]
    trained: Mapping[str, Tensor]
    batch_size: float | Tensor
    population: int | None = None
    model: str = ""
    weights: str = ""
    source: str = ""
    epsilon: Mapping[str, float] = field(default_factory=dict)
    bias: Mapping[str, Tensor] = field(default_factory=dict)
    replacement: bool | None = None

    def __len__(self) -> int:
        return len(next(iter(self.statistics.values())))

    def display(self) -> Display:
        """Its main attributes, and the layers that it has draws of."""
        names = [name.removesuffix(VARIANCE) for name in self.statistics if name.endswith(VARIANCE)]
        heading = (
            f"Bank({len(self)} draws of {len(names)} layers, batch_size={self.size:g}, "
            f"model={self.model!r})"
        )
        rows = [
            (name.removesuffix(".") or "(itself)", f"{self.trained[name + VARIANCE].numel():,}")
            for name in names
        ]
        return Display(heading, ("layer", "channels"), rows)

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

        Chosen by kernel herding on means and log(v + epsilon). Their predictive mean is as good as
        that of two to four times as many random draws; their spread is little better. See
        docs/fewer_draws.md.

        Raises:
            ValueError: there are fewer draws.
        """
        require_draws(draws, len(self))
        return self._select(sorted(herd(self.points(), draws)))

    def _select(self, draws: slice | list[int]) -> "Bank":
        return replace(self, statistics={k: v[draws] for k, v in self.statistics.items()})

    def rescale(self, batch_size: float | Tensor, *, warn: bool = True) -> "Bank":
        """The same draws rescaled to mini-batches of `batch_size` examples.

        To second order a draw is limit + bias u(M) + deviation sqrt(u(M)), in means and
        log(v + epsilon), where u(M) is 1/M - 1/N for draws without replacement and 1/M for others.
        So deviations are multiplied by sqrt(u(M') / u(M)), and the bias by u(M') / u(M). The limit
        is what `collect` found in larger batches, or else that of all draws pooled. Upwards,
        channels that are dead in some draws are merged as by `merge`. M' may be any positive real
        number, at N and above all draws are equal, and the result is differentiable in M' if it is
        a tensor. See docs/method.md.

        Args:
            batch_size: M'.
            warn: whether to warn of the `doubts`.

        Raises:
            ValueError: `batch_size` is not a positive and finite number, or too small for these
                draws.

        Warns:
            RescalingWarning: the draws speak against it; says why, and by layer.
        """
        ratio = ratio_of_scales(self.batch_size, _positive(batch_size), self._without_replacement)
        for doubt in self.doubts(batch_size) if warn else ():
            validation.warn(doubt, RescalingWarning, code="MCBN127")
        moved = rescaled(self.statistics, self.epsilon, self.bias, ratio)
        bias = {name: values * ratio.to(values) for name, values in self.bias.items()}
        bank = replace(self.with_coordinates(moved), batch_size=batch_size, bias=bias)
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

    def merge(self, draws: int) -> "Bank":
        """Draws of mini-batches `draws` times as large, each pooled from that many of these.

        Pooled by the law of total variance: nothing is assumed about how statistics scale, but in
        deep layers they keep the bias of the smaller batches. There are as many draws as before,
        each of which is used `draws` times, so their Monte Carlo error is that of T / `draws`
        independent ones.

        Raises:
            TypeError: `draws` is not an integer.
            ValueError: it is below 1, or above the number of draws.
        """
        require_draws(draws, len(self))
        times = torch.tensor(float(draws), dtype=torch.float64)
        statistics = {
            name: values.to(self.statistics[name])
            for name, values in merged(self.statistics, times).items()
        }
        bank = replace(self, statistics=statistics, batch_size=self.size * draws)
        before, after = self.coordinates(), bank.coordinates()
        # The limit stays where it was, whatever merging makes of the mean.
        bias = {
            name: values + (after[name].mean(0) - before[name].mean(0)).to(values)
            for name, values in self.bias.items()
        }
        return replace(bank, bias=bias)

    def doubts(self, batch_size: float | Tensor) -> tuple[str, ...]:
        """Why draws rescaled to `batch_size` may not be as those collected there, by layer.

        Judged from the draws alone; empty where nothing speaks against it.
        """
        size = float(_positive(batch_size).detach())
        return doubts(self.statistics, self.epsilon, self.bias, self.size, size)

    @property
    def _without_replacement(self) -> int | None:
        """N where the examples of a draw are known to be different ones; None elsewhere."""
        return self.population if self.replacement is False else None

    def coordinates(self) -> dict[str, Tensor]:
        """Means and log(v + epsilon) of all draws, in float64."""
        return to_coordinates(self.statistics, self.epsilon)

    def points(self) -> Float[Tensor, "draws coordinates"]:
        """All coordinates of a draw as one row, on the CPU and without gradients."""
        rows = [values.detach().cpu() for values in self.coordinates().values()]
        return torch.cat([values.reshape(len(self), -1) for values in rows], 1)

    def with_coordinates(self, coordinates: Mapping[str, Tensor]) -> "Bank":
        """A bank with the attributes of this one, and draws given as means and log(v + epsilon)."""
        statistics = {
            name: values.to(self.statistics[name].dtype)
            for name, values in to_statistics(coordinates, self.epsilon).items()
        }
        return replace(self, statistics=statistics)

    def pooled(self) -> dict[str, Tensor]:
        """Mean and biased variance of all mini-batches together, by the law of total variance.

        Exact for the first layer; the activations of deeper layers depend on the batch's statistics
        in earlier ones.
        """
        return pooled(self.statistics)

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
        tensors = {
            **self.statistics,
            **{TRAINED + name: value for name, value in self.trained.items()},
            **{EPSILON + name: _number(value) for name, value in self.epsilon.items()},
            **{BIAS + name: value for name, value in self.bias.items()},
        }
        header = {name: getattr(self, name) for name in HEADER} | {"batch_size": self.size}
        write_tensors(path, tensors, kind=KIND, header=header, version=VERSION)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Bank":
        """Read a bank that `save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is not a readable mcbn bank file, or one of another version.
        """
        tensors, header = read_tensors(path, kind=KIND, versions=(1, VERSION))
        header = {**(ABSENT if header["version"] == 1 else {}), **header}
        for name, annotation in HEADER.items():
            if not (name in header and matches_type(header[name], annotation)):
                got = f"{header[name]!r:.80}" if name in header else "nothing"
                raise ValueError(
                    f"expected {name!r} in the header of a bank, got {got} in {path}; collect again"
                )
        parts: dict[str, dict[str, Tensor]] = {"": {}, TRAINED: {}, EPSILON: {}, BIAS: {}}
        for name, value in tensors.items():
            prefix = next((each for each in parts if each and name.startswith(each)), "")
            parts[prefix][name.removeprefix(prefix)] = value
        bank = cls(parts[""], parts[TRAINED], **{name: header[name] for name in HEADER})
        _require_valid(bank, path)
        _require_fitting(parts, path)
        epsilon = {name: float(value) for name, value in parts[EPSILON].items()}
        return replace(bank, epsilon=epsilon, bias=parts[BIAS])


def require_bank(bank: object) -> None:
    """Check that an argument is a bank.

    Raises:
        TypeError: it is not.
    """
    validation.require_type(bank, Bank, "a bank", "load the file of one by mcbn.Bank.load")


def _number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


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


def _require_fitting(parts: Mapping[str, Mapping[str, Tensor]], path: object) -> None:
    """Check that what a file says beside the statistics is finite, and of their shapes."""
    shapes = {name: rows.shape[1:] for name, rows in parts[""].items()}
    for prefix, fitting in ((EPSILON, {name: torch.Size() for name in shapes}), (BIAS, shapes)):
        for name, value in parts[prefix].items():
            if fitting.get(name) != value.shape:
                raise ValueError(
                    f"expected {prefix + name!r} of shape {tuple(fitting.get(name, ()))} in a "
                    f"bank, got {tuple(value.shape)} in {path}; collect again"
                )
            validation.finite(value, f"{prefix + name} of {path}")


def _require_valid(bank: Bank, path: str | os.PathLike[str]) -> None:
    """Check that statistics from a file are paired, equally long, finite and not negative."""
    shapes = {name: tuple(rows.shape) for name, rows in bank.statistics.items()}
    paired = all(partner(name) in shapes for name in shapes)
    draw_counts = {shape[0] for shape in shapes.values() if shape}
    consistent = (
        shapes
        and paired
        and len(draw_counts) == 1
        and all(shape and shape == shapes[partner(name)] for name, shape in shapes.items())
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
