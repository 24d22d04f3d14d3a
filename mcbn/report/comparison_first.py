"""The first screen of a report on a comparison of methods for classes or labels."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

from mcbn.checks.calibration_states import WORDS, CalibrationState
from mcbn.checks.differences import shown_better
from mcbn.checks.out_of_distribution import OOD_AUROC, common_score
from mcbn.drawing.small_charts import (
    AT_COVERAGE,
    SmallCurve,
    StripRow,
    interval_strip,
    small_reliability,
    small_risk_coverage,
    strip_limits,
)
from mcbn.evaluation import glossary
from mcbn.evaluation.comparison import Comparison
from mcbn.evaluation.evaluation import Evaluation, Score
from mcbn.evaluation.glossary import number
from mcbn.report import headlines, panels, study_panels, tables
from mcbn.report.comparison_content import ComparisonContent
from mcbn.report.first_screen import FirstScreen, Tile
from mcbn.report.panels import PanelGroup
from mcbn.report.tables import DASH, Table, TableCell
from mcbn.study.results import Study

MAX_SHOWN = 3  # methods of a small diagram, or of the figure of the first screen
SHORT = {"uneven": "uneven", "uncertain": "open"}  # states in a column of a table


def comparison_first(content: ComparisonContent) -> FirstScreen:
    """The first screen of a comparison."""
    comparison, checked, states = content.comparison, content.checked, content.states
    values = {name: each["nll"].value for name, each in comparison.evaluations.items()}
    first = comparison.evaluations[comparison.baseline]
    better = shown_better("nll", comparison.differences(), first.level, lowest=True)
    pick = headlines.picked(values, better, checked, lowest=True)
    count = f"{first.examples:,} {content.counted}"
    shown = shown_methods(comparison.entries, pick)
    figure, caption = _figure(comparison, shown, content.study)
    several = len(values) > 1
    return FirstScreen(
        f"{count}, {len(values)} {'methods' if several else 'method'}, "
        f"{100 * first.level:g}% intervals",
        headlines.method_headline(
            comparison.baseline, pick, states, checked, count=count, by_gap=True
        ),
        headlines.method_lede(comparison, pick, states, checked),
        (
            _accuracy_tile(comparison),
            _calibration_tile(comparison, states, shown),
            _selective_tile(comparison, shown),
        ),
        methods_table(content),
        f"Differences of the NLL in nats, paired, with intervals that hold for all of them at "
        f"once; negative is better than {comparison.baseline}." if several else "",
        figure,
        caption,
        checked.claims,
    )  # fmt: skip


def shown_methods(names: Iterable[str], pick: str) -> list[str]:
    """The methods of a small diagram: the baseline, the one to use, and MCBN."""
    first, *others = names
    mcbn = (name for name in others if "MCBN" in name)
    return list(dict.fromkeys([first, *([pick] if pick != first else []), *mcbn, *others]))[
        :MAX_SHOWN
    ]


def style_of(comparison: Comparison, name: str) -> int:
    """The index of the colour of a method, the same everywhere on the page."""
    return list(comparison.entries).index(name)


def _accuracy_tile(comparison: Comparison) -> Tile:
    scores = {name: each["accuracy"] for name, each in comparison.evaluations.items()}
    rows = [StripRow(name, *_ends(score), style) for style, (name, score) in
            enumerate(scores.items())]  # fmt: skip
    best = max(scores, key=lambda name: scores[name].value)
    base = comparison.baseline
    note = f"{best} {_percents(scores[best])}" if len(scores) > 1 else _percents(scores[best])
    if best != base:
        note += f"; {base} {_percent(scores[base].value)}"
    write = partial(glossary.written, "accuracy")
    chart = interval_strip(rows, label="Accuracy of each method with its interval", ticks=True,
                           write=lambda value: f"{write(value)}%")  # fmt: skip
    return Tile("Accuracy", _percent(scores[best].value), note.strip(), chart)


def _calibration_tile(
    comparison: Comparison, states: Mapping[str, CalibrationState], shown: Sequence[str]
) -> Tile:
    base = comparison.baseline
    x, y, _ = panels.words_of(comparison)
    state, curves = states[base], []
    for name in shown:
        bins = comparison.forecasts(name).reliability()
        filled = bins.counts > 0
        curves.append(SmallCurve(
            name, bins.confidence[filled].tolist(), bins.accuracy[filled].tolist(),
            style_of(comparison, name), bins.counts[filled].tolist(),
            number(100 * states[name].gap, 1, signed=True),
        ))  # fmt: skip
    label = f"{y} against {x.lower()} in bins, for {', '.join(shown)}"
    ends = glossary.interval(100 * state.low, 100 * state.high, partial(number, digits=1))
    return Tile(
        f"{x} minus {y.lower()} of {base}", headlines.points(state),
        f"{WORDS[state.state]} {ends}".rstrip(),
        small_reliability(curves, label=label), mark_of(state),
    )  # fmt: skip


def _selective_tile(comparison: Comparison, shown: Sequence[str]) -> Tile:
    curves, risks = [], {}
    for name in comparison.entries:
        curve = comparison.forecasts(name).risk_coverage()
        answered = int((curve.coverage < AT_COVERAGE - 1e-9).sum())
        risks[name] = float(curve.risk[answered]), float(curve.risk[-1])
        if name in shown:
            curves.append(SmallCurve(name, curve.coverage.tolist(), curve.risk.tolist(),
                                     style_of(comparison, name)))  # fmt: skip
    best = min(risks, key=lambda name: risks[name][0])
    base = comparison.baseline
    note = f"{best}; " if len(risks) > 1 else ""
    note += f"{_percent(risks[best][1])} if every one is answered"
    if best != base:
        note += f"; {base} {_percent(risks[base][0])}"
    label = f"Error rate against coverage, for {', '.join(shown)}"
    return Tile("Error rate without the least certain 10%", _percent(risks[best][0]), note,
                small_risk_coverage(curves, label=label))  # fmt: skip


def methods_table(content: ComparisonContent) -> Table:
    """A row per method: accuracy, difference of the NLL, calibration, OOD detection and cost."""
    comparison, states, differences = content.comparison, content.states, content.simultaneous
    base = comparison.baseline
    by = common_score(comparison)
    costs = tables.relative_costs(comparison)
    columns: dict[tuple[str, str], list[TableCell]] = {
        tables.score_heading(name): [
            tables.score_cell(comparison.evaluations, method, name) for method in comparison.entries
        ]
        for name in (("accuracy",) if differences else ("accuracy", "nll"))
    }
    if differences:
        heading = f"NLL minus {base}", "Negative is better; the interval holds for all methods."
        columns[heading] = [
            baseline_cell(comparison.evaluations, "nll"),
            *difference_cells(differences, base, "NLL", list(comparison.entries), best=min),
        ]
    columns["Calibration", "Confidence minus accuracy, in percentage points."] = [
        state_cell(states[name], headlines.points(states[name]), f"calibration.{name}")
        for name in comparison.entries
    ]
    for ood_set in comparison.entries[base].separation if by else ():
        heading = f"AUROC of {ood_set}", f"Detected by {glossary.uncertainty(by or '')}."
        columns[heading] = [
            _auroc_cell(name, entry.separation[ood_set], by or "", ood_set)
            for name, entry in comparison.entries.items()
        ]
    if costs:
        columns["Cost", f"Time of prediction relative to {base}."] = [
            TableCell(f"{value:.3g} \N{MULTIPLICATION SIGN}" if value > 0 else DASH, value=value)
            for value in costs.values()
        ]
    rows = zip(*columns.values(), strict=True)
    return Table("Methods", (("Method", ""), *columns),
                 tuple(zip(comparison.entries, rows, strict=True)))  # fmt: skip


def baseline_cell(evaluations: Mapping[str, Evaluation], score: str) -> TableCell:
    """The score of the baseline, in the column of the differences from it."""
    name, evaluation = next(iter(evaluations.items()))
    value, label = evaluation[score], glossary.label(score)
    return TableCell(glossary.written(score, value.value), f"{label} of the baseline",
                     value.value, key=f"comparison.methods.{name}.scores.{score}")  # fmt: skip


def difference_cells(
    differences: Mapping[str, Score],
    base: str,
    label: str,
    names: Sequence[str],
    *,
    best: Callable[..., float],
) -> Iterator[TableCell]:
    """Differences from the baseline, each as a chart on a common axis and as a number.

    Args:
        differences: by method.
        base: name of the baseline.
        label: of the score.
        names: of all methods, whose order gives their colours.
        best: min where less is better, max where more is.
    """
    strips = {
        name: StripRow(name, *_ends(score), names.index(name))
        for name, score in differences.items()
    }
    limits = strip_limits(list(strips.values()), zero=True)
    write = partial(number, digits=3, signed=True)
    for name, score in differences.items():
        sign = -1 if best is min else 1
        low, high = sorted((sign * score.low, sign * score.high))
        mark = "better" if low > 0 else "worse" if high < 0 else ""
        about = f"{label} of {name} minus that of {base}"
        chart = interval_strip([strips[name]], label=about, limits=limits, zero=True, write=write)
        ends = glossary.interval(score.low, score.high, write)
        yield TableCell(write(score.value), ends, score.value, mark, f"simultaneous.{name}", chart)


def state_cell(state: CalibrationState, below: str, key: str) -> TableCell:
    """The state of a method in words, coloured, with a number below."""
    return TableCell(SHORT.get(state.state, state.state), below, state.gap, mark_of(state),
                     f"{key}.gap", words=True)  # fmt: skip


def _auroc_cell(
    name: str, scores: Mapping[str, Mapping[str, Score]], by: str, ood_set: str
) -> TableCell:
    score = scores[by][OOD_AUROC]
    write = partial(number, digits=3)
    key = f"comparison.methods.{name}.outside.{ood_set}.by.{by}.{OOD_AUROC}"
    ends = glossary.interval(score.low, score.high, write)
    return TableCell(write(score.value), ends, score.value, key=key)


def _figure(
    comparison: Comparison, shown: Sequence[str], study: Study | None
) -> tuple[PanelGroup | None, str]:
    """The figure that matters: NLL over batch sizes where that was studied, else reliability."""
    if study and study.batch_sizes and (group := study_panels.score_group(study, "nll")):
        return replace(group, title="NLL against the inference batch size M"), (
            "MCBN with its 95% band over seeds; methods without M are level lines. Lower is better."
        )
    group = panels.reliability_group(comparison)
    chosen = tuple(panel for panel in group.panels if panel.title in shown)
    x, y, _ = panels.words_of(comparison)
    return replace(group, title=f"{y} against {x.lower()}", panels=chosen), (
        "On the diagonal a method is right as often as it says; below it, it is over-confident."
    )


def mark_of(state: CalibrationState) -> str:
    """The colour of a state: fine, worrying, or neither where the data do not decide."""
    if state.is_bad:
        return "worrying"
    return "fine" if state.state == "calibrated" else ""


def _ends(score: Score) -> tuple[float, float, float]:
    return score.value, score.low, score.high


def _percent(share: float) -> str:
    return f"{number(100 * share, 1)}%"


def _percents(score: Score) -> str:
    return glossary.interval(score.low, score.high, lambda value: number(100 * value, 1))
