"""Files of tensors with a JSON header: written atomically, read without running any code."""

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from mcbn.io.archives import damaged
from mcbn.io.atomic import replacing, write_whole
from mcbn.io.plain import to_json, to_plain

VERSION = 1
DRAWS_KIND = "draws"
DrawType = Literal["float32", "float16"]
# By name: the type in memory, its name in the file, and the bytes per number.
DRAW_TYPES: Mapping[str, tuple[torch.dtype, str, int]] = {
    "float32": (torch.float32, "F32", 4),
    "float16": (torch.float16, "F16", 2),
}

# The types of tensors that are written rows by rows, by their names in a file, in the order of the
# format, whose largest come first.
DTYPES = {torch.bool: "BOOL", torch.uint8: "U8", torch.int8: "I8", torch.int16: "I16",
          torch.float16: "F16", torch.int32: "I32",
          torch.float32: "F32", torch.float64: "F64", torch.int64: "I64"}  # fmt: skip
ORDER = tuple(DTYPES)


def write_tensors(
    path: str | os.PathLike[str],
    tensors: Mapping[str, Tensor],
    *,
    kind: str,
    header: Mapping[str, Any],
    version: int = VERSION,
) -> None:
    """Write tensors and a JSON header as one safetensors file of the given kind and version."""
    # A single metadata entry: safetensors writes several in no fixed order, and the bytes of a
    # file are guaranteed.
    line = _header_text(kind, {"version": version, **header}, path)
    # Cloned: safetensors refuses tensors that share memory.
    separate = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    write_whole(path, save(separate, {"mcbn": line}))


def _header_text(kind: str, header: Mapping[str, Any], path: object) -> str:
    """A header as JSON; it comes back as it is, so what JSON does not have is refused."""
    for name, value in header.items():
        if to_plain(value) is None and value is not None:
            raise ValueError(
                f"expected finite numbers in the header of {path}, got {value} for {name!r}; make "
                f"the {kind} anew from finite ones"
            )
    return to_json({"kind": kind, "version": VERSION, **header}, sort_keys=True)


def read_tensors(
    path: str | os.PathLike[str], *, kind: str, versions: Sequence[int] = (VERSION,)
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the tensors and the header of a file that `write_tensors` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a readable mcbn file, or is one of another kind or version.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"expected a {kind} file at {path}, got none; check the path")
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get("mcbn", "{}"))
            _require_kind(header, kind, versions, path)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, json.JSONDecodeError, RecursionError) as error:
        raise damaged(path, f"the content of an mcbn {kind} file", error) from error
    return tensors, header


def _require_kind(header: Any, kind: str, versions: Sequence[int], path: Path) -> None:
    if not isinstance(header, dict) or header.get("kind") != kind:
        other = header.get("kind") if isinstance(header, dict) else None
        got = "a file that mcbn did not write" if other is None else f"a file of kind {other!r}"
        raise ValueError(
            f"expected an mcbn {kind} file at {path}, got {got}; give the path of a {kind} file"
        )
    if header.get("version") not in versions:
        raise ValueError(
            f"expected version {versions[-1]} of a {kind} file, got version "
            f"{header.get('version')!r} in {path}; read it with the mcbn that wrote it, or write "
            "it again"
        )


@contextmanager
def draws_file(
    path: str | os.PathLike[str],
    *,
    examples: int,
    precision: str = "float32",
    header: Mapping[str, Any],
) -> Iterator[Callable[[Tensor], None]]:
    """Open a draws file for writing batch by batch; only one batch is in memory at a time.

    The file is safetensors with one tensor, `draws`, of axes (draws, examples, ...). It appears at
    `path` once the block has ended without an error and all examples were written.

    Args:
        path: of the file.
        examples: their number over all batches.
        precision: type of the numbers in the file, float32 or float16.
        header: written into the file, as JSON.

    Yields:
        A function that writes the draws of the next batch, with axes (draws, batch, ...).

    Raises:
        ValueError: another number of examples was written, shapes differ between batches, or a
            number is too large for the precision.
    """
    if precision not in DRAW_TYPES:
        raise ValueError(
            f"expected precision to be {' or '.join(DRAW_TYPES)}, got {precision!r}; choose one"
        )
    shape: list[int] = []  # of the whole tensor, known from the first batch on
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
                    f"{tuple(batch.shape)} after {done} examples; check examples= and that all "
                    "batches have the same draws"
                )
            dtype, _, size = DRAW_TYPES[precision]
            row_bytes = size * math.prod(shape[2:])  # of one example in one draw
            for draw, rows in enumerate(_to_precision(batch, dtype)):
                position = start + row_bytes * (draw * examples + done)
                _write_at(handle, rows.contiguous().numpy().tobytes(), position)
            done += batch.shape[1]

        yield add
        if done != examples:
            raise ValueError(
                f"expected draws of {examples} examples, got {done}; write the other batches too, "
                "or lower examples="
            )


def read_draws(path: str | os.PathLike[str]) -> tuple[Tensor, dict[str, Any]]:
    """Read the draws that `draws_file` wrote, with axes (draws, examples, ...), and their header.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a readable mcbn draws file, or is one of another version.
    """
    tensors, header = read_tensors(path, kind=DRAWS_KIND)
    if set(tensors) != {"draws"} or tensors["draws"].ndim < 2:
        raise ValueError(
            f"expected one tensor 'draws' of at least two axes in {path}, got "
            f"{ {name: tuple(value.shape) for name, value in tensors.items()} }; predict again"
        )
    return tensors["draws"], header


@contextmanager
def rows_file(
    path: str | os.PathLike[str],
    *,
    examples: int,
    kind: str,
    header: Mapping[str, Any],
    version: int = VERSION,
) -> Iterator[Callable[[Mapping[str, Tensor]], None]]:
    """Open a file of tensors for writing some rows of each at a time, which are then forgotten.

    The bytes are those of `write_tensors` of the whole tensors. The file appears at `path` once the
    block has ended without an error and all rows were written.

    Args:
        path: of the file.
        examples: rows of every tensor in all.
        kind: see `write_tensors`.
        header: see `write_tensors`.
        version: see `write_tensors`.

    Yields:
        A function that writes the next rows of every tensor, by name.

    Raises:
        ValueError: another number of rows was written, or other tensors than before.
    """
    line = _header_text(kind, {"version": version, **header}, path)
    layout: dict[str, tuple[tuple[int, ...], torch.dtype, int]] = {}
    done = 0
    with replacing(path) as handle:

        def add(rows: Mapping[str, Tensor]) -> None:
            nonlocal layout, done
            whole = {name: ((examples, *each.shape[1:]), each.dtype) for name, each in rows.items()}
            layout = layout or _write_layout(handle, line, whole)
            count = len(next(iter(rows.values())))
            known = {name: (shape, dtype) for name, (shape, dtype, _) in layout.items()}
            if whole != known or done + count > examples:
                raise ValueError(
                    f"expected {examples} rows of one shape and type in all, got others after "
                    f"{done}: {_in_words(whole)} and {_in_words(known)}; write the same tensors "
                    "each time"
                )
            for name, each in rows.items():
                content = each.detach().cpu().contiguous().numpy().tobytes()
                _write_at(handle, content, layout[name][2] + done * (len(content) // count))
            done += count

        yield add
        if done != examples:
            raise ValueError(
                f"expected {examples} rows, got {done}; write the others too, or lower examples="
            )


def _write_layout(
    handle: int, line: str, whole: Mapping[str, tuple[tuple[int, ...], torch.dtype]]
) -> dict[str, tuple[tuple[int, ...], torch.dtype, int]]:
    """Write the safetensors header, and return where the numbers of each tensor begin."""
    about: dict[str, Any] = {"__metadata__": {"mcbn": line}}
    # The order of safetensors, in which every tensor is aligned.
    names = sorted(whole, key=lambda name: (-ORDER.index(whole[name][1]), name))
    starts, end = {}, 0
    for name in names:
        shape, dtype = whole[name]
        starts[name], end = end, end + dtype.itemsize * math.prod(shape)
        about[name] = {
            "dtype": DTYPES[dtype], "shape": list(shape), "data_offsets": [starts[name], end]
        }  # fmt: skip
    start = _write_about(handle, about, end)
    return {name: (*whole[name], start + starts[name]) for name in names}


def _in_words(tensors: Mapping[str, tuple[tuple[int, ...], torch.dtype]]) -> dict[str, str]:
    return {name: f"{dtype} {shape}" for name, (shape, dtype) in tensors.items()}


def _write_header(handle: int, shape: list[int], precision: str, header: Mapping[str, Any]) -> int:
    """Write the safetensors header, and return the position where the numbers begin."""
    line = _header_text(DRAWS_KIND, header, "draws")
    _, name, size = DRAW_TYPES[precision]
    count = size * math.prod(shape)
    about = {
        "__metadata__": {"mcbn": line},
        "draws": {"dtype": name, "shape": shape, "data_offsets": [0, count]},
    }
    return _write_about(handle, about, count)


def _write_about(handle: int, about: Mapping[str, Any], count: int) -> int:
    """Write what stands before `count` bytes of numbers, and return where these begin."""
    # As safetensors writes it.
    text = to_json(about, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the format requires numbers to begin at a multiple of 8
    _write_at(handle, len(text).to_bytes(8, "little") + text, 0)
    start = 8 + len(text)
    os.truncate(handle, start + count)  # sets the size; a full disk is noticed only by writes
    return start


def _to_precision(batch: Tensor, dtype: torch.dtype) -> Tensor:
    values = batch.detach().cpu().to(dtype)
    if not bool(values.isfinite().all()):
        raise ValueError(
            f"expected finite draws of at most {torch.finfo(dtype).max:g} for {dtype}, got "
            f"{float(batch.abs().max()):g}; write them as float32, or check the network's outputs"
        )
    return values


def _write_at(handle: int, content: bytes, position: int) -> None:
    unwritten = memoryview(content)
    while unwritten:
        count = os.pwrite(handle, unwritten, position)
        unwritten, position = unwritten[count:], position + count
