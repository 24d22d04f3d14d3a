"""Corruptions of small pictures, each at two strengths.

Their kinds and most of their strengths are those of CIFAR-10-C at severities 1 and 3 (Hendrycks and
Dietterich 2019, "Benchmarking neural network robustness to common corruptions and perturbations"),
made by torchvision.
"""

from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import UInt8
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode, functional

Pictures = UInt8[Tensor, "batch 3 32 32"]
Corruption = Callable[[Pictures, torch.Generator], Pictures]


def bytes_of(values: Tensor) -> Pictures:
    """Values from 0 to 1 as bytes."""
    return (values.clamp(0, 1) * 255).round().to(torch.uint8)


def noise(images: Pictures, generator: torch.Generator, *, deviation: float) -> Pictures:
    """Gaussian noise."""
    return bytes_of(images / 255 + deviation * torch.randn(images.shape, generator=generator))


def shot_noise(images: Pictures, generator: torch.Generator, *, photons: float) -> Pictures:
    """Poisson noise of so many photons in white."""
    return bytes_of(torch.poisson(images / 255 * photons, generator=generator) / photons)


def blur(images: Pictures, _: torch.Generator, *, deviation: float) -> Pictures:
    """A Gaussian blur, in pixels."""
    return functional.gaussian_blur(images, [5, 5], [deviation, deviation])


def pixelation(images: Pictures, _: torch.Generator, *, pixels: int) -> Pictures:
    """Fewer pixels, shown at the size of before."""
    small = functional.resize(images, [pixels, pixels], InterpolationMode.BILINEAR, antialias=True)
    return functional.resize(small, [*images.shape[-2:]], InterpolationMode.NEAREST)


def contrast(images: Pictures, _: torch.Generator, *, factor: float) -> Pictures:
    """Less contrast."""
    return functional.adjust_contrast(images, factor)


def brightness(images: Pictures, _: torch.Generator, *, added: float) -> Pictures:
    """More light."""
    return bytes_of(images / 255 + added)


def compression(images: Pictures, _: torch.Generator, *, quality: int) -> Pictures:
    """JPEG."""
    return torch.stack([functional.jpeg(image, quality) for image in images])


# Names, and the two strengths.
CORRUPTIONS: dict[str, tuple[Corruption, Corruption]] = {
    "noise": (partial(noise, deviation=0.04), partial(noise, deviation=0.08)),
    "shot noise": (partial(shot_noise, photons=500), partial(shot_noise, photons=100)),
    "blur": (partial(blur, deviation=0.6), partial(blur, deviation=1.0)),
    "pixelation": (partial(pixelation, pixels=28), partial(pixelation, pixels=22)),
    "contrast": (partial(contrast, factor=0.75), partial(contrast, factor=0.4)),
    "brightness": (partial(brightness, added=0.05), partial(brightness, added=0.15)),
    "compression": (partial(compression, quality=80), partial(compression, quality=60)),
}


def corrupted(images: Pictures, *, seed: int) -> dict[str, Pictures]:
    """The images under each corruption, weak and strong."""
    found = {}
    for name, strengths in CORRUPTIONS.items():
        for strength, corruption in zip(("weak", "strong"), strengths, strict=True):
            generator = torch.Generator().manual_seed(seed)
            found[f"{name}, {strength}"] = corruption(images, generator)
    return found
