"""Choose the batch size, as a variational parameter, by held-out log score or by the ELBO."""

import math
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Literal

import torch
from jaxtyping import Float64
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn import Module

from mcbn import validation
from mcbn.bank.bank import Bank, require_bank
from mcbn.bank.doubts import VALID_RATIOS, RescalingWarning
from mcbn.evaluation import bootstrap
from mcbn.io.progress import progress_bar
from mcbn.network.inputs import Inputs, count
from mcbn.predictive.categorical import Categorical
from mcbn.predictive.gaussian import Gaussian
from mcbn.predictive.likelihood import as_likelihood
from mcbn.samplers.outputs import Output
from mcbn.study.criterion import ELBO, Objective, elbo_of

# M relative to that of the bank: the range that is searched.
SEARCHED_RATIOS = (1 / 4, 4.0)
# In log M: a best size this near a bound counts as the bound; it is refined to a tenth of this.
LOG_SIZE_TOLERANCE = 1e-2


@dataclass(frozen=True, eq=False)
class BatchSizeChoice:
    """The batch size that predicts best, its uncertainty, and the curve over batch sizes.

    Values are in nats per example; lower is better.

    Attributes:
        best: the best batch size, any real number.
        value: the criterion there: the mean held-out negative log-likelihood, or minus the ELBO.
        flat: smallest and largest size of the curve that, with all between, are not significantly
            different from the best, by paired differences over examples.
        interval: bootstrap interval of `best`, over examples.
        batch_sizes: the sizes of the curve.
        values: the criterion at each size.
        low: lower end of the bootstrap interval of each value.
        high: upper end of it.
        criterion: "log_score" or "elbo".
        bank_size: M of the bank that was rescaled.
        draws: T of that bank.
        level: level of all intervals.
        doubts: why a bank collected at `best` may predict otherwise than the rescaled one.
    """

    best: float
    value: float
    flat: tuple[float, float]
    interval: tuple[float, float]
    batch_sizes: Float64[Tensor, " points"]
    values: Float64[Tensor, " points"]
    low: Float64[Tensor, " points"]
    high: Float64[Tensor, " points"]
    criterion: Literal["log_score", "elbo"]
    bank_size: float
    draws: int
    level: float
    doubts: tuple[str, ...] = ()

    @property
    def at_bound(self) -> Literal["lower", "upper"] | None:
        """The end of the searched range that the best size is at; None if it is inside."""
        for end, index in (("lower", 0), ("upper", -1)):
            if abs(math.log(self.best / float(self.batch_sizes[index]))) < LOG_SIZE_TOLERANCE:
                return "lower" if end == "lower" else "upper"
        return None

    @property
    def extrapolated(self) -> bool:
        """Whether the best size is outside the range in which rescaling was measured."""
        return (
            not VALID_RATIOS[0] * (1 - LOG_SIZE_TOLERANCE)
            <= self.best / self.bank_size
            <= VALID_RATIOS[1] * (1 + LOG_SIZE_TOLERANCE)
        )

    def __str__(self) -> str:
        name = "held-out log score" if self.criterion == "log_score" else "ELBO"
        lines = [
            f"best batch size {self.best:.4g} [{self.interval[0]:.4g}, {self.interval[1]:.4g}] "
            f"by {name}, {self.value:.4g} nats per example",
            f"not significantly different: {self.flat[0]:.4g} to {self.flat[1]:.4g}",
            f"searched {float(self.batch_sizes[0]):.4g} to {float(self.batch_sizes[-1]):.4g} with "
            f"{self.draws} draws collected at {self.bank_size:.4g}",
        ]
        if self.at_bound:
            lines.append(
                f"the best size is at the {self.at_bound} end of the search: collect a bank at "
                "that size and choose again"
            )
        return "\n".join([*lines, *self.doubts])

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        curve = {name: getattr(self, name) for name in ("batch_sizes", "values", "low", "high")}
        return {
            "criterion": self.criterion,
            "best": self.best,
            "value": self.value,
            "flat": list(self.flat),
            "interval": list(self.interval),
            "level": self.level,
            "at_bound": self.at_bound,
            "extrapolated": self.extrapolated,
            "doubts": list(self.doubts),
            "bank_size": self.bank_size,
            "draws": self.draws,
            **{name: values.tolist() for name, values in curve.items()},
        }


def choose_batch_size(
    model: Module,
    bank: Bank,
    inputs: Inputs,
    targets: Tensor,
    *,
    criterion: Literal["log_score", "elbo"] | ELBO = "log_score",
    likelihood: Literal["categorical"] | Categorical | Gaussian = "categorical",
    bounds: tuple[float, float] | None = None,
    points: int = 17,
    output: Output | None = None,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    progress: bool = True,
) -> BatchSizeChoice:
    """Choose M by rescaling one bank, without another pass over the training data.

    All sizes share the bank's deviations, so the curve is smooth: a grid, even in log M, brackets
    the optimum and a bounded search refines it. Intervals cover the randomness of the examples but
    not that of the draws, which more draws reduce.

    Args:
        model: the trained network.
        bank: draws of its statistics, preferably at a size near the best one.
        inputs: held-out examples for the log score, training examples for the ELBO.
        targets: targets of the inputs.
        criterion: "log_score", "elbo", or `ELBO(...)` with another prior.
        likelihood: "categorical" for logits, `Gaussian(...)` for real targets.
        bounds: smallest and largest M; by default a quarter to four times the bank's M, and
            never above N.
        points: number of sizes on the grid.
        output: picks the output tensor where the network returns something else.
        resamples: number of bootstrap resamples of the examples.
        level: level of the intervals.
        seed: seed of the resamples.
        progress: show a bar, on a terminal only.

    Raises:
        TypeError: the network, the bank or the targets are of another type.
        ValueError: an argument is out of range, all draws are equal, the bank is of another
            network, or the targets do not fit the inputs.

    Warns:
        RescalingWarning: the draws speak against rescaling them to the best size; says why.

    Reference:
        Mukhoti et al. 2020, "On Batch Normalisation for Approximate Bayesian Inference", which
        calls for treating the batch size as a variational parameter.
    """
    validation.fraction(level, "level")
    require_bank(bank)
    validation.tensor(targets, "targets")
    _require_counts(points, resamples, count(inputs), len(targets))
    objective = Objective(
        model, bank, inputs, targets, as_likelihood(likelihood), elbo_of(criterion, bank), output
    )
    low, high = (math.log(end) for end in _bounds(bounds, bank))
    grid = torch.linspace(low, high, points, dtype=torch.float64)
    sizes = progress_bar(grid.tolist(), label="choose", unit="size", shown=progress)
    table = torch.stack([objective(log_size) for log_size in sizes])
    best, at_best = _refined(grid, table, objective)
    # The last column is the best size: each resample draws the same examples for all sizes.
    columns = {"losses": torch.cat([table, at_best[None]]).T}
    drawn = bootstrap.replicates(
        [columns], _means, resamples=resamples, seed=seed, progress=progress
    )
    replicates = torch.stack(list(drawn.values()))
    doubts = bank.doubts(math.exp(best))
    for doubt in doubts:
        validation.warn(doubt, RescalingWarning)
    spans = [bootstrap.percentile_interval(row, level) for row in replicates[:-1]]
    return BatchSizeChoice(
        best=math.exp(best),
        value=float(at_best.mean()),
        flat=_flat(grid, best, replicates, level),
        interval=bootstrap.percentile_interval(_vertices(grid, replicates[:-1]).exp(), level),
        batch_sizes=grid.exp(),
        values=table.mean(1),
        low=torch.tensor([span[0] for span in spans], dtype=torch.float64),
        high=torch.tensor([span[1] for span in spans], dtype=torch.float64),
        criterion="log_score" if objective.elbo is None else "elbo",
        bank_size=bank.size,
        draws=len(bank),
        level=level,
        doubts=doubts,
    )


def _refined(grid: Tensor, table: Tensor, objective: Objective) -> tuple[float, Tensor]:
    """The best log size, between the neighbours of the best on the grid, and the losses there."""
    lowest = int(table.mean(1).argmin())
    last = len(grid) - 1
    ends = float(grid[max(lowest - 1, 0)]), float(grid[min(lowest + 1, last)])
    losses = {float(grid[lowest]): table[lowest]}

    def value(log_size: float) -> float:
        losses[float(log_size)] = objective(float(log_size))
        return float(losses[float(log_size)].mean())

    minimize_scalar(
        value, bounds=ends, method="bounded", options={"xatol": LOG_SIZE_TOLERANCE / 10}
    )
    best = min(losses, key=lambda log_size: float(losses[log_size].mean()))
    return best, losses[best]


def _means(columns: bootstrap.ScoreColumns) -> dict[str, float]:
    return {str(index): mean for index, mean in enumerate(columns["losses"].mean(0).tolist())}


def _flat(grid: Tensor, best: float, replicates: Tensor, level: float) -> tuple[float, float]:
    """Ends of the range around the best size whose paired differences from it may be 0."""
    excess = replicates[:-1] - replicates[-1]
    tied = [bootstrap.percentile_interval(row, level)[0] <= 0 for row in excess]
    pairs = list(zip(grid.tolist(), tied, strict=True))
    below = _run([pair for pair in reversed(pairs) if pair[0] <= best])
    above = _run([pair for pair in pairs if pair[0] >= best])
    return math.exp(min([best, *below])), math.exp(max([best, *above]))


def _run(pairs: list[tuple[float, bool]]) -> list[float]:
    """The first sizes, until one is not tied."""
    return [log_size for log_size, _ in takewhile(lambda pair: pair[1], pairs)]


def _vertices(
    grid: Float64[Tensor, " points"], replicates: Float64[Tensor, "points resamples"]
) -> Float64[Tensor, " resamples"]:
    """The minimum of each curve: of the parabola through its lowest point and the neighbours."""
    lowest = replicates.argmin(0, keepdim=True)
    inner = lowest.clamp(1, len(grid) - 2)
    left, middle, right = (replicates.gather(0, inner + step)[0] for step in (-1, 0, 1))
    bend = left - 2 * middle + right
    shift = torch.where(bend > 0, (left - right) / (2 * bend), 0.0).clamp(-0.5, 0.5)
    # At an end of the grid there is no neighbour on one side.
    shift = torch.where(inner == lowest, shift, 0.0)[0]
    return grid[lowest[0]] + shift * (grid[1] - grid[0])


def _bounds(bounds: tuple[float, float] | None, bank: Bank) -> tuple[float, float]:
    size = bank.size
    limit = bank.population or math.inf
    low, high = bounds or (SEARCHED_RATIOS[0] * size, min(SEARCHED_RATIOS[1] * size, limit))
    if not 0 < low < high <= limit:
        raise ValueError(
            f"expected bounds 0 < smallest < largest <= N = {limit}, got ({low}, {high}); "
            f"leave them out for a quarter to four times the bank's {size:g}"
        )
    return low, high


def _require_counts(points: int, resamples: int, examples: int, targets: int) -> None:
    if points < 3:
        raise ValueError(f"expected at least 3 points, got {points}; 17 is usual")
    if resamples < 1:
        raise ValueError(f"expected at least 1 resample, got {resamples}; 1000 is usual")
    if examples != targets or examples == 0:
        raise ValueError(
            f"expected one target per input, got {examples} inputs and {targets} targets; give "
            "both of the same examples"
        )
