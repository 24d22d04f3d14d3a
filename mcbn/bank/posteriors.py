"""Parametric posteriors of batch-norm statistics: fitted to a bank, sampled without data."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mcbn import validation
from mcbn.bank.bank import Bank
from mcbn.io.display import Display, Displayed
from mcbn.network.isolation import derived_seed


@dataclass(frozen=True, eq=False, repr=False)
class JointPosterior(Displayed):
    """A joint Gaussian over the means and log(v + epsilon) of all layers, of low rank.

    A draw is `center + deviations^T z / sqrt(T - 1)` with `z ~ N(0, I_T)`. Its covariance is the
    unbiased sample covariance of the bank's T draws, including that between channels and layers,
    and takes T numbers per statistic.

    Attributes:
        bank: the bank it was fitted to.
        center: mean over draws of each coordinate of the bank, by buffer name.
        deviations: each draw minus the center.
    """

    bank: Bank
    center: Mapping[str, Tensor]
    deviations: Mapping[str, Tensor]

    def display(self) -> Display:
        """The bank it was fitted to."""
        bank = self.bank.display()
        return replace(bank, heading=f"JointPosterior fitted to {bank.heading}")

    @classmethod
    def from_bank(cls, bank: Bank) -> "JointPosterior":
        """Fit to all draws of `bank`.

        Raises:
            ValueError: the bank has a single draw, which has no spread.
        """
        return cls(bank, *_centered(bank))

    def sample(self, draws: int, *, seed: int = 0) -> Bank:
        """Sample a bank of `draws` new draws; draw t depends only on `seed` and t.

        Raises:
            ValueError: `draws` or `seed` is out of range.
        """
        scale = (len(self.bank) - 1) ** -0.5
        rows: dict[str, list[Tensor]] = {name: [] for name in self.center}
        for draw in _draw_numbers(draws):
            # One product per draw, since a larger matrix product rounds differently.
            noise = _noise(len(self.bank), seed, draw)
            for name, center in self.center.items():
                deviations = self.deviations[name].reshape(len(noise), -1)
                shift = noise.to(center.device) @ deviations
                rows[name].append(center + scale * shift.reshape(center.shape))
        return _as_bank(self.bank, rows, f"joint posterior, seed {seed}")


@dataclass(frozen=True, eq=False, repr=False)
class FactorizedPosterior(Displayed):
    """A baseline of independent statistics: a normal mean and a log-normal variance per channel.

    In real mini-batches the statistics of channels and layers are correlated, and without that
    most of the epistemic uncertainty of a convolutional network is lost: use `JointPosterior`.

    Attributes:
        bank: the bank it was fitted to.
        center: mean over draws of each coordinate of the bank, by buffer name.
        spread: their unbiased standard deviation over draws.

    Reference:
        Atanov et al. 2018, "Uncertainty Estimation via Stochastic Batch Normalization".
    """

    bank: Bank
    center: Mapping[str, Tensor]
    spread: Mapping[str, Tensor]

    def display(self) -> Display:
        """The bank it was fitted to."""
        bank = self.bank.display()
        return replace(bank, heading=f"FactorizedPosterior fitted to {bank.heading}")

    @classmethod
    def from_bank(cls, bank: Bank) -> "FactorizedPosterior":
        """Fit to all draws of `bank`.

        Raises:
            ValueError: the bank has a single draw, which has no spread.
        """
        center, deviations = _centered(bank)
        degrees = len(bank) - 1
        spread = {k: (rows.square().sum(0) / degrees).sqrt() for k, rows in deviations.items()}
        return cls(bank, center, spread)

    def sample(self, draws: int, *, seed: int = 0) -> Bank:
        """Sample a bank of `draws` new draws; draw t depends only on `seed` and t.

        Raises:
            ValueError: `draws` or `seed` is out of range.
        """
        sizes = [center.numel() for center in self.center.values()]
        rows: dict[str, list[Tensor]] = {name: [] for name in self.center}
        for draw in _draw_numbers(draws):
            parts = torch.split(_noise(sum(sizes), seed, draw), sizes)
            for (name, center), part in zip(self.center.items(), parts, strict=True):
                noise = part.to(center.device).reshape(center.shape)
                rows[name].append(center + self.spread[name] * noise)
        return _as_bank(self.bank, rows, f"factorised posterior, seed {seed}")


def _centered(bank: Bank) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Mean over draws of each statistic, and every draw minus that mean."""
    if len(bank) < 2:
        raise ValueError(
            f"expected a bank of at least 2 draws, got {len(bank)}, which has no spread to fit; "
            "collect 64 or so"
        )
    coordinates = bank.coordinates()
    center = {name: rows.mean(0) for name, rows in coordinates.items()}
    return center, {name: rows - center[name] for name, rows in coordinates.items()}


def _draw_numbers(draws: int) -> range:
    if validation.integer(draws, "draws") < 1:
        raise ValueError(f"expected at least 1 draw, got {draws}; give 64 or so")
    return range(draws)


def _noise(count: int, seed: int, draw: int) -> Tensor:
    generator = torch.Generator().manual_seed(derived_seed(seed, draw, "posterior"))
    return torch.randn(count, generator=generator, dtype=torch.float64)


def _as_bank(bank: Bank, rows: Mapping[str, list[Tensor]], kind: str) -> Bank:
    """A bank of sampled rows, with the number types of the bank that was fitted."""
    drawn = bank.with_coordinates({name: torch.stack(values) for name, values in rows.items()})
    return replace(drawn, source=f"{kind}, of {len(bank)} draws ({bank.source})")
