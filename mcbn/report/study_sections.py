"""The sections of a report on a study, below its first screen."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from mcbn.evaluation import glossary
from mcbn.report import page, study_tables
from mcbn.report.common_sections import ending
from mcbn.report.page import Section
from mcbn.report.panels import PanelGroup
from mcbn.report.study_content import PartContent, StudyContent, repeat_command
from mcbn.report.tables import Table
from mcbn.study import declaration, summary
from mcbn.study.contrasts import Contrast
from mcbn.study.given import TRAINED

LIMITS = (
    "Mutual information of T draws is too low by about 1/T of itself, and their NLL too high by a "
    "bias that falls as 1/T: methods of different T, such as an ensemble and MCBN, are shown as "
    "they are.",
    "Intervals and tests are over splits and seeds: they show how much the means depend on "
    "training and on random draws. With one split they say nothing about another choice of test "
    "examples.",
)
SPLITS = (
    "Splits of one data set share most of their examples, so tests and intervals over splits are "
    "somewhat too optimistic."
)
PUBLISHED = (
    "There is a single published network. Over seeds only its mini-batches differ, so intervals "
    "and tests leave out the randomness of training."
)
MORE_LIMITS = (
    "Student-t intervals over a handful of seeds assume roughly normal values.",
    "The best of many means was chosen after looking at all of them, so it is slightly "
    "overestimated; the tests were planned beforehand and are corrected for their number.",
    "Times were measured once per cell, on machines that may have run other work as well.",
)
TIMES = "Mean wall times over networks."
MAX_FIGURES = 64  # of all parts together: more make a page slow and heavy
CUT = (
    "There are more figures than a page can hold: of the later parts only the main ones are shown. "
    "All numbers are in report.json, and mcbn report --figures writes every figure."
)


def study_sections(
    content: StudyContent, groups: Mapping[str, Sequence[PanelGroup]]
) -> Iterator[Section]:
    """The sections of a study; those without data are missing.

    Args:
        content: of the page.
        groups: the figures of the study as a whole, by section.
    """
    made = page.rendered(groups)
    if content.choice is not None:
        yield page.section("recommended", "Recommended M", "recommended", groups=made["choice"],
                           choice=str(content.choice))  # fmt: skip
    if len(content.parts) == 1:
        yield from _of_part(content.parts[0], 0, "")
    shown = shown_parts(content.parts)
    for index, part in enumerate(shown if len(shown) > 1 else ()):
        root = f"part-{index}-"
        yield page.section(f"{root}part", part.name, "part", checks=part.claims, name=part.name,
                           sections=list(_of_part(part, index, root)))  # fmt: skip
    if "N" in made:
        trends = study_tables.trends(content.trends, root="trends")
        yield page.section("N", "Training examples", "examples_swept", groups=made["N"],
                           trends=trends)  # fmt: skip
    if "T" in made:
        yield page.section("T", "Number of draws", "draws_swept", groups=made["T"])
    plan = content.study.plan
    yield from ending(
        _limits(content), plan.shown, glossary.STUDY_WORDS, _setup(content),
        declaration=declaration.to_yaml(plan), failures=study_tables.failures(content.study),
    )  # fmt: skip


def shown_parts(parts: Sequence[PartContent]) -> list[PartContent]:
    """Parts with as many figures as a page can hold: all, then the main ones, then none.

    Every number is in `report.json`, and every figure among the files of figures.
    """
    shown, count = [], 0
    for part in parts:
        forms = (part, _brief(part), replace(part, groups={}, contrasts={}))
        chosen = next(
            (each for each in forms[:2] if count + _figure_count(each) <= MAX_FIGURES), forms[2]
        )
        count += _figure_count(chosen)
        shown.append(chosen)
    return shown


def _brief(part: PartContent) -> PartContent:
    """A part with the figures and tests of its main score and of its spread."""
    groups = {name: part.groups[name] for name in ("slopes",) if name in part.groups}
    if first := part.groups.get("scores", [])[:1]:
        # Scores whose legends are equal share a group, the main one first.
        main = replace(first[0], panels=first[0].panels[: len(part.study.training_batch_sizes)])
        groups = {"scores": [main], **groups}
    score = summary.main_score(part.study)
    contrasts: dict[str, tuple[Contrast, ...]] = {
        name: tests for name, tests in part.contrasts.items() if name == score
    }
    return replace(part, groups=groups, contrasts=contrasts)


def _figure_count(part: PartContent) -> int:
    return sum(len(group.panels) for groups in part.groups.values() for group in groups)


def _of_part(part: PartContent, index: int, root: str) -> Iterator[Section]:
    """The sections of one part, whose addresses begin with `root`."""
    made = page.rendered(part.groups, prefix=root)
    at, study = f"parts.{index}", part.study
    names, sizes = list(part.means[0].scores), study.training_batch_sizes
    yield page.section(
        f"{root}scores", "Scores", "study_scores", groups=made.get("scores"),
        over=study.batch_sizes,
        scores=study_tables.scores(part.means, names, root=f"{at}.means"),
    )  # fmt: skip
    if "slopes" in made:
        yield page.section(
            f"{root}slopes", "Epistemic spread", "slopes", groups=made["slopes"],
            slopes=study_tables.slopes(part.slopes, sizes, root=f"{at}.slopes"),
            corrected=any(slope.corrected for slope in part.slopes),
        )  # fmt: skip
    if "outside" in made:
        yield page.section(f"{root}outside", "Out of distribution", "study_outside",
                           groups=made["outside"])  # fmt: skip
    tests = [
        study_tables.contrasts(each, sizes, root=f"{at}.contrasts.{score}")
        for score, each in part.contrasts.items()
    ]
    if tests:
        yield page.section(f"{root}tests", "Differences", "tests", contrasts=tests)
    if "heat" in made:
        heat = _heat_tables(part.groups["heat"], f"{at}.figures.heat.0.panels")
        yield page.section(f"{root}heat", "Training and inference M", "heat", groups=made["heat"],
                           heat=heat)  # fmt: skip
    cost = study_tables.cost(part.costs, root=f"{at}.costs")
    if cost:
        yield page.section(f"{root}cost", "Cost", "cost", cost=cost, note=TIMES)


def _heat_tables(groups: Sequence[PanelGroup], root: str) -> list[Table]:
    return [
        study_tables.heat_map(panel.numbers, panel.title, root=f"{root}.{index}")
        for group in groups
        for index, panel in enumerate(group.panels)
    ]


def _limits(content: StudyContent) -> list[str]:
    plan = content.study.plan
    own = [SPLITS] if len(plan.data.splits) > 1 else []
    own += [PUBLISHED] if "resnet20" in plan.network.names else []
    own += [CUT] if shown_parts(content.parts) != list(content.parts) else []
    return [*LIMITS, *own, *MORE_LIMITS]


def _setup(content: StudyContent) -> dict[str, Any]:
    """How to repeat the study."""
    plan = content.study.plan
    if command := repeat_command(plan):
        return {"Repeat": f"{command}, with the declaration below as study.yaml"}
    if plan.given.fit == TRAINED:
        return {"Repeat": "A trained network was swept: call mcbn.sweep with it again."}
    return {
        "Repeat": "The networks of the declaration below are of several functions, of which a "
        "command can name only one: pass the plan to mcbn.run_study."
    }
