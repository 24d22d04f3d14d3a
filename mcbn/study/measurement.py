"""What a study measures of one sampler: scores, epistemic spread, separation from outside sets."""

import time
from dataclasses import dataclass

from mcbn.evaluation.evaluate import evaluate, out_of_distribution
from mcbn.predictive.categorical import CategoricalPredictive
from mcbn.predictive.gaussian import Gaussian, GaussianPredictive, fit_precision
from mcbn.predictive.predict import Sampler, predict
from mcbn.tasks.datasets import Task


@dataclass(frozen=True)
class Measurement:
    """Figures by name, and the wall time of predicting the test examples."""

    scores: dict[str, float]
    seconds: float


def measure(sampler: Sampler, task: Task) -> Measurement:
    """Predict and score the test examples, and tell the outside sets from them.

    Besides the scores of `evaluate`: `epistemic_sd`, the mean over examples (and classes) of the
    standard deviation over draws of the probability or of the predicted target, and, for classes,
    the mean `mutual_information`; both also of each outside set, as `mutual_information_NAME`; and
    `auroc_NAME_by_mutual_information` and `..._by_entropy`. The noise of real targets is fitted on
    the validation examples; scores are in the targets' original units.
    """
    return _regression(sampler, task) if not task.classes else _classification(sampler, task)


def _classification(sampler: Sampler, task: Task) -> Measurement:
    start = time.perf_counter()
    inside = predict(sampler, task.test.inputs, progress=False)
    seconds = time.perf_counter() - start
    evaluation = evaluate(inside, task.test.targets, resamples=0, progress=False)
    found = {name: score.value for name, score in evaluation.items()}
    found |= _spread(inside, "")
    for name, inputs in task.outside.items():
        outside = predict(sampler, inputs, progress=False)
        found |= _spread(outside, f"_{name}")
        for kind in ("mutual_information", "entropy"):
            # One draw has no mutual information: nothing but ties to tell apart by.
            separation = out_of_distribution(inside, outside, uncertainty=kind, resamples=0)
            found[f"auroc_{name}_by_{kind}"] = separation["auroc_out_of_distribution"].value
    return Measurement(found, seconds)


def _spread(predictive: CategoricalPredictive, place: str) -> dict[str, float]:
    return {
        f"mutual_information{place}": float(predictive.mutual_information.mean()),
        f"epistemic_sd{place}": float(predictive.variance.sqrt().mean()),
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
    found = {name: score.value for name, score in evaluation.items()}
    found["epistemic_sd"] = float(predictive.epistemic_variance.sqrt().mean())
    return Measurement(found, seconds)
