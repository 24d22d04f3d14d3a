"""Predictions as a file: a method's predictive of some examples, with their targets."""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mcbn import validation
from mcbn.io.extras import optional
from mcbn.io.plain import matches_type
from mcbn.io.progress import progress_bar
from mcbn.io.tables import texts
from mcbn.io.tensors import read_tensors, write_tensors
from mcbn.predictive.categorical import Categorical, CategoricalPredictive
from mcbn.predictive.gaussian import Gaussian, GaussianPredictive, Moments
from mcbn.predictive.predict import joined, predict_batches
from mcbn.samplers.sampler import Sampler

KIND = "predictions"
PARTS = ("log_probabilities", "expected_entropy", "variance", "variation_ratio")
Predictive = CategoricalPredictive | GaussianPredictive | Moments


@dataclass(frozen=True, eq=False)
class Predictions:
    """What one method said of some examples, and the answers where they are known.

    Attributes:
        method: name of the method.
        predictive: its predictive distribution; of a regression whose draws were not kept, its
            moments.
        targets: class indices or real values; None for examples without (out-of-distribution
            inputs).
        data: what was predicted, in words.
        classes: names of the classes; none where they are numbers from 0.
        columns: what else is known of each example, by name: groups to score apart.
    """

    method: str
    predictive: Predictive
    targets: Tensor | None
    data: str
    classes: tuple[str, ...] = ()
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def scored(self) -> CategoricalPredictive | GaussianPredictive:
        """The distribution that is scored: of moments, the Gaussian that has them."""
        found = self.predictive
        return found.gaussian() if isinstance(found, Moments) else found

    @property
    def known_targets(self) -> Tensor:
        """The targets.

        Raises:
            ValueError: there are none.
        """
        if self.targets is None:
            raise ValueError(
                f"expected targets with the predictions of {self.method!r}, got none; predict data "
                "that has targets"
            )
        return self.targets

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one safetensors file, whole or not at all; draws are in it if they were kept."""
        likelihood, names = _parts_of(self.predictive)
        tensors = {
            name: value
            for name in (*names, "logits")
            if (value := getattr(self.predictive, name, None)) is not None
        }
        if self.targets is not None:
            tensors["targets"] = self.targets
        header: dict[str, Any] = {
            "method": self.method,
            "data": self.data,
            "draws": self.predictive.draw_count,
            "likelihood": likelihood,
            "classes": self.classes,
            "columns": {},
        }
        for name, values in self.columns.items():
            kinds, codes = np.unique(np.array(texts(values)), return_inverse=True)
            header["columns"][name] = kinds.tolist()
            tensors[f"columns.{name}"] = torch.from_numpy(codes.astype(np.int64))
        write_tensors(path, tensors, kind=KIND, header=header)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Predictions":
        """Read a file that `save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is truncated, corrupted, foreign or of another version.
        """
        tensors, header = read_tensors(path, kind=KIND)
        # Files of before there were others are all of classes.
        likelihood = header.get("likelihood", "categorical")
        if not _is_whole(tensors, header, likelihood):
            raise ValueError(
                f"expected the tensors {PARTS} of classes, or those of a regression, in "
                f"predictions, got {path} with "
                f"{ {name: tuple(value.shape) for name, value in tensors.items()} }; predict again"
            )
        found = {name: tensors[name] for name in NAMES[likelihood] if name in tensors}
        count = header["draws"]
        predictive: Predictive
        if likelihood == "categorical":
            logits = tensors.get("logits")
            predictive = CategoricalPredictive(**found, draw_count=count, logits=logits)
        elif likelihood == "gaussian":
            predictive = GaussianPredictive(**found)
        else:
            epistemic = found.get("epistemic_variance")
            predictive = Moments(found["mean"], found["variance"], epistemic, count)
        made = cls(
            header["method"], predictive, tensors.get("targets"), header["data"],
            tuple(header.get("classes", ())), _columns(tensors, header, path),
        )  # fmt: skip
        try:
            _require_sound(made)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}: {error}") from error
        return made

    def to_xarray(self) -> Any:
        """The predictions as an `xarray.Dataset`, kept draws in the dimensions that ArviZ takes.

        Summaries have the dimensions `case` and `class` (of regression `case` and `output`), kept
        draws `chain` (of length 1), `draw` and those: `logits` for classes, `means` for
        regression. Positions are `position_0` and so on.

        Raises:
            ImportError: xarray is not installed.
        """
        xarray = optional("xarray", extra="xarray")
        found: dict[str, tuple[tuple[str, ...], Any]] = {}
        axis = "class" if isinstance(self.predictive, CategoricalPredictive) else "output"
        for name, value, over in _variables(self.predictive):
            lead: tuple[str, ...] = ("chain", "draw", "case") if over == "draws" else ("case",)
            lead = lead if over == "cases" else (*lead, axis)
            whole = value[None] if over == "draws" else value
            # A regression of one output may have no axis for it, and positions come last.
            lead = lead[: whole.ndim]
            extra = tuple(f"position_{place}" for place in range(whole.ndim - len(lead)))
            found[name] = ((*lead, *extra), whole.cpu().numpy())
        if self.targets is not None:
            ends = ("output",) if axis == "output" else ()
            names = ("case", *ends, *(f"position_{place}" for place in range(self.targets.ndim)))
            found["target"] = (names[: self.targets.ndim], self.targets.cpu().numpy())
        coordinates: dict[str, Any] = {
            name: ("case", np.array(texts(values)))
            for name, values in self.columns.items()
            if name not in found
        }
        coordinates["case"] = np.arange(len(self.predictive))
        if self.classes:
            coordinates["class"] = np.array(self.classes)
        about = {"method": self.method, "data": self.data, "draws": self.predictive.draw_count}
        return xarray.Dataset(found, coords=coordinates, attrs=about)


# The tensors of each kind of predictive; the last may be missing.
NAMES = {
    "categorical": PARTS,
    "gaussian": ("means", "variances"),
    "moments": ("mean", "variance", "epistemic_variance"),
}


def _parts_of(predictive: Predictive) -> tuple[str, tuple[str, ...]]:
    kinds = {CategoricalPredictive: "categorical", GaussianPredictive: "gaussian"}
    likelihood = kinds.get(type(predictive), "moments")
    return likelihood, NAMES[likelihood]


def _variables(predictive: Predictive) -> list[tuple[str, Tensor, str]]:
    """Name, values and what they range over, of every quantity that is known."""
    found: list[tuple[str, Tensor | None, str]]
    if isinstance(predictive, CategoricalPredictive):
        found = [
            ("probability", predictive.probabilities, "classes"),
            ("variance", predictive.variance, "classes"),
            ("confidence", predictive.confidence, "cases"),
            ("entropy", predictive.entropy, "cases"),
            ("expected_entropy", predictive.expected_entropy, "cases"),
            ("mutual_information", predictive.mutual_information, "cases"),
            ("variation_ratio", predictive.variation_ratio, "cases"),
            ("logits", predictive.logits, "draws"),
        ]
    else:
        noise, epistemic = predictive.aleatoric_variance, predictive.epistemic_variance
        found = [
            ("mean", predictive.mean, "classes"),
            ("sd", predictive.variance.sqrt(), "classes"),
            ("epistemic_sd", None if epistemic is None else epistemic.sqrt(), "classes"),
            ("aleatoric_sd", None if noise is None else noise.sqrt(), "classes"),
            ("means", getattr(predictive, "means", None), "draws"),
        ]
    return [(name, value, over) for name, value, over in found if value is not None]


def _is_whole(tensors: Mapping[str, Tensor], header: Mapping[str, Any], likelihood: Any) -> bool:
    """Whether everything is there that the kind of predictive needs, in fitting shapes."""
    if likelihood not in NAMES or not all(
        name in tensors and tensors[name].dtype == torch.float64 for name in NAMES[likelihood][:2]
    ):
        return False
    shape = tensors[NAMES[likelihood][0]].shape
    if likelihood == "categorical":
        cases = shape[:1] + shape[2:]
        fits = len(shape) >= 2 and all(
            name in tensors
            and tensors[name].dtype == torch.float64
            and tensors[name].shape == (shape if name == "variance" else cases)
            for name in PARTS[1:]
        )
    elif likelihood == "gaussian":
        noise = tensors["variances"].shape
        fits = len(shape) >= 2 and noise in (torch.Size(()), shape)
    else:
        fits = len(shape) >= 1 and all(
            tensors[name].shape == shape for name in NAMES[likelihood][1:] if name in tensors
        )
    return (
        fits
        and matches_type(header.get("draws"), int)
        and all(isinstance(header.get(name), str) for name in ("method", "data"))
        and matches_type(header.get("classes", ()), tuple[str, ...])
    )


def _require_sound(found: Predictions) -> None:
    """Check that numbers are what their names say, and that targets and names belong to them."""
    given = found.predictive
    if isinstance(given, CategoricalPredictive):
        logs = given.log_probabilities
        validation.probabilities(logs.exp(), "exp(log_probabilities)")
        validation.finite(given.expected_entropy, "expected_entropy")
        cases, count = logs.shape[:1] + logs.shape[2:], logs.shape[1]
        if found.classes and len(found.classes) != count:
            raise ValueError(
                f"expected the names of {count} classes, got {len(found.classes)}; predict again"
            )
        if given.logits is not None:
            validation.finite(given.logits, "logits")
            validation.require_same_shape(given.logits[0], logs, ("a draw", "log_probabilities"))
        if found.targets is not None:
            validation.labels(found.targets, count, tuple(cases))
        return
    spreads = (given.variance, given.epistemic_variance)
    for values in (given.mean, *(each for each in spreads if each is not None)):
        validation.finite(values, "means and variances")
    if not bool((given.variance > 0).all()):
        raise ValueError("expected variances above 0, got others; predict again")
    if found.targets is not None:
        validation.finite(found.targets, "targets")
        validation.require_same_shape(found.targets, given.mean, ("targets", "means"))


def _columns(
    tensors: Mapping[str, Tensor], header: Mapping[str, Any], path: object
) -> dict[str, np.ndarray]:
    """The columns that `save` wrote as codes."""
    try:
        return {
            name: np.array(kinds, dtype=object)[tensors[f"columns.{name}"].numpy()]
            for name, kinds in header.get("columns", {}).items()
        }
    except (KeyError, IndexError, AttributeError, TypeError) as error:
        raise ValueError(
            f"expected columns of codes and their names in predictions, got {path}, which is "
            f"corrupted ({error}); predict again"
        ) from error


def record(
    sampler: Sampler,
    inputs: Tensor,
    likelihood: Categorical | Gaussian,
    *,
    batch_size: int = 256,
    keep_draws: bool = False,
    add: Callable[[Tensor], None] | None = None,
) -> Predictive:
    """The predictive of all inputs, in memory that does not grow with the draws unless kept.

    Args:
        sampler: what makes the draws.
        inputs: one row an example.
        likelihood: of the targets.
        batch_size: examples in a pass.
        keep_draws: keep every draw: logits of classes, the mixture of a regression. Without it a
            regression keeps its moments.
        add: takes the raw outputs of each batch, axes (draws, batch, ...); see `draws_file`.

    Raises:
        ValueError: there are no inputs.
    """
    parts = predict_batches(
        sampler, inputs, likelihood, batch_size=batch_size,
        keep_draws=keep_draws or add is not None,
    )  # fmt: skip
    found: Predictive | None = joined(_kept(parts, len(inputs), keep_draws, add), len(inputs))
    if found is None:
        raise ValueError("expected at least one example to predict, got none; check the data")
    return found


def disagreement(predictive: Predictive) -> str:
    """How much the draws differ, in words."""
    if isinstance(predictive, CategoricalPredictive):
        return f"mean mutual information {float(predictive.mutual_information.mean()):.4g} nats"
    variance = predictive.epistemic_variance
    if variance is None:
        return "epistemic sd not known"
    return f"mean epistemic sd {float(variance.sqrt().mean()):.4g}"


def _kept(
    parts: Iterator[Any], examples: int, keep_draws: bool, add: Callable[[Tensor], None] | None
) -> Iterator[Any]:
    with progress_bar(label="predict", unit="example", total=examples) as bar:
        for part in parts:
            bar.update(len(part))
            if add is not None:
                add(_outputs(part))
            if keep_draws:
                yield part
            elif isinstance(part, GaussianPredictive):
                yield Moments.from_predictive(part)
            else:
                yield replace(part, logits=None)


def _outputs(part: CategoricalPredictive | GaussianPredictive) -> Tensor:
    """What the network said: logits, means, or means and log-variances along axis 1."""
    if isinstance(part, GaussianPredictive):
        constant = part.variances.ndim == 0
        return part.means if constant else torch.cat([part.means, part.variances.log()], dim=2)
    if part.logits is None:
        raise ValueError("expected predictives with their draws, got none; keep the draws")
    return part.logits
