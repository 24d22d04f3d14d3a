"""Ask every entry of every network of the zoo; write docs/unusual_networks.md.

usage: python tests/networks/zoo_page.py [--with-exports]

Exports take seconds each; without them their column keeps what the page says now.
"""

import re
import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "helpers"))

from zoo.law import ALL_ENTRIES, WRONG, faults, verdict  # noqa: E402
from zoo.listed import SOURCES  # noqa: E402
from zoo.stranger import ABSENT, EXACT, REFUSED, WARNED  # noqa: E402

PAGE = ROOT / "docs" / "unusual_networks.md"
FAMILIES = tuple(dict.fromkeys(entry.split()[0] for entry in ALL_ENTRIES))
LETTERS = {EXACT: "E", REFUSED: "R", WARNED: "W", WRONG: "x", ABSENT: ""}
INTRODUCTION = """\
# Unusual networks

{networks} small networks as people write them, each asked through every way into `mcbn`. They write
into their inputs, depend on neighbours in the batch, have batch norm of their own, take graphs and
packed sequences, return anything but logits, change with an attribute, or draw at random. The tests
hold each answer to one law: it is exact, or refused in words, or given with a warning that names
the layer or input.

- **E**, exact: what PyTorch alone computes, on copies of the inputs and statistics; the network,
  its attributes, the inputs, the bank and the random streams are as before, bit for bit. For
  `collect`: under the statistics of a mini-batch the network answers for it as in train mode.
- **R**, refused: an error that says what was expected, what came and what to do.
- **W**, warned: a warning or finding names what is not exact.
- **x**, not right yet.

Several letters stand for several entries: `mcbn` are four engines, with all layers and with the
last; `predict` is asked for a tensor, a data set, a loader, and a loader with another batch size;
`switch` asks a new sampler after attributes were changed. An empty cell: there is no such question.

The networks are in `tests/networks/zoo/`; `python tests/networks/zoo_page.py` writes this page.
"""


def main(arguments: list[str]) -> None:
    """Write the page."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    exports = "--with-exports" in arguments
    known = {} if exports else _exports_on_the_page()
    found = {}
    for source in SOURCES:
        for stranger in source.STRANGERS:
            asked = [entry for entry in ALL_ENTRIES if exports or entry[:6] != "export"]
            verdicts = {entry: verdict(stranger, entry) for entry in asked}
            wrong = faults(stranger, verdicts)
            cells = {family: Counter() for family in FAMILIES}
            for entry, answer in verdicts.items():
                kind = WRONG if entry in wrong else answer.kind
                cells[entry.split()[0]][LETTERS[kind]] += 1
            texts = {family: _cell(counts) for family, counts in cells.items()}
            found[stranger.name] = texts | {"export": known.get(stranger.name, texts["export"])}
    PAGE.write_text(rendered(found), "utf-8")


def rendered(found: Mapping[str, Mapping[str, str]]) -> str:
    """The page for the cells of each network."""
    parts = [INTRODUCTION.format(networks=len(found)), "## Counts\n", *_counts(found)]
    for source in SOURCES:
        names = [stranger.name for stranger in source.STRANGERS]
        parts += [f"\n## {_heading(source.__doc__)}\n", _line("network", FAMILIES)]
        parts.append(_line("---", ["---"] * len(FAMILIES)))
        parts += [_line(name, [found[name][family] for family in FAMILIES]) for name in names]
    return "\n".join(parts) + "\n"


def listed() -> set[str]:
    """The names of the networks that the page lists."""
    return set(_rows())


def _counts(found: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    """How many networks have which letters in an entry."""
    yield _line("entry", ["exact", "refused", "warned", "not right yet"])
    yield _line("---", ["---"] * 4)
    for family in FAMILIES:
        cells = [row[family] for row in found.values()]
        yield _line(family, [str(sum(letter in cell for cell in cells)) for letter in "ERWx"])


def _cell(counts: Counter[str]) -> str:
    return " ".join(letter for letter in "ERWx" if counts[letter])


def _line(name: str, cells: list[str] | tuple[str, ...]) -> str:
    return f"| {' | '.join([name, *cells])} |"


def _heading(text: str | None) -> str:
    return (text or "").splitlines()[0].rstrip(".")


def _rows() -> dict[str, list[str]]:
    text = PAGE.read_text("utf-8") if PAGE.exists() else ""
    lines = re.findall(r"^\| (.*) \|$", text, re.MULTILINE)
    rows = [[cell.strip() for cell in line.split(" | ")] for line in lines]
    return {row[0]: row for row in rows if len(row) == len(FAMILIES) + 1 and row[0] != "network"}


def _exports_on_the_page() -> dict[str, str]:
    return {name: row[-1] for name, row in _rows().items() if name != "---"}


if __name__ == "__main__":
    main(sys.argv[1:])
