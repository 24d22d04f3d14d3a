"""The first screen of a report on methods for real values."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import numpy as np

from mcbn.checks.calibration_states import WORDS
from mcbn.checks.claim import with_interval
from mcbn.checks.differences import shown_better, simultaneous_difference
from mcbn.drawing.small_charts import StripRow, interval_strip, small_histogram
from mcbn.evaluation import glossary
from mcbn.evaluation.comparison import paired
from mcbn.evaluation.evaluation import Evaluation
from mcbn.evaluation.glossary import number
from mcbn.report import headlines, panels, tables
from mcbn.report.comparison_first import (
    MAX_SHOWN,
    baseline_cell,
    difference_cells,
    mark_of,
    state_cell,
)
from mcbn.report.first_screen import FirstScreen, Tile
from mcbn.report.real_content import RealContent
from mcbn.report.tables import Table, TableCell

NOTE = (
    "Differences of the predictive log-likelihood in nats, paired, with intervals that hold for "
    "all of them at once; positive is better than "
)


def real_first(content: RealContent) -> FirstScreen:
    """The first screen of methods for real values."""
    values = {name: each["pll"].value for name, each in content.evaluations.items()}
    first = content.evaluations[content.baseline]
    differences = paired(content.evaluations)
    better = shown_better("pll", differences, first.level, lowest=False)
    pick = headlines.picked(values, better, content.checked, lowest=False)
    count, several = f"{first.examples:,} test values", len(values) > 1
    group = panels.pit_group(content.transforms, level=first.level)
    return FirstScreen(
        f"{count}, {len(values)} {'methods' if several else 'method'}, "
        f"{100 * first.level:g}% intervals",
        headlines.method_headline(
            content.baseline, pick, content.states, content.checked, count=count, by_gap=False
        ),
        _lede(content, pick, max(values, key=lambda name: values[name])),
        tuple(_tiles(content)),
        methods_table(content),
        f"{NOTE}{content.baseline}." if several else "",
        replace(group, title="Where the true values lie in their forecasts",
                panels=group.panels[:MAX_SHOWN]),
        "Flat is calibrated; high ends are over-confident, a peak in the middle is "
        "under-confident, a slope is bias.",
        content.checked.claims,
    )  # fmt: skip


def _lede(content: RealContent, pick: str, best: str) -> str:
    """What the headline rests on: of the best method, and of the one to use if that is another."""
    codes = ("MCBN003", "MCBN002")
    said = (headlines.said_by(content.checked, code) for code in codes)
    sentences = [next((claim.sentence for claim in said if claim), "")]
    if pick not in (best, content.baseline):
        level = content.evaluations[pick].level
        gain = simultaneous_difference(pick, "pll", paired(content.evaluations), level)
        sentences.append(f"The PLL of {pick} is higher by {with_interval(gain, 4)} nats.")
    return " ".join(sentences)


def _tiles(content: RealContent) -> list[Tile]:
    scores, unit = content.comparable, content.unit
    name = "rmse" if "rmse" in scores[content.baseline] else "crps"
    tiles = [_strip_tile(scores, name, unit, best=min)] if name in scores[content.baseline] else []
    tiles.append(_coverage_tile(content))
    if "width_90" in scores[content.baseline]:
        tiles.append(_strip_tile(scores, "width_90", unit, best=None))
    if len(tiles) < 3:
        tiles.insert(0, _strip_tile(scores, "pll", "nats", best=max))
    return tiles


def _strip_tile(scores: Mapping[str, Evaluation], name: str, unit: str, *, best: object) -> Tile:
    """A score of every method; of the best one, or of the baseline where no direction is best."""
    known = {method: each[name] for method, each in scores.items()}
    base = next(iter(known))
    chosen = base
    if callable(best):
        chosen = best(known, key=lambda method: known[method].value)
    rows = [
        StripRow(method, score.value, score.low, score.high, style)
        for style, (method, score) in enumerate(known.items())
    ]
    write = partial(glossary.written, name)
    label = f"{glossary.label(name)} of each method with its interval"
    value = f"{write(known[chosen].value)} {unit}".strip()
    ends = glossary.interval(known[chosen].low, known[chosen].high, write)
    note = f"{chosen} {ends}" if len(known) > 1 else ends
    if chosen != base:
        note += f"; {base} {write(known[base].value)}"
    return Tile(glossary.label(name), value, note, interval_strip(rows, label=label, ticks=True))


def _coverage_tile(content: RealContent) -> Tile:
    name = content.baseline
    score, state = content.evaluations[name]["coverage_90"], content.states[name]
    bins = content.transforms[name].bins
    heights = bins / max(bins.sum(), 1) * len(bins)
    label = f"Histogram of the probability integral transforms of {name}: flat if calibrated"
    chart = small_histogram(np.asarray(heights).tolist(), label=label, level=1.0)
    ends = glossary.interval(score.low, score.high, lambda value: number(100 * value, 1))
    return Tile(f"Coverage of the 90% intervals of {name}", f"{number(100 * score.value, 1)}%",
                f"{WORDS[state.state]} {ends}".rstrip(), chart, mark_of(state))  # fmt: skip


def methods_table(content: RealContent) -> Table:
    """A row per method: scores, difference of the log-likelihood, and calibration."""
    scores, unit, base = content.comparable, content.unit, content.baseline
    columns: dict[tuple[str, str], list[TableCell]] = {
        tables.score_heading(name, unit): [
            tables.score_cell(scores, method, name) for method in scores
        ]
        for name in (("rmse", "coverage_90") if len(scores) > 1 else ("pll", "rmse", "coverage_90"))
        if name in scores[base]
    }
    if len(scores) > 1:
        heading = f"PLL minus {base}", "Positive is better; the interval holds for all methods."
        cells = difference_cells(content.simultaneous, base, "PLL", list(scores), best=max)
        columns[heading] = [baseline_cell(scores, "pll"), *cells]
    heading = "Calibration", "By the coverage of the intervals and the transforms (PIT)."
    columns[heading] = [
        state_cell(content.states[name], "", f"calibration.{name}") for name in scores
    ]
    rows = zip(*columns.values(), strict=True)
    return Table("Methods", (("Method", ""), *columns), tuple(zip(scores, rows, strict=True)))
