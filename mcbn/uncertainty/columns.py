"""Scores of uncertainty that files of predictions hold as columns, beside those computed."""

from collections.abc import Sequence

from torch import Tensor

from mcbn.io.tables import column, numbers
from mcbn.predictive.predictions import Predictions
from mcbn.uncertainty.predictive_scores import PREDICTIVE_SCORES, as_scores
from mcbn.uncertainty.score import UncertaintyScore, known_values


def known_scores(
    uncertainties: Sequence[str | UncertaintyScore], predictions: Sequence[Predictions]
) -> tuple[tuple[str, ...], tuple[UncertaintyScore, ...]]:
    """Scores of uncertainty: those that are columns of the predictions, by name, and the others.

    Raises:
        TypeError: one is not a score.
        ValueError: there is no score or column of this name, or it was given twice.
    """
    held = set.intersection(*(set(each.columns) for each in predictions))
    names = tuple(
        name
        for name in uncertainties
        if isinstance(name, str) and name in held and name not in PREDICTIVE_SCORES
    )
    others = [each for each in uncertainties if each not in names]
    unknown = [each for each in others if isinstance(each, str) and each not in PREDICTIVE_SCORES]
    if unknown:
        raise ValueError(
            f"expected scores of uncertainty among {list(PREDICTIVE_SCORES)}, or columns of every "
            f"file of predictions, got {unknown}; choose others"
        )
    if len(set(names)) < len(names):
        raise ValueError(f"expected each column once, got {list(names)}; leave one out")
    return names, as_scores(others) if others or not names else ()


def column_values(predictions: Predictions, name: str) -> Tensor:
    """The numbers of a column that holds a score of uncertainty.

    Raises:
        ValueError: there is no such column, or it does not hold numbers.
    """
    where = f"the predictions of {predictions.data!r} by {predictions.method!r}"
    return known_values(numbers(column(predictions.columns, name, where), name, where), name)
