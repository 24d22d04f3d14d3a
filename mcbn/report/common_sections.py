"""The sections that reports of several kinds have, and how every report ends."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mcbn.drift.drift_test import DriftTest
from mcbn.evaluation import glossary
from mcbn.evaluation.subgroups import Subgroup
from mcbn.recalibration.coverages import SetCoverage
from mcbn.report import page, tables
from mcbn.report.drift_section import drift_table
from mcbn.report.maps import Maps
from mcbn.report.page import Section
from mcbn.report.tables import Table

RULES = {
    "labels": "the most probable labels until their probabilities reach that share of the sum of "
    "all; examples that have no label are not counted",
    "classes": "the most probable classes until their probabilities reach the level",
}
CENTRAL = "the central interval"
INTERVALS = (
    "Intervals show how much the scores depend on the choice of test examples. They leave out the "
    "randomness of training, which only a study over seeds shows."
)


def set_section(sets: Sequence[SetCoverage], unit: str) -> Iterator[Section]:
    """Coverage of prediction sets, or of intervals, where held-out data were given.

    Args:
        sets: of each method and rule.
        unit: what sets hold: "labels", "classes", or the unit of intervals.
    """
    if sets:
        title = "Prediction sets" if unit in RULES else "Prediction intervals"
        yield page.section("sets", title, "sets", sets=tables.set_coverages(sets, unit),
                           rule=RULES.get(unit, CENTRAL))  # fmt: skip


def group_section(
    made: Mapping[str, Any], groups: Mapping[str, Mapping[str, Sequence[Subgroup]]], unit: str = ""
) -> Iterator[Section]:
    """Scores of groups of examples, where there are any."""
    if groups:
        of_groups = [tables.subgroups(name, methods, unit=unit) for name, methods in groups.items()]
        yield page.section("groups", "Groups", "groups", groups=made["groups"], tables=of_groups)


def map_section(maps: Maps) -> Iterator[Section]:
    """Uncertainty maps of dense predictions."""
    if maps.rows:
        yield page.section("maps", "Maps", "maps", maps=maps)


def drift_section(made: Mapping[str, Any], drift: Mapping[str, DriftTest]) -> Iterator[Section]:
    """Tests for drift, where there are any."""
    if drift:
        yield page.section("drift", "Drift", "drift", groups=made["drift"],
                           drift=drift_table(drift))  # fmt: skip


def ending(
    limits: Sequence[str],
    known: Sequence[str],
    words: Mapping[str, str],
    setup: Mapping[str, str],
    *,
    declaration: str = "",
    failures: Table | None = None,
) -> Iterator[Section]:
    """How every report ends: limits, how to repeat it, a glossary and where the numbers are.

    Args:
        limits: what the reader must know.
        known: names of the scores that are explained.
        words: other words that are explained.
        setup: what was measured and how to repeat it, by label.
        declaration: of a study.
        failures: of its cells.
    """
    yield page.section("limits", "Limits", "limits", limits=limits)
    yield page.section("setup", "Setup", "setup", setup=setup, declaration=declaration,
                       failures=failures)  # fmt: skip
    yield page.section("glossary", "Glossary", "glossary", words=words,
                       known=[name for name in glossary.SCORES if name in known])  # fmt: skip
    yield page.section("numbers", "Numbers", "numbers", version=page.SCHEMA)
