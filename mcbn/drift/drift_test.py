"""Test whether mini-batches are drawn from what a bank was drawn from."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch.nn import Module

from mcbn import validation
from mcbn.bank.augmentation import AUGMENTED
from mcbn.bank.bank import Bank, require_bank
from mcbn.bank.full_batches import Size
from mcbn.drift.ranks import rank_sum_p_value, required_calibration
from mcbn.drift.reference import Distances, reference_at
from mcbn.drift.windows import batch_draws, require_size, windows
from mcbn.evaluation.significance import holm
from mcbn.io.display import Display, Displayed
from mcbn.network.inputs import Select

# Share of the population in one draw, above which it matters that draws share examples.
MAX_SHARE = 1 / 50


@dataclass(frozen=True)
class LayerDrift:
    """Drift of one layer's statistics.

    Attributes:
        name: the layer.
        ratio: mean distance of the mini-batches over that of the calibration draws; 1 without
            drift.
        p_value: of this layer alone.
        adjusted_p_value: by Holm's method, for all layers together.
    """

    name: str
    ratio: float
    p_value: float
    adjusted_p_value: float

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "LayerDrift":
        """Make it from plain values, where an infinite ratio may be None."""
        ratio = math.inf if values["ratio"] is None else float(values["ratio"])
        p_values = float(values["p_value"]), float(values["adjusted_p_value"])
        return cls(str(values["name"]), ratio, *p_values)


@dataclass(frozen=True, repr=False)
class DriftTest(Displayed):
    """Result of `drift_test`.

    Attributes:
        p_value: the chance of distances as large as these, or larger, without drift.
        alpha: level of the test: the chance of a false alarm.
        distances: of each mini-batch from the draws of the bank: the mean squared z of its
            statistics, about 1 without drift.
        calibration: the same of the draws that were held out to compare with.
        layers: the test of each layer alone, in the order of the network.
        batch_size: examples in a mini-batch.
        collected_at: batch size of the bank, whose draws were rescaled if it is another.
    """

    p_value: float
    alpha: float
    distances: tuple[float, ...]
    calibration: tuple[float, ...]
    layers: tuple[LayerDrift, ...]
    batch_size: float
    collected_at: float

    @property
    def drifted(self) -> bool:
        """Whether the p value is at most alpha."""
        return self.p_value <= self.alpha

    @property
    def ratio(self) -> float:
        """Mean distance of the mini-batches over that of the calibration draws; 1 without drift."""
        return _ratio(torch.tensor(self.distances), torch.tensor(self.calibration))

    @property
    def first_layer(self) -> str | None:
        """The first layer, in the order of the network, whose adjusted p value is at most alpha.

        None if there is none. The chance that any layer is named without drift is at most alpha.
        """
        found = (each.name for each in self.layers if each.adjusted_p_value <= self.alpha)
        return next(found, None)

    @property
    def threshold(self) -> float:
        """The distance above which a single mini-batch has a p value of at most alpha.

        Infinite where there are too few calibration draws for one.
        """
        above = math.floor(self.alpha * (len(self.calibration) + 1) + 1e-9)
        return sorted(self.calibration)[-above] if above else math.inf

    def display(self) -> Display:
        """The p value, and the layers, those with the smallest adjusted p values first."""
        verdict = "drift" if self.drifted else "no drift"
        several = "mini-batch" if len(self.distances) == 1 else "mini-batches"
        heading = (
            f"Drift test: p = {self.p_value:.3g}, {verdict} at alpha = {self.alpha:g} "
            f"({len(self.distances)} {several} of {self.batch_size:g} against "
            f"{len(self.calibration)} draws)"
        )
        ordered = sorted(self.layers, key=lambda layer: (layer.adjusted_p_value, layer.p_value))
        return Display(heading, ("layer", "distance ratio", "p", "Holm p"), [
            (layer.name or "(itself)", f"{layer.ratio:.3g}", f"{layer.p_value:.3g}",
             f"{layer.adjusted_p_value:.3g}")
            for layer in ordered
        ])  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values, as for JSON."""
        return {
            **asdict(self),
            "drifted": self.drifted,
            "first_layer": self.first_layer,
            "threshold": self.threshold,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "DriftTest":
        """Make a test from the values of `to_dict`, which may have been through JSON.

        Raises:
            ValueError: values are missing or of another kind.
        """
        try:
            layers = tuple(LayerDrift.from_dict(each) for each in values["layers"])
            numbers = {
                name: float(values[name])
                for name in ("p_value", "alpha", "batch_size", "collected_at")
            }
            distances, calibration = (
                tuple(map(float, values[name])) for name in ("distances", "calibration")
            )
            return cls(distances=distances, calibration=calibration, layers=layers, **numbers)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"expected the values of a test for drift, got damaged ones ({error!s:.80}); make "
                "it again, by mcbn drift --json"
            ) from error


def drift_test(
    model: Module,
    bank: Bank,
    data: Any,
    *,
    batch_size: int | None = None,
    alpha: float = 0.05,
    select: Select | None = None,
    size: Size | None = None,
    seed: int = 0,
    progress: bool = True,
) -> DriftTest:
    r"""Test whether data are drawn from what a bank was drawn from.

    Every mini-batch passes through the network as those of `collect` did. Its distance is the mean
    of $((s - c) / d)^2$ over the means and log(v + epsilon) of all layers, where center c and
    deviation d are those of the first half of the bank's draws. The distances are compared with
    those of the other half, by ranks: the p value is valid, at any number of draws and
    mini-batches, if these draws and the mini-batches are exchangeable without drift. It is for

    - draws and mini-batches that share no examples, such as one epoch of a DataLoader with
      shuffle=True, and new examples drawn alike;
    - `minibatches` of the bank's own N examples; for new examples nearly, where M is far below N.

    Examples that the network was trained on are not quite like new ones, and random crops make them
    others: collect the bank of held-out examples that are preprocessed as in production. The model
    and the global random streams are left unchanged. See docs/drift.md.

    Args:
        model: the network of the bank.
        bank: draws as they were collected; half of them are compared with, so 128 are better than
            64. Not thinned, merged or sampled from a posterior: such draws are not exchangeable
            with mini-batches.
        data: examples in a tensor, an array, a data frame or a map-style Dataset, which are cut
            into mini-batches at random; or mini-batches as they are: a DataLoader or an iterable.
            A smaller last one is left out.
        batch_size: examples in a mini-batch that is cut; M of the bank by default. The draws are
            rescaled to mini-batches of another size where `Bank.doubts` finds nothing against it;
            that is approximate.
        alpha: level of the test.
        select: picks the network's inputs out of a batch where the default rule does not.
        size: a function that returns the number of examples in a batch, as for `collect`.
        seed: of the cut.
        progress: show a progress bar, on a terminal only.

    Raises:
        TypeError: `bank` is not one, or `data` hold no inputs.
        ValueError: the bank is of another model, has too few draws for `alpha`, or cannot be
            rescaled to these mini-batches; there is no whole mini-batch, or one without variance,
            as a single example in a dense layer has.

    Warns:
        UserWarning: the draws, or the mini-batches, share too many examples, or those of the draws
            were transformed at random.

    Reference:
        Vovk, Gammerman and Shafer 2005, "Algorithmic Learning in a Random World" (p values by
        ranks); Mann and Whitney 1947 (of several mini-batches); Holm 1979 (of several layers).
    """
    require_level(alpha)
    require_size(batch_size)
    require_bank(bank)
    bank.require_model(model)
    warn_of_draws(bank)
    drawn = batch_draws(
        model, windows(data, batch_size, bank, seed=seed), select=select, size=size, seed=seed,
        progress=progress,
    )  # fmt: skip
    reference = reference_at(model, bank, drawn.size)
    calibration = reference.calibration
    require_draws(len(bank), len(calibration.whole), alpha, len(drawn))
    found = reference.distances(drawn.statistics)
    return DriftTest(
        rank_sum_p_value(calibration.whole, found.whole),
        alpha,
        tuple(found.whole.tolist()),
        tuple(calibration.whole.tolist()),
        _layers(calibration, found),
        drawn.size,
        bank.size,
    )


def _layers(calibration: Distances, found: Distances) -> tuple[LayerDrift, ...]:
    p_values = [
        rank_sum_p_value(calibration.layers[name], values) for name, values in found.layers.items()
    ]
    return tuple(
        LayerDrift(name, _ratio(values, calibration.layers[name]), p_value, adjusted)
        for (name, values), p_value, adjusted in zip(
            found.layers.items(), p_values, holm(p_values), strict=True
        )
    )


def _ratio(found: torch.Tensor, calibration: torch.Tensor) -> float:
    """1 where neither moved at all, as in a layer whose input is constant."""
    usual, mean = float(calibration.mean()), float(found.mean())
    return mean / usual if usual > 0 else math.inf if mean > 0 else 1.0


def require_level(alpha: float) -> None:
    """Check that a level is one.

    Raises:
        ValueError: it is not between 0 and 1.
    """
    if not 0 < alpha < 1:
        raise ValueError(
            f"expected alpha between 0 and 1, got {alpha!r:.80}; give 0.05 for one false alarm in "
            "twenty tests"
        )


def require_draws(draws: int, calibration: int, alpha: float, batches: int) -> None:
    """Check that there are enough draws for a p value of `alpha`.

    Raises:
        ValueError: there are too few; says how many there have to be.
    """
    needed = required_calibration(alpha, batches)
    if calibration < needed:
        several = "1 mini-batch" if batches == 1 else f"{batches} mini-batches"
        raise ValueError(
            f"expected a bank of at least {2 * needed - 1} draws for alpha = {alpha:g} with "
            f"{several}, got {draws}, with which no p value is so small; collect more draws, or "
            "give a larger alpha"
        )


def warn_of_draws(bank: Bank) -> None:
    """Warn of draws that new mini-batches are not exchangeable with, as far as the bank tells.

    Draws from N examples have the variance 1/M - 1/N about what these are, and mini-batches of new
    examples 1/M + 1/N.

    Warns:
        UserWarning: the examples were transformed at random, or the draws share too many of them.
    """
    if AUGMENTED in bank.source:
        validation.warn(
            "the draws are of examples that were transformed at random, as in training, and new "
            "data that are not will be taken for drift; collect a bank of examples preprocessed "
            "as in production"
        )
    population = math.inf if bank.population is None else bank.population
    if bank.size * min(len(bank), 1 / MAX_SHARE) > population:
        validation.warn(
            f"the {len(bank)} draws of {bank.size:g} share {population} examples, so "
            "mini-batches of new ones are further off without drift, and false alarms are more "
            "frequent than alpha; collect a bank from more examples, or from a DataLoader with "
            "shuffle=True and at most one epoch of draws"
        )
