"""Scores of real values: of all outputs together, and of each by itself."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from mcbn.evaluation import glossary
from mcbn.evaluation.clusters import Groups
from mcbn.evaluation.evaluate import evaluate
from mcbn.evaluation.evaluation import Evaluation
from mcbn.predictive.bernoulli import BernoulliPredictive
from mcbn.predictive.categorical import CategoricalPredictive
from mcbn.predictive.gaussian import GaussianPredictive, Moments
from mcbn.predictive.predictions import Predictions

R = TypeVar("R", bound=GaussianPredictive | Moments)


def evaluation_of(
    predictions: Predictions, *, group: Groups | None = None, resamples: int = 1000
) -> Evaluation:
    """Score predictions, with their number of draws also where only moments are known."""
    scored = require_regression(predictions.scored)
    evaluation = evaluate(scored, predictions.known_targets, group=group, resamples=resamples)
    return replace(evaluation, draw_count=predictions.predictive.draw_count)


def comparable(evaluation: Evaluation, units: Sequence[str]) -> Evaluation:
    """The scores of outputs together: where their units differ, only those that are in none."""
    return evaluation.without(glossary.IN_UNIT) if len(set(units)) > 1 else evaluation


def output_scores(
    predictions: Predictions, *, group: Groups | None = None, resamples: int = 1000
) -> dict[str, Evaluation]:
    """The scores of each output of predictions, where there are several; else none."""
    return {
        name: evaluation_of(each, group=group, resamples=resamples)
        for name, each in predictions.by_output.items()
    }


def require_regression(predictive: CategoricalPredictive | BernoulliPredictive | R) -> R:
    """Return predictions of real values.

    Raises:
        ValueError: they are of classes or labels.
    """
    if isinstance(predictive, (CategoricalPredictive, BernoulliPredictive)):
        raise ValueError(
            "expected predictions of real values, got predictions of classes; give those to "
            "Report.from_predictions by themselves"
        )
    return predictive
