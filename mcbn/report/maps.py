"""Uncertainty maps of dense predictions: input, truth, prediction, uncertainties and errors."""

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import matplotlib
import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from mcbn.io.atomic import write_whole
from mcbn.io.progress import progress_bar
from mcbn.predictive.bernoulli import UNKNOWN, BernoulliPredictive
from mcbn.predictive.categorical import CategoricalPredictive
from mcbn.predictive.predictions import Predictions
from mcbn.report.gallery import as_pixels, data_uri, encoded, value_range

COUNT = 3  # examples of each kind on a page
MAX_PIXELS = 240  # of a side on a page; files have every pixel
VOID, RIGHT, WRONG = (128, 128, 128), (235, 235, 235), (200, 30, 40)
HEAT = "magma"
BRIGHT = 0.99  # the share of positions below the mutual information that is shown brightest
FEW_COLORS, MANY_COLORS = "tab20", "hsv"

Pixels = UInt8[np.ndarray, "height width 3"]


@dataclass(frozen=True)
class MapRow:
    """The maps of one example.

    Attributes:
        index: of the example, from 0.
        title: why it is shown.
        pictures: data URIs of PNG by what they show.
    """

    index: int
    title: str
    pictures: dict[str, str]


@dataclass(frozen=True)
class Maps:
    """The maps of the least and most certain examples by one method.

    Attributes:
        method: name of the method.
        rows: the examples.
        colors: the colour of each class in truth and prediction, as CSS.
        tops: the uncertainty, in nats, from which on it is shown brightest.
    """

    method: str = ""
    rows: tuple[MapRow, ...] = ()
    colors: dict[str, str] = field(default_factory=dict)
    tops: dict[str, float] = field(default_factory=dict)


def uncertainty_maps(
    predictions: Predictions, images: Tensor | None = None, *, count: int = COUNT
) -> Maps:
    """The maps of the examples of highest and of lowest mean uncertainty.

    That is mutual information, or the entropy of a single draw, over the labelled positions.

    Args:
        predictions: of classes or of one label, with two axes of positions.
        images: the inputs in the same order, axes (examples, channels, height, width).
        count: examples of each kind.
    """
    predictions = _of_classes(predictions)
    given = _dense(predictions)
    values = given.mutual_information if given.draw_count > 1 else given.entropy
    known = _known(predictions)
    mean = (values * known).flatten(1).sum(1) / known.flatten(1).sum(1).clamp(min=1)
    order = mean.argsort(descending=True, stable=True).tolist()
    most = min(count, (len(order) + 1) // 2)
    chosen = [(index, "Least certain") for index in order[:most]]
    chosen += [
        (index, "Most certain") for index in order[len(order) - min(most, len(order) // 2) :]
    ]
    tops = _tops(predictions)
    scale = None if images is None else value_range(images)
    rows = []
    for index, title in chosen:
        made = dict(maps_of(predictions, index, tops))
        if images is not None and scale is not None:
            made = {"Input": as_pixels(images[index], *scale), **made}
        uris = {
            name: data_uri(Image.fromarray(each), MAX_PIXELS, Image.Resampling.NEAREST)
            for name, each in made.items()
        }
        rows.append(MapRow(index, title, uris))
    names = predictions.classes or tuple(map(str, range(given.log_probabilities.shape[1])))
    colors = ["rgb({}, {}, {})".format(*color) for color in class_colors(len(names))]
    return Maps(predictions.method, tuple(rows), dict(zip(names, colors, strict=True)), tops)


def write_maps(folder: str | os.PathLike[str], predictions: Predictions) -> int:
    """Write the maps of every example as PNG files with every pixel; return their number.

    A file is named after the example and what it shows, as in `00012-mutual-information.png`.

    Args:
        folder: where they are written; it is made if it is not there.
        predictions: of classes or of one label, with two axes of positions.
    """
    predictions = _of_classes(predictions)
    Path(folder).mkdir(parents=True, exist_ok=True)
    tops, written = _tops(predictions), 0
    for index in progress_bar(range(len(predictions.predictive)), label="maps", unit="example"):
        for name, pixels in maps_of(predictions, index, tops):
            file = f"{index:05d}-{name.lower().replace(' ', '-')}.png"
            write_whole(Path(folder) / file, encoded(Image.fromarray(pixels)))
            written += 1
    return written


def every_map(predictions: Predictions, index: int) -> Iterator[tuple[str, Pixels]]:
    """Yield the name and the pixels of each map of an example, as on a page."""
    predictions = _of_classes(predictions)
    return maps_of(predictions, index, _tops(predictions))


def maps_of(
    predictions: Predictions, index: int, tops: dict[str, float]
) -> Iterator[tuple[str, Pixels]]:
    """Yield the name and the pixels of each map of an example.

    Args:
        predictions: of classes or of one label, with two axes of positions.
        index: of the example.
        tops: the uncertainty that is shown brightest, by name.
    """
    given, targets = _dense(predictions), predictions.targets
    palette = class_colors(given.log_probabilities.shape[1])
    guess = given.log_probabilities[index].argmax(0).cpu().numpy()
    if targets is not None:
        truth = targets[index].cpu().numpy()
        void = truth == (-1 if predictions.ignore_index is None else predictions.ignore_index)
        yield (
            "Truth",
            np.where(void[..., None], VOID, palette[np.where(void, 0, truth)]).astype("u1"),
        )
    yield "Prediction", palette[guess]
    one = _one(given, index)
    uncertainties = {"Entropy": one.entropy, "Mutual information": one.mutual_information}
    for name, values in uncertainties.items():
        if name in tops:
            yield name, heat(values[0].cpu().numpy(), tops[name])
    if targets is not None:
        wrong = np.where((guess != truth)[..., None], WRONG, RIGHT)
        yield "Error", np.where(void[..., None], VOID, wrong).astype("u1")


def class_colors(count: int) -> UInt8[np.ndarray, "classes 3"]:
    """A colour for each class."""
    name = FEW_COLORS if count <= matplotlib.colormaps[FEW_COLORS].N else MANY_COLORS
    colormap = matplotlib.colormaps[name]
    places = np.arange(count) if name == FEW_COLORS else np.arange(count) / count
    colors: np.ndarray = (255 * colormap(places)[:, :3]).round().astype("u1")
    return colors


def heat(values: np.ndarray, top: float) -> Pixels:
    """Values from 0 to `top` as colours from dark to bright."""
    shares = np.clip(values / top, 0, 1) if top > 0 else np.zeros_like(values)
    colors: np.ndarray = (255 * matplotlib.colormaps[HEAT](shares)[..., :3]).round().astype("u1")
    return colors


def is_dense(predictions: Predictions) -> bool:
    """Whether there are pictures of the predictions, with a height and a width."""
    given = predictions.predictive
    if isinstance(given, BernoulliPredictive):
        return given.log_odds.ndim == 4 and given.log_odds.shape[1] == 1
    return isinstance(given, CategoricalPredictive) and given.log_probabilities.ndim == 4


def _of_classes(predictions: Predictions) -> Predictions:
    """Predictions of one label at each position as those of two classes, absent and present."""
    given, targets = predictions.predictive, predictions.targets
    if not isinstance(given, BernoulliPredictive) or not is_dense(predictions):
        return predictions
    if targets is not None:
        targets = given.aligned(targets, ignore_index=predictions.ignore_index)[:, 0]
    states = given.as_classes
    alone = CategoricalPredictive(
        states.log_probabilities[:, :, 0], states.expected_entropy[:, 0], states.variance[:, :, 0],
        states.variation_ratio[:, 0], states.draw_count,
    )  # fmt: skip
    name = predictions.classes[0] if predictions.classes else "present"
    return replace(
        predictions, predictive=alone, targets=targets, classes=(f"not {name}", name),
        ignore_index=UNKNOWN,
    )  # fmt: skip


def _dense(predictions: Predictions) -> CategoricalPredictive:
    given = predictions.predictive
    if not isinstance(given, CategoricalPredictive) or not is_dense(predictions):
        raise ValueError(
            "expected predictions with axes (examples, classes, height, width), or of one label, "
            f"for maps, got others of {predictions.method!r}, several labels or without positions; "
            "leave the maps out"
        )
    return given


def _known(predictions: Predictions) -> Tensor:
    """Whether a position is labelled, as numbers."""
    given, targets = _dense(predictions), predictions.targets
    if targets is None or predictions.ignore_index is None:
        return torch.ones_like(given.expected_entropy)
    return (targets != predictions.ignore_index).to(given.expected_entropy)


def _tops(predictions: Predictions) -> dict[str, float]:
    """The entropy of equal chances, and what all but few positions have of mutual information."""
    given = _dense(predictions)
    tops = {"Entropy": math.log(given.log_probabilities.shape[1])}
    if given.draw_count > 1:
        high = [
            float(_one(given, k).mutual_information.quantile(BRIGHT)) for k in range(len(given))
        ]
        tops["Mutual information"] = max(high)
    return tops


def _one(given: CategoricalPredictive, index: int) -> CategoricalPredictive:
    """The predictions of one example: of all at once an entropy would take as much memory again."""
    part = slice(index, index + 1)
    return CategoricalPredictive(
        given.log_probabilities[part], given.expected_entropy[part], given.variance[part],
        given.variation_ratio[part], given.draw_count,
    )  # fmt: skip
