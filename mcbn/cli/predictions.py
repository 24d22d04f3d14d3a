"""The verbs of the command line that score predictions: each is one library call on files."""

import json
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from mcbn.cli.examples import Examples
from mcbn.evaluation import glossary
from mcbn.evaluation.evaluate import evaluate as evaluate_predictive
from mcbn.evaluation.subgroups import Subgroup, subgroups
from mcbn.io.atomic import write_whole
from mcbn.io.tables import column, is_table, texts
from mcbn.predictive.categorical import CategoricalPredictive
from mcbn.predictive.predictions import Predictions
from mcbn.predictive.tables import read_predictions
from mcbn.predictive.targets import TARGETS
from mcbn.recalibration.apply import Recalibration, before_and_after, fitted, set_coverages
from mcbn.report.claims import group_claim
from mcbn.report.prediction_pages import page_of_predictions
from mcbn.report.report import Report


def evaluate(
    predictions: str,
    out: str | None = None,
    resamples: int = 1000,
    by: list[str] | str | None = None,
    target: str | None = None,
    probabilities: list[str] | str | None = None,
) -> None:
    """Score predictions against their targets, with bootstrap intervals.

    Example: mcbn evaluate --predictions mcbn.st --out scores.json

    Args:
        predictions: file written by mcbn predict, or by another tool as .csv, .parquet or .npz.
        out: JSON file the scores are written to; they are printed in any case.
        resamples: bootstrap resamples behind each interval.
        by: column whose groups of examples are scored apart, or several.
        target: column of the targets, where it is not "target", "label" or "y".
        probabilities: columns of probabilities, one a class, as 'col1,col2', where they do not
            begin with "p_".
    """
    found = read_predictions(predictions, probabilities=_names(probabilities), target=target)
    targets = _targets(found, predictions)
    labels = {name: _labels(found, name, predictions) for name in _names(by)}
    evaluation = evaluate_predictive(found.scored, targets, resamples=resamples)
    print(f"{found.method} on {found.data}: {evaluation.examples} examples, 95 % intervals")
    for name, score in evaluation.items():
        better = f"   ({score.better} is better)" if glossary.judged(name) else ""
        print(f"  {name:<16} {score}{better}")
    groups = {
        name: subgroups(found.scored, targets, values, resamples=resamples)
        for name, values in labels.items()
    }
    for name, each in groups.items():
        print(_written(name, each))
        print(f"  {group_claim(found.method, name, each).sentence}")
    if out is not None:
        numbers = {**evaluation.to_dict(), "draws": found.predictive.draw_count or None}
        if groups:
            numbers["groups"] = {
                name: {group.name: group.to_dict() for group in each}
                for name, each in groups.items()
            }
        write_whole(out, json.dumps(numbers, indent=2, allow_nan=True).encode())


def report(
    predictions: list[str] | str,
    out: str = "report",
    outside: list[str] | None = None,
    title: str = "Calibration report",
    resamples: int = 1000,
    by: list[str] | str | None = None,
    images: str | None = None,
    held_out: list[str] | str | None = None,
    recalibrate: Recalibration | None = None,
    target: str | None = None,
    probabilities: list[str] | str | None = None,
) -> None:
    """Write a calibration report of one or more methods on the same examples.

    Example: mcbn report --predictions '[plain.st, mcbn.st]' --out report

    Args:
        predictions: files written by mcbn predict, or by other tools as .csv, .parquet or .npz,
            the baseline first.
        out: folder that report.html and report.json are written to.
        outside: predictions of out-of-distribution inputs, by the same methods.
        title: of the page.
        resamples: bootstrap resamples behind each interval.
        by: column whose groups of examples are scored apart, or several; of the first file.
        images: .npz or .safetensors file whose "inputs" are the pictures that were predicted.
        held_out: predictions of other examples by the same methods, for conformal sets and
            intervals, and to recalibrate on; never the test examples.
        recalibrate: show every method before and after: temperature, temperature-per-draw (of kept
            draws), vector or isotonic for classes, variance for real values.
        target: column of the targets, where it is not "target", "label" or "y".
        probabilities: columns of probabilities, one a class, as 'col1,col2', where they do not
            begin with "p_".
    """
    paths = [predictions] if isinstance(predictions, str) else predictions
    options = _names(probabilities), target
    found = [_read(path, paths, *options) for path in paths]
    others = [(path, _read(path, paths, *options)) for path in outside or []]
    kept = [held_out] if isinstance(held_out, str) else held_out or []
    held = [_read(path, paths, *options) for path in kept]
    _shared_targets(found, paths)
    labels = {name: _labels(found[0], name, paths[0]) for name in _names(by)}
    pictures = None if images is None else Examples.from_file(images).inputs
    _require_fitting(found[0], others=others, images=images, held=held, recalibrate=recalibrate)
    sets = set_coverages(found, held) if held else ()
    if recalibrate is not None:
        fits = fitted(found, held, recalibrate)
        found = before_and_after(found, fits, recalibrate)
        others = [
            (path, one)
            for path, each in others
            for one in before_and_after([each], fits, recalibrate)
        ]
    _require_known_methods(found, others)
    page = page_of_predictions(
        found, title=title, outside=[each for _, each in others], groups=labels, images=pictures,
        resamples=resamples,
    )  # fmt: skip
    about = {"Data": found[0].data, "Files": ", ".join(paths)}
    if kept:
        about["Held-out predictions"] = ", ".join(kept)
    path = Report(replace(page, provenance=about, sets=sets)).write(out)
    print(f"Report: {path}")


def _require_fitting(
    first: Predictions,
    *,
    others: Sequence[tuple[str, Predictions]],
    images: str | None,
    held: Sequence[Predictions],
    recalibrate: str | None,
) -> None:
    """Check that the options go together, before any work."""
    if not isinstance(first.predictive, CategoricalPredictive) and (others or images):
        raise ValueError(
            "expected no --outside and no --images with predictions of regression, got some; "
            "leave them out"
        )
    if recalibrate and not held:
        raise ValueError(
            f"expected --held_out with --recalibrate {recalibrate}, got none; predict a held-out "
            "part of the data and give its file"
        )


def _read(
    path: str, paths: Sequence[str], probabilities: Sequence[str], target: str | None
) -> Predictions:
    """Predictions of a file; beside files of columns, one of ours needs no names of them."""
    if is_table(path) or not any(map(is_table, paths)):
        return read_predictions(path, probabilities=probabilities, target=target)
    return read_predictions(path)


def _names(given: Sequence[str] | str | None) -> list[str]:
    """Names in a list, or in one text with commas between them."""
    return given.split(",") if isinstance(given, str) else list(given or ())


def _shared_targets(found: Sequence[Predictions], paths: Sequence[str]) -> None:
    """Check that every method has the same targets and classes, and is there once."""
    targets = _targets(found[0], paths[0]) if found else torch.zeros(0)
    if len({isinstance(each.predictive, CategoricalPredictive) for each in found}) > 1:
        raise ValueError(
            f"expected predictions of the same kind, got classes and regression in {list(paths)}; "
            "report them apart"
        )
    for path, each in zip(paths, found, strict=True):
        if not torch.equal(_targets(each, path), targets):
            raise ValueError(
                f"expected every method on the same examples, got other targets in {path} than in "
                f"{paths[0]}; predict the same file with each"
            )
    if len(names := {each.classes for each in found if each.classes}) > 1:
        raise ValueError(
            f"expected the same classes of every method, got {sorted(names)} in {list(paths)}; "
            "name them alike and in one order"
        )
    if not found or len({each.method for each in found}) < len(found):
        raise ValueError(
            f"expected one file a method, got {[each.method for each in found]}; give each once"
        )


def _require_known_methods(
    found: Sequence[Predictions], others: Sequence[tuple[str, Predictions]]
) -> None:
    """Check that predictions of other data are by the methods of a report, if it has several."""
    names = [each.method for each in found]
    for path, other in others:
        if len(found) > 1 and other.method not in names:
            raise ValueError(
                f"expected outside predictions of one of {names}, got those of {other.method!r} in "
                f"{path}; a file of columns is named after its method"
            )


def _targets(found: Predictions, path: str) -> Tensor:
    if found.targets is None:
        raise ValueError(
            f"expected targets in {path}, got none; predict data that has targets, or name the "
            f"column {' or '.join(TARGETS)}, or by --target"
        )
    return found.targets


def _labels(found: Predictions, name: str, path: str) -> tuple[str, ...]:
    """The group of each example: of a column, or by its true class."""
    if name == "target" and found.targets is not None and not found.targets.is_floating_point():
        classes = found.targets.tolist()
        return tuple(found.classes[k] if found.classes else str(k) for k in classes)
    return texts(column(found.columns, name, path))


def _written(name: str, groups: Sequence[Subgroup]) -> str:
    """The scores of groups as lines of text."""
    width = max(len(group.name) for group in groups)
    lines = [f"Groups by {name}:"]
    for group in groups:
        scores = "   ".join(f"{key} {score}" for key, score in group.scores.items())
        tested = "" if group.adjusted != group.adjusted else glossary.probability(group.adjusted)
        few = " (few)" if group.is_small else ""
        lines.append(f"  {group.name:<{width}} {group.size:>7}{few}   {scores}   {tested}")
    return "\n".join(lines)
