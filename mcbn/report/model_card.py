"""Model cards: scores with their intervals, as metadata for tools and a table for people."""

import html
import math
import re
from collections.abc import Mapping
from functools import partial
from typing import Any

import yaml

from mcbn.evaluation import glossary
from mcbn.evaluation.comparison import Comparison
from mcbn.evaluation.evaluation import Evaluation, Score


def to_model_card(
    evaluations: Comparison | Mapping[str, Evaluation],
    *,
    name: str,
    data: str,
    task: str = "image-classification",
    split: str = "test",
) -> str:
    """Metadata (`model-index`) and a section on uncertainty for a model card, as one text.

    Markdown and HTML in names show as they are. A score that is not defined has no metadata.

    Args:
        evaluations: a comparison, or evaluations by method.
        name: of the model.
        data: name of the data set.
        task: type of task, in the words of the hub that shows the card.
        split: part of the data that was scored.

    Returns:
        YAML between two lines of dashes, followed by Markdown.

    Raises:
        ValueError: no method, or evaluations of other examples or at another level.

    Reference:
        Mitchell et al. 2019, "Model Cards for Model Reporting".
    """
    by_method = (
        evaluations.evaluations if isinstance(evaluations, Comparison) else dict(evaluations)
    )
    _require_alike(by_method)
    metadata = {
        "model-index": [
            {
                "name": name,
                "results": [
                    {
                        "task": {"type": task},
                        "dataset": {"name": data, "type": data, "split": split},
                        "metrics": _metrics(by_method),
                    }
                ],
            }
        ]
    }
    head = yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True)
    return f"---\n{head}---\n\n{_section(by_method, data, split)}"


def _require_alike(evaluations: Mapping[str, Evaluation]) -> None:
    kinds = {(evaluation.examples, evaluation.level) for evaluation in evaluations.values()}
    if len(kinds) != 1:
        raise ValueError(
            "expected evaluations of the same examples at one level, got (examples, level) of "
            f"{sorted(kinds)}; evaluate every method on the same data"
        )


def _headline_names(evaluations: Mapping[str, Evaluation]) -> list[str]:
    """The most important scores, of those that every method has."""
    first, *others = evaluations.values()
    return [name for name in glossary.headline(first) if all(name in scores for scores in others)]


def _metrics(evaluations: Mapping[str, Evaluation]) -> list[dict[str, Any]]:
    metrics = []
    for method, evaluation in evaluations.items():
        for name in _headline_names(evaluations):
            score = evaluation[name]
            if not math.isfinite(score.value):
                continue
            details = {"method": method, "draws": evaluation.draw_count}
            if math.isfinite(score.low) and math.isfinite(score.high):
                details |= {"level": evaluation.level, "low": score.low, "high": score.high}
            label = f"{glossary.label(name)} ({method})"
            metrics.append({"type": name, "value": score.value, "name": label, "args": details})
    return metrics


def _section(evaluations: Mapping[str, Evaluation], data: str, split: str) -> str:
    names, first = _headline_names(evaluations), next(iter(evaluations.values()))
    heading = [
        "Method",
        "Draws",
        *(f"{glossary.label(n)} {glossary.arrow(n)}".strip() for n in names),
    ]
    rows = [
        [_plain(method), str(scores.draw_count), *(_cell(name, scores[name]) for name in names)]
        for method, scores in evaluations.items()
    ]
    table = "".join(
        f"| {' | '.join(line)} |\n" for line in (heading, ["---"] * len(heading), *rows)
    )
    text = f"Scored on {first.examples} examples of {_plain(data)} ({_plain(split)})."
    if not all(math.isnan(score.low) for score in first.values()):
        text += f" In brackets: {100 * first.level:g}% bootstrap intervals over the examples."
    return f"## Uncertainty\n\n{text}\n\n{table}"


def _cell(name: str, score: Score) -> str:
    write = partial(glossary.written, name)
    interval = glossary.interval(score.low, score.high, write)
    return f"{write(score.value)}{glossary.unit(name)} {interval}".rstrip()


def _plain(text: str) -> str:
    """One line of Markdown that shows `text` literally, also in a table cell."""
    line = html.escape(" ".join(text.split()), quote=False)
    return re.sub(r"([\\`*_\[\]|~#!$])", r"\\\1", line)
