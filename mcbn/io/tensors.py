"""Files of tensors with a header: written whole or not at all, read without running anything."""

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from mcbn.io.atomic import replacing, write_whole

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


KIND = "draws"
DrawType = Literal["float32", "float16"]
# By name: the type in memory, its name in the file, and the bytes of a number.
TYPES: Mapping[str, tuple[torch.dtype, str, int]] = {
    "float32": (torch.float32, "F32", 4),
    "float16": (torch.float16, "F16", 2),
}


@contextmanager
def draws_file(
    path: str | os.PathLike[str],
    *,
    examples: int,
    precision: str = "float32",
    header: Mapping[str, Any],
) -> Iterator[Callable[[Tensor], None]]:
    """A function that takes the draws of one batch after another and writes them to their place.

    The file is safetensors with one tensor, `draws`, of axes (draws, examples, ...). Memory holds
    one batch. The file appears at `path` when the block ends well and all examples were given.

    Args:
        path: of the file.
        examples: how many there will be in all.
        precision: type of the numbers in the file, float32 or float16.
        header: written into the file, as JSON.

    Raises:
        ValueError: another number of examples was given, shapes differ between batches, or a
            number is too large for the precision.
    """
    if precision not in TYPES:
        raise ValueError(f"expected draws as {' or '.join(TYPES)}, got {precision!r}")
    shape: list[int] = []  # of the whole, known with the first batch
    done = start = 0
    with replacing(path) as handle:

        def add(batch: Tensor) -> None:
            nonlocal done, start
            whole = [len(batch), examples, *batch.shape[2:]]
            if not shape:
                shape.extend(whole)
                start = _write_header(handle, whole, precision, header)
            if shape != whole or done + batch.shape[1] > examples:
                raise ValueError(
                    f"expected draws of shape {tuple(shape)} in all, got a batch of shape "
                    f"{tuple(batch.shape)} after {done} examples; give the number of examples"
                )
            kind, _, size = TYPES[precision]
            row = size * math.prod(shape[2:])  # bytes of an example of a draw
            values = _narrowed(batch, kind)
            for draw, rows in enumerate(values):
                place = start + row * (draw * examples + done)
                _write_at(handle, rows.contiguous().numpy().tobytes(), place)
            done += batch.shape[1]

        yield add
        if done != examples:
            raise ValueError(f"expected draws of {examples} examples, got {done}; add the rest")


def read_draws(path: str | os.PathLike[str]) -> tuple[Tensor, dict[str, Any]]:
    """The draws of such a file, with axes (draws, examples, ...), and its header.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is truncated, corrupted, foreign, of another kind or version.
    """
    tensors, header = read_tensors(path, kind=KIND)
    if set(tensors) != {"draws"} or tensors["draws"].ndim < 2:
        raise ValueError(
            f"expected one tensor 'draws' of at least two axes in {path}, got "
            f"{ {name: tuple(value.shape) for name, value in tensors.items()} }; predict again"
        )
    return tensors["draws"], header


def _write_header(handle: int, shape: list[int], precision: str, header: Mapping[str, Any]) -> int:
    """Write what stands before the numbers, and return where these begin."""
    line = json.dumps({"kind": KIND, "version": VERSION, **header}, sort_keys=True)
    _, name, size = TYPES[precision]
    count = size * math.prod(shape)
    about = {
        "__metadata__": {"mcbn": line},
        "draws": {"dtype": name, "shape": shape, "data_offsets": [0, count]},
    }
    text = json.dumps(about).encode()
    text += b" " * (-len(text) % 8)  # numbers begin at a multiple of 8, as the format asks
    _write_at(handle, len(text).to_bytes(8, "little") + text, 0)
    start = 8 + len(text)
    os.truncate(handle, start + count)  # a full disk is not found so, but the size is right
    return start


def _narrowed(batch: Tensor, kind: torch.dtype) -> Tensor:
    values = batch.detach().cpu().to(kind)
    if not bool(values.isfinite().all()):
        raise ValueError(
            f"expected draws of at most {torch.finfo(kind).max:g} for {kind}, got "
            f"{float(batch.abs().max()):g}; write them as float32"
        )
    return values


def _write_at(handle: int, content: bytes, place: int) -> None:
    rest = memoryview(content)
    while rest:
        count = os.pwrite(handle, rest, place)
        rest, place = rest[count:], place + count
