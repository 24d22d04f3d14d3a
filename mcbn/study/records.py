"""The record beside each result: the configuration that it is of, and what made it."""

import json
import os
from collections.abc import Iterable
from itertools import chain
from typing import get_args

from mcbn.study.cell import Cell, Network, as_fields
from mcbn.study.names import PUBLISHED
from mcbn.study.provenance import Provenance
from mcbn.study.store import CONFIGURATION, Kind, Store, as_json
from mcbn.tasks.files import digest
from mcbn.tasks.names import OUTSIDE, DataName

PROVENANCE = "provenance"  # beside the fields of the configuration

# Data sets, out-of-distribution sets and weights whose files are known.
KNOWN = {*get_args(DataName), *chain.from_iterable(OUTSIDE.values()), PUBLISHED}

Item = tuple[Kind, str, Network | Cell]


def make_record(job: Network | Cell, provenance: Provenance) -> bytes:
    """The JSON of a record."""
    return as_json({**as_fields(job), PROVENANCE: provenance.to_dict()})


def read_provenance(store: Store, kind: Kind, key: str, job: Network | Cell) -> Provenance | None:
    """Read what made a finished result; None if an earlier version of mcbn did not record it.

    Raises:
        ValueError: the record is damaged, or is that of another configuration.
    """
    values = store.read_json(kind, key, CONFIGURATION)
    recorded = values.pop(PROVENANCE, None)
    path = store.path(kind, key, CONFIGURATION)
    remedy = f"remove the folder {path.parent} and run the study again"
    if values != json.loads(as_json(as_fields(job))):
        raise ValueError(f"expected the configuration of {job} in {path}, got another; {remedy}")
    try:
        return None if recorded is None else Provenance.from_dict(recorded)
    except ValueError as error:
        raise ValueError(f"expected what made {job} in {path}, got {error}; {remedy}") from error


def shared_provenance(store: Store, items: Iterable[Item], *, resume: bool = False) -> Provenance:
    """What all these finished results were made from.

    Args:
        store: the folder of the study.
        items: kind, key and configuration of each result.
        resume: whether more results are to be added, which those of earlier versions of mcbn, that
            did not record what made them, do not allow.

    Raises:
        ValueError: they were made from several networks or data sets of one name, or a record is
            damaged.
    """
    shared, recorded = Provenance(), None
    for kind, key, job in items:
        found = read_provenance(store, kind, key, job)
        if found is None and resume:
            raise ValueError(
                f"expected results that say from which network and data they were made, got "
                f"{store.folder} of an earlier version of mcbn; {_remedies(store)}"
            )
        if recorded is not None and recorded != (found is not None):
            raise ValueError(
                f"expected results of one version of mcbn in {store.folder}, got {job} of another; "
                f"{_remedies(store)}"
            )
        recorded = found is not None
        if found is None:
            continue
        if differences := shared.differences(found):
            raise ValueError(
                f"expected results that were made from one network and one data set of a name in "
                f"{store.folder}, got {'; '.join(differences)} for {job}; {_remedies(store)}"
            )
        shared = shared.merged(found)
    return shared


def require_same(known: Provenance, found: Provenance, folder: str | os.PathLike[str]) -> None:
    """Check that what a new result would be made from is what made the finished ones.

    Raises:
        ValueError: it differs; says in which respect.
    """
    if differences := known.differences(found):
        raise ValueError(
            f"expected what the finished results in {folder} were made from, got "
            f"{'; '.join(differences)}; undo the change, give another folder, or remove {folder} "
            "to discard its results"
        )


def _remedies(store: Store) -> str:
    return f"give another folder, or remove {store.folder} to discard its results, and run again"


def data_digests(job: Network | Cell) -> dict[str, str]:
    """Digests of the files that a job reads; without those that are not there."""
    network = job if isinstance(job, Network) else job.network
    names = [network.data, *([] if isinstance(job, Network) else job.outside)]
    return present_digests([*names, *([PUBLISHED] if network.published else [])])


def present_digests(names: Iterable[str]) -> dict[str, str]:
    """Digests of the data sets whose files are there."""
    found = {name: digest(name) for name in names if name in KNOWN}
    return {name: each for name, each in found.items() if each is not None}
