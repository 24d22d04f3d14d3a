"""The figures of a report on a comparison, by section."""

from mcbn.report import panels, study_panels
from mcbn.report.comparison_content import ComparisonContent
from mcbn.report.drift_section import drift_group
from mcbn.report.panels import PanelGroup

STUDY_SCORES = ("nll", "ece_debiased", "accuracy")


def comparison_figures(content: ComparisonContent) -> dict[str, list[PanelGroup]]:
    """The figures of a comparison by section; a section without data is missing."""
    groups = {
        "reliability": [panels.reliability_group(content.comparison)],
        "selective": [panels.selective_group(content.comparison)],
    }
    if content.comparison.entries[content.comparison.baseline].outside:
        groups["outside"] = [panels.out_of_distribution_group(content.comparison)]
    if content.study and content.study.batch_sizes:
        names = (*STUDY_SCORES, *study_panels.detection_scores(content.study))
        score_groups = [study_panels.score_group(content.study, name) for name in names]
        groups["study"] = [
            study_panels.information_group(content.study),
            *(group for group in score_groups if group),
        ]
    if content.convergence:
        groups["convergence"] = [panels.convergence_group(content.convergence)]
    if content.groups:
        groups["groups"] = [
            panels.subgroup_group(column, methods) for column, methods in content.groups.items()
        ]
    if content.drift:
        groups["drift"] = [drift_group(content.drift)]
    return groups
