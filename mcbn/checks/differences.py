"""Differences of methods from the baseline, by intervals that hold for all rivals at once."""

from collections.abc import Mapping
from dataclasses import replace

from mcbn.evaluation.comparison import Comparison
from mcbn.evaluation.evaluation import Score
from mcbn.evaluation.simultaneous import simultaneous_interval


def rival_difference(name: str, score: str, comparison: Comparison) -> Score:
    """The difference of one rival, with an interval that holds for those of all rivals at once."""
    return simultaneous_difference(
        name, score, comparison.differences(), comparison.evaluations[comparison.baseline].level
    )


def shown_better(
    score: str, differences: Mapping[str, Mapping[str, Score]], level: float, *, lowest: bool
) -> list[str]:
    """The rivals that are better than the baseline beyond chance, by intervals of all at once.

    Args:
        score: that is compared.
        differences: from the baseline, by rival and score.
        level: of the intervals of all rivals together.
        lowest: whether the lowest value is the best.
    """
    gains = {
        name: simultaneous_difference(name, score, differences, level)
        for name, scores in differences.items()
        if score in scores
    }
    return [name for name, gain in gains.items() if (gain.high < 0 if lowest else gain.low > 0)]


def simultaneous_difference(
    name: str, score: str, differences: Mapping[str, Mapping[str, Score]], level: float
) -> Score:
    """The same of differences of any kind of methods.

    Args:
        name: of the rival.
        score: that is compared.
        differences: from the baseline, by rival and score.
        level: of the intervals of all rivals together.
    """
    of_score = {rival: scores[score] for rival, scores in differences.items() if score in scores}
    low, high = simultaneous_interval(name, of_score, level)
    return replace(of_score[name], low=low, high=high)
