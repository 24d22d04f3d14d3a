"""Pages on predictions that are already made: scored, and put together by kind of target."""

from collections.abc import Mapping, Sequence
from typing import TypeGuard

import torch
from torch import Tensor

from mcbn.evaluation.compare import Comparison, Entry, entry, knows_epistemic
from mcbn.evaluation.subgroups import Subgroup, subgroups
from mcbn.predictive.categorical import CategoricalPredictive
from mcbn.predictive.predictions import Predictions
from mcbn.report.comparison_page import ComparisonPage
from mcbn.report.gallery import galleries
from mcbn.report.regression_page import RegressionPage, evaluation_of


def page_of_predictions(
    predictions: Sequence[Predictions],
    *,
    title: str,
    outside: Sequence[Predictions],
    groups: Mapping[str, Sequence[str]],
    images: Tensor | None,
    resamples: int,
) -> ComparisonPage | RegressionPage:
    """Score predictions of the same examples, and make their page.

    Arguments and errors are those of `Report.from_predictions`.
    """
    _require_paired(predictions)
    group_scores = _group_scores(predictions, groups, resamples)
    if not _is_classification(predictions[0].predictive):
        if outside or images is not None:
            raise ValueError(
                "expected neither out-of-distribution predictions nor images with regression, got "
                "some; leave them out"
            )
        methods = {each.method: each for each in predictions}
        scores = {
            name: evaluation_of(each, resamples=resamples) for name, each in methods.items()
        }  # fmt: skip
        return RegressionPage(methods, scores, title, groups=group_scores)
    comparison = _comparison(predictions, outside, resamples)
    # Pictures are chosen by the first method whose draws are known, else by the baseline.
    pictured = next(
        (name for name, each in comparison.entries.items() if knows_epistemic(each.predictive)),
        comparison.baseline,
    )
    shown = () if images is None else galleries(
        images, comparison.entries[pictured].predictive, comparison.targets, comparison.classes
    )  # fmt: skip
    return ComparisonPage(
        comparison, title, groups=group_scores, galleries=shown, pictured=pictured
    )  # fmt: skip


def _require_paired(predictions: Sequence[Predictions]) -> None:
    """Check that there is one of each method, all on the same examples."""
    names = [each.method for each in predictions]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"expected predictions by different methods, got {names}; give each once")
    kinds = {_is_classification(each.predictive) for each in predictions}
    targets = predictions[0].known_targets
    if len(kinds) > 1 or not all(torch.equal(each.known_targets, targets) for each in predictions):
        raise ValueError(
            f"expected predictions of the same examples by {names}, got different targets; predict "
            "the same data with each"
        )


def _group_scores(
    predictions: Sequence[Predictions], groups: Mapping[str, Sequence[str]], resamples: int
) -> dict[str, dict[str, tuple[Subgroup, ...]]]:
    """Scores of the groups of each grouping by each method."""
    return {
        name: {
            each.method: subgroups(each.scored, each.known_targets, labels, resamples=resamples)
            for each in predictions
        }
        for name, labels in groups.items()
    }


def _comparison(
    predictions: Sequence[Predictions], outside: Sequence[Predictions], resamples: int
) -> Comparison:
    targets = predictions[0].known_targets
    classes = next((each.classes for each in predictions if each.classes), ())
    entries: dict[str, Entry] = {}
    for each in predictions:
        entries[each.method] = entry(
            _require_classification(each),
            targets,
            outside=_outside_of(each.method, predictions, outside),
            resamples=resamples,
        )
    return Comparison(entries, targets, classes)


def _outside_of(
    method: str, predictions: Sequence[Predictions], outside: Sequence[Predictions]
) -> dict[str, CategoricalPredictive]:
    """Out-of-distribution predictions by a method; a single method takes those of any name."""
    names = [each.method for each in predictions]
    unknown = [each.method for each in outside if each.method not in names]
    if unknown and len(names) > 1:
        raise ValueError(
            f"expected out-of-distribution predictions by one of {names}, got {unknown[0]!r}; give "
            "them the name of their method"
        )
    return {
        each.data: _require_classification(each)
        for each in outside
        if each.method == method or len(names) == 1
    }


def _is_classification(predictive: object) -> TypeGuard[CategoricalPredictive]:
    return isinstance(predictive, CategoricalPredictive)


def _require_classification(predictions: Predictions) -> CategoricalPredictive:
    if not _is_classification(predictions.predictive):
        raise ValueError(
            f"expected predictions of classes, got those of regression by {predictions.method!r}; "
            "report them apart"
        )
    return predictions.predictive
