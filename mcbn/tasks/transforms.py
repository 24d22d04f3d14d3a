"""Random transforms of a whole batch, with parameters of its own for each example."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from numpy.typing import NDArray
from torch import Tensor

from mcbn.network.isolation import derived_seed

Border = Literal["constant", "replicate", "reflect", "circular"]
# Constants of SplitMix64: Steele, Lea and Flood 2014, "Fast splittable pseudorandom number
# generators", figure 15.
GOLDEN, FIRST, SECOND = (
    np.uint64(number) for number in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
)


@dataclass(frozen=True, eq=False)
class ExampleStreams:
    """Random numbers for each example of a batch, which do not depend on the others in it.

    Attributes:
        keys: one 64-bit number for each example.
    """

    keys: NDArray[np.uint64]

    @classmethod
    def of_draw(cls, digests: NDArray[np.uint64], seed: int, draw: int) -> "ExampleStreams":
        """The streams of examples that are known by their digests, in one draw."""
        return cls(_mixed(digests ^ np.uint64(derived_seed(seed, "transform", draw))))

    def part(self, index: int) -> "ExampleStreams":
        """Other streams, for the transform of that index among several."""
        return ExampleStreams(_mixed(self.keys ^ np.uint64(derived_seed(index, "part"))))

    def uniform(self, count: int = 1) -> Float[Tensor, "count batch"]:
        """Numbers in [0, 1), `count` for each example: the same in every call."""
        steps = GOLDEN * np.arange(1, count + 1, dtype=np.uint64)
        bits = _mixed(self.keys + steps[:, None]) >> np.uint64(11)
        return torch.from_numpy(bits.astype(np.float64) * 2.0**-53)


def _mixed(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Every bit spread over all bits, one to one."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * FIRST
    numbers = (numbers ^ (numbers >> np.uint64(27))) * SECOND
    return numbers ^ (numbers >> np.uint64(31))


@runtime_checkable
class BatchTransform(Protocol):
    """A random transform of a whole batch, with parameters of its own for each example."""

    def apply(self, inputs: Tensor, streams: ExampleStreams) -> tuple[Tensor, Any]:
        """The batch transformed, with what `invert` has to know of it."""
        ...

    def invert(self, outputs: Tensor, parameters: Any) -> Tensor:
        """The outputs of a transformed batch as those of the batch itself."""
        ...


@dataclass(frozen=True, eq=False)
class _Flips:
    flipped: Bool[Tensor, " batch"]
    sizes: tuple[int, ...]


@dataclass(frozen=True)
class RandomFlip:
    """Flip each example along one axis with a given probability, a whole batch at once.

    Outputs that have the positions of the inputs, `(batch, ..., *positions)`, are flipped back;
    those without positions, `(batch, outputs)`, are left as they are.

    Args:
        p: the probability; 0 never flips and 1 always does.
        axis: the axis, counted from the last: -1 flips left and right in pictures, -2 up and down.

    Raises:
        ValueError: p is not from 0 to 1, or the axis is not negative.
    """

    p: float = 0.5
    axis: int = -1

    def __post_init__(self) -> None:
        if not 0 <= self.p <= 1:
            raise ValueError(f"expected a probability p from 0 to 1, got {self.p}; give 0.5")
        if self.axis >= 0:
            raise ValueError(
                f"expected an axis counted from the last, got {self.axis}; give -1 to flip "
                "pictures left and right"
            )

    def apply(
        self, inputs: Shaped[Tensor, "batch ..."], streams: ExampleStreams
    ) -> tuple[Tensor, _Flips]:
        """The batch with some examples flipped.

        Raises:
            ValueError: the inputs have no such axis behind the first.
        """
        sizes = _last_sizes(inputs, -self.axis)
        flipped = streams.uniform()[0] < self.p
        return self._flipped(inputs, flipped), _Flips(flipped, sizes)

    def invert(self, outputs: Tensor, parameters: _Flips) -> Tensor:
        """The outputs with those of flipped examples flipped back."""
        if not _has_positions(outputs, parameters.sizes):
            return outputs
        return self._flipped(outputs, parameters.flipped)

    def _flipped(self, values: Tensor, flipped: Tensor) -> Tensor:
        # Outputs may be on another device than the inputs.
        rows = _for_rows(flipped, values).to(values.device)
        return torch.where(rows, values.flip(self.axis), values)


@dataclass(frozen=True, eq=False)
class _Shifts:
    steps: Int[Tensor, "axes batch"]
    sizes: tuple[int, ...]


@dataclass(frozen=True)
class RandomShift:
    """Shift each example by up to some pixels along its last axes, a whole batch at once.

    This is padding by that many pixels on each side, then a random crop of the size before: all
    shifts of whole pixels from -pixels to pixels are equally likely. Outputs that have the
    positions of the inputs, `(batch, ..., *positions)`, are shifted back, and positions that had
    been shifted out of the frame get the outputs of the nearest one inside; with the border
    "circular" nothing is shifted out. Outputs without positions, `(batch, outputs)`, are left as
    they are.

    Args:
        pixels: the largest shift, along the last two axes; or one for each of the last axes, such
            as (4,) for sounds.
        border: what is beyond the border: "constant", the value of `fill`; "replicate", the last
            pixel; "reflect", the pixels before it, without it; "circular", the other side.
        fill: that value, or one for each channel, the second axis. Black before a normalisation is
            -mean / sd after it.

    Raises:
        ValueError: a negative number of pixels, or no such border.
    """

    pixels: int | Sequence[int]
    border: Border = "constant"
    fill: float | Sequence[float] = 0.0

    def __post_init__(self) -> None:
        if min(self._pixels, default=-1) < 0:
            raise ValueError(f"expected pixels of at least 0, got {self.pixels}; give 4, say")
        if self.border not in get_args(Border):
            raise ValueError(
                f"expected a border among {get_args(Border)}, got {self.border!r}; choose one"
            )

    @property
    def _pixels(self) -> tuple[int, ...]:
        return (self.pixels, self.pixels) if isinstance(self.pixels, int) else tuple(self.pixels)

    def apply(
        self, inputs: Shaped[Tensor, "batch ..."], streams: ExampleStreams
    ) -> tuple[Tensor, _Shifts]:
        """The batch with each example shifted.

        Raises:
            ValueError: the inputs have no such axes behind the first, or shorter ones.
        """
        sizes = _last_sizes(inputs, len(self._pixels))
        shifted = sizes[-len(self._pixels) :]
        if any(shift >= size for shift, size in zip(self._pixels, shifted, strict=True)):
            raise ValueError(
                f"expected shifts smaller than the inputs of {shifted}, got up to {self._pixels}; "
                "give fewer pixels"
            )
        largest = torch.tensor(self._pixels)[:, None]
        numbers = streams.uniform(len(self._pixels))
        steps = (numbers * (2 * largest + 1)).long() - largest
        return self._shifted(inputs, steps, self.border), _Shifts(steps, sizes)

    def invert(self, outputs: Tensor, parameters: _Shifts) -> Tensor:
        """The outputs shifted back."""
        if not _has_positions(outputs, parameters.sizes):
            return outputs
        inside: Border = "circular" if self.border == "circular" else "replicate"
        return self._shifted(outputs, -parameters.steps, inside)

    def _shifted(self, values: Tensor, steps: Tensor, border: Border) -> Tensor:
        for step, axis in zip(steps, range(-len(steps), 0), strict=True):
            size = values.shape[axis]
            places = (torch.arange(size) + step[:, None]).to(values.device)
            index = _for_axis(_inside(places, size, border), values, axis)
            moved = torch.take_along_dim(values, index, axis)
            if border == "constant":
                beyond = _for_axis((places < 0) | (places >= size), values, axis)
                moved = torch.where(beyond, self._fill(values), moved)
            values = moved
        return values

    def _fill(self, values: Tensor) -> Tensor:
        fill = torch.as_tensor(self.fill, dtype=values.dtype, device=values.device)
        if fill.ndim == 0:
            return fill
        if values.ndim < 3 or values.shape[1] != len(fill):
            raise ValueError(
                f"expected a fill for each of the channels, the second axis of "
                f"{tuple(values.shape)}, got {len(fill)}; give one number for all"
            )
        return fill.reshape(-1, *(1 for _ in values.shape[2:]))


@dataclass(frozen=True, eq=False)
class _Crops:
    starts: Int[Tensor, "axes batch"]
    sizes: tuple[int, ...]
    whole: tuple[int, ...]


@dataclass(frozen=True)
class RandomCrop:
    """Crop each example at a place of its own, a whole batch at once.

    All places at which the crop is inside the example are equally likely. Outputs that have the
    positions of the crop, `(batch, ..., *positions)`, are put back into the frame of the example,
    where positions beyond the crop get the outputs of the nearest one inside. Outputs without
    positions, `(batch, outputs)`, are left as they are.

    Args:
        size: of the crop along the last two axes; or one for each of the last axes, such as (4096,)
            for sounds.

    Raises:
        ValueError: a size below 1.
    """

    size: int | Sequence[int]

    def __post_init__(self) -> None:
        if min(self._lengths, default=0) < 1:
            raise ValueError(f"expected a size of at least 1, got {self.size}; give 224, say")

    @property
    def _lengths(self) -> tuple[int, ...]:
        return (self.size, self.size) if isinstance(self.size, int) else tuple(self.size)

    def apply(
        self, inputs: Shaped[Tensor, "batch ..."], streams: ExampleStreams
    ) -> tuple[Tensor, _Crops]:
        """The batch with a crop of each example.

        Raises:
            ValueError: the inputs have no such axes behind the first, or shorter ones.
        """
        axes = len(self._lengths)
        sizes = _last_sizes(inputs, axes)
        if any(length > size for length, size in zip(self._lengths, sizes[-axes:], strict=True)):
            raise ValueError(
                f"expected inputs of at least {self._lengths}, got {sizes[-axes:]}; give a smaller "
                "size, or pad the inputs by RandomShift"
            )
        choices = torch.tensor(sizes[-axes:]) - torch.tensor(self._lengths) + 1
        starts = (streams.uniform(axes) * choices[:, None]).long()
        whole = tuple(inputs.shape[-axes:])
        for start, length, axis in zip(starts, self._lengths, range(-axes, 0), strict=True):
            places = (torch.arange(length) + start[:, None]).to(inputs.device)
            inputs = torch.take_along_dim(inputs, _for_axis(places, inputs, axis), axis)
        return inputs, _Crops(starts, _last_sizes(inputs, axes), whole)

    def invert(self, outputs: Tensor, parameters: _Crops) -> Tensor:
        """The outputs in the frame of the examples before the crop."""
        if not _has_positions(outputs, parameters.sizes):
            return outputs
        axes = range(-len(parameters.whole), 0)
        for start, whole, axis in zip(parameters.starts, parameters.whole, axes, strict=True):
            places = _inside(torch.arange(whole) - start[:, None], outputs.shape[axis], "replicate")
            index = _for_axis(places.to(outputs.device), outputs, axis)
            outputs = torch.take_along_dim(outputs, index, axis)
        return outputs


class Compose:
    """Several transforms of a batch, one after the other; their inverses in the other order.

    Args:
        transforms: such as `RandomShift(4)` and `RandomFlip()`.

    Raises:
        TypeError: one is no transform of a batch.
    """

    def __init__(self, *transforms: BatchTransform) -> None:
        self.transforms = transforms
        for transform in transforms:
            if not isinstance(transform, BatchTransform):
                raise TypeError(
                    f"expected transforms of a batch, such as RandomFlip(), got "
                    f"{type(transform).__name__}; compose functions of one example in one function"
                )

    def __repr__(self) -> str:
        return f"Compose({', '.join(map(repr, self.transforms))})"

    def apply(self, inputs: Tensor, streams: ExampleStreams) -> tuple[Tensor, tuple[Any, ...]]:
        """The batch after all transforms."""
        every = []
        for index, transform in enumerate(self.transforms):
            inputs, parameters = transform.apply(inputs, streams.part(index))
            every.append(parameters)
        return inputs, tuple(every)

    def invert(self, outputs: Tensor, parameters: tuple[Any, ...]) -> Tensor:
        """The outputs after all inverses."""
        for transform, own in zip(self.transforms[::-1], parameters[::-1], strict=True):
            outputs = transform.invert(outputs, own)
        return outputs


def _last_sizes(inputs: Tensor, axes: int) -> tuple[int, ...]:
    """The sizes of the last axes, those that have positions."""
    if not isinstance(inputs, Tensor) or inputs.ndim <= axes:
        shape = tuple(inputs.shape) if isinstance(inputs, Tensor) else type(inputs).__name__
        raise ValueError(
            f"expected inputs in one tensor with {axes} or more axes behind the first, got {shape};"
            " give transform= a function of one example"
        )
    # Pictures and volumes have positions from the third axis on, whichever axis is changed.
    return tuple(inputs.shape[-max(axes, inputs.ndim - 2) :])


def _has_positions(outputs: Tensor, sizes: tuple[int, ...]) -> bool:
    """Whether outputs have the positions of the inputs, or none.

    Raises:
        ValueError: they have others, or as many outputs without positions as there are positions.
    """
    same = tuple(outputs.shape[-len(sizes) :]) == sizes
    if outputs.ndim <= 2 and not same:
        return False
    if outputs.ndim > 2 and same:
        return True
    raise ValueError(
        f"expected outputs (batch, ..., *positions) with the positions of the inputs, {sizes}, or "
        f"(batch, outputs) of another number, got {tuple(outputs.shape)}; give inverse=, a "
        "function of the outputs and the parameters of the transform, such as "
        "inverse=lambda outputs, parameters: outputs for outputs without positions"
    )


def _for_rows(flags: Tensor, values: Tensor) -> Tensor:
    return flags.reshape(-1, *(1 for _ in values.shape[1:]))


def _for_axis(values: Tensor, like: Tensor, axis: int) -> Tensor:
    """Values of the axes (batch, size) with further axes, so that the second is `axis`."""
    shape = [1] * like.ndim
    shape[0], shape[axis] = values.shape
    return values.reshape(shape)


def _inside(places: Tensor, size: int, border: Border) -> Tensor:
    """Places along an axis, those beyond its ends moved inside."""
    if border == "circular":
        return places % size
    if border == "reflect":
        return (size - 1) - ((size - 1) - places.abs()).abs()
    return places.clamp(0, size - 1)
