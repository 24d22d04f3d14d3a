"""Patches, the network, and the methods of the super-resolution experiment."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

import mcbn
from experiments.data.camvid import camvid
from mcbn.samplers.sampler import Sampler
from mcbn.tasks.datasets import LabeledData, digits
from mcbn.tasks.training import build, train

SYMMETRIES = tuple((turns, flipped) for flipped in (False, True) for turns in range(4))
RED, GREEN, BLUE = 0.299, 0.587, 0.114  # weights of the colours in grey


@dataclass(frozen=True)
class Scale:
    """Size of the experiment.

    Attributes:
        seeds: number of networks.
        channels: of the network.
        blocks: residual blocks of the network.
        epochs: passes over the training patches.
        train_patches: number of patches that each network is trained on.
        train_side: their side in pixels, at the high resolution.
        side: side of validation and test patches in pixels, at the high resolution.
        validation: number of validation patches, one per image.
        test: number of test patches, one per image.
        border: pixels at the border of a patch that are not scored.
        step: distance between the grey levels of the images.
        batch_sizes: M among which one is chosen.
        rates: of dropout among which one is chosen.
        street_scenes: whether the images are CamVid's, or digits.
    """

    seeds: int = 5
    channels: int = 16
    blocks: int = 3
    epochs: int = 4
    train_patches: int = 2936
    train_side: int = 32
    side: int = 64
    validation: int = 24
    test: int = 40
    border: int = 4
    step: float = 1 / 255
    batch_sizes: tuple[int, ...] = (2, 4, 8, 16, 32, 64)
    rates: tuple[float, ...] = (0.02, 0.05, 0.1, 0.2)
    street_scenes: bool = True


FULL = Scale()
FAST = Scale(
    seeds=2, channels=4, blocks=2, epochs=1, train_patches=64, train_side=8, side=8, validation=4,
    test=6, border=1, step=1 / 16, batch_sizes=(8, 32), rates=(0.1,), street_scenes=False,
)  # fmt: skip
TRAINED_AT = 16  # patches per batch
LEARNING_RATE = 4e-3


class Block(nn.Module):
    """Two convolutions with batch norm, added to what they get."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, maps: Float[Tensor, "batch c h w"]) -> Float[Tensor, "batch c h w"]:
        """Add to the maps what the layers make of them."""
        added: Tensor = self.layers(maps)
        return maps + added


class Upsampler(nn.Module):
    """Twofold super-resolution: bicubic upsampling and a difference from it that is learned."""

    def __init__(self, channels: int, blocks: int) -> None:
        super().__init__()
        self.head = nn.Conv2d(1, channels, 3, padding=1)
        self.blocks = nn.Sequential(*(Block(channels) for _ in range(blocks)))
        self.tail = nn.Conv2d(channels, 4, 3, padding=1)
        # Training starts at bicubic upsampling, which a short one could otherwise not reach.
        nn.init.zeros_(self.tail.weight)

    def forward(self, small: Float[Tensor, "batch 1 h w"]) -> Float[Tensor, "batch 1 H W"]:
        """Upsample grey images."""
        difference = functional.pixel_shuffle(self.tail(self.blocks(self.head(small))), 2)
        return upsampled(small) + difference


def upsampled(small: Float[Tensor, "batch 1 h w"]) -> Float[Tensor, "batch 1 H W"]:
    """Twice the size, by bicubic interpolation."""
    return functional.interpolate(small, scale_factor=2, mode="bicubic")


def pairs(patches: Float[Tensor, "batch 1 H W"]) -> LabeledData:
    """Patches at half the size as inputs, and the patches themselves as targets."""
    small = functional.interpolate(patches, scale_factor=0.5, mode="bicubic", antialias=True)
    return LabeledData(small, patches)


def gradient_magnitude(small: Float[Tensor, "batch 1 h w"]) -> Float[Tensor, "batch 1 H W"]:
    """Magnitude of the gradient of the upsampled image, by central differences."""
    down, right = torch.gradient(upsampled(small), dim=(2, 3))
    return torch.hypot(down, right)


def turned(patch: Float[Tensor, "1 H W"], turns: int, flipped: bool) -> Float[Tensor, "1 H W"]:
    """A square patch turned by quarters, and flipped before that."""
    return (patch.flip(-1) if flipped else patch).rot90(turns, (-2, -1))


def _transform(
    symmetry: tuple[int, bool], patch: Float[Tensor, "1 H W"]
) -> tuple[Tensor, tuple[int, bool]]:
    return turned(patch, *symmetry), symmetry


def turned_back(patch: Float[Tensor, "1 H W"], symmetry: Any) -> Float[Tensor, "1 H W"]:
    """What `turned` was given."""
    turns, flipped = symmetry
    patch = patch.rot90(-turns, (-2, -1))
    return patch.flip(-1) if flipped else patch


def training_data(scale: Scale, seed: int) -> LabeledData:
    """Random patches of the training images, each turned and flipped at random."""
    patches = crops(grey("train", scale), scale.train_patches, scale.train_side, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randint(len(SYMMETRIES), (len(patches),), generator=generator).tolist()
    return pairs(
        torch.stack([turned(each, *SYMMETRIES[i]) for each, i in zip(patches, chosen, strict=True)])
    )


def held_out(part: str, scale: Scale) -> LabeledData:
    """One patch of each of some images, evenly spaced, of the part "val" or "test"."""
    count = scale.validation if part == "val" else scale.test
    images = grey(part, scale)
    spaced = images[torch.arange(count) * len(images) // count]
    return pairs(crops(spaced, count, scale.side, seed=0))


@cache
def grey(part: str, scale: Scale) -> Float[Tensor, "images 1 height width"]:
    """Grey images, with values from 0 to 1; digits are standardised."""
    if not scale.street_scenes:
        task = digits()
        parts = {"train": task.train, "val": task.validation, "test": task.test}
        images: Tensor = parts[part].inputs
        return images
    red, green, blue = camvid(part).inputs.unbind(1)
    levels = (RED * red + GREEN * green + BLUE * blue) / scale.step
    return (levels.round() * scale.step)[:, None]


def crops(
    images: Tensor, count: int, side: int, *, seed: int
) -> Float[Tensor, "count 1 side side"]:
    """Random crops, as many of each image as of any other, up to one."""
    generator = torch.Generator().manual_seed(seed)
    tops = torch.randint(images.shape[2] - side + 1, (count,), generator=generator).tolist()
    lefts = torch.randint(images.shape[3] - side + 1, (count,), generator=generator).tolist()
    return torch.stack([
        images[i % len(images), :, top : top + side, left : left + side]
        for i, (top, left) in enumerate(zip(tops, lefts, strict=True))
    ])  # fmt: skip


def trained(data: LabeledData, scale: Scale, seed: int) -> nn.Module:
    """The network of a seed."""
    network = build(lambda: Upsampler(scale.channels, scale.blocks), seed=seed)
    return train(
        network, data, epochs=scale.epochs, batch_size=TRAINED_AT, learning_rate=LEARNING_RATE,
        loss="mse", seed=seed,
    )  # fmt: skip


def batch_norm(
    network: nn.Module, data: LabeledData, size: int, *, draws: int, seed: int
) -> mcbn.MCBatchNorm:
    """MCBN with mini-batches of `size` training patches."""
    batches = mcbn.minibatches(data.inputs, batch_size=size, draws=draws, seed=seed)
    return mcbn.MCBatchNorm(network, mcbn.collect(network, batches, limit=None, progress=False))


def augmented(sampler: Sampler | nn.Module, draws: int) -> mcbn.Augmented:
    """The eight flips and quarter turns, in turn; the outputs are turned back."""
    transforms: Sequence[Callable[[Any], Any]] = [
        partial(_transform, SYMMETRIES[draw % len(SYMMETRIES)]) for draw in range(draws)
    ]
    return mcbn.Augmented(sampler, transforms, draws=draws, inverse=turned_back)


def dropped(network: nn.Module, rate: float, *, draws: int, seed: int) -> mcbn.MCDropout:
    """Dropout of whole channels after each residual block."""
    return mcbn.MCDropout(network, draws=draws, insert=rate, at="blocks", seed=seed)
