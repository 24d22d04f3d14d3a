"""Transforms of a whole batch, against NumPy and torchvision one example at a time."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch.testing import assert_close
from torchvision.transforms.v2 import functional as tv

import mcbn
from mcbn.tasks.cifar10 import CROP_AND_FLIP, normalize_cifar10
from mcbn.tasks.transforms import ExampleStreams

EXAMPLES = 400
KEYS = np.random.default_rng(0).integers(0, 2**63, EXAMPLES, dtype=np.uint64)
# Modes of numpy.pad by our names of borders.
MODES = {"constant": "constant", "replicate": "edge", "reflect": "reflect", "circular": "wrap"}


@pytest.fixture
def streams():
    return ExampleStreams.of_draw(KEYS, 3, 1)


def batch(*shape, seed=0):
    drawn = torch.randn(EXAMPLES, *shape, generator=torch.Generator().manual_seed(seed))
    return drawn.double()


# Random numbers.


def test_the_numbers_of_a_stream_are_uniform_and_independent():
    """Kolmogorov-Smirnov and correlations of 10,000 numbers; alarm at p < 1e-4, fixed seeds."""
    keys = np.arange(10_000, dtype=np.uint64)  # the least random digests there are
    one, two = ExampleStreams.of_draw(keys, 0, 0), ExampleStreams.of_draw(keys, 0, 1)
    other = ExampleStreams.of_draw(keys, 1, 0)
    rows = [*one.uniform(2), *two.uniform(1), *other.uniform(1), *one.part(0).uniform(1),
            *one.part(1).uniform(1), one.uniform(1)[0].roll(1)]  # fmt: skip
    for row in rows:
        assert row.min() >= 0
        assert row.max() < 1
        assert stats.kstest(row.numpy(), "uniform").pvalue > 1e-4
    for index, row in enumerate(rows):
        for before in rows[:index]:
            assert stats.pearsonr(row.numpy(), before.numpy()).pvalue > 1e-4


def test_the_numbers_of_an_example_depend_on_its_digest_alone(streams):
    some = ExampleStreams.of_draw(KEYS[[7, 2, 2]], 3, 1)
    assert_close(some.uniform(3), streams.uniform(3)[:, [7, 2, 2]], rtol=0, atol=0)
    assert_close(some.part(4).uniform(1), streams.part(4).uniform(1)[:, [7, 2, 2]], rtol=0, atol=0)
    assert_close(streams.uniform(1), streams.uniform(5)[:1], rtol=0, atol=0)


def test_mixing_is_splitmix():
    """The first numbers of the published generator for the seed 1234567."""
    first = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    bits = (ExampleStreams(np.array([1234567], np.uint64)).uniform(3)[:, 0] * 2**53).long()
    assert bits.tolist() == [number >> 11 for number in first]


# Flips.


@pytest.mark.parametrize("axis", [-1, -2])
def test_flips_are_those_of_torchvision(axis, streams):
    x = batch(2, 5, 6)
    found, parameters = mcbn.RandomFlip(axis=axis).apply(x, streams)
    flip = tv.horizontal_flip if axis == -1 else tv.vertical_flip
    expected = [
        flip(row) if flipped else row for row, flipped in zip(x, parameters.flipped, strict=True)
    ]
    assert_close(found, torch.stack(expected), rtol=0, atol=0)
    assert_close(mcbn.RandomFlip(axis=axis).invert(found, parameters), x, rtol=0, atol=0)


@pytest.mark.parametrize("p", [0, 0.2, 0.5, 1])
def test_flips_have_their_probability(p, streams):
    """400 examples; alarm at p < 1e-4, fixed seed."""
    flipped = mcbn.RandomFlip(p).apply(batch(2, 5, 6), streams)[1].flipped
    assert stats.binomtest(int(flipped.sum()), EXAMPLES, p).pvalue > 1e-4


# Shifts.


def padded(row, steps, mode, fill=0.0):
    """One example padded by NumPy and cropped at a shift, for as many last axes as steps."""
    widths = [(0, 0)] * (row.ndim - len(steps)) + [(4, 4)] * len(steps)
    options = {"constant_values": fill} if mode == "constant" else {}
    wide = np.pad(row.numpy(), widths, mode=mode, **options)
    places = tuple(
        slice(4 + step, 4 + step + size)
        for step, size in zip(steps, row.shape[-len(steps) :], strict=True)
    )
    return torch.from_numpy(wide[(..., *places)])


SHAPES = {(4,): (2, 9), (3,): (2, 4, 7), (4, 3): (2, 7, 9), 2: (3, 5, 6), (1, 2, 3): (2, 4, 5, 6)}


@pytest.mark.parametrize("pixels", SHAPES)
@pytest.mark.parametrize("border", MODES)
def test_shifts_are_those_of_numpy(border, pixels, streams):
    x = batch(*SHAPES[pixels])
    fill = 1.5 if border == "constant" else 0.0
    found, parameters = mcbn.RandomShift(pixels, border, fill).apply(x, streams)
    expected = [
        padded(row, steps, MODES[border], fill)
        for row, steps in zip(x, parameters.steps.T.tolist(), strict=True)
    ]
    assert_close(found, torch.stack(expected), rtol=0, atol=0)


def test_each_channel_has_its_own_fill(streams):
    x = batch(3, 6, 6)
    found, parameters = mcbn.RandomShift(2, fill=[1.0, 2.0, 3.0]).apply(x, streams)
    for row, steps, actual in zip(x, parameters.steps.T.tolist(), found, strict=True):
        for channel in range(3):
            expected = padded(row[channel], steps, "constant", channel + 1.0)
            assert_close(actual[channel], expected, rtol=0, atol=0)


def test_all_shifts_are_equally_likely(streams):
    """Chi-square over 7 x 3 shifts of 400 examples; alarm at p < 1e-4, fixed seed."""
    steps = mcbn.RandomShift((3, 1)).apply(batch(1, 8, 8), streams)[1].steps
    counts = np.zeros((7, 3))
    np.add.at(counts, (steps[0].numpy() + 3, steps[1].numpy() + 1), 1)
    assert stats.chisquare(counts.ravel()).pvalue > 1e-4


def test_circular_shifts_are_inverted(streams):
    x = batch(2, 7, 9)
    shift = mcbn.RandomShift((6, 8), "circular")
    found, parameters = shift.apply(x, streams)
    assert (found != x).any()
    assert_close(shift.invert(found, parameters), x, rtol=0, atol=0)


@pytest.mark.parametrize("border", ["constant", "replicate", "reflect"])
def test_outputs_from_beyond_the_frame_are_those_of_the_nearest_inside(border, streams):
    x = batch(1, 6, 7)
    shift = mcbn.RandomShift((2, 3), border)
    parameters = shift.apply(x, streams)[1]
    scores = batch(4, 6, 7, seed=1)
    found = shift.invert(scores, parameters)
    for row, steps, actual in zip(scores, parameters.steps.T.tolist(), found, strict=True):
        for i in range(6):
            for j in range(7):
                place = min(max(i - steps[0], 0), 5), min(max(j - steps[1], 0), 6)
                assert bool((actual[:, i, j] == row[:, place[0], place[1]]).all())


# Crops.


@pytest.mark.parametrize(
    ("size", "shape"), [(4, (3, 6, 9)), ((5,), (2, 8)), ((2, 3, 4), (2, 4, 3, 6))]
)
def test_crops_are_windows(size, shape, streams):
    x = batch(*shape)
    found, parameters = mcbn.RandomCrop(size).apply(x, streams)
    lengths = (size, size) if isinstance(size, int) else size
    ends = parameters.starts.T + torch.tensor(lengths)
    expected = [
        row[(..., *map(slice, first, last))]
        for row, first, last in zip(x, parameters.starts.T.tolist(), ends.tolist(), strict=True)
    ]
    assert_close(found, torch.stack(expected), rtol=0, atol=0)


def test_all_crops_are_equally_likely(streams):
    """Chi-square over 4 x 3 places of 400 examples; alarm at p < 1e-4, fixed seed."""
    starts = mcbn.RandomCrop((5, 6)).apply(batch(1, 8, 8), streams)[1].starts
    counts = np.zeros((4, 3))
    np.add.at(counts, (starts[0].numpy(), starts[1].numpy()), 1)
    assert stats.chisquare(counts.ravel()).pvalue > 1e-4


def test_outputs_of_a_crop_are_put_back_into_the_frame(streams):
    x = batch(1, 6, 7)
    crop = mcbn.RandomCrop((4, 5))
    parameters = crop.apply(x, streams)[1]
    scores = batch(3, 4, 5, seed=1)
    found = crop.invert(scores, parameters)
    assert found.shape == (EXAMPLES, 3, 6, 7)
    for row, (top, left), actual in zip(scores, parameters.starts.T.tolist(), found, strict=True):
        for i in range(6):
            for j in range(7):
                place = min(max(i - top, 0), 3), min(max(j - left, 0), 4)
                assert bool((actual[:, i, j] == row[:, place[0], place[1]]).all())


def test_a_crop_of_the_whole_changes_nothing(streams):
    x = batch(2, 5, 6)
    found, parameters = mcbn.RandomCrop((5, 6)).apply(x, streams)
    assert_close(found, x, rtol=0, atol=0)
    assert_close(mcbn.RandomCrop((5, 6)).invert(x, parameters), x, rtol=0, atol=0)


def test_composed_transforms_are_undone_from_the_last(streams):
    x = batch(2, 7, 9)
    both = mcbn.Compose(
        mcbn.RandomShift(3, "circular"), mcbn.RandomFlip(), mcbn.RandomFlip(axis=-2)
    )
    found, parameters = both.apply(x, streams)
    by_hand, first = mcbn.RandomShift(3, "circular").apply(x, streams.part(0))
    by_hand, second = mcbn.RandomFlip().apply(by_hand, streams.part(1))
    by_hand, third = mcbn.RandomFlip(axis=-2).apply(by_hand, streams.part(2))
    assert_close(found, by_hand, rtol=0, atol=0)
    assert_close(parameters[0].steps, first.steps, rtol=0, atol=0)
    assert (second.flipped != third.flipped).any()
    assert_close(both.invert(found, parameters), x, rtol=0, atol=0)


def test_cifar10_is_shifted_in_from_black(streams):
    """Four of nine shifts bring the border in at the top; alarm at p < 1e-4, fixed seed."""
    images = torch.full((EXAMPLES, 3, 32, 32), 255, dtype=torch.uint8)
    white, black = normalize_cifar10(images), normalize_cifar10(images * 0)
    found, _ = CROP_AND_FLIP.apply(white, streams)
    dark = (found - black).abs() < 1e-6
    assert bool((dark | (found == white)).all())
    assert stats.binomtest(int(dark[:, 0, 0].all(1).sum()), EXAMPLES, 4 / 9).pvalue > 1e-4


TRANSFORMS = {
    "flip": mcbn.RandomFlip(),
    "shift": mcbn.RandomShift(2, fill=[1.0, 2.0]),
    "reflect": mcbn.RandomShift(2, "reflect"),
    "crop": mcbn.RandomCrop((4, 3)),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_batch_is_left_as_it_is_and_rows_do_not_depend_on_it(name, streams):
    x = batch(2, 5, 6)
    before = x.clone()
    whole, _ = TRANSFORMS[name].apply(x, streams)
    assert_close(x, before, rtol=0, atol=0)
    few, _ = TRANSFORMS[name].apply(x[5:9], ExampleStreams(streams.keys[5:9]))
    assert_close(few, whole[5:9], rtol=0, atol=0)


@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.bfloat16, torch.float32])
def test_types_are_kept(name, dtype, streams):
    x = (batch(2, 5, 6).abs() * 40).to(dtype)
    found, parameters = TRANSFORMS[name].apply(x, streams)
    assert found.dtype == dtype
    assert TRANSFORMS[name].invert(found, parameters).dtype == dtype


@pytest.mark.parametrize("name", TRANSFORMS)
def test_gradients_flow_through(name):
    x = batch(2, 5, 6)[:3].requires_grad_()
    few = ExampleStreams(KEYS[:3])
    assert torch.autograd.gradcheck(lambda given: TRANSFORMS[name].apply(given, few)[0], (x,))


# What has positions.


def test_outputs_without_positions_are_left_as_they_are(streams):
    flip = mcbn.RandomFlip(p=1)
    for x, outputs in (
        (batch(2, 5, 6), batch(6)), (batch(2, 5, 6), batch(6)[:, 0]), (batch(2, 9), batch(3)),
        (batch(5, 6), batch(3)), (batch(4), batch(3)),
    ):  # fmt: skip
        found = flip.invert(outputs, flip.apply(x, streams)[1])
        assert_close(found, outputs, rtol=0, atol=0)


def test_outputs_with_the_positions_of_the_inputs_are_turned_back(streams):
    flip = mcbn.RandomFlip(p=1)
    for x, outputs in (
        (batch(2, 5, 6), batch(3, 5, 6)), (batch(2, 5, 6), batch(5, 6)), (batch(2, 9), batch(3, 9)),
        (batch(2, 3, 4, 5), batch(7, 3, 4, 5)), (batch(2, 5, 6), batch(4, 3, 5, 6)),
    ):  # fmt: skip
        found = flip.invert(outputs, flip.apply(x, streams)[1])
        assert_close(found, outputs.flip(-1), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [((2, 8, 8), (3, 4, 4)), ((2, 8, 8), (5, 2)), ((2, 10), (10,)), ((10,), (10,)),
     ((2, 8, 8), (3, 6, 8)), ((2, 10), (3, 5))],
)  # fmt: skip
@pytest.mark.parametrize("transform", [mcbn.RandomFlip(), mcbn.RandomShift((1,), "circular")])
def test_outputs_that_may_or_may_not_have_positions_are_refused(
    transform, inputs, outputs, streams
):
    parameters = transform.apply(batch(*inputs), streams)[1]
    with pytest.raises(ValueError, match=r"with the positions of the inputs, .* give inverse="):
        transform.invert(batch(*outputs), parameters)


REFUSED = {
    "p": (lambda: mcbn.RandomFlip(1.5), ValueError, "p from 0 to 1, got 1.5"),
    "axis": (lambda: mcbn.RandomFlip(axis=1), ValueError, "counted from the last, got 1; give -1"),
    "pixels": (lambda: mcbn.RandomShift(-1), ValueError, "at least 0, got -1"),
    "no axes": (lambda: mcbn.RandomShift(()), ValueError, r"at least 0, got \(\)"),
    "size": (lambda: mcbn.RandomCrop(0), ValueError, "at least 1, got 0; give 224"),
    "no sizes": (lambda: mcbn.RandomCrop(()), ValueError, r"at least 1, got \(\)"),
    "too large": (
        lambda: mcbn.RandomCrop(6).apply(batch(1, 9, 5), ExampleStreams(KEYS)), ValueError,
        r"at least \(6, 6\), got \(9, 5\); give a smaller size"),
    "border": (lambda: mcbn.RandomShift(1, "wrap"), ValueError, "a border among .*'wrap'"),
    "part": (
        lambda: mcbn.Compose(torch.nn.Identity()), TypeError, "a batch, .* got Identity; compose"),
    "too few axes": (
        lambda: mcbn.RandomShift(1).apply(batch(3), ExampleStreams(KEYS)), ValueError,
        r"2 or more axes behind the first, got \(400, 3\)"),
    "too far": (
        lambda: mcbn.RandomShift(5).apply(batch(1, 9, 5), ExampleStreams(KEYS)), ValueError,
        r"smaller than the inputs of \(9, 5\), got up to \(5, 5\)"),
    "fill": (
        lambda: mcbn.RandomShift(1, fill=[0.0, 1.0]).apply(batch(3, 5, 5), ExampleStreams(KEYS)),
        ValueError, r"the second axis of \(400, 3, 5, 5\), got 2; give one"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.unchecked
def test_mistakes_are_refused_in_words(name):
    call, error, reason = REFUSED[name]
    with pytest.raises(error, match=reason):
        call()


def test_a_composed_transform_shows_its_parts():
    assert repr(mcbn.Compose(mcbn.RandomFlip())) == "Compose(RandomFlip(p=0.5, axis=-1))"
