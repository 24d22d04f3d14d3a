"""Comparison of several methods on the same examples."""

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from mcbn.bank.bank import Bank
from mcbn.bank.consistency import Consistency, consistency
from mcbn.evaluation.batches import predict_scored, predict_uncertain
from mcbn.evaluation.clusters import Clusters, Groups, clusters_of
from mcbn.evaluation.comparison import Comparison, DetectorEntry, Entry, KnownValues
from mcbn.evaluation.equivalents import with_equivalents
from mcbn.evaluation.error_detection import error_detection, rows_of
from mcbn.evaluation.evaluate import ScoredRows, evaluate_scored
from mcbn.evaluation.evaluation import Score
from mcbn.evaluation.images import ScoredImages
from mcbn.evaluation.separation import Uncertain, knows_epistemic, separation_scores
from mcbn.evaluation.uncertain_images import USUAL_SCORES
from mcbn.network.loaders import Data
from mcbn.network.targets import Targets
from mcbn.predictive.bernoulli import Bernoulli
from mcbn.predictive.categorical import Categorical
from mcbn.predictive.likelihood import LikelihoodName
from mcbn.samplers.ensemble import DeepEnsemble
from mcbn.samplers.precision import precision_text
from mcbn.samplers.sampler import Sampler
from mcbn.uncertainty.predictive_scores import USUAL, UncertaintyName, as_scores, is_epistemic
from mcbn.uncertainty.score import UncertaintyScore, score_values


def compare(
    samplers: Mapping[str, Sampler],
    inputs: Data,
    targets: Targets | None = None,
    *,
    outside: Mapping[str, Data] | None = None,
    classes: tuple[str, ...] = (),
    likelihood: LikelihoodName | Categorical | Bernoulli = "categorical",
    uncertainties: Sequence[UncertaintyName | UncertaintyScore] = USUAL,
    detectors: Sequence[UncertaintyScore] = (),
    ignore_index: int | None = None,
    group: Groups | None = None,
    outside_group: Mapping[str, Groups] | None = None,
    resamples: int = 1000,
    seed: int = 0,
    progress: bool = True,
) -> Comparison:
    """Predict and score the same classification examples with several methods.

    Every method is compared by the same scores of uncertainty: errors and out-of-distribution
    examples are detected by the entropy of each, and by the mutual information of those that have
    several draws.

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
        uncertainties: scores of the predictions that detect errors and out-of-distribution
            examples: their names, or any `UncertaintyScore`.
        detectors: scores of the inputs, such as `NearestNeighbors`, which are no method's; each
            has a row of its own.
        ignore_index: the target of positions or labels of which the truth is not known; they are
            left out.
        group: what examples that hang together share; see `evaluate`.
        outside_group: the same of the examples of out-of-distribution sets, by name of the set.
        resamples: bootstrap resamples behind each interval.
        seed: chooses the resamples.
        progress: show bars, on a terminal only.

    Raises:
        TypeError: there are no targets, or an argument is of another type.
        ValueError: there is no method, groups of a set that is not there, two scores of one name,
            or a score that is not known of these predictions.
    """
    if not samplers:
        raise ValueError("expected at least one method to compare, got none; name some samplers")
    _require_sets(outside_group or {}, outside or {})
    by, sets = as_scores(uncertainties), outside or {}
    every = _named_detectors(detectors, samplers)
    options: Any = {"resamples": resamples, "seed": seed}
    entries, rows = {}, {}
    for name, sampler in samplers.items():
        scored, seconds = predict_scored(
            sampler, inputs, targets, likelihood, ignore_index=ignore_index, group=group,
            uncertainties=by if sets else (), progress=progress,
            keep_draws=isinstance(sampler, DeepEnsemble),
        )  # fmt: skip
        predicted_outside = {
            key: predict_uncertain(sampler, values, likelihood, uncertainties=by, progress=progress)
            for key, values in sets.items()
        }
        rows[name] = scored
        scores = entry(
            scored, outside=predicted_outside, outside_group=outside_group, uncertainties=by,
            seconds=seconds, progress=progress, **options,
        )  # fmt: skip
        entries[name] = replace(
            scores, kind=type(sampler).__name__, bank=_consistency(sampler),
            precision=precision_text(sampler),
        )  # fmt: skip
    found = {
        name: _detected(detector, inputs, sets, rows, group, outside_group or {}, **options)
        for name, detector in every.items()
    }
    entries = with_equivalents(entries, rows, _largest_ensemble(samplers), **options)
    return compared(entries, scored, classes, found)


def _consistency(sampler: Sampler) -> Consistency | None:
    """Whether the bank of a sampler agrees with the network; None without a bank."""
    bank = getattr(sampler, "bank", None)
    return consistency(bank) if isinstance(bank, Bank) else None


def _largest_ensemble(samplers: Mapping[str, Sampler]) -> str | None:
    """The ensemble of the most networks, of which those of all sizes can be made; None without."""
    sizes = {name: len(each) for name, each in samplers.items() if isinstance(each, DeepEnsemble)}
    return max(sizes, key=lambda name: sizes[name]) if sizes else None


def compared(
    entries: Mapping[str, Entry],
    scored: ScoredRows | ScoredImages,
    classes: tuple[str, ...],
    detectors: Mapping[str, DetectorEntry] | None = None,
) -> Comparison:
    """The comparison of methods, with the targets of what was scored, of any of them."""
    targets = None if isinstance(scored, ScoredImages) else scored.targets
    return Comparison(entries, targets, classes, scored.clusters, detectors or {})


def entry(
    scored: ScoredRows | ScoredImages,
    *,
    outside: Mapping[str, Uncertain],
    outside_group: Mapping[str, Groups] | None = None,
    uncertainties: Sequence[UncertaintyScore] = USUAL_SCORES,
    elsewhere: Mapping[str, KnownValues] | None = None,
    seconds: float = float("nan"),
    resamples: int = 1000,
    seed: int = 0,
    progress: bool = True,
) -> Entry:
    """Score predictions of one method.

    Args:
        scored: its predictions with their targets.
        outside: see `Entry`.
        outside_group: see `compare`.
        uncertainties: see `compare`; those that a single draw does not have are left out.
        elsewhere: values of scores that are known already, of all examples, by name.
        seconds: see `Entry`.
        resamples: see `compare`.
        seed: see `compare`.
        progress: see `compare`.
    """
    images, predictive, known = _parts(scored)
    shown = [s for s in uncertainties if knows_epistemic(known) or not is_epistemic(s)]
    options: Any = {"resamples": resamples, "seed": seed}
    errors = {} if images else _errors_by(scored, shown, elsewhere or {}, options)
    separation: dict[str, dict[str, dict[str, Score]]] = {}
    for name, other in outside.items():
        ends = scored.clusters, clusters_of((outside_group or {}).get(name), len(other))
        separation[name] = {
            score.name: separation_scores(
                (known, ends[0]), (other, ends[1]), score=score, **options
            )
            for score in shown
        }
        for key, (values, by_set) in (elsewhere or {}).items():
            pair = _inside(scored, values), (by_set[name], ends[1])
            separation[name][key] = separation_scores(*pair, score=USUAL_SCORES[0], **options)
    evaluation = evaluate_scored(scored, progress=progress, **options)
    return Entry(
        predictive, outside, evaluation, separation, seconds, images, errors,
        tuple(uncertainties), elsewhere or {}, getattr(scored, "target_logs", None),
    )  # fmt: skip


def _parts(scored: ScoredRows | ScoredImages) -> tuple[ScoredImages | None, Any, Uncertain]:
    """Sums of images or predictions, and which of them tells how uncertain the examples are."""
    if isinstance(scored, ScoredImages):
        return scored, None, scored.uncertain
    return None, scored.predictive, scored.predictive


def _inside(scored: ScoredRows | ScoredImages, values: Tensor) -> tuple[Tensor, Clusters | None]:
    """Values of the test examples, as far as these were scored, and their clusters."""
    if isinstance(scored, ScoredImages):
        return values, clusters_of(scored.group, len(values))
    rows = rows_of(scored, values)
    return values if rows is None else rows, scored.clusters


def _errors_by(
    scored: Any,
    scores: Sequence[UncertaintyScore],
    elsewhere: Mapping[str, KnownValues],
    options: Any,
) -> dict[str, dict[str, Score]]:
    """How well each score detects errors, where they are those of rows of classes."""
    own = {score.name: score_values(score, scored.predictive) for score in scores}
    given = {name: rows_of(scored, values) for name, (values, _) in elsewhere.items()}
    return {
        name: error_detection(scored, values, **options)
        for name, values in {**own, **given}.items()
        if values is not None and values.shape == scored.targets.shape
    }


def _detected(
    detector: UncertaintyScore,
    inputs: Data,
    outside: Mapping[str, Data],
    methods: Mapping[str, ScoredRows | ScoredImages],
    group: Groups | None,
    outside_group: Mapping[str, Groups],
    **options: Any,
) -> DetectorEntry:
    """What a detector of inputs finds of out-of-distribution sets and of each method's errors."""
    start = time.perf_counter()
    values = score_values(detector, inputs)
    seconds = time.perf_counter() - start
    others = {name: score_values(detector, data) for name, data in outside.items()}
    whole = values, clusters_of(group, len(values))
    separation = {
        name: separation_scores(
            whole, (each, clusters_of(outside_group.get(name), len(each))), score=detector,
            **options,
        )
        for name, each in others.items()
    }  # fmt: skip
    rows = {name: rows_of(scored, values) for name, scored in methods.items()}
    errors = {
        name: error_detection(methods[name], each, **options)  # type: ignore[arg-type]
        for name, each in rows.items()
        if each is not None
    }
    return DetectorEntry(values, others, separation, errors, seconds)


def _named_detectors(
    detectors: Sequence[UncertaintyScore], methods: Collection[str]
) -> dict[str, UncertaintyScore]:
    """Detectors by their names.

    Raises:
        TypeError: one is not a score.
        ValueError: two have one name, or the name of a method.
    """
    named = {each.name: each for each in as_scores(detectors)} if detectors else {}
    if taken := [name for name in named if name in methods]:
        raise ValueError(
            f"expected other names for detectors than for methods, got {taken} for both; give the "
            "detectors name="
        )
    return named


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
