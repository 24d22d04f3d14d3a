"""Files of tensors written some rows at a time: the bytes of the whole, or nothing."""

import numpy as np
import pytest
import torch

from mcbn.io.tensors import DTYPES, read_tensors, rows_file, write_tensors

HEADER = {"names": ["a", "\N{LATIN SMALL LETTER E WITH ACUTE}"], "draws": 3}


def tensors():
    generator = torch.Generator().manual_seed(0)
    shapes = ((), (2,), (3, 2))
    return {
        f"{dtype}-{len(shape)}": (90 * torch.rand(7, *shape, generator=generator)).to(dtype)
        for dtype in DTYPES
        for shape in shapes
    }


@pytest.mark.parametrize("cuts", [[7], [1, 6], [3, 1, 3]])
def test_the_bytes_are_those_of_the_whole_tensors(cuts, tmp_path):
    whole = tensors()
    write_tensors(tmp_path / "whole", whole, kind="kind", header=HEADER)
    with rows_file(tmp_path / "rows", examples=7, kind="kind", header=HEADER) as add:
        for part in zip(*(each.split(cuts) for each in whole.values()), strict=True):
            add(dict(zip(whole, part, strict=True)))
        assert not (tmp_path / "rows").exists()
    assert (tmp_path / "rows").read_bytes() == (tmp_path / "whole").read_bytes()
    found, header = read_tensors(tmp_path / "rows", kind="kind")
    assert header["draws"] == 3
    for name, values in whole.items():
        np.testing.assert_array_equal(found[name].float().numpy(), values.float().numpy())


def write_both(path, *parts):
    with rows_file(path, examples=7, kind="kind", header={}) as add:
        for part in parts:
            add(part)


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"a": torch.zeros(5, 2)}, "expected 7 rows of one shape and type in all"),
        ({"a": torch.zeros(4, 3)}, "expected 7 rows of one shape and type in all"),
        ({"a": torch.zeros(4, 2).double()}, "expected 7 rows of one shape and type in all"),
        ({"b": torch.zeros(4, 2)}, "expected 7 rows of one shape and type in all"),
        ({"a": torch.zeros(3, 2)}, "expected 7 rows, got 6"),
    ],
)
def test_other_rows_than_were_announced_leave_the_file_as_it_was(second, message, tmp_path):
    path = tmp_path / "rows"
    path.write_text("before")
    with pytest.raises(ValueError, match=message):
        write_both(path, {"a": torch.ones(3, 2)}, second)
    assert path.read_text() == "before"
    assert [each.name for each in tmp_path.iterdir()] == ["rows"]
