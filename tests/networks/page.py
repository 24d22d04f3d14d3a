"""Renders docs/compatibility.md from the results of the matrix."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "compatibility.md"
RESULTS = Path(__file__).parent / "results.json"
STATUSES = ("exact", "exact, with a note", "refused", "wrong")

INTRODUCTION = """\
# Compatibility

Which networks `mcbn` handles exactly, and which it refuses and why. `make -C tools compat` builds
every network below with random weights, checks it and writes this page. It downloads packages but
no weights.

**Exact** means three things.

1. With the statistics of mini-batch B, the network in eval mode has the same output on B as in
   train mode with dropout off. The largest difference is at most {tolerance} of the largest output
   in float32; where rounding in a deep network exceeds that, float64 has to agree to 1e-9. In half
   precision it is at most 3e-2, eight times the rounding of bfloat16.
2. Its tensors, modes, hooks and outputs are the same before and after, bit for bit.
3. `engine="auto"` gives the same as `engine="loop"`, within the same bound.

**Refused** means an error that says what was expected and what to do. Its first part is quoted.

Statistics of deep layers come from few values here (2 to 8 small images), so an error in a variance
would show. The affine parameters are random, and the two draws of every network differ.
"""
CLOSING = """\
## What this does not say

- Weights are random. How good the uncertainty of a trained network is must be measured on data.
- Of each timm module, only the smallest network with batch norm was checked; {modules_without}
  modules have none.
- Every check ran on a CPU and in one process.
"""


def rendered(record: Mapping[str, Any]) -> str:
    """The page for a record of versions and outcomes."""
    outcomes = list(record["outcomes"].values())
    parts = [INTRODUCTION.format(tolerance=f"{record['tolerance']:g}"), "## Counts\n"]
    parts.append(_table(("package", "version", *STATUSES), _counts(record["versions"], outcomes)))
    for package, rows in groupby(outcomes, key=lambda outcome: outcome["package"]):
        parts += [f"## {package}\n", _table(("family", "network", "batch norm", "result"),
                                            _families(list(rows)))]  # fmt: skip
    parts.append(CLOSING.format(modules_without=record["modules_without"]))
    return "\n".join(parts)


def _counts(
    versions: Mapping[str, str], outcomes: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[str, ...]]:
    for package, rows in groupby(outcomes, key=lambda outcome: outcome["package"]):
        counts = Counter(row["status"] for row in rows)
        yield package, versions[package], *(str(counts[status]) for status in STATUSES)
    total = Counter(outcome["status"] for outcome in outcomes)
    yield "all", "", *(str(total[status]) for status in STATUSES)


def _families(rows: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, ...]]:
    """One line for all networks of a family with the same result."""
    lines: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        lines.setdefault((row["family"], row["status"], row["detail"]), []).append(row)
    for (family, status, detail), members in lines.items():
        layers = dict.fromkeys(member["layers"] for member in members if member["layers"])
        kinds = "; ".join(layers) if len(layers) < 3 else f"{next(iter(layers))}; ..."
        result = f"{status}: {detail}" if detail else status
        yield family, "; ".join(member["name"] for member in members), kinds, result


def _table(header: Sequence[str], lines: Iterator[tuple[str, ...]]) -> str:
    rows = [header, ["---"] * len(header), *lines]
    return "".join(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |\n" for row in rows)
