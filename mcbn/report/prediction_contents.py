"""Reports of predictions that are already made: scored, and put together by kind of target."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeGuard

from torch import Tensor

from mcbn.evaluation.clusters import Groups, clusters_of
from mcbn.evaluation.compare import compared, entry
from mcbn.evaluation.comparison import Comparison, KnownValues
from mcbn.evaluation.evaluate import what_is_scored
from mcbn.evaluation.real_outputs import evaluation_of, output_scores
from mcbn.evaluation.separation import knows_epistemic
from mcbn.evaluation.subgroups import Subgroup, group_names, subgroups
from mcbn.predictive.bernoulli import BernoulliPredictive
from mcbn.predictive.categorical import CategoricalPredictive
from mcbn.predictive.name_order import same_classes
from mcbn.predictive.pairing import in_rows_of, same_examples
from mcbn.predictive.predictions import Predictions
from mcbn.recalibration.apply import group_column
from mcbn.report.comparison_content import ComparisonContent
from mcbn.report.gallery import Gallery, galleries
from mcbn.report.maps import Maps, is_dense, uncertainty_maps
from mcbn.report.real_content import RealContent
from mcbn.uncertainty.columns import column_values, known_scores
from mcbn.uncertainty.predictive_scores import USUAL
from mcbn.uncertainty.score import UncertaintyScore


def content_of_predictions(
    predictions: Sequence[Predictions],
    *,
    title: str,
    outside: Sequence[Predictions],
    groups: Mapping[str, Sequence[str]],
    group: Groups | None,
    images: Tensor | None,
    resamples: int,
    uncertainties: Sequence[str | UncertaintyScore] = USUAL,
) -> ComparisonContent | RealContent:
    """Score predictions of the same examples, and put together what their report holds.

    Arguments and errors are those of `Report.from_predictions`.
    """
    predictions = paired_predictions(predictions, groups)
    outside = [same_classes(each, predictions[0], each.data) for each in outside]
    for name, labels in groups.items():  # before any scoring
        group_names(labels, len(predictions[0].predictive), of=name)
    outside_sets = _outside_sets([each.method for each in predictions], outside)
    by_column = group if isinstance(group, str) else None
    if by_column is not None:
        group = group_column(by_column, predictions[0], "the predictions")
    group_scores = _group_scores(predictions, groups, group, resamples)
    if not _is_classification(predictions[0].predictive):
        # Pictures are chosen by the first method of several draws, else by the baseline.
        several = (each for each in predictions if each.predictive.draw_count > 1)
        of_pictures = next(several, predictions[0])
        dense = is_dense(of_pictures)
        if tuple(uncertainties) != USUAL:
            raise ValueError(
                f"expected no scores of uncertainty with predictions of real values, got "
                f"{list(uncertainties)}; leave them out"
            )
        if outside or (images is not None and not dense):
            raise ValueError(
                "expected neither out-of-distribution predictions nor, but with maps, images with "
                "regression, got some; leave them out"
            )
        rows = None if images is None else in_rows_of(images, predictions[0])
        methods = {each.method: each for each in predictions}
        scores = {
            name: evaluation_of(each, group=group, resamples=resamples)
            for name, each in methods.items()
        }  # fmt: skip
        outputs = {
            name: by_output
            for name, each in methods.items()
            if (by_output := output_scores(each, group=group, resamples=resamples))
        }
        return RealContent(
            methods, scores, title, groups=group_scores, outputs=outputs,
            maps=uncertainty_maps(of_pictures, rows) if dense else Maps(),
            clusters=clusters_of(group, len(predictions[0].predictive)),
        )  # fmt: skip
    comparison = _comparison(predictions, outside_sets, group, by_column, resamples, uncertainties)
    # Pictures are chosen by the first method whose draws are known, else by the baseline.
    pictured = next(
        (name for name, each in comparison.entries.items() if knows_epistemic(each.uncertain)),
        comparison.baseline,
    )
    of_pictures = next(each for each in predictions if each.method == pictured)
    rows = None if images is None else in_rows_of(images, predictions[0])
    dense, predictive = is_dense(of_pictures), comparison.entries[pictured].predictive
    shown: tuple[Gallery, ...] = ()
    if rows is not None and not dense and isinstance(predictive, CategoricalPredictive):
        shown = galleries(rows, predictive, comparison.known_targets, comparison.classes)
    return ComparisonContent(
        comparison, title, groups=group_scores, galleries=shown, pictured=pictured,
        maps=uncertainty_maps(of_pictures, rows) if dense else Maps(),
    )  # fmt: skip


def paired_predictions(
    predictions: Sequence[Predictions], groups: Iterable[str]
) -> list[Predictions]:
    """Check that there is one of each method, and join the rows and classes to the first.

    Raises:
        ValueError: there are two of a method, or they are not of the same examples.
    """
    names = [each.method for each in predictions]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"expected predictions by different methods, got {names}; give each once")
    for each in predictions:
        _ = each.known_targets
    return same_examples(predictions, names, groups=groups)


def _group_scores(
    predictions: Sequence[Predictions],
    groups: Mapping[str, Sequence[str]],
    group: Groups | None,
    resamples: int,
) -> dict[str, dict[str, tuple[Subgroup, ...]]]:
    """Scores of the groups of each grouping by each method."""
    return {
        name: {
            each.method: subgroups(
                each.scored,
                each.known_targets,
                labels,
                ignore_index=each.ignore_index,
                group=group,
                resamples=resamples,
            )
            for each in predictions
        }
        for name, labels in groups.items()
    }


def _comparison(
    predictions: Sequence[Predictions],
    outside: Mapping[str, Mapping[str, Predictions]],
    group: Groups | None,
    by_column: str | None,
    resamples: int,
    uncertainties: Sequence[str | UncertaintyScore],
) -> Comparison:
    names, by = known_scores(uncertainties, predictions)
    classes = next((each.classes for each in predictions if each.classes), ())
    rows = {
        each.method: what_is_scored(
            _require_classification(each), each.known_targets, ignore_index=each.ignore_index,
            group=group, uncertainties=by if outside[each.method] else (),
        )
        for each in predictions
    }  # fmt: skip
    own = {each.method: each for each in predictions}
    entries = {
        name: entry(
            scored,
            outside={
                set_name: _require_classification(other)
                for set_name, other in outside[name].items()
            },
            outside_group={
                set_name: group_column(by_column, other, set_name)
                for set_name, other in outside[name].items()
                if by_column is not None and by_column in other.columns
            },
            uncertainties=by,
            elsewhere=_columns(names, own[name], outside[name]),
            resamples=resamples,
        )
        for name, scored in rows.items()
    }
    return compared(entries, rows[predictions[0].method], classes)


def _columns(
    names: Sequence[str], own: Predictions, outside: Mapping[str, Predictions]
) -> dict[str, KnownValues]:
    """The values of columns that hold a score, of the test examples and of each set.

    Raises:
        ValueError: a column is missing, or does not hold numbers.
    """
    return {
        name: (
            column_values(own, name),
            {key: column_values(each, name) for key, each in outside.items()},
        )
        for name in names
    }


def _outside_sets(
    names: Sequence[str], outside: Sequence[Predictions]
) -> dict[str, dict[str, Predictions]]:
    """Out-of-distribution predictions by method and set; a single method takes those of any name.

    Raises:
        ValueError: they are by another method, twice of one set, or not by every method.
    """
    sets: dict[str, dict[str, Predictions]] = {name: {} for name in names}
    for each in outside:
        method = names[0] if len(names) == 1 else each.method
        if method not in sets:
            raise ValueError(
                f"expected out-of-distribution predictions by one of {list(names)}, got "
                f"{method!r}; give them the name of their method"
            )
        if each.data in sets[method]:
            raise ValueError(
                f"expected one file of each out-of-distribution set by {method!r}, got "
                f"{each.data!r} twice; rename the file of one, or the data it was predicted from"
            )
        sets[method][each.data] = each
    for name in dict.fromkeys(each.data for each in outside):
        if without := [method for method in names if name not in sets[method]]:
            raise ValueError(
                f"expected the out-of-distribution set {name!r} by every method, got none by "
                f"{without}; predict it with each, or leave it out"
            )
    return sets


def _is_classification(
    predictive: object,
) -> TypeGuard[CategoricalPredictive | BernoulliPredictive]:
    return isinstance(predictive, (CategoricalPredictive, BernoulliPredictive))


def _require_classification(
    predictions: Predictions,
) -> CategoricalPredictive | BernoulliPredictive:
    if not _is_classification(predictions.predictive):
        raise ValueError(
            f"expected predictions of classes or labels, got those of regression by "
            f"{predictions.method!r}; report them apart"
        )
    return predictions.predictive
