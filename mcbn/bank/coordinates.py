"""Coordinates in which a network sees its batch-norm statistics: the mean m, and log(v + epsilon).

A layer divides by the root of v + epsilon, so variances far below epsilon are all alike to it,
however far apart their logarithms are.
"""

from collections.abc import Mapping

from torch import Tensor

from mcbn.network.batchnorm import MEAN, VARIANCE

# Added to the variance where epsilon is not known, so that a dead channel has a logarithm.
SMALLEST_VARIANCE = 1e-12


def partner(name: str) -> str:
    """The buffer name of the variance for that of a mean, and the other way round."""
    stem, _, last = name.rpartition(".")
    other = {MEAN: VARIANCE, VARIANCE: MEAN}.get(last, "")
    return f"{stem}.{other}" if stem else other


def to_coordinates(
    statistics: Mapping[str, Tensor], epsilon: Mapping[str, float]
) -> dict[str, Tensor]:
    """Means and log(v + epsilon), in float64.

    Args:
        statistics: means and variances by buffer name.
        epsilon: by the name of the variance; those that are missing are not known.
    """
    return {
        name: (values.double() + epsilon.get(name, 0.0)).clamp_min(SMALLEST_VARIANCE).log()
        if name.endswith(VARIANCE)
        else values.double()
        for name, values in statistics.items()
    }


def to_statistics(
    coordinates: Mapping[str, Tensor], epsilon: Mapping[str, float]
) -> dict[str, Tensor]:
    """Means and variances of these coordinates; a variance is at least 0."""
    return {
        name: (values.exp() - epsilon.get(name, 0.0)).clamp_min(0.0)
        if name.endswith(VARIANCE)
        else values
        for name, values in coordinates.items()
    }


def pooled(statistics: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Mean and biased variance of all rows' mini-batches together, by the law of total variance.

    Exact for the first layer; the activations of deeper layers depend on the batch's statistics in
    earlier ones.
    """
    whole = {}
    for name, rows in statistics.items():
        whole[name] = rows.double().mean(0)
        if name.endswith(VARIANCE):
            whole[name] = whole[name] + statistics[partner(name)].double().var(0, correction=0)
    return whole
