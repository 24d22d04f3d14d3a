"""The verb of the command line that scores a file of predictions."""

import math
from collections.abc import Mapping, Sequence

from mcbn.checks.group_claim import group_claim
from mcbn.cli.options.predictions import EvaluateOptions
from mcbn.cli.prediction_files import group_of, groups_of, named_predictions, targets_of
from mcbn.cli.values import names_of
from mcbn.evaluation import glossary
from mcbn.evaluation.clusters import Groups
from mcbn.evaluation.error_detection import error_detection, rows_of
from mcbn.evaluation.evaluate import ScoredRows
from mcbn.evaluation.evaluate import evaluate as evaluate_predictive
from mcbn.evaluation.evaluation import Evaluation, Score, interval_dicts
from mcbn.evaluation.real_outputs import comparable, output_scores
from mcbn.evaluation.subgroups import Subgroup, subgroups
from mcbn.io.atomic import write_whole
from mcbn.io.plain import to_json
from mcbn.predictive.categorical import CategoricalPredictive
from mcbn.predictive.positions import is_large
from mcbn.predictive.predictions import Predictions
from mcbn.uncertainty.columns import column_values, known_scores
from mcbn.uncertainty.score import score_values


def evaluate(options: EvaluateOptions) -> None:
    """Score predictions against their targets."""
    path, resamples = options.predictions, options.resamples
    predictions = named_predictions(
        path, probabilities=names_of(options.probabilities), target=options.target,
        ignore_index=options.ignore_index,
    )  # fmt: skip
    predictions = predictions.in_units(names_of(options.units))
    targets = targets_of(predictions, path)
    labels = groups_of(predictions, options.by, path)
    group = group_of(predictions, options.group, path)
    ignored = predictions.ignore_index
    evaluation = evaluate_predictive(
        predictions.scored, targets, ignore_index=ignored, group=group, resamples=resamples
    )
    outputs = output_scores(predictions, group=group, resamples=resamples)
    errors = _errors(predictions, names_of(options.uncertainty), group, resamples)
    groups = {
        name: subgroups(predictions.scored, targets, values, ignore_index=ignored, group=group,
                        resamples=resamples)
        for name, values in labels.items()
    }  # fmt: skip
    numbers = {**evaluation.to_dict(), "draws": predictions.predictive.draw_count or None}
    if predictions.units:
        numbers["units"] = list(predictions.units)
    if errors:
        numbers["errors"] = {name: interval_dicts(scores) for name, scores in errors.items()}
    if outputs:
        numbers["outputs"] = {name: each.to_dict() for name, each in outputs.items()}
    if groups:
        numbers["groups"] = {
            name: {group.name: group.to_dict() for group in each} for name, each in groups.items()
        }
    text = to_json(numbers, indent=2)
    print(text if options.json else _scores(predictions, evaluation, outputs, errors, groups))
    if options.out is not None:
        write_whole(options.out, f"{text}\n".encode())


def _scores(
    predictions: Predictions, evaluation: Evaluation, outputs: Mapping[str, Evaluation],
    errors: Mapping[str, Mapping[str, Score]], groups: Mapping[str, Sequence[Subgroup]],
) -> str:  # fmt: skip
    """The scores of predictions, of each output and of groups of them, as lines of text."""
    counted = f"{evaluation.examples} examples"
    if outputs:
        counted = f"{evaluation.examples} values of {len(outputs)} outputs"
    elif evaluation.clusters is not None:
        counted = f"{evaluation.examples} values of {evaluation.clusters} whole examples or groups"
    lines = [
        f"{predictions.method} on {predictions.data}: {counted}, 95% intervals",
        *_score_lines(comparable(evaluation, predictions.units), predictions.unit),
    ]
    for name, of_score in errors.items():
        lines.append(f"Errors detected by {glossary.uncertainty(name)}:")
        lines += [f"  {key:<16} {score}   ({score.better} is better)"
                  for key, score in of_score.items()]  # fmt: skip
    for name, scores in outputs.items():
        lines += [f"Output {name}:", *_score_lines(scores, predictions.by_output[name].unit)]
    for name, each in groups.items():
        lines += [_text(name, each), f"  {group_claim(predictions.method, name, each).sentence}"]
    return "\n".join(lines)


def _score_lines(evaluation: Evaluation, unit: str) -> list[str]:
    lines = []
    for name, score in evaluation.items():
        of_unit = f" {unit}" if unit and name in glossary.IN_UNIT else ""
        better = f"   ({score.better} is better)" if glossary.judged(name) else ""
        lines.append(f"  {name:<16} {score}{of_unit}{better}")
    return lines


def _errors(
    predictions: Predictions, names: Sequence[str], group: Groups | None, resamples: int
) -> dict[str, dict[str, Score]]:
    """How well scores of uncertainty, or columns of the file, detect the errors of classes.

    Raises:
        ValueError: predictions of another kind, or of very many positions.
    """
    if not names:
        return {}
    given = predictions.predictive
    if not isinstance(given, CategoricalPredictive) or is_large(given):
        raise ValueError(
            "expected predictions of classes, of at most 131,072 positions, with --uncertainty, "
            "got others; leave it out"
        )
    columns, scores = known_scores(names, [predictions])
    rows = ScoredRows.of(
        given, predictions.known_targets, ignore_index=predictions.ignore_index, group=group
    )
    known = {name: rows_of(rows, column_values(predictions, name)) for name in columns}
    values = {score.name: score_values(score, rows.predictive) for score in scores} | known
    return {
        name: error_detection(rows, each, resamples=resamples)
        for name, each in values.items()
        if each is not None
    }


def _text(name: str, groups: Sequence[Subgroup]) -> str:
    """The scores of groups as lines of text."""
    width = max(len(group.name) for group in groups)
    lines = [f"Groups by {name}:"]
    for group in groups:
        scores = "   ".join(f"{key} {score}" for key, score in group.scores.items())
        p_value = "" if math.isnan(group.adjusted) else glossary.probability(group.adjusted)
        small = " (few)" if group.is_small else ""
        lines.append(f"  {group.name:<{width}} {group.size:>7}{small}   {scores}   {p_value}")
    return "\n".join(lines)
