"""The inputs a network is most and least sure of, as small pictures in the page itself."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mcbn.predictive.categorical import CategoricalPredictive

SHOWN = 8  # of each kind
LARGEST = 96  # pixels of a side: larger pictures are made smaller


@dataclass(frozen=True)
class Picture:
    """One input.

    Attributes:
        uri: the picture itself, as a data URI of PNG.
        caption: prediction, target and confidence, in words.
        mark: "right" or "wrong".
        index: which example it is, from 0.
    """

    uri: str
    caption: str
    mark: str
    index: int


@dataclass(frozen=True)
class Gallery:
    """Pictures that share a heading."""

    title: str
    pictures: tuple[Picture, ...]


def galleries(
    images: Tensor,
    predictive: CategoricalPredictive,
    targets: Tensor,
    classes: Sequence[str] = (),
    *,
    shown: int = SHOWN,
) -> tuple[Gallery, ...]:
    """The examples of highest and of lowest entropy; of ties the first.

    Args:
        images: axes (examples, channels, height, width), of 1 or 3 channels; bytes, or numbers
            with a point. Those outside [0, 1] are stretched to it, all images alike.
        predictive: of the same examples in the same order.
        targets: their class indices.
        classes: names of the classes.
        shown: pictures of each kind.

    Raises:
        ValueError: images of other axes or another number, or values that are not finite.
    """
    sound = images.ndim == 4 and images.shape[1] in (1, 3) and 0 not in images.shape
    if not sound or len(images) != len(predictive) or predictive.entropy.ndim != 1:
        raise ValueError(
            f"expected {len(predictive)} images of 1 or 3 channels (examples, channels, height, "
            f"width), one a prediction, got shape {tuple(images.shape)}; give the inputs that were "
            "predicted"
        )
    order = predictive.entropy.cpu().argsort(stable=True)
    low, high = _range(images)
    found = []
    falling = predictive.entropy.cpu().neg().argsort(stable=True)
    for title, chosen in (("Least certain", falling), ("Most certain", order)):
        pictures = []
        for index in chosen[:shown].tolist():
            guess, truth = int(predictive.prediction[index]), int(targets[index])
            names = [classes[place] if classes else str(place) for place in (guess, truth)]
            sure = f"{100 * float(predictive.confidence[index]):.1f} %"
            right = guess == truth
            end = "which is right" if right else f"but it is {names[1]}"
            pictures.append(
                Picture(
                    _data_uri(images[index], low, high),
                    f"{names[0]} at {sure}, {end}",
                    "right" if right else "wrong",
                    index,
                )
            )
        found.append(Gallery(title, tuple(pictures)))
    return tuple(found)


def _range(images: Tensor) -> tuple[float, float]:
    """The values of black and of white."""
    if images.dtype == torch.uint8:
        return 0.0, 255.0
    low, high = (float(end) for end in images.float().aminmax())
    if not np.isfinite([low, high]).all():
        raise ValueError(
            "expected finite numbers in the images, got NaN or infinite ones; repair them"
        )
    if low >= 0 and high <= 1:
        return 0.0, 1.0
    return low, high


def _data_uri(image: Tensor, low: float, high: float) -> str:
    values = (image.double() - low) / max(high - low, 1e-12) * 255
    pixels = values.round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    picture = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    picture.thumbnail((LARGEST, LARGEST))
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
