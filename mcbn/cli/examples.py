"""Files of examples for the command line: inputs, targets, and groups of examples."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from mcbn.io.archives import damaged, read_arrays
from mcbn.io.tables import texts


@dataclass(frozen=True, eq=False)
class Examples:
    """Inputs of a network, with targets and groups of examples if the file has them.

    Attributes:
        name: name of the file, without folder and suffix.
        inputs: one row per example.
        targets: class indices or real values; None if not known.
        classes: names of the classes, if they have any.
        columns: a text or whole number per example, by name of the column.
    """

    name: str
    inputs: Tensor
    targets: Tensor | None
    classes: tuple[str, ...]
    columns: Mapping[str, np.ndarray]

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> "Examples":
        """Read a .safetensors file, or an .npz file of any other name.

        `inputs` is required; `targets` and `classes`, the names of classes, are not. Other arrays
        with one text or whole number per example become columns; further arrays are ignored.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is damaged or has no inputs.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(f"expected a data file at {path}, got none; check --data")
        arrays = _arrays(path)
        if "inputs" not in arrays:
            raise ValueError(
                f"expected an array 'inputs' in {path}, got {sorted(arrays)}; rename yours"
            )
        inputs, targets = arrays["inputs"], arrays.get("targets")
        columns = {
            name: values
            for name, values in arrays.items()
            if isinstance(values, np.ndarray)
            and name not in ("inputs", "targets", "classes")
            and values.shape == tuple(inputs.shape[:1])
            and values.dtype.kind in "Ubiu"
        }
        return cls(
            Path(path).stem,
            torch.as_tensor(inputs),
            None if targets is None else torch.as_tensor(targets),
            texts(arrays["classes"]) if "classes" in arrays else (),
            columns,
        )


def _arrays(path: str | os.PathLike[str]) -> dict[str, Any]:
    if Path(path).suffix != ".safetensors":
        return read_arrays(path, expected=".npz or .safetensors data")
    try:
        # Floating-point values stay tensors, since numpy has no bfloat16.
        return {
            name: value if value.is_floating_point() else value.numpy()
            for name, value in load_file(path).items()
        }
    except SafetensorError as error:
        raise damaged(path, ".npz or .safetensors data", error) from error
