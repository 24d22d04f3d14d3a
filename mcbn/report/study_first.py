"""The first screen of a report on a study."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

from mcbn.checks.claim import Claim
from mcbn.drawing.small_charts import StripRow, interval_strip, small_histogram
from mcbn.evaluation import glossary
from mcbn.report import study_panels, study_tables
from mcbn.report.first_screen import FirstScreen, Tile
from mcbn.report.panels import PanelGroup
from mcbn.report.study_content import PartContent, StudyContent
from mcbn.report.tables import DASH, NO_CHART, Table, TableCell
from mcbn.study.contrasts import BASELINE
from mcbn.study.given import TRAINED
from mcbn.study.results import Point, Study
from mcbn.study.summary import Means, best, main_score, pooled, span

BEST, RECOMMENDED = "MCBN019", "MCBN014"


def study_first(content: StudyContent) -> FirstScreen:
    """The first screen of a study, also while it runs."""
    study, parts = content.study, content.parts
    single = parts[0] if len(parts) == 1 else None
    tests = [test for part in parts for test in part.main_tests]
    overview = study_tables.overview({part.name: part.study for part in parts}, tests)
    figure, caption = _figure(content, single)
    return FirstScreen(
        f"{len(study.results):,} finished cells, {len(study.methods)} methods, "
        f"{_replicates(study)}, 95% intervals",
        _headline(content, single),
        _lede(content, single),
        tuple(_tiles(content, single)),
        methods_table(single) if single else overview,
        "The best M and training batch size of each method; differences are on the same networks."
        if single else "",
        figure,
        caption,
        tuple(claim for claim in content.checked.claims if single or not claim.part),
    )  # fmt: skip


def _replicates(study: Study) -> str:
    networks = [result.cell.network for result in study.results]
    seeds, splits = {each.seed for each in networks}, {each.split for each in networks}
    text = f"{len(seeds)} {'seed' if len(seeds) == 1 else 'seeds'}"
    return text if len(splits) < 2 else f"{text}, {len(splits)} splits"


def _said(content: StudyContent, code: str) -> Claim | None:
    return next((claim for claim in content.checked.claims if claim.code == code), None)


def _headline(content: StudyContent, single: PartContent | None) -> str:
    study = content.study
    if not study.results:
        return "No cell is finished yet."
    if (choice := content.choice) is not None:
        doubt = ", with doubts" if choice.doubts else ""
        doubt += f", at the {choice.at_bound} end of the search" if choice.at_bound else ""
        return f"Use M = {choice.best:.3g} for this network{doubt}."
    if study.plan.given.fit == TRAINED:
        return "One trained network was swept: its differences between methods may be chance."
    if single is None:
        won = {
            claim.part
            for claim in content.checked.claims
            if claim.code == BEST and claim.topic == "Best method" and claim.mark == "good"
        }
        if not won:
            return (
                f"In none of {len(content.parts)} parts a method is shown to predict better than "
                f"{BASELINE}."
            )
        return (
            f"In {len(won)} of {len(content.parts)} parts a method predicts better than "
            f"{BASELINE}, beyond chance."
        )  # fmt: skip
    return f"{_best_words(content, single)}."


def _best_words(content: StudyContent, part: PartContent) -> str:
    shown = {
        claim.topic
        for claim in content.checked.claims
        if claim.code == BEST and claim.mark == "good"
    }
    over = _replicates(content.study)
    if "Best method" in shown:
        return f"{best(part.study, main_score(part.study))} predicts better than {BASELINE}"
    if "MCBN" in shown:
        return f"MCBN, at the M nearest to that of training, predicts better than {BASELINE}"
    return f"With {over} no method is shown to predict better than {BASELINE}"


def _lede(content: StudyContent, single: PartContent | None) -> str:
    """What the headline rests on: the best mean, its tested difference, and the spread."""
    if content.choice is not None and (claim := _said(content, RECOMMENDED)):
        return claim.sentence
    return f"{_best_sentence(single)} {_spread_sentence(single)}".strip() if single else ""


def _best_sentence(part: PartContent) -> str:
    score = main_score(part.study)
    top = best(part.study, score)
    if top is None:
        return ""
    word = "highest" if glossary.BETTER[score] == "higher" else "lowest"
    text = f"{top}, has the {word} mean {glossary.label(score)}, {span(top.estimate, 4)}"
    test = next((each for each in part.main_tests if top.is_tested_by(each)), None)
    if test is None or math.isnan(test.adjusted):
        return f"{text}."
    found = f"{span(test.difference, 4)}, {glossary.probability(test.adjusted)}"
    return f"{text}; minus {BASELINE} it is {found}."


def _spread_sentence(part: PartContent) -> str:
    slope = pooled(part.study, "epistemic_sd")
    if slope is None:
        return ""
    return (
        f"The epistemic spread of {slope.method} scales as M to the power "
        f"{span(slope.estimate, 2)}."
    )


def _tiles(content: StudyContent, single: PartContent | None) -> Iterator[Tile]:
    study = content.study
    if single is not None:
        yield _best_tile(single)
        if (tile := _spread_tile(single)) is not None:
            yield tile
    else:
        yield Tile("Parts", str(len(content.parts)), "data sets, networks, N or T", NO_CHART)
    total = len(study.results) + len(study.failures) + study.missing
    note = f"{len(study.failures)} failed, {study.missing} missing; {_replicates(study)}"
    mark = "worrying" if study.failures else ""
    yield Tile("Finished cells", f"{len(study.results):,} of {total:,}", note, NO_CHART, mark)


def _best_tile(part: PartContent) -> Tile:
    score = main_score(part.study)
    tops = best_means(part)
    rows = [
        StripRow(means.method, point.mean, point.low, point.high, _style(part, means.method))
        for means in tops
        if math.isfinite((point := means.scores[score]).mean)
    ]
    label = f"Mean {glossary.label(score)}"
    top = best(part.study, score)
    if top is None:
        return Tile(label, DASH, "not finite", NO_CHART)
    write = partial(glossary.written, score)
    chart = interval_strip(rows, label=f"{label} of each method", ticks=True, write=write)
    ends = glossary.interval(top.estimate.low, top.estimate.high, write)
    return Tile(label, write(top.estimate.mean), f"{top} {ends}".rstrip(), chart)


def _style(part: PartContent, method: str) -> int:
    return list(part.study.methods).index(method)


def _spread_tile(part: PartContent) -> Tile | None:
    slope = pooled(part.study, "epistemic_sd")
    if slope is None:
        return None
    first, last = slope.batch_sizes[0], slope.batch_sizes[-1]
    ratio = (last / first) ** slope.estimate.mean
    shares = [(size / first) ** slope.estimate.mean for size in slope.batch_sizes]
    label = f"Epistemic standard deviation at M = {', '.join(map(str, slope.batch_sizes))}"
    return Tile(
        f"Epistemic spread left at M = {last}", f"{ratio:.2g} \N{MULTIPLICATION SIGN}",
        f"of that at M = {first}, by the slope {span(slope.estimate, 2)}",
        small_histogram(shares, label=label, style=_style(part, slope.method)),
    )  # fmt: skip


def best_means(part: PartContent) -> list[Means]:
    """The means of each method at the batch sizes where its main score is best."""
    score = main_score(part.study)
    sign = -1 if glossary.BETTER[score] == "higher" else 1
    found = []
    for method in part.study.methods:
        own = [each for each in part.means if each.method == method
               and math.isfinite(each.scores[score].mean)]  # fmt: skip
        if own:
            found.append(min(own, key=lambda each: sign * each.scores[score].mean))
    return found


def methods_table(part: PartContent) -> Table:
    """A row per method at its best batch sizes: its mean score, and its tested difference."""
    score, write = main_score(part.study), partial(glossary.written, main_score(part.study))
    rows = []
    for means in best_means(part):
        point = means.scores[score]
        size = means.batch_size
        cells = (
            TableCell(DASH if size is None else str(size), value=size or math.nan),
            TableCell(str(means.training_batch_size), value=means.training_batch_size),
            _point_cell(point, write, f"parts.0.means.{part.means.index(means)}.scores.{score}"),
            _test_cell(part, means),
        )
        rows.append((means.method, cells))
    headings = (
        ("Method", ""), ("Best M", glossary.WORDS["M"]), ("Trained at", "Batch size of training."),
        (glossary.label(score), glossary.SCORES[score].meaning),
        (f"Minus {BASELINE}", "On the same networks; p is corrected for all planned tests."),
    )  # fmt: skip
    return Table("Methods", headings, tuple(rows))


def _point_cell(point: Point, write: partial[str], key: str) -> TableCell:
    ends = glossary.interval(point.low, point.high, write)
    return TableCell(write(point.mean), ends, point.mean, key=f"{key}.mean")


def _test_cell(part: PartContent, means: Means) -> TableCell:
    if means.method == BASELINE:
        return TableCell("baseline")
    place = (means.method, means.batch_size, means.training_batch_size, BASELINE)
    for test in part.main_tests:
        if (test.method, test.batch_size, test.training_batch_size, test.other) == place:
            return study_tables.contrast_cell(test)
    return TableCell(DASH)


def _figure(content: StudyContent, single: PartContent | None) -> tuple[PanelGroup | None, str]:
    """The figure that matters: the main score against M, or against N where that varies."""
    shown: Sequence[PanelGroup] = content.sweep_groups.get("N", ())
    if single is None and shown:
        return shown[0], "At fixed M, against the number of training examples."
    part = single or next(iter(content.parts), None)
    if part is None or not part.study.batch_sizes:
        return None, ""
    score = main_score(part.study)
    group = study_panels.score_group(part.study, score)
    if group is None:
        return None, ""
    title = f"{glossary.label(score)} against the inference batch size M"
    title += f", {part.name}" if part.name else ""
    return replace(group, title=title), (
        "Curves draw mini-batches of M training examples at inference; level lines do not. Bands "
        "are 95% intervals over seeds and splits."
    )
