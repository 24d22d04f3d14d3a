"""The demo's own task: which digits are where, and how they are damaged."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from sklearn.datasets import load_digits

from mcbn.tasks import few_digits as module
from mcbn.tasks.few_digits import damaged_images, few_digits


@pytest.fixture(scope="module")
def task():
    return few_digits()


@pytest.fixture(scope="module")
def undamaged():
    """The same task without damage, and its images in grey values from 0 to 16."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"NOISE": 0.0, "BLUR": 0.0, "CONTRAST": 1.0}.items():
            patch.setattr(module, name, value)
        return few_digits()


def pictures(inputs, task):
    """The images behind inputs, as tuples of grey values; black is the lowest value of training."""
    black = task.train.inputs.min()
    white = task.train.inputs.max()
    values = ((inputs - black) / (white - black) * 16).round().flatten(1).int()
    return [tuple(row) for row in values.tolist()]


def test_no_digit_is_in_two_parts(undamaged):
    parts = {
        "train": pictures(undamaged.train.inputs, undamaged),
        "validation": pictures(undamaged.validation.inputs, undamaged),
        "test": pictures(undamaged.test.inputs, undamaged),
        "8 and 9": pictures(undamaged.outside["digits_8_and_9"], undamaged),
    }
    every = [tuple(row) for row in load_digits().data.astype(int).tolist()]
    known = dict(zip(every, load_digits().target.tolist(), strict=True))
    assert len(known) == len(every), "no two digits of the data set are equal"
    unshifted = [each for each in parts["train"] if each in known]
    used = [*unshifted, *parts["validation"], *parts["test"], *parts["8 and 9"]]
    assert sorted(used) == sorted(every)
    assert {known[each] for each in parts["8 and 9"]} == {8, 9}
    for part in ("validation", "test"):
        targets = getattr(undamaged, part).targets.tolist()
        assert [known[each] for each in parts[part]] == targets
    # The data set has its digits by writer, so that each part needs digits from all over it.
    places = {each: place for place, each in enumerate(every)}
    for part in (unshifted, parts["validation"]):
        assert np.ptp([places[each] for each in part]) > 0.9 * len(every)


def test_inputs_are_in_standard_deviations_of_the_training_digits(task):
    assert float(task.train.inputs.mean()) == pytest.approx(0, abs=1e-5)
    assert float(task.train.inputs.std(correction=0)) == pytest.approx(1, rel=1e-5)


def test_training_digits_are_in_all_nine_shifts(undamaged):
    count = module.TRAINING
    images = torch.tensor(pictures(undamaged.train.inputs, undamaged)).view(9, count, 8, 8).numpy()
    centre = images[4]
    shifts = [(down, right) for down in (1, 0, -1) for right in (1, 0, -1)]
    for found, shift in zip(images, shifts, strict=True):
        expected = ndimage.shift(centre, (0, *shift), order=0, mode="constant")
        assert np.array_equal(found, expected)
    assert torch.equal(undamaged.train.targets, undamaged.train.targets[:count].repeat(9))


def test_the_task_is_as_it_says(task):
    assert len(task.test) >= 800
    assert (len(task.validation), len(task.classes), task.output_count) == (50, 8, 8)
    assert {name: len(each) for name, each in task.outside.items()} == {
        "digits_8_and_9": 354, "photographs": 500,
    }  # fmt: skip
    assert f"{len(task.test):,} for testing" in task.description
    again = few_digits()
    assert torch.equal(again.test.inputs, task.test.inputs)
    assert all(torch.equal(again.outside[name], each) for name, each in task.outside.items())
    # Shifts at test time bring in black, as those in training did.
    assert task.augmentation.fill == pytest.approx(float(task.train.inputs.min()), abs=1e-6)


def test_an_image_is_damaged_in_one_of_three_ways():
    images = torch.rand(3_000, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    found = damaged_images(images, torch.Generator().manual_seed(2))
    kernel = np.outer([1, 2, 1], [1, 2, 1]) / 16
    blurred = ndimage.convolve(images[:, 0].numpy(), kernel[None], mode="constant")[:, None]
    faded = (found - module.CONTRAST * images).abs().amax((1, 2, 3)) < 1e-6
    mixed = (1 - module.BLUR) * images.numpy() + module.BLUR * blurred
    soft = torch.from_numpy(np.abs(found.numpy() - mixed)).amax((1, 2, 3)) < 1e-5
    noisy = ~faded & ~soft
    assert not bool((faded & soft).any())
    # A third each, within 6 standard deviations of a binomial.
    for kind in (faded, soft, noisy):
        assert abs(int(kind.sum()) - 1_000) < 6 * (3_000 * 2 / 9) ** 0.5
    middle = (images > 0.45) & (images < 0.55) & (found > 0) & (found < 1)
    inside = noisy[:, None, None, None] & middle
    # Noise cut off at 5/3 standard deviations on both sides: 0.79 of the whole deviation.
    assert float((found - images)[inside].std()) == pytest.approx(0.79 * module.NOISE, rel=0.05)
    assert float(found.min()) >= 0
    assert float(found.max()) <= 1
