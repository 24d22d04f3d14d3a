"""The GPU section of docs/performance.md."""

from typing import Any

from gpu_methods import COMPILED, METHODS
from page import table

CHECKS = {
    "repeats": "the loop repeats its bits",
    "processor": "the loop on the processor",
}


def section(results: dict[str, Any] | None) -> str:
    """The machine, the tables, and what is missing from them."""
    if not results or not results["cases"]:
        return "## GPU\n\nnot measured\n"
    about, cases = results["machine"], results["cases"]
    parts = [
        f"## GPU\n\n{about['name']}, PyTorch {about['torch']}, {results['spent_seconds']:.0f} s.\n",
        method_table(cases),
        floor_table(results["rates"], cases),
        check_table(cases),
    ]
    if results["left"]:
        parts.append(f"No time was left for: {'; '.join(results['left'])}.\n")
    if results["failed"]:
        failures = (f"{name} ({why})" for name, why in results["failed"].items())
        parts.append(f"Failed: {'; '.join(failures)}.\n")
    return "\n".join(parts)


def method_table(cases: dict[str, Any]) -> str:
    """Times by method, relative to T plain float32 forwards, and the most memory of the device."""
    rows = []
    for name in (each.name for each in (*METHODS, *COMPILED)):
        found = [entry["methods"].get(name) for entry in cases.values()]
        if any(found):
            rows.append([name, *map(ratio_cell, found)])
    heads = [f"{name}, T = {entry['draws']}" for name, entry in cases.items()]
    return table(["ratio to T plain float32 forwards; memory", *heads], rows)


def ratio_cell(found: dict[str, Any] | None) -> str:
    """A ratio and the memory, and whether another engine had to do."""
    if found is None:
        return "-"
    memory = f"; {found['peak_bytes'] / 2**30:.2g} GiB" if found["peak_bytes"] else ""
    return f"{found['ratio']:.2f}{memory}{' (gave up)' if found['gave_up'] else ''}"


def floor_table(rates: dict[str, float], cases: dict[str, Any]) -> str:
    """Time of a forward, and the least that T draws can take by arithmetic and by memory."""
    forwards = [f"{1e3 * entry['plain_seconds']:.3g} ms" for entry in cases.values()]
    rows = [["one plain float32 forward", *forwards]]
    for name in next(iter(cases.values()))["floors"]:
        for kind, rate in (("arithmetic", f"{rates[name] / 1e12:.3g} TFLOP/s"),
                           ("bytes", f"{rates['bytes'] / 1e9:.3g} GB/s")):  # fmt: skip
            cells = [f"{entry['floors'][name][kind]:.2g}" for entry in cases.values()]
            rows.append([f"{kind} floor, {name}, {rate}", *cells])
    return table(["floors", *cases], rows)


def check_table(cases: dict[str, Any]) -> str:
    """Largest differences from the loop in float32, relative to the largest output."""
    names = dict.fromkeys(name for entry in cases.values() for name in entry["checks"])
    rows = [
        [CHECKS.get(name, name), *(check_cell(entry["checks"].get(name)) for entry in
                                   cases.values())]
        for name in names
    ]  # fmt: skip
    return table(["largest difference from the float32 loop, to the largest output", *cases], rows)


def check_cell(value: float | bool | None) -> str:
    """A difference, or the answer to a question."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "same bits" if value == 0 else f"{value:.1e}"
