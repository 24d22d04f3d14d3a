"""Predictions as columns: written for other tools, and read from them.

`docs/files.md` lists the columns.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from mcbn.io.suffixes import SUFFIXES, is_table, known_suffix, require_predictions, stem
from mcbn.io.tables import objects, read_columns, shortened, texts, write_columns
from mcbn.predictive.bernoulli import BernoulliPredictive
from mcbn.predictive.categorical import CategoricalPredictive, unchecked_entropy
from mcbn.predictive.class_columns import (
    PREFIX,
    ClassColumns,
    class_texts,
    find_columns,
    find_logits,
    find_others,
    is_distribution,
    is_named,
    read_classes,
)
from mcbn.predictive.gaussian import GaussianPredictive, Moments
from mcbn.predictive.labels import (
    class_indices,
    is_whole,
    match,
    require_fitting,
    require_plausible_order,
)
from mcbn.predictive.multilabel_columns import (
    LABEL_COLUMNS,
    are_labels,
    read_labels,
    used_columns,
)
from mcbn.predictive.predictions import Predictions
from mcbn.predictive.real_columns import (
    find_outputs,
    has_spread,
    moment_columns,
    read_moments,
    read_targets,
)
from mcbn.predictive.reserved_columns import (
    CLASS_COLUMNS,
    IGNORED,
    LISTS,
    RESERVED_NAMES,
    is_reserved,
    require_unreserved,
)
from mcbn.predictive.targets import TARGETS, Columns, target_columns
from mcbn.predictive.uncertainty_columns import draw_count, expected_entropy, variation_ratio
from mcbn.predictive.votes import vote_shares, with_votes

ROWS = 2**12  # whose entropy is computed at once


def write_predictions(path: str | os.PathLike[str], predictions: Predictions) -> None:
    """Write predictions as the file that the suffix of `path` names, whole or not at all.

    Args:
        path: .csv or .tsv (also with .gz), .parquet or .npz for columns; any other name is a
            safetensors file.
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
    several = isinstance(predictions.predictive, BernoulliPredictive)
    if predictions.classes and not several:
        named = ("prediction", "target")
        arrays |= {name: _names_of(arrays[name], predictions) for name in named if name in arrays}
    if known_suffix(path) == ".npz":
        lists = {name: getattr(predictions, name) for name in LISTS}
        arrays |= {name: objects(given) for name, given in lists.items() if given}
        if predictions.ignore_index is not None:
            arrays[IGNORED] = np.array([predictions.ignore_index])
    else:
        names = predictions.classes if several else predictions.outputs
        arrays = _flattened(arrays, predictions.classes, names)
    extra = {name: objects(texts(values)) for name, values in predictions.columns.items()}
    write_columns(path, arrays | extra)


def _names_of(values: np.ndarray, predictions: Predictions) -> np.ndarray:
    """The names of class indices; the index of what is not labelled stays one, as text."""
    ignored = predictions.ignore_index
    if ignored is None:
        return np.asarray(objects(predictions.classes)[values])
    known = values != ignored
    names = objects(predictions.classes)[np.where(known, values, 0)]
    names[~known] = str(ignored)
    return np.asarray(names)


def read_predictions(
    path: str | os.PathLike[str],
    *,
    probabilities: Sequence[str] = (),
    target: str | None = None,
    ignore_index: int | None = None,
) -> Predictions:
    """Read predictions written by this package or by another tool.

    They are of classes where there are columns of probabilities, of several labels where these do
    not sum to one and each has a target of its own (`p_cat` and `target_cat`), of regression where
    there are a mean and a standard deviation. Probabilities are divided by their sum over the
    classes, which may differ from 1 by rounding; one column alone is that of the second of two
    classes. Several columns of labels are votes (see `mcbn.predictive.votes`).

    Args:
        path: .csv or .tsv (also with .gz), .parquet or .npz for columns; any other name is a
            safetensors file that `Predictions.save` wrote.
        probabilities: names of the columns of probabilities, one per class; by default those that
            begin with `p_`, or have another usual name, or the array `probabilities` of an NPZ
            file.
        target: name of the column of targets, or what the columns of several begin with; by
            default `target`, `label`, `y` or another usual name, if there is one.
        ignore_index: the label of positions that are not labelled, where the file does not say.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a file that cannot be read, missing columns, or values that are not a
            distribution, a number or a label, or contradict each other; names the row.
    """
    if not is_table(path):
        if probabilities or target:
            raise ValueError(
                f"expected names of columns for {', '.join(SUFFIXES)} only, got {path}; leave them "
                "out for a safetensors file"
            )
        require_predictions(path)
        return _ignoring(Predictions.load(path), ignore_index)
    read = read_columns(path, is_numeric=lambda name: is_named(name) or name in probabilities)
    columns = _known(read, (*probabilities, target))
    if ignore_index is not None:
        columns = {**columns, IGNORED: np.array([ignore_index])}
    outputs = find_outputs(columns, path) if not probabilities else []
    real = has_spread(columns, outputs)
    labels = () if real else _labels(columns, target)
    used = list(probabilities) or find_columns(columns, labels)
    if used and (found := _labels_of(columns, used, target, path)) is not None:
        return found
    if used and not (real and not is_distribution(columns, used)):
        return _categorical(columns, used, target, path)
    used = [] if outputs else find_others(columns, labels)
    if used:
        return _categorical(columns, used, target, path)
    if outputs:
        return _gaussian(columns, outputs, target, path)
    logits = find_logits(columns)
    got, remedy = shortened(sorted(columns)), "name them by probabilities= or --probabilities"
    if logits:
        got = f"the logits {shortened(logits)}"
        remedy = "write p_<class> = scipy.special.softmax(logits, axis=1) instead"
    raise ValueError(
        f"expected columns of probabilities ({PREFIX}<class>) or a mean and an sd in {path}, got "
        f"{got}; {remedy}"
    )


def _ignoring(predictions: Predictions, ignore_index: int | None) -> Predictions:
    return predictions if ignore_index is None else replace(predictions, ignore_index=ignore_index)


def _known(columns: Columns, given: Sequence[str | None]) -> Columns:
    """Columns with known names in small letters, where that does not make two of one name."""
    targets = [] if set(TARGETS) & set(columns) else TARGETS
    known = RESERVED_NAMES | set(targets)
    names = {
        name: name.casefold()
        for name in columns
        if name not in given and name.casefold() in known and name.casefold() not in columns
    }
    twice = {each for each in names.values() if list(names.values()).count(each) > 1}
    return {
        name if names.get(name, name) in twice else names.get(name, name): values
        for name, values in columns.items()
    }


def _labels(columns: Columns, target: str | None) -> tuple[str, ...]:
    """The different values of the columns that may hold the targets."""
    names = [target] if target else TARGETS
    values = [columns[name] for name in names if name in columns]
    return tuple(dict.fromkeys(text for each in values for text in texts(each.ravel())))


def _arrays(predictions: Predictions) -> dict[str, np.ndarray]:
    """What is known of every example, by name; the second axis is of classes or outputs."""
    values: dict[str, Tensor | None] = {"target": predictions.targets}
    given = predictions.predictive
    if isinstance(given, CategoricalPredictive):
        values |= {name: getattr(given, name) for name in CLASS_COLUMNS}
    elif isinstance(given, BernoulliPredictive):
        values |= {name: getattr(given, name) for name in LABEL_COLUMNS}
    else:
        if isinstance(given, GaussianPredictive):
            given = Moments.from_predictive(given)
        values |= given.spreads()
    if given.draw_count:
        values["draws"] = torch.full((len(given),), given.draw_count)
    index = predictions.index
    # Unknown values are left out, not written as zero.
    return {"index": np.arange(len(given)) if index is None else objects(texts(index))} | {
        name: tensor.cpu().numpy()
        for name, tensor in values.items()
        if tensor is not None and not bool(tensor.isnan().all())
    }


def _flattened(
    arrays: Columns, classes: Sequence[str], outputs: Sequence[str]
) -> dict[str, np.ndarray]:
    """Arrays as columns of one value per example: `p_<class>`, or `mean_<output>`."""
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
            names = outputs or range(values.shape[1])
            flat |= {f"{name}_{each}": values[:, k] for k, each in enumerate(names)}
    return flat


def _labels_of(
    columns: Columns, used: Sequence[str], target: str | None, path: str | os.PathLike[str]
) -> Predictions | None:
    """Predictions of several labels an example, if the columns are of such."""
    names = target_columns(columns, target, path, class_texts(used))
    if not names or not are_labels(columns, used, names):
        return None
    predictive, targets, labels = read_labels(columns, used, names, path)
    own = used_columns(columns, used, names)
    read = _read(path, predictive, targets, labels, columns, (*own, IGNORED))
    ignored = texts(columns[IGNORED].ravel())[0] if IGNORED in columns else None
    return _ignoring(read, None if ignored is None else int(ignored))


def _categorical(
    columns: Columns, used: Sequence[str], target: str | None, path: str | os.PathLike[str]
) -> Predictions:
    names = target_columns(columns, target, path, class_texts(used))
    labels = texts(columns[names[""]].ravel()) if "" in names else ()
    ignored = texts(columns[IGNORED].ravel())[0] if IGNORED in columns else None
    distinct = tuple(label for label in dict.fromkeys(labels) if label != ignored)
    found = read_classes(columns, used, distinct, path)
    with np.errstate(divide="ignore"):
        logs = torch.from_numpy(np.log(found.matrix))
    # A few rows at a time: of many classes, every further copy counts.
    total = torch.cat([unchecked_entropy(part.exp()) for part in torch.split(logs, ROWS)])
    # One value that stands for all, where a tensor of them would take as much as the predictions.
    unknown = torch.tensor(torch.nan, dtype=logs.dtype)
    predictive = CategoricalPredictive(
        logs, expected_entropy(columns, total, path), unknown.expand(logs.shape),
        variation_ratio(columns, tuple(total.shape), logs.shape[1], path),
        draw_count(columns, path),
    )  # fmt: skip
    targets = None
    if names:
        predictive, targets = _class_targets(columns, names, found, predictive, path)
    classes = found.classes.names
    plain = classes == tuple(str(k) for k in range(len(classes)))
    used = [*found.used, *names.values(), IGNORED]
    read = _read(path, predictive, targets, () if plain else classes, columns, used)
    return _ignoring(read, None if ignored is None else int(ignored))


def _class_targets(
    columns: Columns, names: Mapping[str, str], found: ClassColumns,
    predictive: CategoricalPredictive, path: object,
) -> tuple[CategoricalPredictive, Tensor]:  # fmt: skip
    """Class indices, with an axis of votes in the predictions as well if there are several."""
    votes = {tag: columns[name] for tag, name in names.items()}
    cases = found.matrix.shape[:1] + found.matrix.shape[2:]
    if "" in votes and votes[""].ndim == found.matrix.ndim == 2:
        # The axis of an array is of classes if it is as long, else of annotators.
        array = votes.pop("")
        tags = found.classes.names if array.shape == found.matrix.shape else ()
        votes = {tags[k] if tags else f"annotator {k}": array[:, k] for k in range(array.shape[1])}
    for name, values in votes.items():
        if values.shape != cases:
            raise ValueError(
                f"expected one target per prediction, shape {cases}, in {path}, got {values.shape} "
                f"of {names.get(name, name)!r:.80}; give as many targets as predictions"
            )
    if "" in votes:
        return predictive, _indices(votes[""], found, names[""], columns.get(IGNORED), path)
    if len(cases) > 1:
        raise ValueError(
            f"expected one column of targets for predictions with positions in {path}, got "
            f"{shortened(names.values())}; choose one by target= or --target"
        )
    shares = vote_shares(votes, found.classes, path)
    where = f"the targets of {path}"
    if len(match(votes, found.classes, where)) < len(votes):  # labels, not votes for a class
        labels = {text: 0 for values in votes.values() for text in texts(values) if text.strip()}
        require_fitting(shares.argmax(1), found.matrix, labels, found.classes, where)
    return with_votes(predictive, shares, path)


def _indices(
    values: np.ndarray, found: ClassColumns, name: str, ignored: np.ndarray | None, path: object
) -> Tensor:
    """The class indices of labels; positions that are not labelled keep their index."""
    matrix, known = found.matrix, None
    if ignored is not None:
        known = np.reshape(np.array(texts(values.ravel())) != texts(ignored)[0], values.shape)
        matrix = np.moveaxis(matrix, 1, -1)[known]
    labels = class_indices(
        values if known is None else values[known], found.classes, matrix, name, path
    )
    if found.is_guess:
        where = f"column {name!r:.80} of {path}"
        require_plausible_order(labels.numpy(), matrix, found.classes, where)
    if known is None or ignored is None:
        return labels
    every = torch.full(values.shape, int(ignored[0]))
    every[torch.from_numpy(known)] = labels
    return every


def _gaussian(columns: Columns, outputs: Sequence[str], target: str | None,
              path: str | os.PathLike[str]) -> Predictions:  # fmt: skip
    predictive = read_moments(columns, outputs, path, draw_count(columns, path))
    names = target_columns(columns, target, path, outputs)
    values = read_targets(columns, names, outputs, tuple(predictive.mean.shape), path)
    targets = None if values is None else torch.from_numpy(values)
    used = [*names.values(), *moment_columns(columns, outputs)]
    named = () if outputs == [""] or all(map(is_whole, outputs)) else tuple(outputs)
    units: tuple[str, ...] = ()
    if known_suffix(path) == ".npz":
        named, units = (texts(columns[name]) if name in columns else () for name in LISTS[1:])
        used += LISTS
    read = _read(path, predictive, targets, (), columns, used)
    return replace(read, outputs=named, units=units)


def _read(
    path: str | os.PathLike[str],
    predictive: CategoricalPredictive | BernoulliPredictive | Moments,
    targets: Tensor | None, classes: tuple[str, ...], columns: Columns, used: Sequence[str],
) -> Predictions:  # fmt: skip
    """Predictions named after their file, with the columns that are not part of them."""
    shape = (len(predictive),)
    extra = {
        name: values
        for name, values in columns.items()
        if not (is_reserved(name) or name in used) and values.shape == shape
    }
    index = columns.get("index")
    index = index if index is not None and index.shape == shape else None
    return Predictions(stem(path), predictive, targets, stem(path), classes, extra, index)
