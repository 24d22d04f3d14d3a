"""Intervals of the calibration errors in `segmentation` and `images`.

`mcbn.evaluate` now has better intervals, by test inversion: these exclude an error of 0 too often.
"""

from jaxtyping import Float64
from torch import Tensor

from mcbn.evaluation.bootstrap import percentile_interval


def mirrored_interval(
    value: float, replicates: Float64[Tensor, " resamples"], level: float
) -> tuple[float, float]:
    """The percentile interval mirrored about `value`: `[2 v - q_high, 2 v - q_low]`.

    For plug-in scores whose bias is doubled by resampling; mirroring removes it.

    Reference:
        Davison and Hinkley 1997, "Bootstrap Methods and their Application", section 5.2.
    """
    low, high = percentile_interval(replicates, level)
    return 2 * value - high, 2 * value - low
