"""A predictor made of files and plain values: a batch of columns in, columns of answers out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch.nn import Module
from torch.utils.data import TensorDataset

from mcbn.bank.bank import Bank
from mcbn.network.checkpoints import load_network
from mcbn.network.inputs import TARGET_KEYS
from mcbn.predictive.categorical import Categorical, CategoricalPredictive
from mcbn.predictive.gaussian import Gaussian
from mcbn.predictive.predict import Predictive, family_of, predict
from mcbn.samplers.batch_norm import MCBatchNorm
from mcbn.samplers.deterministic import Deterministic
from mcbn.samplers.dropout import MCDropout
from mcbn.samplers.sampler import Sampler

Method = Literal["mcbn", "dropout", "deterministic"]
CLASSES = ("prediction", "confidence", "probabilities", "entropy", "mutual_information")
REAL = ("mean", "sd", "epistemic_sd", "aleatoric_sd")


@dataclass(frozen=True, eq=False)
class Predictor:
    """Predictions with their uncertainty for batches of named arrays.

    The form that `ray.data.Dataset.map_batches` takes: the class, with arguments that travel to
    any machine; whoever makes one reads the files there. The numbers are those of `predict`.

    Args:
        model: module:function or file.py:function that builds the network; its code is run.
        weights: checkpoint of the network, .pt or .safetensors.
        bank: file written by `mcbn collect` or `Bank.save`, for the method mcbn.
        method: mcbn, dropout or deterministic.
        draws: T of dropout; MCBN uses every draw of its bank.
        seed: of dropout's masks.
        likelihood: "categorical" for logits, `Gaussian(...)` for real targets.
        inputs: the column, or columns, that the network is called with; by default all but those
            with a usual name of a target or an index. Several are keyword arguments.
        device: where the network runs.

    Raises:
        FileNotFoundError: there is no such file.
        ImportError: there is no such module.
        ValueError: an argument or a file is not as expected.
    """

    model: str
    weights: str | None = field(default=None, kw_only=True)
    bank: str | None = field(default=None, kw_only=True)
    method: Method = field(default="mcbn", kw_only=True)
    draws: int = field(default=64, kw_only=True)
    seed: int = field(default=0, kw_only=True)
    likelihood: Literal["categorical"] | Categorical | Gaussian = field(
        default="categorical", kw_only=True
    )
    inputs: str | Sequence[str] | None = field(default=None, kw_only=True)
    device: str = field(default="cpu", kw_only=True)
    network: Module = field(init=False, repr=False)
    sampler: Sampler = field(init=False, repr=False)

    def __post_init__(self) -> None:
        family_of(self.likelihood)
        if self.method not in get_args(Method):
            raise ValueError(f"expected a method of {get_args(Method)}, got {self.method!r}")
        if self.method == "mcbn" and self.bank is None:
            raise ValueError(
                "expected a bank with the method mcbn, got none; give one by mcbn collect"
            )
        network = load_network(self.model, self.weights).to(self.device)
        # The dataclass is frozen for its users, not for its own making.
        object.__setattr__(self, "network", network)
        object.__setattr__(self, "sampler", _sampler(self))

    def __call__(self, batch: Mapping[str, Any] | np.ndarray) -> dict[str, Any]:
        """The answers of a batch, beside those of its columns that the network was not called with.

        For classes: prediction, confidence, probabilities, entropy, mutual_information (in nats).
        For real targets: mean, sd, epistemic_sd, aleatoric_sd (in target units).

        Args:
            batch: arrays by name, or the inputs alone as an array.

        Raises:
            TypeError: an input column does not hold numbers.
            ValueError: a column is missing, has the name of an answer or another length than the
                first, or there is no example.
        """
        columns = dict(batch) if isinstance(batch, Mapping) else {"inputs": batch}
        names = self._input_names(columns) if isinstance(batch, Mapping) else ["inputs"]
        kept = {name: values for name, values in columns.items() if name not in names}
        if taken := sorted(kept.keys() & {*CLASSES, *REAL}):
            raise ValueError(
                f"expected no column with the name of an answer, got {taken}; rename it"
            )
        data = _data_set(columns, names, self.network)
        # One column is the input itself; a tuple of several would be positional arguments.
        named = None if len(names) == 1 else lambda row: dict(zip(names, row, strict=True))
        family: Any = family_of(self.likelihood)
        return kept | _answers(predict(self.sampler, data, family, select=named, progress=False))

    def _input_names(self, columns: Mapping[str, Any]) -> list[str]:
        asked = [self.inputs] if isinstance(self.inputs, str) else self.inputs
        names = [name for name in columns if name not in TARGET_KEYS] if asked is None else [*asked]
        if not names or any(name not in columns for name in names):
            raise ValueError(
                f"expected the input columns {names}, got a batch with {sorted(columns)}; "
                "name them by inputs="
            )
        if len(names) > 1 and (odd := TARGET_KEYS.intersection(names)):
            raise ValueError(
                f"expected several inputs not to be named like targets, got {sorted(odd)}, which "
                "are left out of a network's keyword arguments; rename them"
            )
        return names


def _sampler(asked: Predictor) -> Sampler:
    if asked.method == "dropout":
        return MCDropout(asked.network, draws=asked.draws, seed=asked.seed)
    if asked.method == "mcbn" and asked.bank is not None:
        return MCBatchNorm(asked.network, Bank.load(asked.bank))
    return Deterministic(asked.network)


def _data_set(columns: Mapping[str, Any], names: Sequence[str], network: Module) -> TensorDataset:
    """The input columns as tensors, real numbers in the type of the network's weights."""
    real = next((p.dtype for p in network.parameters() if p.is_floating_point()), torch.float32)
    tensors = []
    for name in names:
        values = np.asarray(columns[name])
        if values.dtype.kind not in "biuf" or values.ndim == 0:
            raise TypeError(
                f"expected an array of numbers in the input column {name!r}, got "
                f"{values.ndim} axes of {values.dtype}; name the columns by inputs="
            )
        # A shared block of memory cannot be written to, and torch warns of that.
        tensor = torch.from_numpy(np.require(values, requirements=["C", "W"]))
        tensors.append(tensor.to(real) if tensor.is_floating_point() else tensor)
    lengths = [len(tensor) for tensor in tensors]
    if len(set(lengths)) > 1:
        raise ValueError(f"expected input columns of one length, got {lengths}; check {names}")
    return TensorDataset(*tensors)


def _answers(predictive: Predictive) -> dict[str, np.ndarray]:
    if isinstance(predictive, CategoricalPredictive):
        found = {name: getattr(predictive, name) for name in CLASSES}
    else:
        variances = (
            predictive.variance,
            predictive.epistemic_variance,
            predictive.aleatoric_variance,
        )
        found = dict(zip(REAL, (predictive.mean, *(v.sqrt() for v in variances)), strict=True))
    return {name: values.cpu().numpy() for name, values in found.items()}
