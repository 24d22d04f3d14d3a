"""A small task on which methods differ: few digits to train on, and damaged ones to test."""

import torch
from jaxtyping import Float, Int
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn import functional

from mcbn.tasks.datasets import DIGITS, photographs
from mcbn.tasks.examples import LabeledData
from mcbn.tasks.task import Task
from mcbn.tasks.transforms import RandomShift

TRAINING, LABELLED = 160, 50  # digits of the training and the validation part
KNOWN = 8  # digits below this are the classes; the others are out of distribution
SHIFT = 1  # pixels, along each axis
SEED = 0
# Damage, in units of the full range of grey values: about one answer in seven is then wrong.
NOISE, BLUR, CONTRAST = 0.3, 0.4, 0.6
KERNEL = torch.tensor([[1.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]]) / 16


def few_digits() -> Task:
    """Return scikit-learn's digits 0 to 7: 160 to train on, and all others damaged.

    Every digit is used once. Those of the training part are shifted by up to a pixel along each
    axis, in all nine ways. The 50 of validation, those of the test part and both
    out-of-distribution sets are damaged, each image in one of three ways drawn at random.
    """
    bunch = load_digits()
    images = torch.from_numpy(bunch.images / 16).float()[:, None]
    targets = torch.from_numpy(bunch.target).long()
    generator = torch.Generator().manual_seed(SEED)
    known = (targets < KNOWN).nonzero().flatten()
    order = known[torch.randperm(len(known), generator=generator)]
    train, validation, test = order.tensor_split([TRAINING, TRAINING + LABELLED])
    shifted = _shifted(images[train])
    scale, mean = torch.std_mean(shifted, correction=0)

    def inputs(part: Tensor) -> Tensor:
        return (damaged_images(part, generator) - mean) / scale

    return Task(
        LabeledData((shifted - mean) / scale, targets[train].repeat(len(shifted) // len(train))),
        LabeledData(inputs(images[validation]), targets[validation]),
        LabeledData(inputs(images[test]), targets[test]),
        classes=DIGITS[:KNOWN],
        outside={
            "digits_8_and_9": inputs(images[targets >= KNOWN]),
            "photographs": inputs(photographs(SEED)),
        },
        name="few digits",
        augmentation=RandomShift(SHIFT, fill=float(-mean / scale)),
        description=f"Handwritten digits 0 to {KNOWN - 1} of 8x8 pixels, bundled with "
        f"scikit-learn. {TRAINING} are for training, in all nine shifts of up to {SHIFT} pixel, "
        f"{LABELLED} for validation, and {len(test):,} for testing. All but those for training "
        "are damaged, each image in one of three ways: noise, blur, low contrast. "
        "Out-of-distribution sets, damaged alike: the digits 8 and 9, which no network was "
        "trained on; and 500 grey 8x8 patches of scikit-learn's two sample photographs.",
    )


def damaged_images(
    images: Float[Tensor, "batch 1 height width"], generator: torch.Generator
) -> Float[Tensor, "batch 1 height width"]:
    """Return grey images from 0 to 1 with noise, blurred or of low contrast, one of these each.

    Args:
        images: black is 0, and so is what is beyond the border.
        generator: draws the kind of damage of each image, and the noise.
    """
    kind: Int[Tensor, " batch"] = torch.randint(3, (len(images),), generator=generator)
    noise = torch.randn(images.shape, generator=generator)
    blurred = functional.conv2d(images, KERNEL.to(images)[None, None], padding=1)
    ways = torch.stack(
        [images + NOISE * noise, (1 - BLUR) * images + BLUR * blurred, CONTRAST * images]
    )
    return ways[kind, torch.arange(len(images))].clamp(0, 1)


def _shifted(images: Float[Tensor, "batch 1 height width"]) -> Float[Tensor, "more 1 8 8"]:
    """All images in each shift of up to `SHIFT` pixels along both axes, one shift after another."""
    height, width = images.shape[-2:]
    padded = functional.pad(images, (SHIFT,) * 4)
    steps = range(2 * SHIFT + 1)
    return torch.cat(
        [
            padded[..., down : down + height, right : right + width]
            for down in steps
            for right in steps
        ]
    )
