"""Formats of exported files, known without what writes them."""

from pathlib import Path
from typing import Literal, get_args

Format = Literal["pt2", "onnx"]


def require_format(path: str | Path, given: Format | None = None) -> Format:
    """The format of a file to write: the given one, or that of its suffix.

    Raises:
        ValueError: it is another.
    """
    path = Path(path)
    chosen = path.suffix.removeprefix(".").lower() if given is None else given
    for each in get_args(Format):
        if chosen == each:
            known: Format = each
            return known
    raise ValueError(
        f"expected a file .pt2 or .onnx, got {given or path.name!r}; name it so, or give "
        'format="pt2" or format="onnx"'
    )
