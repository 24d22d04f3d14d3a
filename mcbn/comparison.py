"""Several methods on the same examples: predictions, scores, differences, cost."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from mcbn.categorical import CategoricalPredictive
from mcbn.evaluation import Evaluation, Score, evaluate, out_of_distribution
from mcbn.predictive import Sampler, predict


@dataclass(frozen=True, eq=False)
class Entry:
    """One method's predictions and what they are worth.

    Attributes:
        predictive: predictions of the test examples.
        outside: predictions of each out-of-distribution set.
        evaluation: scores with intervals.
        separation: for each out-of-distribution set, how well mutual information (or, with a
            single draw, entropy) tells it from the test examples.
        seconds: wall time of predicting the test examples; NaN if it was not measured.
    """

    predictive: CategoricalPredictive
    outside: Mapping[str, CategoricalPredictive]
    evaluation: Evaluation
    separation: Mapping[str, Mapping[str, Score]]
    seconds: float


@dataclass(frozen=True, eq=False)
class Comparison:
    """Methods by name on one test set; the first is the baseline the others are compared with."""

    entries: Mapping[str, Entry]
    targets: Tensor
    classes: tuple[str, ...]

    @property
    def baseline(self) -> str:
        """Name of the method that differences are taken from."""
        return next(iter(self.entries))

    def differences(self) -> dict[str, dict[str, Score]]:
        """Each other method's scores less the baseline's, with paired intervals."""
        base = self.entries[self.baseline].evaluation
        return {
            name: entry.evaluation.minus(base)
            for name, entry in self.entries.items()
            if name != self.baseline
        }

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        return {
            "baseline": self.baseline,
            "classes": list(self.classes),
            "methods": {name: _entry_dict(entry) for name, entry in self.entries.items()},
            "differences": {
                name: {key: _interval_dict(score) for key, score in found.items()}
                for name, found in self.differences().items()
            },
        }


def compare(
    samplers: Mapping[str, Sampler],
    inputs: Tensor,
    targets: Tensor,
    *,
    outside: Mapping[str, Tensor] | None = None,
    classes: tuple[str, ...] = (),
    resamples: int = 1000,
    seed: int = 0,
    progress: bool = True,
) -> Comparison:
    """Predict and score the same classification examples with several methods.

    Args:
        samplers: methods by name, the baseline first.
        inputs: test examples.
        targets: their class indices.
        outside: inputs of out-of-distribution sets by name.
        classes: names of the classes.
        resamples: bootstrap resamples behind each interval.
        seed: chooses the resamples.
        progress: show bars, on a terminal only.

    Raises:
        ValueError: there is no method.
    """
    if not samplers:
        raise ValueError("expected at least one method to compare, got none; name some samplers")
    entries = {}
    for name, sampler in samplers.items():
        start = time.perf_counter()
        predictive = predict(sampler, inputs, progress=progress)
        seconds = time.perf_counter() - start
        others = {
            key: predict(sampler, values, progress=progress)
            for key, values in (outside or {}).items()
        }
        entries[name] = entry(
            predictive,
            targets,
            outside=others,
            seconds=seconds,
            resamples=resamples,
            seed=seed,
            progress=progress,
        )
    return Comparison(entries, targets, classes)


def entry(
    predictive: CategoricalPredictive,
    targets: Tensor,
    *,
    outside: Mapping[str, CategoricalPredictive],
    seconds: float = float("nan"),
    resamples: int = 1000,
    seed: int = 0,
    progress: bool = True,
) -> Entry:
    """Score predictions that are already made."""
    epistemic = predictive.draw_count > 1
    return Entry(
        predictive,
        outside,
        evaluate(predictive, targets, resamples=resamples, seed=seed, progress=progress),
        {
            name: out_of_distribution(
                predictive,
                other,
                uncertainty="mutual_information" if epistemic else "entropy",
                resamples=resamples,
                seed=seed,
            )
            for name, other in outside.items()
        },
        seconds,
    )


def _entry_dict(found: Entry) -> dict[str, Any]:
    return {
        **found.evaluation.to_dict(),
        "seconds": found.seconds,
        "mean_mutual_information": float(found.predictive.mutual_information.mean()),
        "outside": {
            name: {
                "mean_mutual_information": float(other.mutual_information.mean()),
                "mean_entropy": float(other.entropy.mean()),
                **{key: _interval_dict(score) for key, score in found.separation[name].items()},
            }
            for name, other in found.outside.items()
        },
    }


def _interval_dict(score: Score) -> dict[str, Any]:
    return {"value": score.value, "low": score.low, "high": score.high}
