"""The tables of docs/performance.md on T draws and on banks."""

from typing import Any

from cases import BANKS, CASES, Case
from contenders import (
    DROPOUT,
    ENGINES,
    LAYOUT,
    OTHER,
    OWN_DROPOUT,
    ROUNDED,
    ROUNDED_DROPOUT,
    ROUNDED_LAYOUT,
)
from page import judged, table

OTHER_BAR = 0.9  # of the other library's time, for every network
DROPOUT_BAR = 1.3  # of T forwards, for dense networks
CHOOSING_BAR = 2.0  # forwards

Runs = dict[Case, dict[str, Any]]


def tables(results: dict[str, Any]) -> str:
    """Format the tables of the page."""
    about, cases = results["machine"], results["cases"]
    runs = {case: cases[case.name] for case in CASES if case.name in cases}
    banks = {case: cases[case.name] for case in BANKS if case.name in cases}
    machine = (
        f"{about['name']}, {about['cores']} cores, {about['threads']} threads, "
        f"PyTorch {about['torch']}.\n"
    )
    parts = [draw_table(runs), rounded_table(runs), engine_table(runs), dropout_table(runs)]
    if results.get("samplers"):
        parts.append(sampler_table(results["samplers"]))
    return "\n".join(["## Processor\n", machine, *parts, floor_table(runs), bank_table(banks)])


def draw_table(runs: Runs) -> str:
    """What people get by default, and what the network alone would take in the best layout."""
    rows = [
        [case.name, judged(entry["ratios"]["auto"], case.bar), cell(entry, LAYOUT),
         f"{entry['floor']['float32']:.2g}", f"{entry['floor']['bytes']:.2g}"]
        for case, entry in runs.items()
    ]  # fmt: skip
    return table(["float32", "auto", LAYOUT, "arithmetic floor", "bytes floor"], rows)


def rounded_table(runs: Runs) -> str:
    """The same in bfloat16."""
    rows = [
        [case.name, judged(entry["ratios"].get(ROUNDED), case.rounded_bar),
         cell(entry, ROUNDED_LAYOUT), f"{entry['floor']['bfloat16']:.2g}"]
        for case, entry in runs.items()
    ]  # fmt: skip
    return table(["bfloat16", "auto", ROUNDED_LAYOUT, "arithmetic floor"], rows)


def engine_table(runs: Runs) -> str:
    """Each engine by itself, in float32, and the other library."""
    names = (*ENGINES[1:], OTHER)
    rows = [
        [case.name, *(cell(entry, name) for name in names),
         judged(entry.get("auto_to_other"), OTHER_BAR)]
        for case, entry in runs.items()
    ]  # fmt: skip
    return table(["engines", *names, f"auto to {OTHER}"], rows)


def dropout_table(runs: Runs) -> str:
    """MC Dropout, of the networks that have dropout."""
    rows = []
    for case, entry in runs.items():
        own = entry["ratios"].get(OWN_DROPOUT)
        if own is not None:
            bar = DROPOUT_BAR if len(case.shape) == 1 else None
            rows.append(
                [case.name, cell(entry, DROPOUT), judged(own, bar), cell(entry, ROUNDED_DROPOUT)]
            )
    return table(["MC Dropout", DROPOUT, OWN_DROPOUT, ROUNDED_DROPOUT], rows)


def sampler_table(samplers: dict[str, dict[str, float]]) -> str:
    """Other samplers in bfloat16, relative to themselves in float32."""
    rows = [[name, *(f"{value:.2f}" for value in ratios.values())]
            for name, ratios in samplers.items()]  # fmt: skip
    names = next(iter(samplers.values()))
    return table(["bfloat16 to the same in float32", *names], rows)


def cell(entry: dict[str, Any], name: str) -> str:
    """One ratio, or the reason why it is missing."""
    if name in entry["ratios"]:
        return f"{entry['ratios'][name]:.2f}"
    return "not installed" if "not installed" in entry["notes"].get(name, "") else "-"


def floor_table(runs: Runs) -> str:
    """What the floors are made of, and the cost of choosing."""
    rows = []
    for case, entry in runs.items():
        rates = entry["floor"]["rates"]
        rows.append([
            case.name, f"{1e3 * entry['plain_seconds'] / entry['draws']:.3g} ms",
            f"{rates['float32']:.0f}", f"{rates['bfloat16']:.0f}", f"{rates['bytes']:.0f}",
            judged(entry["choosing"]["forwards"], CHOOSING_BAR),
            f"{entry['choosing']['tracing alone']:.2f}",
        ])  # fmt: skip
    heads = ["rates and choosing", "one forward", "float32, GFLOP/s", "bfloat16, GFLOP/s", "GB/s",
             "choosing, in forwards", "tracing alone"]  # fmt: skip
    return table(heads, rows)


def bank_table(banks: Runs) -> str:
    """Table of building a bank, from given mini-batches and from a data set."""
    rows = [
        [case.name, judged(entry["ratios"]["collect"], case.bar), f"{entry['drawn']:.2f}",
         cell(entry, "collect with a limit")]
        for case, entry in banks.items()
    ]  # fmt: skip
    heads = ["building a bank", "to T train-mode forwards", "both drawing their mini-batches",
             "with a limit of 512 examples"]  # fmt: skip
    return table(heads, rows)
