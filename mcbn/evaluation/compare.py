"""Comparison of several methods on the same examples: predictions, scores, differences, cost."""

import math
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from mcbn.evaluation.clusters import Clusters, Groups, clusters_of
from mcbn.evaluation.evaluate import ScoredRows, evaluate_rows
from mcbn.evaluation.evaluation import Evaluation, Score
from mcbn.evaluation.separation import separation_scores
from mcbn.io.display import Display, Displayed
from mcbn.io.extras import optional
from mcbn.io.plain import to_plain
from mcbn.network.loaders import Data
from mcbn.network.targets import Targets
from mcbn.predictive.bernoulli import Bernoulli, BernoulliPredictive
from mcbn.predictive.categorical import Categorical, CategoricalPredictive
from mcbn.predictive.labelled import predict_labelled
from mcbn.predictive.likelihood import LikelihoodName
from mcbn.predictive.predict import predict
from mcbn.samplers.sampler import Sampler

# Mutual information below this, in nats, is zero but for rounding.
ROUNDING = 1e-9
SHOWN = ("accuracy", "nll", "brier", "ece_debiased")  # scores of a method in one line


@dataclass(frozen=True, eq=False, repr=False)
class Entry(Displayed):
    """One method's predictions and their scores.

    Attributes:
        predictive: predictions of the test examples.
        outside: predictions of each out-of-distribution set.
        evaluation: scores with intervals.
        separation: for each out-of-distribution set, how well mutual information (or, with a
            single draw, entropy) detects its examples among the test examples.
        seconds: wall time of predicting the test examples; NaN if it was not measured.
    """

    predictive: CategoricalPredictive | BernoulliPredictive
    outside: Mapping[str, CategoricalPredictive | BernoulliPredictive]
    evaluation: Evaluation
    separation: Mapping[str, Mapping[str, Score]]
    seconds: float

    def display(self) -> Display:
        """The scores of the method."""
        return self.evaluation.display()


@dataclass(frozen=True, eq=False, repr=False)
class Comparison(Displayed):
    """Methods by name on one test set; the first is the baseline the others are compared with.

    Attributes:
        entries: by name.
        targets: class indices of what was scored, without the positions that are not labelled; of
            several labels as `BernoulliPredictive.aligned` gives them.
        classes: names of the classes or labels.
        clusters: of the rows that were scored, which are resampled whole; None if each is by
            itself.
    """

    entries: Mapping[str, Entry]
    targets: Tensor
    classes: tuple[str, ...]
    clusters: Clusters | None = None

    @property
    def baseline(self) -> str:
        """Name of the method that differences are taken from."""
        return next(iter(self.entries))

    @property
    def has_labels(self) -> bool:
        """Whether an example has several labels, not one class."""
        return isinstance(self.entries[self.baseline].predictive, BernoulliPredictive)

    @property
    def evaluations(self) -> dict[str, Evaluation]:
        """The scores of each method."""
        return {name: entry.evaluation for name, entry in self.entries.items()}

    def differences(self) -> dict[str, dict[str, Score]]:
        """Score of each other method minus that of the baseline, with paired intervals."""
        return paired(self.evaluations)

    def display(self) -> Display:
        """The headline scores of every method, with their intervals."""
        first = self.evaluations[self.baseline]
        names = [name for name in SHOWN if name in first]
        heading = (
            f"Comparison of {len(self.entries)} methods on {first.examples:,} examples, baseline "
            f"{self.baseline}, {100 * first.level:g}% intervals"
        )
        rows = [
            (method, *(f"{evaluation[name]:.3g}" for name in names))
            for method, evaluation in self.evaluations.items()
        ]
        return Display(heading, ("method", *names), rows)

    def to_dataframe(self) -> Any:
        """A pandas DataFrame with a row per method and score.

        Its columns are value, low and high, and the same of the paired difference from the
        baseline, which has none itself.

        Raises:
            ImportError: pandas is not installed.
        """
        differences = self.differences()
        rows = []
        for method, evaluation in self.evaluations.items():
            for name, score in evaluation.items():
                gap = differences.get(method, {}).get(name)
                ends = (math.nan,) * 3 if gap is None else (gap.value, gap.low, gap.high)
                rows.append((method, name, score.value, score.low, score.high, *ends))
        columns = ("method", "score", "value", "low", "high", "difference", "difference_low",
                   "difference_high")  # fmt: skip
        return optional("pandas", extra="pandas").DataFrame(rows, columns=columns)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON, with None for what is not defined or infinite."""
        plain: dict[str, Any] = to_plain({
            "baseline": self.baseline,
            "classes": list(self.classes),
            "methods": {name: _entry_dict(entry) for name, entry in self.entries.items()},
            "differences": {
                name: interval_dicts(scores) for name, scores in self.differences().items()
            },
        })  # fmt: skip
        return plain


def compare(
    samplers: Mapping[str, Sampler],
    inputs: Data,
    targets: Targets | None = None,
    *,
    outside: Mapping[str, Data] | None = None,
    classes: tuple[str, ...] = (),
    likelihood: LikelihoodName | Categorical | Bernoulli = "categorical",
    ignore_index: int | None = None,
    group: Groups | None = None,
    outside_group: Mapping[str, Groups] | None = None,
    resamples: int = 1000,
    seed: int = 0,
    progress: bool = True,
) -> Comparison:
    """Predict and score the same classification examples with several methods.

    Args:
        samplers: methods by name, the baseline first.
        inputs: test examples: as `predict` takes them, or a data set or loader of inputs with
            their targets.
        targets: their class indices, or 0 and 1 of each label: a tensor, an array, a column of a
            data frame; by default those in the data set or loader.
        outside: inputs of out-of-distribution sets by name.
        classes: names of the classes.
        likelihood: "categorical", or "bernoulli" for several labels an example;
            `Categorical(outputs=...)` and `Bernoulli(outputs=...)` say what the networks return.
        ignore_index: the target of positions or labels of which the truth is not known; they are
            left out.
        group: what examples that hang together share; see `evaluate`.
        outside_group: the same of the examples of out-of-distribution sets, by name of the set.
        resamples: bootstrap resamples behind each interval.
        seed: chooses the resamples.
        progress: show bars, on a terminal only.

    Raises:
        TypeError: there are no targets, or an argument is of another type.
        ValueError: there is no method, or groups of a set that is not there.
    """
    if not samplers:
        raise ValueError("expected at least one method to compare, got none; name some samplers")
    _require_sets(outside_group or {}, outside or {})
    entries = {}
    for name, sampler in samplers.items():
        start = time.perf_counter()
        predictive, targets = predict_labelled(
            sampler, inputs, targets, likelihood, progress=progress
        )
        seconds = time.perf_counter() - start
        rows = ScoredRows.of(predictive, targets, ignore_index=ignore_index, group=group)
        predicted_outside = {
            key: predict(sampler, values, likelihood, progress=progress)
            for key, values in (outside or {}).items()
        }
        entries[name] = entry(
            rows,
            outside=predicted_outside,
            outside_group=outside_group,
            seconds=seconds,
            resamples=resamples,
            seed=seed,
            progress=progress,
        )
    return Comparison(entries, rows.targets, classes, rows.clusters)


def entry(
    rows: ScoredRows,
    *,
    outside: Mapping[str, CategoricalPredictive | BernoulliPredictive],
    outside_group: Mapping[str, Groups] | None = None,
    seconds: float = float("nan"),
    resamples: int = 1000,
    seed: int = 0,
    progress: bool = True,
) -> Entry:
    """Score predictions of one method; the arguments are those of `compare` and `Entry`."""
    predictive = rows.predictive
    uncertainty: Literal["mutual_information", "entropy"] = (
        "mutual_information" if knows_epistemic(predictive) else "entropy"
    )
    groups = outside_group or {}
    return Entry(
        predictive,
        outside,
        evaluate_rows(rows, resamples=resamples, seed=seed, progress=progress),
        {
            name: separation_scores(
                (predictive, rows.clusters),
                (other, clusters_of(groups.get(name), len(other))),
                uncertainty=uncertainty,
                resamples=resamples,
                seed=seed,
            )
            for name, other in outside.items()
        },
        seconds,
    )


def _require_sets(groups: Mapping[str, Groups], outside: Collection[str]) -> None:
    """Check that groups are of out-of-distribution sets that are there.

    Raises:
        ValueError: they are of another set.
    """
    if unknown := [name for name in groups if name not in outside]:
        raise ValueError(
            f"expected outside_group of the sets {list(outside)}, got {unknown}; name the groups "
            "after their set"
        )


def paired(evaluations: Mapping[str, Evaluation]) -> dict[str, dict[str, Score]]:
    """Scores of each other method minus those of the first, with paired intervals."""
    baseline, *others = evaluations
    return {name: evaluations[name].minus(evaluations[baseline]) for name in others}


def interval_dicts(scores: Mapping[str, Score]) -> dict[str, Any]:
    """Values and the ends of their intervals, for JSON."""
    return {
        name: {"value": score.value, "low": score.low, "high": score.high}
        for name, score in scores.items()
    }


def knows_epistemic(predictive: CategoricalPredictive | BernoulliPredictive) -> bool:
    """Whether the disagreement of the draws is known: files of other tools may not hold it."""
    if predictive.draw_count:
        return predictive.draw_count > 1
    return bool((predictive.mutual_information > ROUNDING).any())


def _mean_information(predictive: CategoricalPredictive | BernoulliPredictive) -> float:
    """Mean mutual information: 0 for a single draw, NaN where nothing is known of the draws."""
    if predictive.draw_count == 0 and not knows_epistemic(predictive):
        return float("nan")
    return float(predictive.mutual_information.mean())


def _entry_dict(entry: Entry) -> dict[str, Any]:
    return {
        **entry.evaluation.to_dict(),
        "draws": entry.predictive.draw_count or None,
        "seconds": entry.seconds,
        "mean_mutual_information": _mean_information(entry.predictive),
        "outside": {
            name: {
                "mean_mutual_information": _mean_information(predictive),
                "mean_entropy": float(predictive.entropy.mean()),
                **interval_dicts(entry.separation[name]),
            }
            for name, predictive in entry.outside.items()
        },
    }
