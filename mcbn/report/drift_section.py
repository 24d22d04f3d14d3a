"""The section of a page on drift: a figure and a table of tests."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from mcbn.checks.drift import layer_text
from mcbn.drawing.plotted import Plotted
from mcbn.drift.drift_test import DriftTest
from mcbn.evaluation import glossary
from mcbn.report.drift_figure import draw_test
from mcbn.report.panels import Panel, PanelGroup
from mcbn.report.tables import Table, TableCell

HEADINGS = (
    ("Data", ""),
    ("Mini-batches", "How many mini-batches were tested together."),
    ("Size", "Examples in a mini-batch."),
    ("Distance ratio", "Mean distance of the mini-batches over that of the bank's draws. 1 without "
     "drift."),
    ("p", "Chance of distances as large as these, or larger, without drift."),
    ("First layer", "The first layer of the network whose own p value, after Holm's correction, is "
     "at most the level of the test."),
)  # fmt: skip


def drift_group(tests: Mapping[str, DriftTest]) -> PanelGroup:
    """A figure of the distances of each data set."""
    panels = [
        Panel(
            name,
            f"Distances of the mini-batches of {name}, and of the draws of the bank",
            partial(draw_test, test),
            {"distances": list(test.distances), "calibration": list(test.calibration),
             "threshold": test.threshold},
            plotted=(
                Plotted("mini-batches", {"distance": list(test.distances)}, style=1),
                Plotted("draws of the bank", {"distance": list(test.calibration)}),
            ),
        )
        for name, test in tests.items()
    ]  # fmt: skip
    return PanelGroup("", (), tuple(panels))


def drift_table(tests: Mapping[str, DriftTest]) -> Table:
    """A row per data set."""
    return Table("Tests for drift", HEADINGS, tuple(
        (name, _cells(test, f"drift.{name}")) for name, test in tests.items()
    ))  # fmt: skip


def _cells(test: DriftTest, key: str) -> tuple[TableCell, ...]:
    count = len(test.distances)
    layer = "none" if test.first_layer is None else layer_text(test.first_layer)
    return (
        TableCell(f"{count:,}", value=count),
        TableCell(f"{test.batch_size:g}", value=test.batch_size, key=f"{key}.batch_size"),
        TableCell(glossary.number(test.ratio, 2), value=test.ratio),
        TableCell(glossary.significant(test.p_value, 2), value=test.p_value, key=f"{key}.p_value"),
        TableCell(layer),
    )


def drift_dicts(tests: Mapping[str, DriftTest]) -> dict[str, Any]:
    """Every number of the section."""
    return {name: test.to_dict() for name, test in tests.items()}
