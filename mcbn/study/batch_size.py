"""Choose the batch size, as a variational parameter, by held-out log score or by the ELBO."""

import math
from collections.abc import Iterator
from itertools import takewhile
from typing import Any, Literal

import torch
from jaxtyping import Float64
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn import Module
from torch.utils.data import DataLoader, Dataset

from mcbn import validation
from mcbn.bank.bank import Bank, require_bank
from mcbn.bank.doubts import RescalingWarning
from mcbn.bank.minibatches import MiniBatches
from mcbn.evaluation import bootstrap
from mcbn.evaluation.clusters import Groups, clusters_of
from mcbn.io.progress import progress_bar
from mcbn.network.inputs import Inputs, count
from mcbn.network.targets import Targets
from mcbn.predictive.bernoulli import Bernoulli
from mcbn.predictive.categorical import Categorical
from mcbn.predictive.gaussian import Gaussian
from mcbn.predictive.likelihood import LikelihoodName, as_likelihood
from mcbn.samplers.outputs import Output
from mcbn.study.choice import LOG_SIZE_TOLERANCE, BatchSizeChoice
from mcbn.study.confirmation import Confirmation, interpolated, source_of_batches, whole_sizes
from mcbn.study.confirmation import confirm as confirmed
from mcbn.study.criterion import ELBO, Objective, elbo_of
from mcbn.study.examples import gathered_examples

# M relative to that of the bank: the range that is searched.
SEARCHED_RATIOS = (1 / 4, 4.0)


def choose_batch_size(
    model: Module,
    bank: Bank,
    inputs: Inputs | DataLoader[Any] | Dataset[Any],
    targets: Targets | None = None,
    *,
    batches: MiniBatches | DataLoader[Any] | None = None,
    confirm: int = 32,
    criterion: Literal["log_score", "elbo"] | ELBO = "log_score",
    likelihood: LikelihoodName | Categorical | Bernoulli | Gaussian = "categorical",
    bounds: tuple[float, float] | None = None,
    points: int = 17,
    output: Output | None = None,
    group: Groups | None = None,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    progress: bool = True,
) -> BatchSizeChoice:
    """Choose M by rescaling one bank, and confirm it by a few draws really collected.

    All sizes share the bank's deviations, so the curve is smooth: a grid, even in log M, brackets
    the optimum and a bounded search refines it. Where `batches` are given, draws are collected at
    the best size and at both ends, as many are rescaled, and what they differ by is added to the
    curves of the bootstrap, so that the interval of the best size covers it. Else intervals cover
    the randomness of the examples but not that of the draws, which more draws reduce. With a
    `group`, whole groups of examples are resampled, for the curves and for these differences.

    Args:
        model: the trained network.
        bank: draws of its statistics, preferably at a size near the best one.
        inputs: held-out examples for the log score, training examples for the ELBO; or a data set,
            or a loader of them in fixed order. All are held in memory.
        targets: targets of the inputs: a tensor, an array, a column of a data frame; by default
            those in the data set or loader.
        batches: the mini-batches or the loader that the bank was collected from, to confirm the
            choice; their examples are drawn in other sizes.
        confirm: the number of draws at each of these sizes.
        criterion: "log_score", "elbo", or `ELBO(...)` with another prior.
        likelihood: "categorical" for logits of classes, "bernoulli" for those of several labels an
            example, `Gaussian(...)` for real targets.
        bounds: smallest and largest M; by default a quarter to four times the bank's M, and
            never above N.
        points: number of sizes on the grid.
        output: picks the output tensor where the network returns something else.
        group: what examples that hang together share, one value per input, such as the patient of
            a scan: whole groups are resampled; see `evaluate`.
        resamples: number of bootstrap resamples of the examples.
        level: level of the intervals.
        seed: seed of the resamples.
        progress: show a bar, on a terminal only.

    Raises:
        TypeError: the network, the bank or the targets are of another type.
        ValueError: an argument is out of range, all draws are equal, the bank is of another
            network, or the targets or groups do not fit the inputs.

    Warns:
        RescalingWarning: the draws speak against rescaling them to the best size, or collected ones
            disagree; says why.

    Reference:
        Mukhoti et al. 2020, "On Batch Normalisation for Approximate Bayesian Inference", which
        calls for treating the batch size as a variational parameter.
    """
    validation.fraction(level, "level")
    require_bank(bank)
    source = None if batches is None else source_of_batches(batches)
    inputs, targets = gathered_examples(inputs, targets)
    _require_counts(points, resamples, confirm, count(inputs), len(targets))
    clusters = clusters_of(group, len(targets))
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
        [columns], _means, resamples=resamples, seed=seed, progress=progress, clusters=[clusters]
    )
    replicates = torch.stack(list(drawn.values()))
    curves, confirmation = replicates[:-1], None
    if source is not None:
        sizes = whole_sizes([_size(low), _size(best), _size(high)], source.population)
        confirmation, gaps = confirmed(
            objective,
            source,
            sizes,
            draws=confirm,
            resamples=curves.shape[1],
            level=level,
            seed=seed,
            clusters=clusters,
        )
        curves = curves + interpolated(gaps, sizes, grid)
    doubts = (*bank.doubts(_size(best)), *_disagreement(confirmation))
    for doubt in doubts:
        validation.warn(doubt, RescalingWarning, code="MCBN127")
    spans = [bootstrap.percentile_interval(row, level) for row in replicates[:-1]]
    return BatchSizeChoice(
        best=_size(best),
        value=float(at_best.mean()),
        flat=_flat(grid, best, replicates, level),
        interval=_interval(grid, curves, best, level),
        batch_sizes=torch.tensor([*map(_size, grid.tolist())], dtype=torch.float64),
        values=table.mean(1),
        low=torch.tensor([span[0] for span in spans], dtype=torch.float64),
        high=torch.tensor([span[1] for span in spans], dtype=torch.float64),
        criterion="log_score" if objective.elbo is None else "elbo",
        bank_size=bank.size,
        draws=len(bank),
        level=level,
        doubts=doubts,
        dimensions=None if objective.elbo is None else objective.elbo.dimensions,
        confirmation=confirmation,
    )


def _disagreement(confirmation: Confirmation | None) -> Iterator[str]:
    if confirmation is not None and confirmation.disagreeing:
        sizes = ", ".join(map(str, confirmation.disagreeing))
        yield (
            f"draws collected at {sizes} predict significantly otherwise than rescaled ones; "
            "collect a bank at the best size and choose again"
        )


def _interval(
    grid: Tensor, curves: Float64[Tensor, "points resamples"], best: float, level: float
) -> tuple[float, float]:
    """The interval of the lowest point of the curves; open at an end of the search."""
    low, high = bootstrap.percentile_interval(_vertices(grid, curves), level)
    low, high = min(low, best), max(high, best)
    return (
        0.0 if low < float(grid[0]) + LOG_SIZE_TOLERANCE else _size(low),
        math.inf if high > float(grid[-1]) - LOG_SIZE_TOLERANCE else _size(high),
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
    return _size(min([best, *below])), _size(max([best, *above]))


def _size(log_size: float) -> float:
    """The size of a logarithm, without the rounding of the way there and back: 8, not 7.999..."""
    return float(f"{math.exp(log_size):.12g}")


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


def _require_counts(points: int, resamples: int, confirm: int, examples: int, targets: int) -> None:
    if points < 3:
        raise ValueError(f"expected at least 3 points, got {points}; 17 is usual")
    if resamples < 1:
        raise ValueError(f"expected at least 1 resample, got {resamples}; 1000 is usual")
    if confirm < 2:
        raise ValueError(f"expected confirm of at least 2 draws, got {confirm}; 32 is usual")
    if examples != targets or examples == 0:
        raise ValueError(
            f"expected one target per input, got {examples} inputs and {targets} targets; give "
            "both of the same examples"
        )
