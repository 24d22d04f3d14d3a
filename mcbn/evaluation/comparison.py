"""Methods on one test set: predictions, scores, differences, cost."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from jaxtyping import Float64
from torch import Tensor

from mcbn.bank.consistency import Consistency
from mcbn.evaluation.class_images import ClassImages
from mcbn.evaluation.clusters import Clusters
from mcbn.evaluation.evaluate import ScoredRows
from mcbn.evaluation.evaluation import Evaluation, Score, interval_dicts
from mcbn.evaluation.finite_draws import DrawError, draw_error
from mcbn.evaluation.forecasts import Forecasts
from mcbn.evaluation.images import ScoredImages
from mcbn.evaluation.separation import Uncertain, knows_epistemic
from mcbn.evaluation.uncertain_images import USUAL_SCORES, UncertainImages
from mcbn.io.display import Display, Displayed
from mcbn.io.extras import optional
from mcbn.io.plain import to_plain
from mcbn.predictive.bernoulli import BernoulliPredictive
from mcbn.predictive.categorical import CategoricalPredictive
from mcbn.uncertainty.score import UncertaintyScore, score_values

# Values of a score of the test examples and of each out-of-distribution set.
KnownValues = tuple[Tensor, Mapping[str, Tensor]]
# Scores of a method in one line.
SHOWN = ("accuracy", "nll", "nll_calibrated", "ensemble_equivalent", "brier", "ece_debiased")


@dataclass(frozen=True, eq=False, repr=False)
class Entry(Displayed):
    """One method's predictions and their scores.

    Attributes:
        predictive: predictions of the test examples; None of so many positions that only sums of
            each image are kept.
        outside: predictions of each out-of-distribution set, or their uncertainties in such sums.
        evaluation: scores with intervals.
        separation: for each out-of-distribution set, how well each score of uncertainty detects its
            examples among the test examples.
        seconds: wall time of predicting the test examples, without what a first call sets up; NaN
            if it was not measured.
        images: those sums, where the predictions are not kept.
        errors: how well each score of uncertainty detects the wrong answers; empty of several
            labels, and where the predictions are not kept.
        scores: the scores of its predictions, whether it has them or not.
        elsewhere: values of scores that were known already, of the test examples and of each set.
        target_logs: log-probability of each target by every draw, which tells what more draws would
            do; None where the draws are not known, as of positions.
        kind: class name of its sampler; empty where it is not known.
        bank: whether its bank agrees with the network; None without a bank.
        precision: of its passes, and why, where another than that of the network was asked for.
    """

    predictive: CategoricalPredictive | BernoulliPredictive | None
    outside: Mapping[str, Uncertain]
    evaluation: Evaluation
    separation: Mapping[str, Mapping[str, Mapping[str, Score]]]
    seconds: float
    images: ScoredImages | None = None
    errors: Mapping[str, Mapping[str, Score]] = field(default_factory=dict)
    scores: tuple[UncertaintyScore, ...] = USUAL_SCORES
    elsewhere: Mapping[str, KnownValues] = field(default_factory=dict)
    target_logs: Float64[Tensor, "draws batch"] | None = None
    kind: str = ""
    bank: Consistency | None = None
    precision: str = ""

    @property
    def known(self) -> CategoricalPredictive | BernoulliPredictive:
        """The predictions of the test examples.

        Raises:
            ValueError: they were not kept.
        """
        if self.predictive is None:
            raise ValueError(
                "expected predictions that were kept, got sums of images of very many positions; "
                "predict with mcbn.predict for every position"
            )
        return self.predictive

    @property
    def uncertain(self) -> Uncertain:
        """What tells how uncertain the test examples are: their predictions, or sums of them."""
        if self.images is not None:
            return self.images.uncertain
        known: Uncertain = self.known
        return known

    @property
    def uncertainties(self) -> tuple[str, ...]:
        """The names of the scores of uncertainty that it was compared by."""
        sets = (self.errors, *self.separation.values())
        return tuple(dict.fromkeys(name for scores in sets for name in scores))

    def ranked(self, name: str) -> list[UncertainImages | Tensor] | None:
        """The test examples and each out-of-distribution set by a score; None without it."""
        if not all(name in by for by in self.separation.values()):
            return None
        if name in self.elsewhere:
            inside, outside = self.elsewhere[name]
            return [inside, *(outside[each] for each in self.outside)]
        score = next(each for each in self.scores if each.name == name)
        return [
            each if isinstance(each, UncertainImages) else score_values(score, each)
            for each in (self.uncertain, *self.outside.values())
        ]

    @property
    def class_count(self) -> int:
        """How many classes or labels there are."""
        if self.images is not None:
            return self.images.classes.class_count
        return self.known.probabilities.shape[1]

    def __len__(self) -> int:
        return len(self.known) if self.images is None else self.images.count

    def display(self) -> Display:
        """The scores of the method."""
        return self.evaluation.display()


@dataclass(frozen=True, eq=False, repr=False)
class DetectorEntry(Displayed):
    """A detector of inputs, which is of no method: its values, and how well it detects.

    Attributes:
        values: of the test examples.
        outside: of each out-of-distribution set.
        separation: for each of these sets, how well the detector tells its examples from those of
            the test set.
        errors: how well it detects the wrong answers of each method.
        seconds: wall time of the test examples.
    """

    values: Float64[Tensor, "batch *positions"]
    outside: Mapping[str, Float64[Tensor, "outside *positions"]]
    separation: Mapping[str, Mapping[str, Score]]
    errors: Mapping[str, Mapping[str, Score]]
    seconds: float

    def __len__(self) -> int:
        return len(self.values)

    def display(self) -> Display:
        """What it detects."""
        found = [(f"{name}, {key}", f"{score:.3g}") for each in (self.separation, self.errors)
                 for name, scores in each.items() for key, score in scores.items()]  # fmt: skip
        return Display(f"Detector of {len(self):,} test examples", ("detected", "score"), found)


@dataclass(frozen=True, eq=False, repr=False)
class Comparison(Displayed):
    """Methods by name on one test set; the first is the baseline the others are compared with.

    Attributes:
        entries: by name.
        targets: class indices of what was scored, without the positions that are not labelled; of
            several labels as `BernoulliPredictive.aligned` gives them; None where the predictions
            are not kept.
        classes: names of the classes or labels.
        clusters: of the rows that were scored, which are resampled whole; None if each is by
            itself.
        detectors: scores of inputs, by name.
    """

    entries: Mapping[str, Entry]
    targets: Tensor | None
    classes: tuple[str, ...]
    clusters: Clusters | None = None
    detectors: Mapping[str, DetectorEntry] = field(default_factory=dict)

    @property
    def baseline(self) -> str:
        """Name of the method that differences are taken from."""
        return next(iter(self.entries))

    @property
    def has_labels(self) -> bool:
        """Whether an example has several labels, not one class."""
        return isinstance(self.entries[self.baseline].predictive, BernoulliPredictive)

    @property
    def known_targets(self) -> Tensor:
        """The targets of what was scored.

        Raises:
            ValueError: they were not kept.
        """
        if self.targets is None:
            raise ValueError(
                "expected targets that were kept, got those of images of very many positions, "
                "which are not; take them from the data"
            )
        return self.targets

    def scored(self, method: str) -> ScoredRows | ScoredImages:
        """The rows of a method that were scored, or the sums of images."""
        entry = self.entries[method]
        return entry.images or ScoredRows(entry.known, self.known_targets, self.clusters)

    @property
    def units(self) -> Clusters:
        """What is resampled: the examples, or their clusters."""
        images = self.entries[self.baseline].images
        if images is not None:
            return images.units
        return self.clusters or Clusters.alone(len(self.known_targets))

    def forecasts(self, method: str) -> Forecasts | ClassImages:
        """What the calibration of a method and its errors are about."""
        entry = self.entries[method]
        if entry.images is not None:
            return entry.images.classes
        return Forecasts.of(entry.predictive, self.known_targets)

    @property
    def evaluations(self) -> dict[str, Evaluation]:
        """The scores of each method."""
        return {name: entry.evaluation for name, entry in self.entries.items()}

    def differences(self) -> dict[str, dict[str, Score]]:
        """Score of each other method minus that of the baseline, with paired intervals."""
        return dict(self._differences)

    @cached_property
    def _differences(self) -> dict[str, dict[str, Score]]:
        # Every claim of a report asks for them.
        return paired(self.evaluations)

    @property
    def uncertainties(self) -> tuple[str, ...]:
        """The names of all scores of uncertainty that methods were compared by."""
        every = (entry.uncertainties for entry in self.entries.values())
        return tuple(dict.fromkeys(name for names in every for name in names))

    def draw_error(self, method: str) -> DrawError | None:
        """Bias and Monte Carlo error, for its number of draws, of a method's NLL.

        Of another method than the baseline they are of the difference from it. None where the draws
        are not known.
        """
        logs = self.entries[method].target_logs
        base = self.entries[self.baseline].target_logs
        if logs is None or base is None:
            return None
        return draw_error(logs) if method == self.baseline else draw_error(logs, base)

    def display(self) -> Display:
        """The headline scores of every method, and how well each score detects OOD sets."""
        first = self.evaluations[self.baseline]
        names = [name for name in SHOWN if name in first]
        found = [(each, by) for each in self.entries[self.baseline].separation
                 for by in self.uncertainties]  # fmt: skip
        heading = (
            f"Comparison of {len(self.entries)} methods on {first.examples:,} examples, baseline "
            f"{self.baseline}, {100 * first.level:g}% intervals"
            f"{'; AUROC of each out-of-distribution set by each score' if found else ''}"
        )
        rows = [
            (
                method,
                *(f"{entry.evaluation[name]:.3g}" for name in names),
                *(_auroc(entry.separation[each].get(by)) for each, by in found),
            )
            for method, entry in self.entries.items()
        ]
        # A detector has one score of its own, which stands in the first column of each set.
        for name, detector in self.detectors.items():
            of_sets = (
                _auroc(detector.separation[each] if by == self.uncertainties[0] else None)
                for each, by in found
            )
            rows.append((name, *[""] * len(names), *of_sets))
        columns = (f"{each} by {by.replace('_', ' ')}" for each, by in found)
        return Display(heading, ("method", *names, *columns), rows)

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
        detectors = {name: _detector_dict(each) for name, each in self.detectors.items()}
        plain: dict[str, Any] = to_plain({
            "baseline": self.baseline,
            "classes": list(self.classes),
            "methods": {name: _entry_dict(entry) for name, entry in self.entries.items()},
            "differences": {
                name: interval_dicts(scores) for name, scores in self.differences().items()
            },
            **({"detectors": detectors} if detectors else {}),
        })  # fmt: skip
        return plain


def paired(evaluations: Mapping[str, Evaluation]) -> dict[str, dict[str, Score]]:
    """Scores of each other method minus those of the first, with paired intervals."""
    baseline, *others = evaluations
    return {name: evaluations[name].minus(evaluations[baseline]) for name in others}


def _mean(given: Uncertain, name: str) -> float:
    """The mean of an uncertainty; NaN where nothing is known of the draws that it needs."""
    if name == "mutual_information" and given.draw_count == 0 and not knows_epistemic(given):
        return float("nan")
    if isinstance(given, UncertainImages):
        return given.mean(name)
    return float(getattr(given, name).mean())


def _entry_dict(entry: Entry) -> dict[str, Any]:
    return {
        **entry.evaluation.to_dict(),
        "draws": entry.evaluation.draw_count or None,
        "seconds": entry.seconds,
        **({"precision": entry.precision} if entry.precision else {}),
        "mean_mutual_information": _mean(entry.uncertain, "mutual_information"),
        "outside": {
            name: {
                "mean_mutual_information": _mean(given, "mutual_information"),
                "mean_entropy": _mean(given, "entropy"),
                "by": _by_name(entry.separation[name]),
            }
            for name, given in entry.outside.items()
        },
        "errors": _by_name(entry.errors),
    }


def _detector_dict(detector: DetectorEntry) -> dict[str, Any]:
    outside, errors = _by_name(detector.separation), _by_name(detector.errors)
    return {"seconds": detector.seconds, "outside": outside, "errors": errors}


def _by_name(scores: Mapping[str, Mapping[str, Score]]) -> dict[str, dict[str, Any]]:
    return {name: interval_dicts(each) for name, each in scores.items()}


def _auroc(scores: Mapping[str, Score] | None) -> str:
    return "" if scores is None else f"{scores['auroc_out_of_distribution'].value:.3f}"
