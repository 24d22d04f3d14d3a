"""How the disagreement of MCBN's draws falls with the batch size, fitted over networks."""

import math
import statistics
from dataclasses import dataclass

from mcbn.study.results import Study
from mcbn.study.slopes import slopes, spreads

SCORE = "mutual_information"  # whose fall with M is fitted


@dataclass(frozen=True)
class Decay:
    """How the mean mutual information of MCBN falls with the inference batch size M.

    Attributes:
        slope: of log mutual information against log M, mean over networks; -1 is as 1 / M.
        low: lower end of its interval over networks, as `mean_of_networks` has it; NaN with a
            single seed.
        high: upper end.
        factor: mutual information at the smallest M divided by that at the largest, geometric
            mean over networks.
        smallest: smallest M.
        largest: largest M.
        networks: number of trained networks behind it.
    """

    slope: float
    low: float
    high: float
    factor: float
    smallest: int
    largest: int
    networks: int


def decay(study: Study) -> Decay | None:
    """Fit the log-log slope of each network.

    None without two batch sizes at which mutual information is above 0.
    """
    mcbn_slopes = [slope for slope in slopes(study, SCORE) if slope.method == "MCBN"]
    if not mcbn_slopes:
        return None
    pooled = mcbn_slopes[-1]  # over all training batch sizes, if there are several
    log_ratios = []
    for size in study.training_batch_sizes:
        rows = spreads(study, SCORE, "MCBN", size)
        log_ratios += [math.log(row[0] / row[-1]) for row in rows.values.values()] if rows else []
    return Decay(
        pooled.estimate.mean, pooled.estimate.low, pooled.estimate.high,
        math.exp(statistics.fmean(log_ratios)), pooled.batch_sizes[0], pooled.batch_sizes[-1],
        len(log_ratios),
    )  # fmt: skip
