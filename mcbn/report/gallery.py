"""The inputs of lowest and highest predictive entropy, as small pictures in the page itself."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mcbn.predictive.categorical import CategoricalPredictive

COUNT = 8  # pictures of each kind
MAX_PIXELS = 96  # of a side: larger pictures are made smaller


@dataclass(frozen=True)
class Picture:
    """One input as a picture.

    Attributes:
        uri: the picture itself, as a data URI of PNG.
        caption: prediction, confidence and true class.
        mark: "right" or "wrong".
        index: of the example, from 0.
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
    count: int = COUNT,
) -> tuple[Gallery, ...]:
    """The examples of highest and of lowest predictive entropy; of ties the first.

    Args:
        images: axes (examples, channels, height, width), of 1 or 3 channels; bytes or floats.
            Floats that leave [0, 1] are scaled to it, all images alike.
        predictive: of the same examples in the same order.
        targets: their class indices.
        classes: names of the classes.
        count: pictures of each kind.

    Raises:
        ValueError: images of other axes or another number, or values that are not finite.
    """
    is_valid = images.ndim == 4 and images.shape[1] in (1, 3) and 0 not in images.shape
    if not is_valid or len(images) != len(predictive) or predictive.entropy.ndim != 1:
        raise ValueError(
            f"expected {len(predictive)} images of 1 or 3 channels (examples, channels, height, "
            f"width), one per prediction, got shape {tuple(images.shape)}; give the inputs that "
            "were predicted"
        )
    entropy = predictive.entropy.cpu()
    low, high = value_range(images)

    def picture(index: int) -> Picture:
        predicted, true = int(predictive.prediction[index]), int(targets[index])
        names = [classes[number] if classes else str(number) for number in (predicted, true)]
        is_right = predicted == true
        confidence = f"{100 * float(predictive.confidence[index]):.1f}%"
        return Picture(
            data_uri(Image.fromarray(as_pixels(images[index], low, high)), MAX_PIXELS),
            f"{names[0]} ({confidence}), {'correct' if is_right else f'true class {names[1]}'}",
            "right" if is_right else "wrong",
            index,
        )

    orders = {
        "Least certain": entropy.neg().argsort(stable=True),
        "Most certain": entropy.argsort(stable=True),
    }
    return tuple(
        Gallery(title, tuple(picture(index) for index in order[:count].tolist()))
        for title, order in orders.items()
    )


def value_range(images: Tensor) -> tuple[float, float]:
    """The values shown as black and as white."""
    if images.dtype == torch.uint8:
        return 0.0, 255.0
    low, high = (float(end) for end in images.float().aminmax())
    if not np.isfinite([low, high]).all():
        raise ValueError(
            "expected finite numbers in the images, got NaN or infinity; replace or remove them"
        )
    if low >= 0 and high <= 1:
        return 0.0, 1.0
    return low, high


def as_pixels(image: Tensor, low: float, high: float) -> np.ndarray:
    """An image of 1 or 3 channels as bytes, axes (height, width) or (height, width, 3)."""
    values = (image.double() - low) / max(high - low, 1e-12) * 255
    pixels = values.round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    return pixels[..., 0] if pixels.shape[2] == 1 else pixels


def data_uri(
    picture: Image.Image, most: int, resampling: Image.Resampling = Image.Resampling.BICUBIC
) -> str:
    """A picture of at most so many pixels a side as PNG in the page itself."""
    picture.thumbnail((most, most), resampling)
    return f"data:image/png;base64,{base64.b64encode(encoded(picture)).decode()}"


def encoded(picture: Image.Image) -> bytes:
    """A picture as PNG."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
