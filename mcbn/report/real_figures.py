"""The figures of a report on methods for real values, by section."""

from mcbn.report import panels
from mcbn.report.drift_section import drift_group
from mcbn.report.panels import PanelGroup
from mcbn.report.real_content import RealContent


def real_figures(content: RealContent) -> dict[str, list[PanelGroup]]:
    """The figures of methods for real values by section."""
    level = content.evaluations[content.baseline].level
    groups = {
        "pit": [panels.pit_group(content.transforms, level=level)],
        "quantiles": [panels.quantile_group(content.transforms, level=level)],
    }
    if content.groups:
        groups["groups"] = [
            panels.subgroup_group(column, methods) for column, methods in content.groups.items()
        ]
    if content.drift:
        groups["drift"] = [drift_group(content.drift)]
    return groups
