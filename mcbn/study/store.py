"""The folder of a study, which holds finished results, each of them whole.

Each trained network, scored cell and failure is a folder of its own, named by its key and committed
by one rename. So any number of processes and machines may write to one folder without a server or a
lock, and a process that is killed leaves only an unfinished folder, which is removed later.
"""

import os
import secrets
import shutil
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from mcbn.io.atomic import commit_folder, write_whole
from mcbn.io.plain import parse_object, to_json
from mcbn.study.cell import Cell, Network, as_fields
from mcbn.study.given import Given
from mcbn.study.provenance import Provenance

Kind = Literal["networks", "cells", "failures"]
KINDS: tuple[Kind, ...] = ("networks", "cells", "failures")
DECLARATION, GIVEN, RECOMMENDATION = "study.yaml", "given.json", "recommendation.json"
NOTHING_GIVEN = Given()
# An unfinished folder older than this is abandoned, as writing one takes milliseconds.
ABANDONED_SECONDS = 3600.0


@dataclass(frozen=True)
class Store:
    """The folder of a study on disk."""

    folder: Path

    @classmethod
    def create(cls, folder: str | os.PathLike[str]) -> "Store":
        """The store at `folder`, made if it does not exist, without abandoned files.

        Raises:
            OSError: the folder cannot be written to.
        """
        store = cls(Path(folder))
        for name in (*KINDS, "unfinished", "running"):
            (store.folder / name).mkdir(parents=True, exist_ok=True)
        store.sweep()
        return store

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> "Store":
        """The store at an existing `folder`.

        Raises:
            FileNotFoundError: there is no study in the folder.
        """
        store = cls(Path(folder))
        if not (store.folder / DECLARATION).is_file():
            raise FileNotFoundError(
                f"expected a study in {folder}, got a folder without {DECLARATION}; give the "
                "folder that `mcbn study run ... --out` wrote"
            )
        return store

    @property
    def declaration(self) -> Path:
        """The file of the declaration."""
        return self.folder / DECLARATION

    @property
    def recommendation(self) -> Path:
        """The file of the batch size that a sweep recommends."""
        return self.folder / RECOMMENDATION

    def read_recommendation(self) -> dict[str, Any] | None:
        """The choice of batch size that a sweep made; None without one.

        Raises:
            ValueError: its file is damaged.
        """
        if not self.recommendation.is_file():
            return None
        try:
            return parse_object(self.recommendation.read_bytes())
        except ValueError as error:
            raise ValueError(
                f"expected a choice of batch size in {self.recommendation}, got {error}; remove it "
                "and run the sweep again"
            ) from error

    def declare(self, text: str, given: Given = NOTHING_GIVEN) -> None:
        """Write the declaration, and what is given in code, unless the files say so already."""
        files = {self.declaration: text.encode()}
        path = self.folder / GIVEN
        if given != NOTHING_GIVEN or path.exists():
            files = {path: as_json(asdict(given)), **files}
        for path, content in files.items():
            if not (path.is_file() and path.read_bytes() == content):
                write_whole(path, content)

    def given(self) -> Given:
        """What the study is given in code.

        Raises:
            ValueError: its file is damaged.
        """
        path = self.folder / GIVEN
        if not path.is_file():
            return NOTHING_GIVEN
        try:
            return Given.from_dict(parse_object(path.read_bytes()))
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"expected what the study is given in {path}, got: {error}; run the study again"
            ) from error

    def keys(self, kind: Kind) -> frozenset[str]:
        """The keys of all finished items of this kind."""
        with suppress(FileNotFoundError), os.scandir(self.folder / kind) as entries:
            return frozenset(entry.name for entry in entries)
        return frozenset()

    def has(self, kind: Kind, key: str) -> bool:
        """Whether an item is finished."""
        return (self.folder / kind / key).is_dir()

    def path(self, kind: Kind, key: str, name: str) -> Path:
        """The path of a file of a finished item."""
        return self.folder / kind / key / name

    def commit(self, kind: Kind, key: str, files: Mapping[str, bytes]) -> bool:
        """Write the files of an item, which is finished for all processes from then on.

        Returns:
            Whether this call finished it; if another process was first, its files stay.

        Raises:
            OSError: no space, no permission, or a broken disk; nothing is left behind.
        """
        target = self.folder / kind / key
        return commit_folder(target, files, beside=self.folder / "unfinished")

    def read_json(self, kind: Kind, key: str, name: str) -> dict[str, Any]:
        """Read the object in a JSON file of a finished item.

        Raises:
            ValueError: the file was damaged after it was committed.
        """
        path = self.path(kind, key, name)
        try:
            return parse_object(path.read_bytes())
        except (OSError, ValueError) as error:
            raise ValueError(
                f"expected a JSON object in {path}, got {error}; remove the folder "
                f"{path.parent} and run the study again"
            ) from error

    def discard(self, kind: Kind, key: str) -> None:
        """Remove an item, in one step for other processes."""
        doomed = self.folder / "unfinished" / f"{key}.{secrets.token_hex(8)}"
        with suppress(FileNotFoundError):
            os.rename(self.folder / kind / key, doomed)
            shutil.rmtree(doomed, ignore_errors=True)

    def sweep(self, *, older_than: float = ABANDONED_SECONDS) -> int:
        """Remove unfinished folders of processes that were killed; return how many."""
        removed = 0
        for entry in (self.folder / "unfinished").iterdir():
            with suppress(OSError):  # its owner or another process may remove it first
                if time.time() - entry.stat().st_mtime >= older_than:
                    shutil.rmtree(entry)
                    removed += 1
        for marker in (self.folder / "running").iterdir():
            if not _is_alive(marker):
                marker.unlink(missing_ok=True)
        return removed

    @contextmanager
    def mark_running(self, key: str) -> Iterator[None]:
        """Mark `key` as running in this process during the block."""
        marker = self.folder / "running" / f"{key}.{socket.gethostname()}.{os.getpid()}"
        marker.touch()
        try:
            yield
        finally:
            marker.unlink(missing_ok=True)

    def running(self) -> frozenset[str]:
        """Keys that are running in some process; processes of other machines are believed."""
        with suppress(FileNotFoundError):
            markers = (self.folder / "running").iterdir()
            return frozenset(marker.name.split(".")[0] for marker in markers if _is_alive(marker))
        return frozenset()


def _is_alive(marker: Path) -> bool:
    """Whether the process of a marker still runs; on another host or Windows it is assumed."""
    _, _, owner = marker.name.partition(".")
    host, _, process = owner.rpartition(".")
    # On Windows, signal 0 is not a question but an interrupt.
    if host != socket.gethostname() or not process.isdigit() or os.name == "nt":
        return True
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


CONFIGURATION, RESULT, COST, ERROR = "config.json", "scores.json", "cost.json", "error.json"


@dataclass(frozen=True)
class Outcome:
    """Result of one job; its files are in the study folder.

    Attributes:
        error: why the job failed; empty if it did not.
        seconds: wall time, without committing the files.
        scores: scores of a cell that is finished.
        provenance: what it was made from.
    """

    error: str
    seconds: float
    scores: Mapping[str, float]
    provenance: Provenance = field(default_factory=Provenance)


def commit_failure(store: Store, job: Network | Cell, reason: str, details: str = "") -> None:
    """Commit the reason why a job failed, so that the job runs again on request only."""
    record = {"error": reason, "job": str(job), "traceback": details}
    files = {ERROR: as_json(record), CONFIGURATION: as_json(as_fields(job))}
    store.commit("failures", job.key, files)


def as_json(values: Mapping[str, Any]) -> bytes:
    """The bytes of a JSON file, the same for equal values."""
    return (to_json(values, indent=1, sort_keys=True) + "\n").encode()
