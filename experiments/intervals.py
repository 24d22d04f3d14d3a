"""Intervals and tests over what is repeated: seeds, networks or data sets."""

from collections.abc import Mapping, Sequence
from typing import Any

from mcbn.evaluation.significance import holm, paired_test
from mcbn.study.results import point


def interval(values: Sequence[float]) -> list[float]:
    """Mean, and the ends of the 95% Student-t interval."""
    estimate = point(list(values))
    return [estimate.mean, estimate.low, estimate.high]


def tested(differences: Mapping[str, Sequence[float]]) -> dict[str, dict[str, Any]]:
    """Planned differences: each value, their mean with its interval, and p as it is and by Holm."""
    p_values = [paired_test(list(values)) for values in differences.values()]
    return {
        name: {"values": list(values), "mean": interval(values), "p": p, "holm": adjusted}
        for (name, values), p, adjusted in zip(
            differences.items(), p_values, holm(p_values), strict=True
        )
    }
