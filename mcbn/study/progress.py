"""How a running study looks: one live line on a terminal, plain lines elsewhere."""

import math
import sys
import time
from dataclasses import dataclass, field
from typing import Any

from tqdm import tqdm

from mcbn.evaluation.glossary import BETTER
from mcbn.study.cell import Cell, Network

QUIET_SECONDS = 10.0  # between plain lines


@dataclass
class Progress:
    """Counts what happens in a study and shows it.

    Attributes:
        networks: how many are to be trained.
        cells: how many are to be scored.
        score: the one that decides what is best so far.
        jobs: how many pieces of work run at once.
        shown: whether anything is shown at all.
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
    _seconds: dict[type, list[float]] = field(default_factory=lambda: {Network: [], Cell: []})
    _said: float = float("-inf")
    _counted: int = 0
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
        """A piece of work was handed out."""
        self.running += 1

    def ended(self, job: Network | Cell, seconds: float, scores: Any, *, failed: bool) -> None:
        """A piece of work came back."""
        self.running -= 1
        self._seconds[type(job)].append(seconds)
        self.failed += failed
        self.done += isinstance(job, Cell) and not failed
        if isinstance(job, Cell) and not failed:
            self._compare(scores.get(self.score, math.nan), str(job))
        self._bar.update()

    def skipped(self, jobs: int) -> None:
        """Work that cannot be done, since what it needs failed."""
        self.failed += jobs
        self._bar.update(jobs)

    def _compare(self, value: float, name: str) -> None:
        if self.score not in BETTER:  # a spread is neither better nor worse
            return
        sign = 1 if BETTER[self.score] == "lower" else -1
        if self.best is None or sign * value < sign * self.best[0]:
            self.best = None if math.isnan(value) else (value, name)

    def line(self) -> str:
        """The state in words."""
        words = [
            f"{self.done}/{self.cells} cells done, {self.running} running, {self.failed} failed"
        ]
        if (left := self._left()) is not None:
            words.append(f"about {tqdm.format_interval(left)} left")
        if self.best is not None:
            words.append(f"best {self.score} {self.best[0]:.4g} ({self.best[1]})")
        return ", ".join(words)

    def _left(self) -> float | None:
        """Seconds left, by the mean time of what is done of each kind."""
        wanted = {Network: self.networks, Cell: self.cells}
        total = 0.0
        for kind, times in self._seconds.items():
            rest = wanted[kind] - len(times)
            if rest > 0 and not times:
                return None
            total += rest * sum(times) / len(times) if times else 0.0
        return total / self.jobs if any(self._seconds.values()) else None

    def show(self, *, last: bool = False) -> None:
        """Show the state, on a terminal at once, elsewhere now and then."""
        if not self.shown or self.networks + self.cells == 0:
            return
        if not self._bar.disable:
            self._bar.set_description_str(self.line())
            return
        news = self.done + self.failed > self._counted
        if news and (last or time.monotonic() - self._said >= QUIET_SECONDS):
            self._said, self._counted = time.monotonic(), self.done + self.failed
            print(f"study: {self.line()}", file=sys.stderr, flush=True)
