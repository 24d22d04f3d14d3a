"""A conformal test martingale: wealth from bets that p values are too small."""

import math
from collections.abc import Callable
from dataclasses import dataclass

# Densities on [0, 1] that fall in p: no bet at all, one for a small drift and one for a large one.
BETS: tuple[Callable[[float], float], ...] = (
    lambda _: 1.0,
    lambda p: 2.0 * (1.0 - p),
    lambda p: 0.5 / math.sqrt(p),
)
# Share of the wealth that is shared out anew before each bet, so that a late drift is bet on too.
JUMP = 0.01


@dataclass(frozen=True)
class Jumper:
    """Wealth that began at 1, on each of the bets.

    While p values are independent and uniform its expectation stays 1, so the chance that it ever
    reaches 1 / alpha is at most alpha (Ville's inequality).

    Attributes:
        wealth: on each bet.

    Reference:
        Vovk et al. 2021, "Retrain or not retrain: conformal test martingales for change-point
        detection", section 3 (the simple jumper); with bets on small p values alone.
    """

    wealth: tuple[float, ...] = (1 / len(BETS),) * len(BETS)

    @property
    def total(self) -> float:
        """The wealth on all bets: an e value."""
        return sum(self.wealth)

    def bet(self, p_value: float) -> "Jumper":
        """The wealth after one more p value."""
        share = JUMP * self.total / len(BETS)
        return Jumper(
            tuple(
                ((1 - JUMP) * wealth + share) * density(p_value)
                for wealth, density in zip(self.wealth, BETS, strict=True)
            )
        )


def reachable(draws: int) -> float:
    """The e value that a total drift comes to, which `draws` calibration draws are there to show.

    Each mini-batch is then further off than all draws, and in the middle of those before it: its
    p value is t / 2 over the draws + t. The more of them, the less each one tells.
    """
    jumper, most = Jumper(), 1.0
    for number in range(1, 2 * draws + 1):
        jumper = jumper.bet(0.5 * number / (draws + number))
        most = max(most, jumper.total)
    return most
