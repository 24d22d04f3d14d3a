"""The tables of docs/performance.md."""

from typing import Any

from cases import BANKS, CASES, Case
from contenders import DROPOUT, ENGINES, OTHER, OWN_DROPOUT, ROUNDED

OTHER_BAR = 0.9  # of the other library's time, for every network
CHOOSING_BAR = 2.0  # forwards


def tables(results: dict[str, Any]) -> str:
    """Format the tables of the page; those of a GPU are of gpu_tables.py."""
    about, cases = results["cpu"]["machine"], results["cpu"]["cases"]
    runs = {case: cases[case.name] for case in CASES if case.name in cases}
    banks = {case: cases[case.name] for case in BANKS if case.name in cases}
    machine = (
        f"{about['name']}, {about['cores']} cores, {about['threads']} threads, "
        f"PyTorch {about['torch']}.\n"
    )
    parts = [machine, engine_table(runs), floor_table(runs), bank_table(banks)]
    return "\n".join(["## Processor\n", *parts])


def engine_table(runs: dict[Case, Any]) -> str:
    """Table of times relative to T plain forward passes, by engine."""
    names = (*ENGINES, ROUNDED, OTHER, DROPOUT, OWN_DROPOUT)
    rows = []
    for case, entry in runs.items():
        cells = [cell(entry, name) for name in names]
        bars = (("auto", case.bar), (ROUNDED, case.rounded_bar))
        rows.append(
            [case.name, *cells, *(judged(entry["ratios"].get(name), bar) for name, bar in bars)]
        )
    return table(["ratio to T plain forwards", *names, "bar for auto", "bar in bfloat16"], rows)


def cell(entry: dict[str, Any], name: str) -> str:
    """One ratio, or the reason why it is missing."""
    if name in entry["ratios"]:
        return f"{entry['ratios'][name]:.2f}"
    reason = entry["notes"].get(name, "")
    return next((word for word in ("not installed", "no dropout") if word in reason), "-")


def floor_table(runs: dict[Case, Any]) -> str:
    """Table of the floors, the other library and the cost of choosing."""
    rows = []
    for case, entry in runs.items():
        floor = entry["floor"]
        rows.append([
            case.name, f"{1e3 * entry['plain_seconds'] / entry['draws']:.3g} ms",
            f"{floor['arithmetic']:.2g}", f"{floor['bytes']:.2g}",
            f"{floor['gflops']:.0f}", f"{floor['gigabytes_per_second']:.0f}",
            judged(entry.get("auto_to_other"), OTHER_BAR),
            judged(entry["choosing"]["forwards"], CHOOSING_BAR),
            f"{entry['choosing']['tracing alone']:.2f}",
        ])  # fmt: skip
    heads = ["floors and choosing", "one forward", "arithmetic floor", "bytes floor", "GFLOP/s",
             "GB/s", f"auto to {OTHER}", "choosing, in forwards", "tracing alone"]  # fmt: skip
    return table(heads, rows)


def bank_table(banks: dict[Case, Any]) -> str:
    """Table of building a bank, from given mini-batches and from a data set."""
    rows = [
        [case.name, judged(entry["ratios"]["collect"], case.bar), f"{entry['drawn']:.2f}"]
        for case, entry in banks.items()
    ]
    heads = ["building a bank", "to T train-mode forwards", "both drawing their mini-batches"]
    return table(heads, rows)


def judged(value: float | None, bar: float | None) -> str:
    """A value, its target and whether it is met."""
    if value is None:
        return "-"
    if bar is None:
        return "no bar"
    return f"{value:.2f}, bar {bar:.2f}: {'met' if value <= bar else 'not met'}"


def table(heads: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
