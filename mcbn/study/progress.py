"""Progress of a running study: one live line on a terminal, plain lines elsewhere."""

import math
import sys
import time
from dataclasses import dataclass, field
from typing import Any

from tqdm import tqdm

from mcbn.evaluation.glossary import BETTER
from mcbn.study.cell import Cell, Network

PLAIN_LINE_SECONDS = 10.0  # at least, between plain lines


@dataclass
class Progress:
    """Counts the finished jobs of a study and shows them.

    Attributes:
        networks: how many networks are to be trained.
        cells: how many cells are to be scored.
        score: score by which the best cell so far is chosen.
        jobs: how many jobs run at once.
        shown: whether anything is shown.
        done: cells that are scored.
        failed: jobs that failed.
        running: jobs that run now.
        best: the best score so far, and its cell.
    """

    networks: int
    cells: int
    score: str
    jobs: int
    shown: bool = True
    done: int = 0
    failed: int = 0
    running: int = 0
    best: tuple[float, str] | None = None
    # By type of job: how many came back, and their seconds in all.
    _ended: dict[type, int] = field(default_factory=lambda: {Network: 0, Cell: 0})
    _seconds: dict[type, float] = field(default_factory=lambda: {Network: 0.0, Cell: 0.0})
    _printed_at: float = float("-inf")
    _printed_count: int = 0
    _bar: Any = None

    def __enter__(self) -> "Progress":
        live = self.shown and sys.stderr.isatty()
        self._bar = tqdm(
            total=self.networks + self.cells,
            disable=not live,
            bar_format="study {percentage:3.0f}% |{bar:20}| {desc}",
            dynamic_ncols=True,
        )
        self.show()
        return self

    def __exit__(self, *_: object) -> None:
        self.show(last=True)
        self._bar.close()

    def started(self) -> None:
        """Count a job that was submitted."""
        self.running += 1

    def ended(self, job: Network | Cell, seconds: float, scores: Any, *, failed: bool) -> None:
        """Count a job that came back."""
        self.running -= 1
        self._ended[type(job)] += 1
        self._seconds[type(job)] += seconds
        self.failed += failed
        self.done += isinstance(job, Cell) and not failed
        if isinstance(job, Cell) and not failed:
            self._compare(scores.get(self.score, math.nan), str(job))
        self._bar.update()

    def skipped(self, jobs: int) -> None:
        """Count jobs that cannot run, since a network that they need failed."""
        self.failed += jobs
        self._bar.update(jobs)

    def _compare(self, value: float, name: str) -> None:
        if self.score not in BETTER:  # a standard deviation is neither better nor worse
            return
        sign = 1 if BETTER[self.score] == "lower" else -1
        if self.best is None or sign * value < sign * self.best[0]:
            self.best = None if math.isnan(value) else (value, name)

    def line(self) -> str:
        """The progress as one line of text."""
        parts = [
            f"{self.done}/{self.cells} cells done, {self.running} running, {self.failed} failed"
        ]
        if (seconds := self._seconds_left()) is not None:
            parts.append(f"about {tqdm.format_interval(seconds)} left")
        if self.best is not None:
            parts.append(f"best {self.score} {self.best[0]:.4g} ({self.best[1]})")
        return ", ".join(parts)

    def _seconds_left(self) -> float | None:
        """Seconds left, by the mean time of a network and of a cell; None if not known yet."""
        seconds = 0.0
        for kind, total in ((Network, self.networks), (Cell, self.cells)):
            ended = self._ended[kind]
            if ended:
                seconds += (total - ended) * self._seconds[kind] / ended
            elif total:
                return None
        return seconds / self.jobs if any(self._ended.values()) else None

    def show(self, *, last: bool = False) -> None:
        """Show the progress: at once on a terminal, else every `PLAIN_LINE_SECONDS`."""
        if not self.shown or self.networks + self.cells == 0:
            return
        if not self._bar.disable:
            self._bar.set_description_str(self.line())
            return
        changed = self.done + self.failed > self._printed_count
        if changed and (last or time.monotonic() - self._printed_at >= PLAIN_LINE_SECONDS):
            self._printed_at, self._printed_count = time.monotonic(), self.done + self.failed
            print(f"study: {self.line()}", file=sys.stderr, flush=True)
