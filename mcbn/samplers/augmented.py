"""Test-time augmentation as a sampler: every draw sees the inputs transformed anew."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import prod
from operator import itemgetter
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Shaped
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import Module

from mcbn import validation
from mcbn.io.display import Display, Displayed
from mcbn.network.inputs import (
    Inputs,
    as_tensor,
    can_be_cut,
    count,
    map_inputs,
    require_finite,
    tensors,
)
from mcbn.network.isolation import random_streams
from mcbn.samplers.deterministic import Deterministic
from mcbn.samplers.outputs import stacked, told_if_equal
from mcbn.samplers.precision import (
    ChosenPrecision,
    Precision,
    PrecisionChoice,
    in_own_precision,
)
from mcbn.samplers.sampler import Sampler, one_draw, require_draw
from mcbn.tasks.task import Task
from mcbn.tasks.transforms import BatchTransform, ExampleStreams

# A function of one example, or the transform of a whole batch.
Transform = Callable[[Any], Any] | BatchTransform
Inverse = Callable[[Tensor, Any], Tensor]
Invert = Callable[[Tensor], Tensor]
DEFAULT_DRAWS = 16
TRANSFORM = (
    "give a function of one example, a transform of torchvision.transforms.v2 or "
    "mcbn.Compose(mcbn.RandomShift(4), mcbn.RandomFlip())"
)


@dataclass(frozen=True, eq=False, repr=False)
class Augmented(Displayed):
    """Test-time augmentation: draw t passes the inputs transformed anew, each in its own way.

    Draw t of the whole is draw t of the sampler, on inputs under transform t; so MCBN with
    augmentation costs one pass per draw. A sampler of other classes than those of this package that
    has no method `draw` is asked for the draws before t as well, and so costs (T + 1) / 2 passes
    per draw; `LinearizedBatchNorm` costs a run of its own per draw.

    A transform is called on one example, without the batch axis, while the random streams of
    Python, NumPy and PyTorch are seeded by (seed, t, example). An example is known by its values,
    so its outputs do not depend on the others in its batch or on the order, and equal examples are
    transformed alike. Whatever the transform returns, of the same shape for all examples, is what
    the network gets: pictures may be given as bytes and be normalised there. `RandomFlip`,
    `RandomShift` and `Compose` transform a whole batch at once, and have their inverse built in.

    Args:
        sampler: a sampler, or a network, which is passed as by `Deterministic`.
        transform: of one example, of a whole batch, or a list with one for each draw; or a Task,
            for the `augmentation` that its training examples went through.
        draws: T. By default the draws of the sampler or the length of the list; 16 for a network.
            More than the sampler has: a multiple, and draw t uses its draw t modulo that number.
        seed: of the transforms.
        inverse: takes outputs of a transformed example back to those of the example, such as a map
            of classes flipped back, or a steering angle with its sign changed. With it, `transform`
            returns a pair, the example and its parameters, of any kind (`None` where nothing is
            random), and `inverse(outputs, parameters)` gets the outputs of that one example. Of
            torchvision: `parameters = crop.make_params([example])`, then
            `return crop.transform(example, parameters), parameters`. With the transform of a batch
            it takes the place of the one built in, and gets the outputs of the batch.
        precision: of the passes, not of the transforms. "float32" is that of the
            sampler; "bfloat16" is autocast, at about
            half of the time on processors with units for it; "auto" measures at the first call, on
            some of its inputs, what rounding does, and takes bfloat16 where that is at most a
            quarter of the Monte Carlo error and it takes less time. `precision_choice` says why.

    Raises:
        TypeError: neither a sampler nor a network, or no transform.
        ValueError: `draws` does not fit the sampler or the list; a weight is not finite.

    Reference:
        Krizhevsky, Sutskever and Hinton 2012, "ImageNet classification with deep convolutional
        neural networks", section 4.1; as a measure of uncertainty, Ayhan and Berens 2018,
        "Test-time data augmentation for estimation of heteroscedastic aleatoric uncertainty in
        deep neural networks".
    """

    sampler: Sampler | Module
    transform: Transform | Sequence[Transform] | Task
    draws: int | None = field(default=None, kw_only=True)
    seed: int = field(default=0, kw_only=True)
    inverse: Inverse | None = field(default=None, kw_only=True)
    precision: Precision = field(default="float32", kw_only=True)
    _precision: ChosenPrecision = field(init=False)

    def __post_init__(self) -> None:
        if isinstance(self.sampler, Module):
            object.__setattr__(self, "sampler", Deterministic(self.sampler))
        validation.require_type(
            self.sampler, Sampler, "a sampler or a network", "give mcbn.MCBatchNorm(model, bank)"
        )
        if isinstance(self.transform, Task):
            object.__setattr__(self, "transform", _augmentation(self.transform))
        if isinstance(self.transform, (list, tuple)):
            object.__setattr__(self, "transform", tuple(self.transform))
        for transform in self._transforms:
            _require_transform(transform)
        validation.require_function(self.inverse, "inverse", "leave it out for outputs of classes")
        object.__setattr__(self, "draws", self._draw_count())
        chosen = ChosenPrecision(self.precision, self.models, len(self))
        object.__setattr__(self, "_precision", chosen)

    def __len__(self) -> int:
        return self._draw_count()

    @property
    def models(self) -> tuple[Module, ...]:
        """The networks that are called."""
        one = getattr(self.sampler, "model", None)
        return tuple(getattr(self.sampler, "models", () if one is None else (one,)))

    @property
    def precision_choice(self) -> PrecisionChoice | None:
        """The precision of the passes, and why; None before the first call with "auto"."""
        return self._precision.choice

    def display(self) -> Display:
        """What it is made of, in one line."""
        names = dict.fromkeys(map(_name, self._transforms))
        return Display(
            f"Augmented by {', '.join(names)}: T = {len(self)}, seed {self.seed}"
            f"{self._precision}, of {self.sampler}"
        )

    def passes(self, inputs: Inputs) -> Iterator[Tensor]:
        """Yield the outputs for all inputs, one draw at a time."""
        return told_if_equal(
            self._precision.run(self._passes, _checked(inputs)),
            "the transforms leave the inputs as they are, or the network's outputs do not depend "
            "on what they change",
        )

    def draw(self, index: int, inputs: Inputs) -> Tensor:
        """The outputs for all inputs under draw `index`."""
        require_draw(index, len(self))
        alone = partial(self._passes, only=index)
        return next(self._precision.run(alone, _checked(inputs), by=self._passes))

    def __call__(self, inputs: Inputs) -> Shaped[Tensor, "draws batch *rest"]:
        """All draws stacked."""
        return stacked(self.passes(inputs), inputs)

    def _passes(self, inputs: Inputs, *, only: int | None = None) -> Iterator[Tensor]:
        digests = example_digests(inputs)
        for index in range(len(self)) if only is None else (only,):
            yield self._outputs(index, inputs, digests)

    @property
    def _inner(self) -> Sampler:
        return cast("Sampler", self.sampler)  # a network was wrapped

    @property
    def _transforms(self) -> tuple[Transform, ...]:
        given: Any = self.transform  # a task was taken for its augmentation
        return given if isinstance(given, tuple) else (given,)

    def _draw_count(self) -> int:
        listed = len(self.transform) if isinstance(self.transform, tuple) else None
        own = len(self._inner)
        draws = self.draws
        if draws is None:
            draws = (listed or DEFAULT_DRAWS) if own == 1 else own
        if draws < 1 or (draws > own and draws % own):
            raise ValueError(
                f"expected draws up to the {own} of the sampler, or a multiple, got {draws}; give "
                f"draws={own}"
            )
        if listed not in (None, draws):
            raise ValueError(
                f"expected a transform for each of {draws} draws, got a list of {listed}; repeat "
                "it, such as [...] * 8, or put several in one by mcbn.Compose"
            )
        return draws

    def _outputs(self, index: int, inputs: Inputs, digests: NDArray[np.uint64]) -> Tensor:
        transform = self._transforms[index if len(self._transforms) > 1 else 0]
        apply = self._together if isinstance(transform, BatchTransform) else self._one_by_one
        with in_own_precision(inputs):
            transformed, invert = apply(transform, index, inputs, digests)
        outputs = one_draw(self._inner, index % len(self._inner), transformed)
        return outputs if invert is None else invert(outputs)

    def _together(
        self, transform: Any, index: int, inputs: Any, digests: NDArray[np.uint64]
    ) -> tuple[Inputs, Invert | None]:
        """All examples under a transform of a batch, and what takes their outputs back."""
        streams = ExampleStreams.of_draw(digests, self.seed, index)
        transformed, parameters = transform.apply(inputs, streams)
        inverse = self.inverse or transform.invert
        return transformed, lambda outputs: inverse(outputs, parameters)

    def _one_by_one(
        self, transform: Any, index: int, inputs: Any, digests: NDArray[np.uint64]
    ) -> tuple[Inputs, Invert | None]:
        """The examples under a transform of one, and what takes their outputs back."""
        every, parameters = [], []
        for row, digest in enumerate(digests):
            # A copy, since a transform may write into its example.
            example = map_inputs(torch.clone, map_inputs(itemgetter(row), inputs))
            with random_streams(self.seed, "transform", index, int(digest)):
                made = transform(example)
            if self.inverse is not None:
                made, own = _pair(made)
                parameters.append(own)
            every.append(made)
        batch = _batch(every)
        if self.inverse is None:
            return batch, None
        return batch, partial(_inverted, self.inverse, parameters)


def example_digests(inputs: Inputs) -> NDArray[np.uint64]:
    """A number for each example that depends on its values alone, in whatever batch it is."""
    hashes = [hashlib.blake2b(digest_size=8) for _ in range(count(inputs))]
    for tensor in tensors(inputs):
        rows = tensor.detach().cpu().contiguous()
        kind = f"{rows.dtype}{tuple(rows.shape[1:])}".encode()
        # In bytes, since NumPy has no bfloat16.
        values = rows.reshape(len(rows), prod(rows.shape[1:])).view(torch.uint8).numpy()
        for each, row in zip(hashes, values, strict=True):
            each.update(kind)
            each.update(row.data)
    return np.array([int.from_bytes(each.digest(), "little") for each in hashes], np.uint64)


def _checked(inputs: Inputs) -> Inputs:
    """The inputs, once they are known to be examples along the first axis, and finite."""
    if isinstance(inputs, np.ndarray):
        inputs = as_tensor(inputs)
    if next(tensors(inputs), None) is None or not can_be_cut(inputs):
        raise TypeError(
            "expected tensors with one row per example, to transform each by itself, got a "
            f"{type(inputs).__name__} that cannot be cut into examples; pad sequences to one "
            "length, and transform graphs in their data set"
        )
    require_finite(inputs, "the inputs")
    return inputs


def _augmentation(task: Task) -> Any:
    """What the training examples of a task went through, as a transform of network inputs."""
    if task.augmentation is None:
        raise TypeError(
            f"expected the transform of an example, got the Task {task.name!r}, which does not "
            "say what its training examples went through: give Task(..., augmentation=), or "
            f"{TRANSFORM}"
        )
    return task.augmentation


def _require_transform(transform: object) -> None:
    if not callable(transform) and not isinstance(transform, BatchTransform):
        raise TypeError(
            f"expected the transform of an example, got {type(transform).__name__}; {TRANSFORM}"
        )


def _name(transform: Transform) -> str:
    named = getattr(transform, "__name__", None)
    return str(named or type(transform).__name__)


def _pair(made: Any) -> tuple[Any, Any]:
    if isinstance(made, tuple) and len(made) == 2:
        return made
    raise TypeError(
        "expected a transform that returns the example and its parameters, since there is an "
        f"inverse, got {type(made).__name__}; return a pair, with None for no parameters"
    )


def _batch(examples: Sequence[Any]) -> Inputs:
    """Transformed examples as a batch.

    Raises:
        TypeError: they are not tensors.
        ValueError: their shapes differ.
    """
    parts = [list(tensors(each)) for each in examples]
    if not all(parts) or not can_be_cut(map_inputs(lambda values: values[None], examples[0])):
        raise TypeError(
            f"expected a transform that returns tensors, got {type(examples[0]).__name__}; end it "
            "with torch.as_tensor or torchvision's ToTensor"
        )
    shapes = dict.fromkeys(tuple(tuple(values.shape) for values in part) for part in parts)
    if len(shapes) > 1:
        first, other, *_ = shapes
        raise ValueError(
            f"expected transformed examples of one shape, got {first[0]} and {other[0]}; end the "
            "transform with a crop or a resize to a fixed size"
        )
    columns = iter([torch.stack(column) for column in zip(*parts, strict=True)])
    batch: Inputs = map_inputs(lambda _: next(columns), examples[0])
    return batch


def _inverted(inverse: Inverse, parameters: Sequence[Any], outputs: Tensor) -> Tensor:
    """The outputs of each example taken back."""
    if outputs.ndim == 0 or len(outputs) != len(parameters):
        raise ValueError(
            f"expected one output per example, to invert the transform of each, got shape "
            f"{tuple(outputs.shape)} for {len(parameters)} examples; leave inverse= out"
        )
    rows = [inverse(row, own) for row, own in zip(outputs, parameters, strict=True)]
    return torch.stack(rows)
