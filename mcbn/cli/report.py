"""The verb of the command line that reports files of predictions."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mcbn.cli import messages
from mcbn.cli.data import read_data
from mcbn.cli.options.parts import ReadingOptions
from mcbn.cli.options.predictions import ReportOptions
from mcbn.cli.paths import split_name
from mcbn.cli.prediction_files import group_of, groups_of, named_predictions, targets_of
from mcbn.cli.repeat import command
from mcbn.cli.values import names_of
from mcbn.drift.drift_test import DriftTest
from mcbn.io.plain import parse_object
from mcbn.io.suffixes import is_table
from mcbn.io.tables import column, shortened
from mcbn.predictive.bernoulli import BernoulliPredictive
from mcbn.predictive.categorical import CategoricalPredictive
from mcbn.predictive.name_order import same_classes
from mcbn.predictive.pairing import same_examples
from mcbn.predictive.predictions import Predictions
from mcbn.recalibration.apply import (
    Sides,
    averaged_for_want_of_draws,
    before_and_after,
    fit_dicts,
    fitted,
    in_words,
)
from mcbn.recalibration.coverages import have_sets, set_coverages
from mcbn.recalibration.names import Recalibration
from mcbn.report.comparison_content import ComparisonContent
from mcbn.report.figure_formats import figure_formats
from mcbn.report.maps import is_dense, write_maps
from mcbn.report.prediction_contents import content_of_predictions
from mcbn.report.real_content import RealContent
from mcbn.report.report import Report
from mcbn.uncertainty.predictive_scores import USUAL

IMAGES_PER_BATCH = 64
UNSAFE = re.compile(r"[^A-Za-z0-9_]+")


def report(options: ReportOptions) -> None:
    """Write a calibration report of one or more methods on the same examples."""
    content, methods = content_of_files(options)
    _write(Report(content), content.recalibrations, options)
    if options.maps is not None:
        _write_maps(options.maps, methods)


def content_of_files(
    options: ReportOptions,
) -> tuple[ComparisonContent | RealContent, list[Predictions]]:
    """Score files of predictions: the content of a report, and the predictions by each method."""
    paths, held_out_paths = _list(options.predictions), _list(options.held_out)
    drift = _drift_tests(_list(options.drift))
    units = names_of(options.units)
    methods = [_read(path, paths, options).in_units(units) for path in paths]
    outside = [(path, _read(path, paths, options)) for path in _list(options.outside)]
    held_out = [_read(path, paths, options) for path in held_out_paths]
    methods = _joined(methods, paths, options)
    outside = [
        (path, _of_set(same_classes(each, methods[0], path), path, methods, paths))
        for path, each in outside
    ]
    groups = groups_of(methods[0], options.by, paths[0])
    images = None if options.images is None else _images(options.images)
    _require_compatible(methods[0], options)
    _require_known_methods(methods, outside, "--outside")
    _require_known_methods(methods, list(zip(held_out_paths, held_out, strict=True)), "--held-out")
    group_of(methods[0], options.group, paths[0])
    sides = _sides(options.group, methods, held_out, held_out_paths)
    # Of pixels there are none, which is refused where nothing else was asked for.
    asked = options.recalibrate is None or options.sets_by is not None
    has_sets = bool(held_out) and (asked or all(map(have_sets, methods)))
    sets = set_coverages(methods, held_out, sides=sides, by=options.sets_by) if has_sets else ()
    ood = [each for _, each in outside]
    fits: dict[str, Any] = {}
    if (by := options.recalibrate) is not None:
        fits = fitted(methods, held_out, by, others=ood, sides=sides)
        _tell_of_averages(fits, methods, by)
        methods = before_and_after(methods, fits, by)
        ood = [either for each in ood for either in before_and_after([each], fits, by)]
    content = content_of_predictions(
        methods, title=options.title, outside=ood, groups=groups, group=options.group,
        images=images, resamples=options.resamples,
        uncertainties=names_of(options.uncertainty) or USUAL,
    )  # fmt: skip
    provenance = {"Data": methods[0].data, "Files": ", ".join(paths)}
    if held_out_paths:
        provenance["Held-out predictions"] = ", ".join(held_out_paths)
    provenance["Repeat"] = command("mcbn report", options, positional="predictions")
    known: Any = {"sets": sets, "drift": drift, "recalibrations": fits,
                  "ignore": names_of(options.ignore)}  # fmt: skip
    return replace(content, provenance=provenance, **known), methods


def _write(report: Report, fits: Mapping[str, Any], options: ReportOptions) -> None:
    """Write a report, and tell where it is and what was fitted, by method."""
    formats = figure_formats(names_of(options.figures))
    path = report.write(options.out, figures=formats, pdf=options.pdf)
    messages.show_report(
        path, report, figures=bool(formats), json=options.json,
        recalibrations={name: in_words(fit) for name, fit in fits.items()},
        numbers={"recalibration": fit_dicts(fits)} if fits else {},
    )  # fmt: skip


def _write_maps(directory: str, methods: Sequence[Predictions]) -> None:
    """Write the maps of every method into a folder of its own."""
    for number, predictions in enumerate(methods, 1):
        # A name may hold anything, and a file must not be able to say where others are written.
        name = UNSAFE.sub("-", predictions.method).strip("-") or f"method-{number}"
        folder = Path(directory) / name
        messages.tell(f"{write_maps(folder, predictions)} maps written to {folder}")


def _tell_of_averages(
    fits: Mapping[str, Any], methods: Sequence[Predictions], by: Recalibration
) -> None:
    """Tell where a temperature is of the average since draws were not kept."""
    names = [each.method for each in methods if by == "temperature"
             and averaged_for_want_of_draws(fits[each.method], each)]  # fmt: skip
    if names:
        messages.note(
            f"not all draws of {shortened(names)} were kept, so the temperature is of their "
            "average; predict all files with --keep-draws for one of each draw"
        )


def _drift_tests(paths: list[str]) -> dict[str, DriftTest]:
    """Tests for drift by the name of their data, or of their file.

    Raises:
        ValueError: a file holds no such test, or two have one name.
    """
    found: dict[str, DriftTest] = {}
    for text in paths:
        name, path = split_name(text)
        name = Path(path).stem if name is None else name
        if name in found:
            raise ValueError(
                f"expected one test for drift of {name!r}, got two; name them, as NAME=FILE"
            )
        try:
            found[name] = DriftTest.from_dict(parse_object(Path(path).read_bytes()))
        except ValueError as error:
            raise ValueError(
                f"expected what mcbn drift --json prints in {path}, got something else "
                f"({error!s:.120}); write it again"
            ) from error
    return found


def _images(path: str) -> Tensor:
    """The pictures that were predicted: of a file, a folder or the user's code."""
    examples = read_data(path, ReadingOptions(), "", part="test")
    inputs: Any = examples.loader(IMAGES_PER_BATCH)
    if isinstance(inputs, Tensor):
        return inputs
    return torch.cat([batch[0] if isinstance(batch, (tuple, list)) else batch for batch in inputs])


def _require_compatible(baseline: Predictions, options: ReportOptions) -> None:
    """Check that options are compatible with the predictions and each other, before any work."""
    real = not isinstance(baseline.predictive, (CategoricalPredictive, BernoulliPredictive))
    if real and (options.outside or (options.images and not is_dense(baseline))):
        raise ValueError(
            "expected no --outside, and no --images but with values of pixels, with predictions of "
            "real values, got some; leave them out"
        )


def _read(path: str, paths: Sequence[str], options: ReportOptions) -> Predictions:
    """Read predictions; the names of columns are for tables, if there are any."""
    if is_table(path) or not any(map(is_table, paths)):
        return named_predictions(
            path, probabilities=names_of(options.probabilities), target=options.target,
            ignore_index=options.ignore_index,
        )  # fmt: skip
    return named_predictions(path, ignore_index=options.ignore_index)


def _list(paths: Sequence[str] | str | None) -> list[str]:
    return [paths] if isinstance(paths, str) else list(paths or ())


def _joined(
    methods: Sequence[Predictions], paths: Sequence[str], options: ReportOptions
) -> list[Predictions]:
    """Check that there is one file per method with targets, and join their rows to the first."""
    if not methods or len({each.method for each in methods}) < len(methods):
        raise ValueError(
            f"expected one file per method, got {[each.method for each in methods]}; give each once"
        )
    for path, each in zip(paths, methods, strict=True):
        targets_of(each, path)
    return same_examples(methods, paths, groups=names_of(options.by))


def _of_set(
    predictions: Predictions, path: str, methods: Sequence[Predictions], paths: Sequence[str]
) -> Predictions:
    """Out-of-distribution predictions by a method, with the name of their set.

    A single method takes those of any name. A table with the name of a method, or of its file, is
    of the set that its folder is named after.
    """
    names = [each.method for each in methods]
    data, file = predictions.data, Path(split_name(path)[1])
    if is_table(path) and data in (*names, *(Path(split_name(each)[1]).stem for each in paths)):
        data = file.resolve().parent.name
    return replace(predictions, data=data, method=predictions.method if names[1:] else names[0])


def _require_known_methods(
    methods: Sequence[Predictions], others: Sequence[tuple[str, Predictions]], option: str
) -> None:
    """Check that other predictions are by the methods of a report, or one by the only method."""
    names = [each.method for each in methods]
    for path, each in others:
        if each.method not in names and not len(names) == len(others) == 1:
            raise ValueError(
                f"expected predictions in {option} by one of {names}, got {each.method!r} in "
                f"{path}; the method of a table is the name of its file"
            )


def _sides(
    group: str | None, methods: Sequence[Predictions], held_out: Sequence[Predictions],
    paths: Sequence[str],
) -> Sides | None:  # fmt: skip
    """The groups of the examples to be scored and of held-out ones; names a file without them."""
    if group is None:
        return None
    for path, each in zip(paths, held_out, strict=True):
        column(each.columns, group, path)
    return Sides.of_column(group, methods, held_out)
