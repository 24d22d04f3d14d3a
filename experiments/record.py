"""Output of an experiment: a JSON file of results and a figure, at full or tiny scale."""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from mcbn.drawing import figures
from mcbn.io.atomic import write_whole

RESULTS = Path(__file__).parent / "results"
STYLE = {**figures.SETTINGS, "grid.color": "#d8d8d8", "savefig.facecolor": "white"}


@dataclass(frozen=True)
class Record:
    """Where the results of one experiment are written.

    Attributes:
        name: name of the script and its files.
        fast: whether to run in seconds, at a scale that proves nothing.
        folder: folder of the files.
    """

    name: str
    fast: bool = False
    folder: Path = RESULTS

    def part(self, key: str, make: Callable[[], Any]) -> Any:
        """Return the result of `make`, stored at once so that an interrupted run can be resumed."""
        path = self.folder / "parts" / f"{self.name}-{key}.json"
        if path.is_file():
            return json.loads(path.read_text())
        path.parent.mkdir(parents=True, exist_ok=True)
        print(f"{self.name}: {key}", file=sys.stderr, flush=True)
        write_whole(path, (json.dumps(rounded(make())) + "\n").encode())
        return json.loads(path.read_text())

    def write(self, result: dict[str, Any]) -> dict[str, Any]:
        """Store the result, rounded to five digits, and delete the parts; return it as stored."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{self.name}.json"
        write_whole(path, (json.dumps(rounded(result), indent=1) + "\n").encode())
        for part in (self.folder / "parts").glob(f"{self.name}-*.json"):
            part.unlink()
        return json.loads(path.read_text())

    def draw(self, figure: Figure) -> None:
        """Store the figure as SVG, with the same bytes for the same figure."""
        metadata = dict.fromkeys(("Date", "Creator"))
        figure.savefig(self.folder / f"{self.name}.svg", metadata=metadata)


def asked(name: str) -> Record:
    """Make the record from the command line."""
    parser = argparse.ArgumentParser(prog=name, allow_abbrev=False)
    parser.add_argument(
        "--fast", action="store_true", help="run in seconds, at a scale that proves nothing"
    )
    parser.add_argument("--out", type=Path, help="folder for the files")
    options = parser.parse_args()
    folder = options.out or (RESULTS / "fast" if options.fast else RESULTS)
    return Record(name, fast=options.fast, folder=folder)


def rounded(value: Any) -> Any:
    """Round every number to five significant digits."""
    if isinstance(value, dict):
        return {str(key): rounded(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(each) for each in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value
