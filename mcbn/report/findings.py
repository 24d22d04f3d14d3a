"""What the verdict of a report rests on: numbers computed from predictions, study and draws."""

import math
import statistics
from dataclasses import dataclass

from scipy import stats
from torch import Tensor

from mcbn.evaluation import scores
from mcbn.evaluation.compare import Entry
from mcbn.evaluation.convergence import Convergence
from mcbn.study.results import Study
from mcbn.study.slopes import slopes, spreads

SCORE = "mutual_information"


@dataclass(frozen=True)
class Decay:
    """How mean mutual information of MCBN falls with the inference batch size M.

    Attributes:
        slope: of log mutual information against log M, mean over networks; -1 is as 1 / M.
        low: lower end of its Student-t interval over seeds; NaN with a single one.
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
    """Fit the log-log slope of each network; None without two batch sizes of some information."""
    known = [slope for slope in slopes(study, SCORE) if slope.method == "MCBN"]
    if not known:
        return None
    last = known[-1]  # of all training batch sizes together, if there are several
    falls = []
    for size in study.training_batch_sizes:
        rows = spreads(study, SCORE, "MCBN", size)
        falls += [math.log(row[0] / row[-1]) for row in rows.values.values()] if rows else []
    return Decay(
        last.estimate.mean, last.estimate.low, last.estimate.high,
        math.exp(statistics.fmean(falls)), last.batch_sizes[0], last.batch_sizes[-1], len(falls),
    )  # fmt: skip


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
