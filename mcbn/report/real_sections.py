"""The sections of a report on methods for real values, below its first screen."""

import math
from collections.abc import Iterator, Mapping, Sequence

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
from mcbn.report.page import Section
from mcbn.report.panels import PanelGroup
from mcbn.report.real_content import RealContent

GAUSSIAN = (
    "Where only a mean and a standard deviation of each value are known, the forecast is assumed "
    "to be Gaussian."
)
WORDS = ("Interval", "Paired difference", "T")


def real_sections(
    content: RealContent, groups: Mapping[str, Sequence[PanelGroup]]
) -> Iterator[Section]:
    """The sections of methods for real values; those without data are missing.

    Args:
        content: of the page.
        groups: its figures by section.
    """
    made = page.rendered(groups)
    first = content.evaluations[content.baseline]
    percent, scores, unit = f"{100 * first.level:g}%", content.comparable, content.unit
    yield page.section(
        "scores", "Scores", "scores", percent=percent, real=True,
        outputs=len(content.outputs.get(content.baseline, ())), mixed=len(set(content.units)) > 1,
        headline=tables.headline(scores, unit=unit),
        differences=tables.differences(scores, unit=unit),
        all=tables.all_scores(scores, unit=unit),
    )  # fmt: skip
    if content.outputs:
        outputs = tables.outputs(content.outputs, content.units)
        yield page.section("outputs", "Outputs", "outputs", outputs=outputs)
    yield page.section("pit", "PIT", "pit", percent=percent, groups=made["pit"])
    yield page.section("quantiles", "Quantiles", "quantiles", percent=percent,
                       groups=made["quantiles"])  # fmt: skip
    yield from set_section(content.sets, unit or "target units")
    yield from group_section(made, content.groups, unit)
    yield from map_section(content.maps)
    yield from drift_section(made, content.drift)
    words = {word: glossary.WORDS[word] for word in WORDS}
    yield from ending([INTERVALS, GAUSSIAN], list(first), words, _setup(content))


def _setup(content: RealContent) -> dict[str, str]:
    """What was measured, and how to repeat it."""
    first = content.evaluations[content.baseline]
    found = dict(content.provenance)
    found |= {
        f"Recalibration of {name}": in_words(fit) for name, fit in content.recalibrations.items()
    }
    found["Methods and draws"] = ", ".join(
        f"{name} ({each.draw_count or 'not known'})" for name, each in content.evaluations.items()
    )
    shares = {
        name: f"{name} {100 * share:.1f}%"
        for name, share in content.epistemic_shares.items()
        if not math.isnan(share)
    }
    if shares:
        found["Epistemic part of the variance"] = ", ".join(shares.values())
    found["Intervals"] = (
        f"{100 * first.level:g}% bootstrap, {len(first['pll'].replicates)} resamples of the test "
        f"examples, seed {first.seed}"
    )
    return found
