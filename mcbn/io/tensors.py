"""Files of tensors with a header: written whole or not at all, read without running anything."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from mcbn.io.atomic import write_whole

VERSION = 1


def write_tensors(
    path: str | os.PathLike[str],
    tensors: Mapping[str, Tensor],
    *,
    kind: str,
    header: Mapping[str, Any],
) -> None:
    """Write tensors and a JSON header as one safetensors file of the given kind."""
    # One metadata entry: the library writes several in no fixed order, and bytes are a promise.
    line = json.dumps({"kind": kind, "version": VERSION, **header}, sort_keys=True)
    # Cloned: the library refuses tensors that share memory.
    whole = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    write_whole(path, save(whole, {"mcbn": line}))


def read_tensors(
    path: str | os.PathLike[str], *, kind: str
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the tensors and the header of a file that `write_tensors` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is truncated, corrupted, foreign, of another kind or version.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"expected a {kind} file at {path}, got none; check the path")
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get("mcbn", "{}"))
            _require_kind(header, kind, path)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(
            f"expected a {kind} file, got {path}, which is truncated, corrupted or foreign "
            f"({error}); write it again"
        ) from error
    return tensors, header


def _require_kind(header: Any, kind: str, path: Path) -> None:
    if not isinstance(header, dict) or header.get("kind") != kind:
        found = header.get("kind") if isinstance(header, dict) else None
        raise ValueError(
            f"expected a {kind} file, got {path} of kind {found!r}; give a file written by mcbn"
        )
    if header.get("version") != VERSION:
        raise ValueError(
            f"expected version {VERSION} of a {kind} file, got version {header.get('version')!r} "
            f"in {path}; read it with the mcbn that wrote it, or write it again"
        )
