"""Measure a sampler on a task: scores, spreads, and detection of out-of-distribution sets."""

import time
from dataclasses import dataclass
from typing import Any

from mcbn.evaluation.evaluate import ScoredRows, evaluate, evaluate_scored
from mcbn.evaluation.separation import out_of_distribution
from mcbn.predictive.bernoulli import Bernoulli, BernoulliPredictive
from mcbn.predictive.categorical import Categorical, CategoricalPredictive
from mcbn.predictive.gaussian import Gaussian, GaussianPredictive, fit_precision
from mcbn.predictive.likelihood import LikelihoodName, as_likelihood
from mcbn.predictive.predict import predict
from mcbn.samplers.sampler import Sampler
from mcbn.tasks.task import Task


@dataclass(frozen=True)
class Measurement:
    """Scores by name, and the wall time of predicting the test examples."""

    scores: dict[str, float]
    seconds: float


# Of classes or labels: what `measure` is told beside the task.
ClassLikelihood = LikelihoodName | Categorical | Bernoulli


def measure(sampler: Sampler, task: Task, likelihood: ClassLikelihood | None = None) -> Measurement:
    """Predict and score the test examples, and detect the out-of-distribution sets.

    Besides the scores of `evaluate`: `epistemic_sd`, the mean over examples (and classes) of the
    standard deviation over draws of the probability or of the predicted target, and, for classes,
    the mean `mutual_information`; both also for each out-of-distribution set, as
    `mutual_information_NAME`; and `auroc_NAME_by_mutual_information` and `..._by_entropy`. The
    noise of a regression is fitted on the validation examples; its scores are in the original units
    of the targets.

    Args:
        sampler: what makes the draws.
        task: its data.
        likelihood: of classes or labels; by default for logits.
    """
    if task.regression:
        return _regression(sampler, task)
    return _classification(sampler, task, likelihood or usual_likelihood(task))


def usual_likelihood(task: Task) -> LikelihoodName:
    """That of a task of classes or labels whose network answers with logits."""
    return "bernoulli" if task.multilabel else "categorical"


def _classification(sampler: Sampler, task: Task, likelihood: ClassLikelihood) -> Measurement:
    start = time.perf_counter()
    predictive: Any = predict(sampler, task.test.inputs, as_likelihood(likelihood), progress=False)
    seconds = time.perf_counter() - start
    rows = ScoredRows.of(predictive, task.test.targets, ignore_index=task.ignore_index)
    known = rows.predictive
    evaluation = evaluate_scored(rows, resamples=0, progress=False)
    values = {name: score.value for name, score in evaluation.items()}
    values |= _spreads(known, "")
    for name, inputs in task.outside.items():
        outside: Any = predict(sampler, inputs, as_likelihood(likelihood), progress=False)
        values |= _spreads(outside, f"_{name}")
        for kind in ("mutual_information", "entropy"):
            # With a single draw the mutual information is 0 everywhere: an AUROC of 0.5.
            detection = out_of_distribution(known, outside, uncertainty=kind, resamples=0)
            values[f"auroc_{name}_by_{kind}"] = detection["auroc_out_of_distribution"].value
    return Measurement(values, seconds)


def _spreads(
    predictive: CategoricalPredictive | BernoulliPredictive, suffix: str
) -> dict[str, float]:
    return {
        f"mutual_information{suffix}": float(predictive.mutual_information.mean()),
        f"epistemic_sd{suffix}": float(predictive.variance.sqrt().mean()),
    }


def _regression(sampler: Sampler, task: Task) -> Measurement:
    held_out = predict(sampler, task.validation.inputs, Gaussian(1.0), progress=False)
    likelihood = fit_precision(held_out, task.validation.targets)
    start = time.perf_counter()
    standardised = predict(sampler, task.test.inputs, likelihood, progress=False)
    seconds = time.perf_counter() - start
    predictive: GaussianPredictive = standardised.in_units(task.target_mean, task.target_scale)
    targets = task.target_mean + task.target_scale * task.test.targets.double()
    evaluation = evaluate(predictive, targets, resamples=0, progress=False)
    values = {name: score.value for name, score in evaluation.items()}
    values["epistemic_sd"] = float(predictive.epistemic_variance.sqrt().mean())
    return Measurement(values, seconds)
