"""What the verdict of a report rests on: numbers computed from predictions, study and draws."""

import math
import statistics
from dataclasses import dataclass

from scipy import stats
from torch import Tensor

from mcbn import scores
from mcbn.comparison import Entry
from mcbn.convergence import Convergence
from mcbn.study import Study


@dataclass(frozen=True)
class Decay:
    """How mean mutual information of MCBN falls with the inference batch size M.

    Attributes:
        slope: of log mutual information against log M, mean over networks; -1 is as 1 / M.
        low: lower end of its Student-t interval over networks; NaN with one network.
        high: upper end.
        factor: geometric mean over networks of mutual information at the smallest M over the
            largest.
        smallest: smallest M.
        largest: largest M.
        networks: how many trained networks this is from.
    """

    slope: float
    low: float
    high: float
    factor: float
    smallest: int
    largest: int
    networks: int


def confidence_gap(entry: Entry, targets: Tensor) -> tuple[float, float, float]:
    """Mean confidence less accuracy with a normal interval; above 0 is over-confident.

    Positions of one example hang together, so they are averaged before the spread is taken.
    """
    predictive = entry.predictive
    correct = scores.correct(predictive.probabilities, targets.to(predictive.confidence.device))
    gaps = (predictive.confidence - correct.double()).reshape(len(correct), -1).mean(1)
    mean = float(gaps.mean())
    if len(gaps) < 2:
        return mean, math.nan, math.nan
    quantile = float(stats.norm.isf((1 - entry.evaluation.level) / 2))
    half = quantile * float(gaps.std()) / len(gaps) ** 0.5
    return mean, mean - half, mean + half


def decay(study: Study) -> Decay | None:
    """Fit each network's log-log slope; None without two batch sizes of some information."""
    sizes = study.batch_sizes
    networks: dict[tuple[int, int], dict[int, float]] = {}
    for cell in study.cells:
        value = cell.scores.get("mutual_information", math.nan)
        if cell.method == "MCBN" and cell.batch_size and value > 0:
            key = (cell.training_batch_size, cell.seed)
            networks.setdefault(key, {})[cell.batch_size] = value
    whole = [found for found in networks.values() if len(sizes) > 1 and set(found) == set(sizes)]
    if not whole:
        return None
    logs = [math.log(size) for size in sizes]
    slopes = [
        statistics.linear_regression(logs, [math.log(found[size]) for size in sizes]).slope
        for found in whole
    ]
    falls = [math.log(found[sizes[0]] / found[sizes[-1]]) for found in whole]
    mean, half = statistics.fmean(slopes), math.nan
    if len(slopes) > 1:
        half = float(stats.t.ppf(0.975, len(slopes) - 1)) * statistics.stdev(slopes)
        half /= len(slopes) ** 0.5
    factor = math.exp(statistics.fmean(falls))
    return Decay(mean, mean - half, mean + half, factor, sizes[0], sizes[-1], len(slopes))


def monte_carlo_error(found: Convergence, draws: int) -> float:
    """Spread of the NLL at `draws` draws, carried on as one over their root; NaN if unknown.

    Taken from the largest groups of which there are at least 8: fewer give no steady spread, and
    smaller groups are further from where the root law holds.
    """
    known = [
        (size, spread)
        for size, spread in zip(found.draws, found.spread, strict=True)
        if math.isfinite(spread)
    ]
    if not known:
        return math.nan
    steady = [pair for pair in known if found.draws[-1] // pair[0] >= 8] or known[:1]
    size, spread = steady[-1]
    return spread * math.sqrt(size / draws)
