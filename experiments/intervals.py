"""Intervals over what is repeated: seeds, networks or data sets."""

from collections.abc import Sequence

from mcbn.study.results import point


def interval(values: Sequence[float]) -> list[float]:
    """Mean, and the ends of the 95% Student-t interval."""
    estimate = point(list(values))
    return [estimate.mean, estimate.low, estimate.high]
