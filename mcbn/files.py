"""Files of tensors with a header: written whole or not at all, read without running anything."""

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

VERSION = 1


def write_whole(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file so that nobody ever sees a part of it: beside the target, synced, renamed."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    _sync_directory(target.parent)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync_directory(directory: Path) -> None:
    """Make the rename itself durable, where the system can open a directory."""
    try:
        handle = os.open(directory, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


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
