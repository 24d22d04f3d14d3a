"""The verbs of the command line that score predictions: each is one library call on files."""

import json

import torch
from torch import Tensor

from mcbn.comparison import Comparison, entry
from mcbn.durable import write_whole
from mcbn.evaluation import evaluate as evaluate_predictive
from mcbn.predictions import Predictions
from mcbn.report import Report


def evaluate(predictions: str, out: str | None = None, resamples: int = 1000) -> None:
    """Score predictions against their targets, with bootstrap intervals.

    Example: mcbn evaluate --predictions mcbn.st --out scores.json

    Args:
        predictions: file written by mcbn predict, with targets.
        out: JSON file the scores are written to; they are printed in any case.
        resamples: bootstrap resamples behind each interval.
    """
    found = Predictions.load(predictions)
    evaluation = evaluate_predictive(found.predictive, _targets(found, predictions),
                                     resamples=resamples)  # fmt: skip
    print(f"{found.method} on {found.data}: {evaluation.examples} examples, 95 % intervals")
    for name, score in evaluation.items():
        print(f"  {name:<16} {score}   ({score.better} is better)")
    if out is not None:
        text = json.dumps(evaluation.to_dict(), indent=2, allow_nan=True)
        write_whole(out, text.encode())


def report(
    predictions: list[str] | str,
    out: str = "report",
    outside: list[str] | None = None,
    title: str = "Calibration report",
    resamples: int = 1000,
) -> None:
    """Write a calibration report of one or more methods on the same examples.

    Example: mcbn report --predictions '[plain.st, mcbn.st]' --out report

    Args:
        predictions: files written by mcbn predict, the baseline first.
        out: folder that report.html and report.json are written to.
        outside: predictions of out-of-distribution inputs, by the same methods.
        title: of the page.
        resamples: bootstrap resamples behind each interval.
    """
    predictions = [predictions] if isinstance(predictions, str) else predictions
    found = [Predictions.load(path) for path in predictions]
    others = [Predictions.load(path) for path in outside or []]
    targets = _targets(found[0], predictions[0]) if found else torch.zeros(0)
    for path, each in zip(predictions, found, strict=True):
        if not torch.equal(_targets(each, path), targets):
            raise ValueError(
                f"expected every method on the same examples, got other targets in {path} than in "
                f"{predictions[0]}; predict the same file with each"
            )
    entries = {
        each.method: entry(
            each.predictive,
            targets,
            outside={o.data: o.predictive for o in others if o.method == each.method},
            resamples=resamples,
        )
        for each in found
    }
    if len(entries) < len(found) or not entries:
        raise ValueError(
            f"expected one file a method, got {[each.method for each in found]}; give each once"
        )
    page = Report(
        title=title,
        comparison=Comparison(entries, targets, ()),
        provenance={"Data": found[0].data, "Files": ", ".join(predictions)},
    ).write(out)
    print(f"Report: {page}")


def _targets(found: Predictions, path: str) -> Tensor:
    if found.targets is None:
        raise ValueError(f"expected targets in {path}, got none; predict data that has targets")
    return found.targets
