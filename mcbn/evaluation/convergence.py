"""Monte Carlo error: how much a score varies with the choice of draws."""

import math
from dataclasses import asdict, dataclass
from typing import Any

from jaxtyping import Float, Float64, Int
from torch import Tensor

from mcbn import validation
from mcbn.evaluation.finite_draws import DrawError, target_logs
from mcbn.io.display import Display, Displayed
from mcbn.io.plain import to_plain


@dataclass(frozen=True, repr=False)
class Convergence(Displayed):
    """Mean negative log-likelihood of the test examples against the number of draws T.

    Attributes:
        draws: numbers of draws that were tried.
        nll: mean over disjoint groups of that many draws, in nats.
        spread: standard deviation over the groups: the Monte Carlo error of one prediction. NaN
            where the draws make up one group only.
    """

    draws: tuple[int, ...]
    nll: tuple[float, ...]
    spread: tuple[float, ...]

    def display(self) -> Display:
        """The score of each number of draws."""
        rows = [
            (str(draws), f"{nll:.4g}", "-" if math.isnan(spread) else f"{spread:.2g}")
            for draws, nll, spread in zip(self.draws, self.nll, self.spread, strict=True)
        ]
        return Display("NLL against the number of draws T", ("T", "nll", "Monte Carlo error"), rows)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON, with None for what is not defined or infinite."""
        plain: dict[str, Any] = to_plain(asdict(self))
        return plain


def convergence(
    logits: Float[Tensor, "draws batch classes"], targets: Int[Tensor, " batch"]
) -> Convergence:
    """Score disjoint groups of 1, 2, 4, ... draws.

    Args:
        logits: the draws of a predictive: its `logits`, kept by `keep_draws=True`.
        targets: class indices.

    Raises:
        ValueError: there are no draws, or some are not finite.
    """
    if len(logits) == 0:
        raise ValueError("expected draws of logits, got none; predict with keep_draws=True")
    validation.finite(logits, "draws")
    return convergence_of_targets(target_logs(logits, targets))


def convergence_of_targets(logs: Float64[Tensor, "draws batch"]) -> Convergence:
    """The same of the log-probability of each target by every draw, as `Entry` keeps it."""
    sizes = [2**power for power in range(int(math.log2(len(logs))) + 1)]
    means, spreads = [], []
    for size in sizes:
        groups = logs[: len(logs) // size * size].reshape(-1, size, *logs.shape[1:])
        losses = (math.log(size) - groups.logsumexp(1)).mean(1)
        means.append(float(losses.mean()))
        spreads.append(float(losses.std()) if len(losses) > 1 else float("nan"))
    return Convergence(tuple(sizes), tuple(means), tuple(spreads))


def monte_carlo_error(curve: Convergence, draws: int) -> float:
    """Standard deviation of the NLL at `draws` draws, from that of smaller groups; NaN if unknown.

    It is taken to fall as one over the root of the number of draws, from the largest groups of
    which there are at least 8: fewer give no reliable standard deviation, and the law holds less
    well for smaller groups.
    """
    known = [
        (size, spread)
        for size, spread in zip(curve.draws, curve.spread, strict=True)
        if math.isfinite(spread)
    ]
    if not known:
        return math.nan
    reliable = [pair for pair in known if curve.draws[-1] // pair[0] >= 8] or known[:1]
    size, spread = reliable[-1]
    return spread * math.sqrt(size / draws)


def curve_error(curve: Convergence, draws: int) -> DrawError:
    """Bias and Monte Carlo error at `draws` draws, from a curve.

    The bias falls as c/T, so that it is, at the largest T, what half of the draws lose against all.
    """
    bias = math.nan
    if len(curve.draws) > 1:
        bias = (curve.nll[-2] - curve.nll[-1]) * curve.draws[-1] / draws
    return DrawError(draws, bias, monte_carlo_error(curve, draws))
