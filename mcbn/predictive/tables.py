"""Predictions as columns: written for other tools, and read from them.

`docs/files.md` lists the columns.
"""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mcbn.io.tables import (
    SUFFIXES,
    column,
    is_table,
    numbers,
    read_columns,
    require_distributions,
    require_spreads,
    texts,
    write_columns,
)
from mcbn.predictive.categorical import CategoricalPredictive, unchecked_entropy
from mcbn.predictive.gaussian import GaussianPredictive, Moments
from mcbn.predictive.predictions import Predictions
from mcbn.predictive.targets import (
    Columns,
    by_number,
    class_indices,
    is_whole,
    output_columns,
    output_values,
    target_column,
)
from mcbn.validation import PROBABILITY_TOLERANCE, SUM_TOLERANCE

PREFIX = "p_"
SPREADS = ("sd", "std", "variance")
CLASS_COLUMNS = ("prediction", "confidence", "probabilities", "entropy", "expected_entropy",
                 "mutual_information", "variation_ratio")  # fmt: skip
RESERVED_NAMES = frozenset({"index", "target", "draws", "classes", "mean", *SPREADS,
                            "epistemic_sd", "aleatoric_sd", *CLASS_COLUMNS})  # fmt: skip


def write_predictions(path: str | os.PathLike[str], predictions: Predictions) -> None:
    """Write predictions as the file that the suffix of `path` names, whole or not at all.

    Args:
        path: .csv, .parquet or .npz for columns; any other name is a safetensors file.
        predictions: draws, if they were kept, are written to a safetensors file only.

    Raises:
        ImportError: pyarrow is not installed, for Parquet.
        ValueError: predictions with positions as CSV or Parquet, or columns of the data with a
            reserved name.
    """
    if not is_table(path):
        predictions.save(path)
        return
    require_unreserved(predictions.columns)
    arrays = _arrays(predictions)
    if predictions.classes:
        names = np.array(predictions.classes)
        arrays |= {name: names[arrays[name]] for name in ("prediction", "target") if name in arrays}
    if Path(path).suffix.lower() == ".npz":
        if predictions.classes:
            arrays["classes"] = names
    else:
        arrays = _flattened(arrays, predictions.classes)
    extra = {name: np.array(texts(values)) for name, values in predictions.columns.items()}
    write_columns(path, arrays | extra)


def require_unreserved(names: Iterable[str]) -> None:
    """Check that no column of the data has a name that is reserved for predictions.

    Raises:
        ValueError: one has.
    """
    taken = sorted(name for name in names if _is_reserved(name))
    if taken:
        raise ValueError(
            f"expected other names for the columns of the data, got {taken}, which are reserved "
            "for predictions; rename them"
        )


def read_predictions(
    path: str | os.PathLike[str],
    *,
    probabilities: Sequence[str] = (),
    target: str | None = None,
) -> Predictions:
    """Read predictions written by this package or by another tool.

    They are of classes where there are columns of probabilities, of regression where there are a
    mean and a standard deviation. Probabilities are divided by their sum over the classes, which
    may differ from 1 by rounding.

    Args:
        path: .csv, .parquet or .npz for columns; any other name is a safetensors file that
            `Predictions.save` wrote.
        probabilities: names of the columns of probabilities, one per class; by default those that
            begin with `p_`, or the array `probabilities` of an NPZ file.
        target: name of the column of targets; by default `target`, `label` or `y`, if there is one.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a file that cannot be read, missing columns, or values that are not a
            distribution, a number or a label; names the row.
    """
    if not is_table(path):
        if probabilities or target:
            raise ValueError(
                f"expected names of columns for {', '.join(SUFFIXES)} only, got {path}; leave them "
                "out for a safetensors file"
            )
        return Predictions.load(path)
    columns = read_columns(path)
    names = list(probabilities) or [name for name in columns if name.startswith(PREFIX)]
    if names or "probabilities" in columns:
        return _categorical(columns, names, target, path)
    if output_columns(columns, "mean"):
        return _gaussian(columns, target, path)
    raise ValueError(
        f"expected columns of probabilities ({PREFIX}<class>) or a mean and an sd in {path}, got "
        f"{sorted(columns)[:12]}; name them by probabilities= or --probabilities"
    )


def _is_reserved(name: str) -> bool:
    """Whether a name is that of a column of predictions, such as `entropy`, `p_cat`, `mean_0`."""
    return (
        name in RESERVED_NAMES
        or name.startswith(PREFIX)
        or name.rstrip("0123456789").rstrip("_") in RESERVED_NAMES
    )


def _arrays(predictions: Predictions) -> dict[str, np.ndarray]:
    """What is known of every example, by name; the second axis is of classes or outputs."""
    values: dict[str, Tensor | None] = {"index": torch.arange(len(predictions.predictive))}
    values["target"] = predictions.targets
    given = predictions.predictive
    if isinstance(given, CategoricalPredictive):
        values |= {name: getattr(given, name) for name in CLASS_COLUMNS}
    else:
        if isinstance(given, GaussianPredictive):
            given = Moments.from_predictive(given)
        noise, epistemic = given.aleatoric_variance, given.epistemic_variance
        values |= {
            "mean": given.mean,
            "sd": given.variance.sqrt(),
            "epistemic_sd": None if epistemic is None else epistemic.sqrt(),
            "aleatoric_sd": None if noise is None else noise.sqrt(),
        }
    if given.draw_count:
        values["draws"] = torch.full((len(given),), given.draw_count)
    # Unknown values are left out, not written as zero.
    return {
        name: tensor.cpu().numpy()
        for name, tensor in values.items()
        if tensor is not None and not bool(tensor.isnan().all())
    }


def _flattened(arrays: Columns, classes: Sequence[str]) -> dict[str, np.ndarray]:
    """Arrays as columns of one value per example: `p_<class>`, or `mean_0`, `mean_1`, ..."""
    flat = {}
    for name, values in arrays.items():
        if values.ndim == 2 and values.shape[1] == 1:
            values = values[:, 0]
        if values.ndim != 2:
            flat[name] = values
        elif name == "probabilities":
            names = classes or range(values.shape[1])
            flat |= {f"{PREFIX}{each}": values[:, k] for k, each in enumerate(names)}
        else:
            flat |= {f"{name}_{k}": values[:, k] for k in range(values.shape[1])}
    return flat


def _categorical(
    columns: Columns, names: Sequence[str], target: str | None, path: str | os.PathLike[str]
) -> Predictions:
    if names:
        classes = [name.removeprefix(PREFIX) for name in names]
        matrix = np.stack([numbers(column(columns, n, path), n, path) for n in names], axis=1)
        if all(is_whole(name) for name in classes):
            order = sorted(range(len(classes)), key=lambda index: by_number(classes[index]))
            classes, matrix = [classes[k] for k in order], matrix[:, order]
    else:
        matrix = numbers(columns["probabilities"], "probabilities", path)
        width = matrix.shape[1] if matrix.ndim > 1 else 0
        classes = list(texts(columns.get("classes", np.arange(width))))
        if matrix.ndim < 2 or len(classes) != width:
            raise ValueError(
                f"expected probabilities of axes (examples, classes) in {path}, got shape "
                f"{matrix.shape} for {len(classes)} classes; give one column per class"
            )
    require_distributions(matrix, names or ["probabilities"], path)
    sums = matrix.sum(1, keepdims=True)
    with np.errstate(divide="ignore"):
        logs = torch.from_numpy(np.log(matrix / sums))
    total = unchecked_entropy(logs.exp())
    cases = tuple(total.shape)
    ratio = torch.full(cases, torch.nan, dtype=torch.float64)
    if "variation_ratio" in columns:
        ratio = _values(columns, "variation_ratio", cases, path)
    predictive = CategoricalPredictive(
        logs, _expected_entropy(columns, total, path), torch.full_like(logs, torch.nan), ratio,
        _draw_count(columns, path),
    )  # fmt: skip
    answers = target_column(columns, target, path)
    labels = None if answers is None else class_indices(columns[answers], classes, answers, path)
    plain = classes == [str(k) for k in range(len(classes))]
    return _read(
        path, predictive, labels, () if plain else tuple(classes), columns, [*names, answers]
    )


def _gaussian(columns: Columns, target: str | None, path: str | os.PathLike[str]) -> Predictions:
    mean = output_values(columns, "mean", path)
    spread = next((name for name in SPREADS if output_columns(columns, name)), "sd")
    spreads = output_values(columns, spread, path)
    if mean is None or spreads is None:
        raise ValueError(
            f"expected a column {' or '.join(SPREADS)} beside the mean in {path}, got "
            f"{sorted(columns)[:12]}; add the spread of the forecast"
        )
    epistemic = output_values(columns, "epistemic_sd", path)
    for name, values in ((spread, spreads), ("epistemic_sd", epistemic)):
        if values is not None and values.shape != mean.shape:
            raise ValueError(
                f"expected as many columns {name!r} as of the mean in {path}, got shapes "
                f"{values.shape} and {mean.shape}; give one per output"
            )
    require_spreads(spreads, spread, path)
    variance = spreads if spread == "variance" else np.square(spreads)
    known = None if epistemic is None else torch.from_numpy(np.square(epistemic))
    predictive = Moments(
        torch.from_numpy(mean), torch.from_numpy(variance), known, _draw_count(columns, path)
    )
    answers = target_column(columns, target, path)
    values = None if answers is None else output_values(columns, answers, path)
    targets = None if values is None else torch.from_numpy(values)
    if targets is not None and targets.shape != predictive.mean.shape:
        raise ValueError(
            f"expected as many columns {answers!r} as of the mean in {path}, got shapes "
            f"{tuple(targets.shape)} and {tuple(predictive.mean.shape)}; give one per output"
        )
    return _read(path, predictive, targets, (), columns, [answers])


def _read(
    path: str | os.PathLike[str], predictive: CategoricalPredictive | Moments,
    targets: Tensor | None, classes: tuple[str, ...], columns: Columns, used: Sequence[str | None],
) -> Predictions:  # fmt: skip
    """Predictions named after their file, with the columns that are not part of them."""
    extra = {
        name: values
        for name, values in columns.items()
        if not (_is_reserved(name) or name in used) and values.shape == (len(predictive),)
    }
    name = Path(path).stem
    return Predictions(name, predictive, targets, name, classes, extra)


def _values(columns: Columns, name: str, cases: tuple[int, ...], path: object) -> Tensor:
    values = torch.from_numpy(numbers(columns[name], name, path))
    if values.shape != cases:
        raise ValueError(
            f"expected {name!r} of shape {cases} in {path}, got {tuple(values.shape)}; give one "
            "value per prediction"
        )
    return values


def _expected_entropy(columns: Columns, total: Tensor, path: object) -> Tensor:
    """From its column or that of mutual information; without either it is all of the entropy."""
    cases = tuple(total.shape)
    if "expected_entropy" in columns:
        expected = _values(columns, "expected_entropy", cases, path)
    elif "mutual_information" in columns:
        expected = total - _values(columns, "mutual_information", cases, path)
    else:
        return total
    wrong = (expected < -PROBABILITY_TOLERANCE) | (expected > total + SUM_TOLERANCE)
    if bool(wrong.any()):
        raise ValueError(
            f"expected an expected entropy from 0 to the entropy, in nats, in {path}, got "
            f"{float(expected[wrong][0]):g} where the entropy is {float(total[wrong][0]):g} in row "
            f"{int(wrong.nonzero()[0][0]) + 1}; leave the column out if it means something else"
        )
    return expected


def _draw_count(columns: Columns, path: object) -> int:
    """How many draws were averaged; 0 if it is not known."""
    if "draws" not in columns:
        return 0
    values = numbers(columns["draws"], "draws", path)
    count = float(values.flat[0])
    if not (count.is_integer() and 1 <= count < 2**31) or bool((values != count).any()):
        raise ValueError(
            f"expected one whole number of draws in column 'draws' of {path}, got "
            f"{sorted(set(values.ravel().tolist()))[:3]}; rename it if it means something else"
        )
    return int(count)
