"""What came of a piece of work, and the files in which a study keeps it."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from mcbn.study.cell import Cell, Network
from mcbn.study.store import Store

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
