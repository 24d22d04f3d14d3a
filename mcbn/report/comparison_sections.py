"""The sections of a report on a comparison, below its first screen."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mcbn.evaluation import glossary
from mcbn.recalibration.apply import in_words
from mcbn.report import page, tables
from mcbn.report.common_sections import (
    INTERVALS,
    drift_section,
    ending,
    group_section,
    map_section,
    set_section,
)
from mcbn.report.comparison_content import ComparisonContent
from mcbn.report.draw_errors import draws_table
from mcbn.report.page import Section
from mcbn.report.panels import PanelGroup

CHOSEN = (
    "The best of several methods was chosen after looking at all of them, so its lead is slightly "
    "overestimated."
)
TIMES = "Times were measured once, on one machine, which may have run other work as well."


def comparison_sections(
    content: ComparisonContent, groups: Mapping[str, Sequence[PanelGroup]]
) -> Iterator[Section]:
    """The sections of a comparison; those without data are missing.

    Args:
        content: of the page.
        groups: its figures by section.
    """
    made = page.rendered(groups)
    yield from _scores(content, made)
    if content.study and "study" in made:
        yield page.section(
            "batch-size", "Batch size", "batch_size", groups=made["study"],
            draws=content.study.plan.inference.draws, study=tables.study_numbers(groups["study"]),
        )  # fmt: skip
    unit = "labels" if content.comparison.has_labels else "classes"
    yield from set_section(content.sets, unit)
    yield from group_section(made, content.groups)
    yield from map_section(content.maps)
    if content.galleries:
        yield page.section("pictures", "Pictures", "pictures", galleries=content.galleries,
                           pictured=content.pictured)  # fmt: skip
    if content.draws:
        yield page.section(
            "draws", "Draws", "draws", draws=draws_table(content.draws),
            baseline=content.comparison.baseline, groups=made.get("convergence"),
        )  # fmt: skip
    yield from drift_section(made, content.drift)
    cost = tables.cost(content.comparison)
    if cost:
        yield page.section("cost", "Cost", "cost", cost=cost, note=TIMES)
    first = content.comparison.evaluations[content.comparison.baseline]
    known = [*first, *(glossary.SEPARATION if "outside" in made else ())]
    chosen = [CHOSEN] if len(content.comparison.entries) > 2 else []
    yield from ending([*content.notes, INTERVALS, *chosen], known, glossary.WORDS, _setup(content))


def _scores(content: ComparisonContent, made: Mapping[str, Any]) -> Iterator[Section]:
    """What was scored of the test examples as a whole."""
    comparison, labels = content.comparison, content.comparison.has_labels
    first = comparison.entries[comparison.baseline]
    percent = f"{100 * first.evaluation.level:g}%"
    yield page.section(
        "scores", "Scores", "scores", percent=percent, real=False, outputs=0, mixed=False,
        headline=tables.headline(comparison.evaluations),
        differences=tables.differences(comparison.evaluations),
        all=tables.all_scores(comparison.evaluations),
    )  # fmt: skip
    if content.class_scores:
        classes = tables.by_class(content.class_scores, several=labels)
        title = "Labels" if labels else "Classes"
        yield page.section("classes", title, "classes", labels=labels, classes=classes)
    alone = not (labels or first.evaluation.clusters or first.images is not None)
    yield page.section(
        "reliability", "Calibration", "reliability", percent=percent, labels=labels,
        groups=made["reliability"], dependent=not alone or first.known.entropy.ndim > 1,
    )  # fmt: skip
    yield page.section(
        "selective", "Selective prediction", "selective", labels=labels,
        groups=made["selective"], errors=tables.errors(comparison),
    )  # fmt: skip
    if "outside" in made:
        yield page.section(
            "outside", "Out of distribution", "outside", groups=made["outside"],
            outside=tables.separation(comparison), detectors=comparison.detectors,
        )  # fmt: skip


def _setup(content: ComparisonContent) -> dict[str, str]:
    """What was measured, and how to repeat it."""
    comparison = content.comparison
    first = comparison.evaluations[comparison.baseline]
    of = "the test examples"
    if first.clusters:
        of = f"{first.clusters:,} whole examples or groups of them"
    found = dict(content.provenance)
    found |= {
        f"Recalibration of {name}": in_words(fit) for name, fit in content.recalibrations.items()
    }
    found[content.counted.capitalize()] = f"{first.examples:,}"
    found["Methods and draws"] = ", ".join(
        f"{name} ({each.draw_count or 'not known'})"
        for name, each in comparison.evaluations.items()
    )
    if comparison.classes:
        found["Labels" if comparison.has_labels else "Classes"] = ", ".join(comparison.classes)
    found["Intervals"] = (
        f"{100 * first.level:g}% bootstrap, {len(first['nll'].replicates)} resamples of {of}, "
        f"seed {first.seed}"
    )
    return found
