"""Predictions as columns: ours written for other tools, and those of other tools read.

`docs/files.md` lists the columns.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
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
from mcbn.predictive.categorical import CategoricalPredictive, entropy
from mcbn.predictive.gaussian import GaussianPredictive, Moments
from mcbn.predictive.predictions import Predictions
from mcbn.predictive.targets import (
    by_number,
    class_indices,
    is_whole,
    outputs,
    stacked,
    target_column,
)
from mcbn.validation import PROBABILITY_TOLERANCE, SUM_TOLERANCE

Columns = Mapping[str, np.ndarray]
PREFIX = "p_"
SPREADS = ("sd", "std", "variance")
CLASS_COLUMNS = ("prediction", "confidence", "probabilities", "entropy", "expected_entropy",
                 "mutual_information", "variation_ratio")  # fmt: skip
OURS = frozenset({"index", "target", "draws", "classes", "mean", *SPREADS, "epistemic_sd",
                  "aleatoric_sd", *CLASS_COLUMNS})  # fmt: skip


def write_predictions(path: str | os.PathLike[str], predictions: Predictions) -> None:
    """Write predictions as the file that the suffix of `path` names, whole or not at all.

    Args:
        path: .csv, .parquet or .npz for columns; any other name is a safetensors file.
        predictions: kept draws only go into a safetensors file.

    Raises:
        ImportError: pyarrow is not installed, for Parquet.
        ValueError: predictions with positions as CSV or Parquet, or columns named like ours.
    """
    if not is_table(path):
        predictions.save(path)
        return
    found = _written(predictions)
    if predictions.classes:
        names = np.array(predictions.classes)
        found |= {name: names[found[name]] for name in ("prediction", "target") if name in found}
    if Path(path).suffix.lower() == ".npz":
        if predictions.classes:
            found["classes"] = names
    else:
        found = _flattened(found, predictions.classes)
    require_free(predictions.columns)
    extra = {name: np.array(texts(values)) for name, values in predictions.columns.items()}
    write_columns(path, found | extra)


def require_free(names: Iterable[str]) -> None:
    """Check that columns of the data do not have the names of columns of predictions.

    Raises:
        ValueError: one has.
    """
    taken = sorted(name for name in names if _is_ours(name))
    if taken:
        raise ValueError(
            f"expected columns of the data under names of their own, got {taken}, which are those "
            "of predictions; rename them"
        )


def read_predictions(
    path: str | os.PathLike[str],
    *,
    probabilities: Sequence[str] = (),
    target: str | None = None,
) -> Predictions:
    """Read predictions that this package or another tool wrote.

    Of classes where there are columns of probabilities, of regression where there are a mean and
    a standard deviation. Rows are divided by their sums, which rounding may have moved from one.

    Args:
        path: .csv, .parquet or .npz for columns; any other name is a safetensors file of ours.
        probabilities: names of the columns of probabilities, one a class; without them those that
            begin with `p_`, or the array `probabilities` of an NPZ file.
        target: name of the column of targets; without it `target`, `label` or `y`, if there is one.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a file that cannot be read, missing columns, values that are no distribution,
            no number or no label; says in which row.
    """
    if not is_table(path):
        if probabilities or target:
            raise ValueError(
                f"expected names of columns for {', '.join(SUFFIXES)} only, got {path}; a file "
                "written by mcbn has its own"
            )
        return Predictions.load(path)
    columns = read_columns(path)
    names = list(probabilities) or [name for name in columns if name.startswith(PREFIX)]
    if names or "probabilities" in columns:
        return _categorical(columns, names, target, path)
    if outputs(columns, "mean"):
        return _gaussian(columns, target, path)
    raise ValueError(
        f"expected columns of probabilities ({PREFIX}<class>) or a mean and an sd in {path}, got "
        f"{sorted(columns)[:12]}; name the columns of probabilities by --probabilities"
    )


def _is_ours(name: str) -> bool:
    """Whether it is a column of predictions: `entropy`, `p_cat`, `mean_0`."""
    return name in OURS or name.startswith(PREFIX) or name.rstrip("0123456789").rstrip("_") in OURS


def _written(predictions: Predictions) -> dict[str, np.ndarray]:
    """What is known of every example, by name; the second axis is of classes or outputs."""
    found: dict[str, Tensor | None] = {"index": torch.arange(len(predictions.predictive))}
    found["target"] = predictions.targets
    given = predictions.predictive
    if isinstance(given, CategoricalPredictive):
        found |= {name: getattr(given, name) for name in CLASS_COLUMNS}
    else:
        if isinstance(given, GaussianPredictive):
            given = Moments.from_predictive(given)
        noise, epistemic = given.aleatoric_variance, given.epistemic_variance
        found |= {
            "mean": given.mean,
            "sd": given.variance.sqrt(),
            "epistemic_sd": None if epistemic is None else epistemic.sqrt(),
            "aleatoric_sd": None if noise is None else noise.sqrt(),
        }
    if given.draw_count:
        found["draws"] = torch.full((len(given),), given.draw_count)
    # What is not known is left out, never written as zero.
    return {
        name: values.cpu().numpy()
        for name, values in found.items()
        if values is not None and not bool(values.isnan().all())
    }


def _flattened(arrays: Columns, classes: Sequence[str]) -> dict[str, np.ndarray]:
    """Arrays as columns of one value an example: `p_<class>`, or `mean_0`, `mean_1`, ..."""
    found = {}
    for name, values in arrays.items():
        if values.ndim == 2 and values.shape[1] == 1:
            values = values[:, 0]
        if values.ndim != 2:
            found[name] = values
        elif name == "probabilities":
            names = classes or range(values.shape[1])
            found |= {f"{PREFIX}{each}": values[:, k] for k, each in enumerate(names)}
        else:
            found |= {f"{name}_{k}": values[:, k] for k in range(values.shape[1])}
    return found


def _categorical(
    columns: Columns, names: Sequence[str], target: str | None, path: str | os.PathLike[str]
) -> Predictions:
    if names:
        classes = [name.removeprefix(PREFIX) for name in names]
        matrix = np.stack([numbers(column(columns, n, path), n, path) for n in names], axis=1)
        if all(is_whole(name) for name in classes):
            order = sorted(range(len(classes)), key=lambda place: by_number(classes[place]))
            classes, matrix = [classes[k] for k in order], matrix[:, order]
    else:
        matrix = numbers(columns["probabilities"], "probabilities", path)
        width = matrix.shape[1] if matrix.ndim > 1 else 0
        classes = list(texts(columns.get("classes", np.arange(width))))
        if matrix.ndim < 2 or len(classes) != width:
            raise ValueError(
                f"expected probabilities of axes (examples, classes) in {path}, got shape "
                f"{matrix.shape} for {len(classes)} classes; give one column a class"
            )
    require_distributions(matrix, names or ["probabilities"], path)
    sums = matrix.sum(1, keepdims=True)
    with np.errstate(divide="ignore"):
        logs = torch.from_numpy(np.log(matrix / sums))
    total = entropy(logs.exp())
    cases = tuple(total.shape)
    ratio = torch.full(cases, torch.nan, dtype=torch.float64)
    if "variation_ratio" in columns:
        ratio = _values(columns, "variation_ratio", cases, path)
    predictive = CategoricalPredictive(
        logs, _expected_entropy(columns, total, path), torch.full_like(logs, torch.nan), ratio,
        _draws(columns, path),
    )  # fmt: skip
    answers = target_column(columns, target, path)
    labels = None if answers is None else class_indices(columns[answers], classes, answers, path)
    plain = classes == [str(k) for k in range(len(classes))]
    return _read(
        path, predictive, labels, () if plain else tuple(classes), columns, [*names, answers]
    )


def _gaussian(columns: Columns, target: str | None, path: str | os.PathLike[str]) -> Predictions:
    mean = stacked(columns, "mean", path)
    spread = next((name for name in SPREADS if outputs(columns, name)), "sd")
    variance = stacked(columns, spread, path)
    if mean is None or variance is None:
        raise ValueError(
            f"expected beside the mean a column {' or '.join(SPREADS)} in {path}, got "
            f"{sorted(columns)[:12]}; add how sure the forecast is"
        )
    epistemic = stacked(columns, "epistemic_sd", path)
    for name, values in ((spread, variance), ("epistemic_sd", epistemic)):
        if values is not None and values.shape != mean.shape:
            raise ValueError(
                f"expected as many columns {name!r} as of the mean in {path}, got shapes "
                f"{values.shape} and {mean.shape}; give one an output"
            )
    require_spreads(variance, spread, path)
    square = variance if spread == "variance" else np.square(variance)
    known = None if epistemic is None else torch.from_numpy(np.square(epistemic))
    predictive = Moments(
        torch.from_numpy(mean), torch.from_numpy(square), known, _draws(columns, path)
    )
    answers = target_column(columns, target, path)
    found = None if answers is None else stacked(columns, answers, path)
    targets = None if found is None else torch.from_numpy(found)
    if targets is not None and targets.shape != predictive.mean.shape:
        raise ValueError(
            f"expected as many columns {answers!r} as of the mean in {path}, got shapes "
            f"{tuple(targets.shape)} and {tuple(predictive.mean.shape)}; give one an output"
        )
    return _read(path, predictive, targets, (), columns, [answers])


def _read(
    path: str | os.PathLike[str], predictive: CategoricalPredictive | Moments,
    targets: Tensor | None, classes: tuple[str, ...], columns: Columns, used: Sequence[str | None],
) -> Predictions:  # fmt: skip
    """Predictions named after their file, with the columns that no distribution was made of."""
    rest = {
        name: values
        for name, values in columns.items()
        if not (_is_ours(name) or name in used) and values.shape == (len(predictive),)
    }
    name = Path(path).stem
    return Predictions(name, predictive, targets, name, classes, rest)


def _values(columns: Columns, name: str, cases: tuple[int, ...], path: object) -> Tensor:
    values = torch.from_numpy(numbers(columns[name], name, path))
    if values.shape != cases:
        raise ValueError(
            f"expected {name!r} of shape {cases} in {path}, got {tuple(values.shape)}; give one "
            "value a prediction"
        )
    return values


def _expected_entropy(columns: Columns, total: Tensor, path: object) -> Tensor:
    """From its column or that of mutual information; without either there is nothing to part."""
    cases = tuple(total.shape)
    if "expected_entropy" in columns:
        found = _values(columns, "expected_entropy", cases, path)
    elif "mutual_information" in columns:
        found = total - _values(columns, "mutual_information", cases, path)
    else:
        return total
    off = (found < -PROBABILITY_TOLERANCE) | (found > total + SUM_TOLERANCE)
    if bool(off.any()):
        raise ValueError(
            f"expected an expected entropy from 0 to the entropy, in nats, in {path}, got "
            f"{float(found[off][0]):g} where the entropy is {float(total[off][0]):g} in row "
            f"{int(off.nonzero()[0][0]) + 1}; leave the column out if it means something else"
        )
    return found


def _draws(columns: Columns, path: object) -> int:
    """How many draws were averaged; 0 if the file does not say so."""
    if "draws" not in columns:
        return 0
    found = numbers(columns["draws"], "draws", path)
    count = float(found.flat[0])
    if not (count.is_integer() and 1 <= count < 2**31) or bool((found != count).any()):
        raise ValueError(
            f"expected one whole number of draws in column 'draws' of {path}, got "
            f"{sorted(set(found.ravel().tolist()))[:3]}; rename the column if it means another"
        )
    return int(count)
