"""Uncertainty maps of dense predictions: input, truth, prediction, uncertainties and errors."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image
from torch import Tensor

from mcbn.drawing.heat import Pixels
from mcbn.io.atomic import write_whole
from mcbn.io.progress import progress_bar
from mcbn.predictive.predictions import Predictions
from mcbn.report.class_maps import ClassMaps
from mcbn.report.gallery import as_pixels, data_uri, encoded, value_range
from mcbn.report.real_maps import RealMaps

COUNT = 3  # examples of each kind on a page
MAX_PIXELS = 240  # of a side on a page; files have every pixel


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
        tops: the uncertainty from which on it is shown brightest.
        unit: of that, if it is known.
    """

    method: str = ""
    rows: tuple[MapRow, ...] = ()
    colors: dict[str, str] = field(default_factory=dict)
    tops: dict[str, float] = field(default_factory=dict)
    unit: str = ""


def uncertainty_maps(
    predictions: Predictions, images: Tensor | None = None, *, count: int = COUNT
) -> Maps:
    """The maps of the examples of highest and of lowest mean uncertainty.

    That is mutual information or the epistemic standard deviation, or what a single draw has, over
    the labelled positions.

    Args:
        predictions: of classes, one label or one real value, with two axes of positions.
        images: the inputs in the same order, axes (examples, channels, height, width).
        count: examples of each kind.
    """
    maker = _maker(predictions)
    order = maker.uncertainty.argsort(descending=True, stable=True).tolist()
    most = min(count, (len(order) + 1) // 2)
    chosen = [(index, "Least certain") for index in order[:most]]
    chosen += [
        (index, "Most certain") for index in order[len(order) - min(most, len(order) // 2) :]
    ]
    scale = None if images is None else value_range(images)
    rows = []
    for index, title in chosen:
        made = dict(maker.maps_of(index))
        if images is not None and scale is not None:
            made = {"Input": as_pixels(images[index], *scale), **made}
        uris = {
            name: data_uri(Image.fromarray(each), MAX_PIXELS, Image.Resampling.NEAREST)
            for name, each in made.items()
        }
        rows.append(MapRow(index, title, uris))
    return Maps(predictions.method, tuple(rows), maker.colors, maker.tops, maker.unit)


def write_maps(folder: str | os.PathLike[str], predictions: Predictions) -> int:
    """Write the maps of every example as PNG files with every pixel; return their number.

    A file is named after the example and what it shows, as in `00012-mutual-information.png`.

    Args:
        folder: where they are written; it is made if it is not there.
        predictions: of classes, one label or one real value, with two axes of positions.
    """
    maker, written = _maker(predictions), 0
    Path(folder).mkdir(parents=True, exist_ok=True)
    for index in progress_bar(range(len(predictions.predictive)), label="maps", unit="example"):
        for name, pixels in maker.maps_of(index):
            file = f"{index:05d}-{name.lower().replace(' ', '-')}.png"
            write_whole(Path(folder) / file, encoded(Image.fromarray(pixels)))
            written += 1
    return written


def every_map(predictions: Predictions, index: int) -> Iterator[tuple[str, Pixels]]:
    """Yield the name and the pixels of each map of an example, as on a page."""
    return _maker(predictions).maps_of(index)


def is_dense(predictions: Predictions) -> bool:
    """Whether there are maps of the predictions: pictures of classes, a label or a real value."""
    return ClassMaps.of(predictions) is not None or RealMaps.of(predictions) is not None


def _maker(predictions: Predictions) -> ClassMaps | RealMaps:
    maker = ClassMaps.of(predictions) or RealMaps.of(predictions)
    if maker is None:
        raise ValueError(
            "expected predictions with axes (examples, classes, height, width), or of one label or "
            f"real value, for maps, got others of {predictions.method!r}, several of them or "
            "without positions; leave the maps out"
        )
    return maker
