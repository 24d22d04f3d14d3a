"""The folder of a study: what is finished lies in it whole, and nothing else counts.

Each trained network, scored cell and failure is a folder of its own, named by its key and committed
by one rename. So any number of processes and machines may write to one folder without a server or a
lock, and one that is killed leaves nothing behind but an unfinished folder that is swept later.
"""

import json
import os
import secrets
import shutil
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from mcbn.io.atomic import commit_folder, write_whole
from mcbn.io.plain import parse_object
from mcbn.study.cell import Cell, Network

Kind = Literal["networks", "cells", "failures"]
KINDS: tuple[Kind, ...] = ("networks", "cells", "failures")
DECLARATION = "study.yaml"
# Unfinished work older than this belongs to nobody: writing takes milliseconds.
ABANDONED_SECONDS = 3600.0


@dataclass(frozen=True)
class Store:
    """The folder of a study on disk."""

    folder: Path

    @classmethod
    def create(cls, folder: str | os.PathLike[str]) -> "Store":
        """The store at `folder`, made if it is not there, swept of what was abandoned.

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
        """The store at `folder`, which must be there.

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
        """The study as it was last declared."""
        return self.folder / DECLARATION

    def declare(self, text: str) -> None:
        """Keep the declaration; a file that says the same is left alone."""
        content = text.encode()
        if not (self.declaration.is_file() and self.declaration.read_bytes() == content):
            write_whole(self.declaration, content)

    def keys(self, kind: Kind) -> frozenset[str]:
        """The keys of everything of this kind that is finished."""
        with suppress(FileNotFoundError), os.scandir(self.folder / kind) as entries:
            return frozenset(entry.name for entry in entries)
        return frozenset()

    def has(self, kind: Kind, key: str) -> bool:
        """Whether it is finished."""
        return (self.folder / kind / key).is_dir()

    def path(self, kind: Kind, key: str, name: str) -> Path:
        """Where a file of something finished lies."""
        return self.folder / kind / key / name

    def commit(self, kind: Kind, key: str, files: Mapping[str, bytes]) -> bool:
        """Finish it: from now on it is there, whole, for everyone.

        Returns:
            Whether this call finished it; what another process finished first stays.

        Raises:
            OSError: no space, no right to write, or a broken disk; nothing is left behind.
        """
        target = self.folder / kind / key
        return commit_folder(target, files, beside=self.folder / "unfinished")

    def read_json(self, kind: Kind, key: str, name: str) -> dict[str, Any]:
        """The object in a JSON file of something finished.

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
        """Take it away, in one step for whoever looks."""
        doomed = self.folder / "unfinished" / f"{key}.{secrets.token_hex(8)}"
        with suppress(FileNotFoundError):
            os.rename(self.folder / kind / key, doomed)
            shutil.rmtree(doomed, ignore_errors=True)

    def sweep(self, *, older_than: float = ABANDONED_SECONDS) -> int:
        """Remove unfinished work of processes that were killed; return how much there was."""
        removed = 0
        for entry in (self.folder / "unfinished").iterdir():
            with suppress(OSError):  # its owner or another sweep may be faster
                if time.time() - entry.stat().st_mtime >= older_than:
                    shutil.rmtree(entry)
                    removed += 1
        for marker in (self.folder / "running").iterdir():
            if not _alive(marker):
                marker.unlink(missing_ok=True)
        return removed

    @contextmanager
    def running(self, key: str) -> Iterator[None]:
        """Say for the length of the block that this process works on `key`."""
        marker = self.folder / "running" / f"{key}.{socket.gethostname()}.{os.getpid()}"
        marker.touch()
        try:
            yield
        finally:
            marker.unlink(missing_ok=True)

    def in_work(self) -> frozenset[str]:
        """Keys that some process works on now, as far as can be told from here."""
        with suppress(FileNotFoundError):
            found = (self.folder / "running").iterdir()
            return frozenset(marker.name.split(".")[0] for marker in found if _alive(marker))
        return frozenset()


def _alive(marker: Path) -> bool:
    """Whether the process behind a marker still runs; of other hosts we believe it."""
    _, _, owner = marker.name.partition(".")
    host, _, process = owner.rpartition(".")
    if host != socket.gethostname() or not process.isdigit():
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
    """What came of one piece of work.

    Attributes:
        error: why it failed; empty if it is done.
        seconds: wall time of the work, without committing it.
        scores: of a cell that is done.
    """

    error: str
    seconds: float
    scores: Mapping[str, float]


def commit_failure(store: Store, job: Network | Cell, reason: str, details: str = "") -> None:
    """Commit that a job failed, with its reason, so that it is not tried again by itself."""
    found = {"error": reason, "job": str(job), "traceback": details}
    files = {ERROR: as_json(found), CONFIGURATION: as_json(asdict(job))}
    store.commit("failures", job.key, files)


def as_json(values: Mapping[str, Any]) -> bytes:
    """The bytes of a JSON file, the same for equal values."""
    return (json.dumps(values, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()
