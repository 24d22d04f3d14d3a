"""Watch a stream of mini-batches for drift, with an alarm that is valid at any time."""

from typing import Any

import numpy as np
import torch
from torch.nn import Module

from mcbn.bank.bank import Bank, require_bank
from mcbn.bank.full_batches import Size
from mcbn.drift.drift_test import require_level, warn_of_draws
from mcbn.drift.martingale import Jumper, reachable
from mcbn.drift.ranks import smoothed_rank
from mcbn.drift.reference import reference_at
from mcbn.drift.windows import batch_draws, require_size
from mcbn.io.display import Display, Displayed
from mcbn.network.batchnorm import unwrapped
from mcbn.network.inputs import Select
from mcbn.network.isolation import derived_seed


class DriftMonitor(Displayed):
    """Watch a stream of mini-batches: evidence of drift, which may be looked at after each.

    The distance of each mini-batch, as in `drift_test`, is ranked among those of the calibration
    draws and of all mini-batches before it, and ties are broken by a seeded number. Without drift,
    that is if draws and mini-batches are exchangeable, these p values are independent and uniform.
    A bettor who stakes on small p values then has no gain on average, so his wealth, the e value,
    that began at 1, is at most 1 in expectation at any time, and the chance that it ever reaches
    1 / alpha is at most alpha.

    A drift that lasts becomes part of what is ranked among, so the e value rises soon after a
    change, or not at all: the more so, the more draws the bank has. For one that creeps, test each
    day by `drift_test`. What holds of banks and data is said there.

    Args:
        model: the network of the bank.
        bank: draws as they were collected.
        batch_size: examples in a mini-batch; M of the bank by default, see `drift_test`.
        alpha: the chance of a false alarm, ever.
        select: picks the network's inputs out of a batch where the default rule does not.
        size: a function that returns the number of examples in a batch, as for `collect`.
        seed: of the numbers that break ties.

    Raises:
        TypeError: `bank` is not one.
        ValueError: the bank is of another model, has too few draws for `alpha`, or cannot be
            rescaled.

    Warns:
        UserWarning: as `drift_test`, of the draws.

    Reference:
        Vovk et al. 2021, "Retrain or not retrain: conformal test martingales for change-point
        detection"; Ville 1939, "Etude critique de la notion de collectif".
    """

    def __init__(
        self,
        model: Module,
        bank: Bank,
        *,
        batch_size: int | None = None,
        alpha: float = 0.01,
        select: Select | None = None,
        size: Size | None = None,
        seed: int = 0,
    ) -> None:
        require_level(alpha)
        require_size(batch_size)
        require_bank(bank)
        warn_of_draws(bank)
        self.model, self.alpha = unwrapped(model), alpha
        self.batch_size = bank.size if batch_size is None else float(batch_size)
        self.collected_at = bank.size
        self._reference = reference_at(model, bank, self.batch_size)
        self._select, self._size = select, size
        calibration = self._reference.calibration.whole
        _require_reachable(len(bank), len(calibration), alpha)
        self._seen = calibration
        self._draws = len(calibration)
        self._generator = np.random.Generator(np.random.Philox(derived_seed(seed, "drift")))
        self._jumper = Jumper()
        self._p_values: list[float] = []
        self._e_values: list[float] = []

    def update(self, batch: Any) -> float:
        """Take the next mini-batch into account, and return the e value after it.

        Args:
            batch: a mini-batch of `batch_size` examples, as a DataLoader yields it. An error
                leaves the monitor as it was.

        Raises:
            TypeError: it holds no inputs.
            ValueError: it has another number of examples, values that are not finite, or statistics
                of other layers.
        """
        drawn = batch_draws(self.model, [batch], select=self._select, size=self._size)
        if drawn.size != self.batch_size:
            raise ValueError(
                f"expected a mini-batch of {self.batch_size:g} examples, got {drawn.size:g}; "
                "gather so many, or make the monitor with batch_size="
            )
        distance = self._reference.distances(drawn.statistics).whole
        p_value = smoothed_rank(self._seen, float(distance), float(self._generator.random()))
        self._seen = torch.cat([self._seen, distance])
        self._jumper = self._jumper.bet(p_value)
        self._p_values.append(p_value)
        self._e_values.append(self._jumper.total)
        return self.e_value

    @property
    def e_value(self) -> float:
        """The evidence of drift by now: 1 at the start, and seldom large without drift."""
        return self._jumper.total

    @property
    def e_values(self) -> tuple[float, ...]:
        """The e value after each mini-batch."""
        return tuple(self._e_values)

    @property
    def p_values(self) -> tuple[float, ...]:
        """The p value of each mini-batch among the calibration and all before it."""
        return tuple(self._p_values)

    @property
    def distances(self) -> tuple[float, ...]:
        """The distance of each mini-batch from the draws of the bank; see `drift_test`."""
        return tuple(self._seen[self._draws :].tolist())

    @property
    def alarm_at(self) -> int | None:
        """The number of mini-batches after which the e value first was 1 / alpha; None if never."""
        found = (number for number, e in enumerate(self._e_values, 1) if e >= 1 / self.alpha)
        return next(found, None)

    @property
    def alarm(self) -> bool:
        """Whether the e value has ever been 1 / alpha: a drift that was found stays found."""
        return self.alarm_at is not None

    def display(self) -> Display:
        """The e value and whether there was an alarm, and the last mini-batches."""
        state = f"alarm at mini-batch {self.alarm_at}" if self.alarm else "no alarm"
        heading = (
            f"Drift monitor: {state} (alarm at e = {1 / self.alpha:g}), e = {self.e_value:.3g} "
            f"after {len(self._e_values)} mini-batches of {self.batch_size:g}"
        )
        rows = [
            (str(number), f"{distance:.3g}", f"{p:.3g}", f"{e:.3g}")
            for number, (distance, p, e) in enumerate(
                zip(self.distances, self._p_values, self._e_values, strict=True), 1
            )
        ]
        return Display(heading, ("mini-batch", "distance", "p", "e"), rows[::-1])

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values, as for JSON."""
        return {
            "e_value": self.e_value,
            "alarm": self.alarm,
            "alarm_at": self.alarm_at,
            "alpha": self.alpha,
            "batch_size": self.batch_size,
            "collected_at": self.collected_at,
            "distances": list(self.distances),
            "p_values": list(self.p_values),
            "e_values": list(self.e_values),
        }


def _require_reachable(draws: int, calibration: int, alpha: float) -> None:
    """Check that the e value of a total drift would reach 1 / alpha.

    Raises:
        ValueError: there are too few draws; says how many there have to be.
    """
    if reachable(calibration) >= 1 / alpha:
        return
    needed = calibration
    while reachable(needed) < 1 / alpha:
        needed += max(1, needed // 10)
    raise ValueError(
        f"expected a bank of at least {2 * needed} draws for alpha = {alpha:g}, got {draws}, with "
        f"which no drift gives an e value of {1 / alpha:g}; collect more draws, or give a larger "
        "alpha"
    )
