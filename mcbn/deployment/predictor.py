"""A predictor for batches of named arrays: predictions as named arrays out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch.nn import Module
from torch.utils.data import TensorDataset

from mcbn.bank.bank import Bank
from mcbn.network.checkpoints import load_network
from mcbn.network.inputs import TARGET_KEYS
from mcbn.predictive.bernoulli import Bernoulli, BernoulliPredictive
from mcbn.predictive.categorical import Categorical, CategoricalPredictive
from mcbn.predictive.gaussian import Gaussian, GaussianPredictive
from mcbn.predictive.likelihood import LikelihoodName, as_likelihood
from mcbn.predictive.multilabel_columns import LABEL_COLUMNS
from mcbn.predictive.predict import networks, predict, require_sampler, require_separate
from mcbn.samplers.batch_norm import MCBatchNorm
from mcbn.samplers.deterministic import Deterministic
from mcbn.samplers.dropout import MCDropout
from mcbn.samplers.precision import require_shared
from mcbn.samplers.sampler import Sampler

PredictorMethod = Literal["mcbn", "dropout", "deterministic"]
CLASS_COLUMNS = ("prediction", "confidence", "probabilities", "entropy", "mutual_information")
REAL_COLUMNS = ("mean", "sd", "epistemic_sd", "aleatoric_sd")


@dataclass(frozen=True, eq=False)
class Predictor:
    """Predictions with their uncertainty for batches of named arrays.

    `ray.data.Dataset.map_batches` takes this class: its arguments can be sent to any machine, where
    the files are read when it is made. The numbers are those of `predict`.

    Args:
        model: module:function or file.py:function that builds the network, whose code is run;
            torchvision:NAME or timm:NAME. Or a sampler, such as `MCBatchNorm`, which is used as it
            is, where it is: no argument but likelihood, inputs and batch_size goes with it.
        weights: checkpoint of the network, .pt or .safetensors.
        key: entry of the checkpoint that holds the weights, if there are several.
        prefix: what the names in the checkpoint have before those of the network, if several do.
        bank: file written by `mcbn collect` or `Bank.save`, for the method mcbn.
        method: mcbn, dropout or deterministic.
        draws: T of dropout; MCBN uses every draw of its bank.
        seed: of the masks of dropout.
        likelihood: "categorical" for logits of classes, "bernoulli" for those of several labels an
            example, `Gaussian(...)` for real targets.
        inputs: the column or columns that the network is called with; by default all except those
            with a usual name of a target or an index. Several are keyword arguments.
        device: where the network runs.
        batch_size: most examples per pass.

    Raises:
        FileNotFoundError: there is no such file.
        ImportError: there is no such module.
        TypeError: the model is neither a name nor a sampler.
        ValueError: an argument or a file is not as expected; a sampler whose precision each worker
            would choose.
    """

    model: str | Sampler
    weights: str | None = field(default=None, kw_only=True)
    key: str | None = field(default=None, kw_only=True)
    prefix: str | None = field(default=None, kw_only=True)
    bank: str | None = field(default=None, kw_only=True)
    method: PredictorMethod = field(default="mcbn", kw_only=True)
    draws: int = field(default=64, kw_only=True)
    seed: int = field(default=0, kw_only=True)
    likelihood: LikelihoodName | Categorical | Bernoulli | Gaussian = field(
        default="categorical", kw_only=True
    )
    inputs: str | Sequence[str] | None = field(default=None, kw_only=True)
    device: str = field(default="cpu", kw_only=True)
    batch_size: int = field(default=256, kw_only=True)
    sampler: Sampler = field(init=False, repr=False)

    def __post_init__(self) -> None:
        as_likelihood(self.likelihood)
        sampler = self.model
        if isinstance(sampler, str):
            sampler = self._from_files(sampler)
        else:
            require_sampler(sampler)
            require_shared(sampler)
            self._require_no_file()
        # A frozen dataclass can set its own fields in this way only.
        object.__setattr__(self, "sampler", sampler)

    def _from_files(self, model: str) -> Sampler:
        if self.method not in get_args(PredictorMethod):
            raise ValueError(
                f"expected a method of {get_args(PredictorMethod)}, got {self.method!r}; choose one"
            )
        if self.method == "mcbn" and self.bank is None:
            raise ValueError(
                "expected a bank for the method mcbn, got none; give a file that mcbn collect wrote"
            )
        network = load_network(model, self.weights, key=self.key, prefix=self.prefix)
        return make_sampler(
            network.to(self.device), self.method, bank=self.bank, draws=self.draws, seed=self.seed
        )

    def _require_no_file(self) -> None:
        """Check that nothing is asked for that a sampler has settled already."""
        defaults = {each.name: each.default for each in fields(self) if each.init}
        settled = defaults.keys() - {"model", "likelihood", "inputs", "batch_size"}
        if given := sorted(name for name in settled if getattr(self, name) != defaults[name]):
            raise ValueError(
                f"expected likelihood, inputs and batch_size alone with a sampler, got {given}; "
                "leave them out, or give the name of the network instead"
            )

    def __call__(self, batch: Mapping[str, Any] | np.ndarray) -> dict[str, Any]:
        """Return the predictions of a batch, and its columns that are not inputs.

        For classes: prediction, confidence, probabilities, entropy, mutual_information (in nats).
        For labels: prediction, probabilities, entropy, expected_entropy, mutual_information,
        variation_ratio, of each label.
        For real targets: mean, sd, epistemic_sd, aleatoric_sd (in target units).

        Args:
            batch: arrays by name, or the inputs alone as an array.

        Raises:
            TypeError: an input column does not hold numbers.
            ValueError: a column is missing, has the name of a prediction or another length than the
                first, or there is no example; the network mixes the examples of a batch.
        """
        columns = dict(batch) if isinstance(batch, Mapping) else {"inputs": batch}
        names = self._input_names(columns) if isinstance(batch, Mapping) else ["inputs"]
        others = {name: values for name, values in columns.items() if name not in names}
        if taken := sorted(others.keys() & {*CLASS_COLUMNS, *LABEL_COLUMNS, *REAL_COLUMNS}):
            raise ValueError(
                f"expected no column with the name of a prediction, got {taken}; rename it"
            )
        data = _data_set(columns, names, networks(self.sampler))
        # One column is the input itself; a tuple of several would be positional arguments.
        named = None if len(names) == 1 else lambda row: dict(zip(names, row, strict=True))
        likelihood: Any = self.likelihood
        predictive = predict(
            self.sampler, data, likelihood, batch_size=self.batch_size, select=named, progress=False
        )
        # Which rows share a batch is chosen by whoever cut the data, such as Ray.
        require_separate(self.sampler)
        return others | _columns(predictive)

    def _input_names(self, columns: Mapping[str, Any]) -> list[str]:
        inputs = [self.inputs] if isinstance(self.inputs, str) else self.inputs
        if inputs is None:
            inputs = [name for name in columns if name not in TARGET_KEYS]
        names = list(inputs)
        if not names or any(name not in columns for name in names):
            raise ValueError(
                f"expected the input columns {names}, got a batch with {sorted(columns)}; "
                "name them by inputs="
            )
        if len(names) > 1 and (targets := TARGET_KEYS.intersection(names)):
            raise ValueError(
                f"expected several inputs not to be named like targets, got {sorted(targets)}, "
                "which are left out of a network's keyword arguments; rename them"
            )
        return names


def make_sampler(
    network: Module, method: PredictorMethod, *, bank: str | None, draws: int, seed: int
) -> Sampler:
    """The sampler of a method; see `Predictor`."""
    if method == "dropout":
        return MCDropout(network, draws=draws, seed=seed)
    if method == "mcbn" and bank is not None:
        return MCBatchNorm(network, Bank.load(bank))
    return Deterministic(network)


def _data_set(
    columns: Mapping[str, Any], names: Sequence[str], models: Sequence[Module]
) -> TensorDataset:
    """The input columns as tensors, real numbers in the type of the networks' weights."""
    weights = (p for model in models for p in model.parameters())
    real = next((p.dtype for p in weights if p.is_floating_point()), torch.float32)
    tensors = []
    for name in names:
        values = np.asarray(columns[name])
        if values.dtype.kind not in "biuf" or values.ndim == 0:
            raise TypeError(
                f"expected an array of numbers in the input column {name!r}, got "
                f"{values.ndim} axes of {values.dtype}; name the columns by inputs="
            )
        # torch warns of memory that cannot be written to, such as shared blocks.
        tensor = torch.from_numpy(np.require(values, requirements=["C", "W"]))
        tensors.append(tensor.to(real) if tensor.is_floating_point() else tensor)
    lengths = [len(tensor) for tensor in tensors]
    if len(set(lengths)) > 1:
        raise ValueError(f"expected input columns of one length, got {lengths}; check {names}")
    return TensorDataset(*tensors)


def _columns(predictive: CategoricalPredictive | GaussianPredictive) -> dict[str, np.ndarray]:
    if isinstance(predictive, BernoulliPredictive):
        tensors = {name: getattr(predictive, name) for name in LABEL_COLUMNS}
    elif isinstance(predictive, CategoricalPredictive):
        tensors = {name: getattr(predictive, name) for name in CLASS_COLUMNS}
    else:
        variances = (
            predictive.variance,
            predictive.epistemic_variance,
            predictive.aleatoric_variance,
        )
        tensors = dict(
            zip(REAL_COLUMNS, (predictive.mean, *(v.sqrt() for v in variances)), strict=True)
        )
    return {name: values.cpu().numpy() for name, values in tensors.items()}
