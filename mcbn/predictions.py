"""Predictions as a file: a method's predictive of some examples, with their targets."""

import os
from dataclasses import dataclass

import torch
from torch import Tensor

from mcbn.categorical import CategoricalPredictive
from mcbn.files import read_tensors, write_tensors

KIND = "predictions"
PARTS = ("log_probabilities", "expected_entropy", "variance", "variation_ratio")


@dataclass(frozen=True, eq=False)
class Predictions:
    """What one method said of some examples, and the answers where they are known.

    Attributes:
        method: name of the method.
        predictive: its predictive distribution.
        targets: class indices; None for examples without (out-of-distribution inputs).
        data: what was predicted, in words.
    """

    method: str
    predictive: CategoricalPredictive
    targets: Tensor | None
    data: str

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one safetensors file, whole or not at all."""
        tensors = {name: getattr(self.predictive, name) for name in PARTS}
        if self.targets is not None:
            tensors["targets"] = self.targets
        header = {
            "method": self.method,
            "data": self.data,
            "draws": self.predictive.draw_count,
        }
        write_tensors(path, tensors, kind=KIND, header=header)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Predictions":
        """Read a file that `save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is truncated, corrupted, foreign or of another version.
        """
        tensors, header = read_tensors(path, kind=KIND)
        _require_whole(tensors, header, path)
        predictive = CategoricalPredictive(
            **{name: tensors[name] for name in PARTS}, draw_count=header["draws"]
        )
        return cls(header["method"], predictive, tensors.get("targets"), header["data"])


def _require_whole(
    tensors: dict[str, Tensor], header: dict[str, object], path: str | os.PathLike[str]
) -> None:
    logs = tensors.get("log_probabilities")
    fits = (
        logs is not None
        and logs.ndim >= 2
        and all(name in tensors and tensors[name].dtype == torch.float64 for name in PARTS)
        and tensors["variance"].shape == logs.shape
        and all(
            tensors[name].shape == logs[:, 0].shape
            for name in ("expected_entropy", "variation_ratio")
        )
        and isinstance(header.get("draws"), int)
        and all(isinstance(header.get(name), str) for name in ("method", "data"))
    )
    if not fits:
        raise ValueError(
            f"expected the tensors {PARTS} in predictions, got {path} with "
            f"{ {name: tuple(value.shape) for name, value in tensors.items()} }; predict again"
        )
