"""Layers with a forward of their own, compared with their own train mode.

Statistics belong to a layer where its eval mode, given them, gives what its train mode gave for the
same mini-batch. Whether they are the moments over all axes but that of the channels is asked of the
layer, not assumed.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

import torch
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn import Module

from mcbn.network.batchnorm import MEAN, VARIANCE, batch_statistics, epsilon_of, is_plain
from mcbn.network.inputs import map_inputs, tensors
from mcbn.network.isolation import StreamStates, eval_mode, restored

Statistics = tuple[Tensor, Tensor]
Call = tuple[tuple[Any, ...], dict[str, Any]]

# Largest difference that rounding explains, relative to the largest output, in float64 and where a
# layer does not run in it.
EXACT, ROUNDED = 1e-6, 1e-3
UNIT = (torch.zeros(()), torch.ones(()))
# The variance of a mini-batch is the stored one times (n - 1) / n, for the number n of values.
SMALLEST_FACTOR = 0.25
# Of layers that have no attribute `eps`.
UNKNOWN_EPSILON = 1e-5


def moments(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Statistics:
    """Mean and biased variance of a layer's activations over all axes but the second."""
    return batch_statistics(args[0] if args else next(iter(kwargs.values())))


def agrees(layer: Module, call: Call, statistics: Statistics) -> bool:
    """Whether the layer's eval mode with these statistics gives what its train mode gives."""
    return any(twin.agrees(twin.trained, statistics) for twin in _twins(layer, call))


def nearly_agrees(layer: Module, call: Call, statistics: Statistics) -> bool:
    """The same to the precision of the layer itself, which takes a fraction of the time."""
    streams = StreamStates.now()
    try:
        itself = _Twin.itself(layer, call)
        return itself.runs(training=True) and itself.agrees(itself.trained, statistics)
    finally:
        streams.restore()


def train_mode_statistics(layer: Module, call: Call) -> Statistics | None:
    """The statistics with which a layer's eval mode gives what its train mode gives.

    Train mode moves the running statistics towards those of the mini-batch, r' = (1 - a) r + a s.
    From two values of r both a and s follow, whatever the momentum. The stored variance may be that
    for a number n of values that only the layer knows, as with a mask: n is the one for which eval
    mode gives the outputs of train mode.

    Args:
        layer: a layer with running statistics.
        call: its arguments for the mini-batch.

    Returns:
        The mean and the biased variance; None if there are none, as in ghost batch norm, batch
        renormalisation, or a normaliser that uses its running statistics in train mode too.
    """
    if not _is_pair(layer):
        return None
    for twin in _twins(layer, call):
        found = twin.statistics()
        if found is not None:
            kind = layer.get_buffer(MEAN)
            return found[0].to(kind), found[1].to(kind)
    return None


def _is_pair(layer: Module) -> bool:
    """Whether the buffers are one real mean and one real variance for each channel."""
    mean, variance = layer.get_buffer(MEAN), layer.get_buffer(VARIANCE)
    real = mean.is_floating_point() and variance.is_floating_point()
    return real and mean.shape == variance.shape


# Layers known to have their channels along the second axis of activations with so many axes.
_second_axis: WeakKeyDictionary[Module, set[int]] = WeakKeyDictionary()


def require_second_axis(layer: Module, call: Call, statistics: Statistics) -> None:
    """Check that a layer's statistics belong to the second axis of its first argument.

    They do where the layer gives the same for activations that were normalised along that axis.

    Raises:
        ValueError: they belong elsewhere, so their gradients are not known.
    """
    activations = call[0][0] if call[0] else next(iter(call[1].values()))
    known = _second_axis.setdefault(layer, set())
    if is_plain(layer) or activations.ndim in known:
        return
    mean, variance = (value.detach() for value in statistics)
    for twin in _twins(layer, call, training=False):
        twin_mean, twin_variance = mean.double(), variance.double()
        expected, _ = twin.run((twin_mean, twin_variance), training=False)
        if twin.normalized(twin_mean, twin_variance).gap(expected, UNIT) <= twin.tolerance:
            known.add(activations.ndim)
            return
    raise ValueError(
        f"expected batch-norm layers with channels along the second axis, got a "
        f"{type(layer).__name__} that has them elsewhere, where gradients in its statistics are "
        "not known; use MCBatchNorm, without gradients"
    )


def _twins(layer: Module, call: Call, *, training: bool = True) -> "Iterator[_Twin]":
    """A copy of the layer that runs its call, in float64 or, where it must, as it is.

    A forward that was replaced by a function around the old one belongs to the layer itself, also
    in a copy. So where the statistics of a copy change nothing, the layer itself is run.
    """
    streams = StreamStates.now()
    runnable = []
    try:
        for twin in (
            _Twin.copied(layer, call, torch.float64),
            _Twin.copied(layer, call, None),
            _Twin.itself(layer, call),
        ):
            if twin is not None and twin.runs(training=training):
                runnable.append(twin)
                if twin.responds():
                    yield twin
                    return
        yield from runnable[:1]
    finally:
        streams.restore()


def _detached(tensor: Tensor) -> Tensor:
    return tensor.detach().clone()


@dataclass(frozen=True, eq=False)
class _Twin:
    """A copy of a layer, or the layer itself, and a copy of the arguments it is called with.

    Attributes:
        layer: what is run.
        call: its arguments.
        tolerance: the largest difference that rounding explains.
        own: whether it is the layer itself, so that it is given back as it was.
    """

    layer: Module
    call: Call
    tolerance: float
    own: bool = False

    @classmethod
    def copied(cls, layer: Module, call: Call, kind: torch.dtype | None) -> "_Twin | None":
        """A copy in the type `kind`; None if the layer cannot be copied."""

        def cast(tensor: Tensor) -> Tensor:
            tensor = _detached(tensor)
            return tensor.to(kind) if kind is not None and tensor.is_floating_point() else tensor

        try:
            twin = copy.deepcopy(layer)
            if kind is not None:
                twin.to(kind)
            return cls(twin, map_inputs(cast, call), ROUNDED if kind is None else EXACT)
        except Exception:  # whatever a layer of the user raises that cannot be copied
            return None

    @classmethod
    def itself(cls, layer: Module, call: Call) -> "_Twin":
        """The layer itself, with a copy of its arguments."""
        return cls(layer, map_inputs(_detached, call), ROUNDED, own=True)

    def runs(self, *, training: bool) -> bool:
        """Whether it runs its call."""
        try:
            if training:
                _ = self.trained
            else:
                self.run(None, training=False)
        except Exception:  # whatever a layer of the user raises in float64
            return False
        return True

    def responds(self) -> bool:
        """Whether its eval mode depends on its statistics."""
        zero, one = UNIT
        outputs, _ = self.run((zero, one), training=False)
        others, _ = self.run((one, 4 * one), training=False)
        return _gap(outputs, others) > self.tolerance

    def normalized(self, mean: Tensor, variance: Tensor) -> "_Twin":
        """The copy with activations that are normalised along their second axis."""
        args, kwargs = self.call
        key = None if args else next(iter(kwargs))
        activations = args[0] if key is None else kwargs[key]
        if activations.ndim < 2 or activations.shape[1:2] != mean.shape:
            return self
        shape = (-1, *[1] * (activations.ndim - 2))
        epsilon = epsilon_of("", self.layer)
        scale = ((1 + epsilon) / (variance + epsilon)).sqrt().reshape(shape)
        changed = ((activations - mean.reshape(shape)) * scale).to(activations.dtype)
        if key is None:
            return replace(self, call=((changed, *args[1:]), kwargs))
        return replace(self, call=(args, {**kwargs, key: changed}))

    def run(self, statistics: Statistics | None, *, training: bool) -> tuple[list[Tensor], Any]:
        """The outputs, and the running statistics after, from the given ones."""
        if self.own:
            with eval_mode(self.layer), restored(self.layer, parameters=True):
                return self._run(self.layer, statistics, training=training)
        return self._run(copy.deepcopy(self.layer), statistics, training=training)

    def _run(
        self, layer: Module, statistics: Statistics | None, *, training: bool
    ) -> tuple[list[Tensor], Any]:
        for module in layer.modules():
            module.training = training and "Drop" not in type(module).__name__
        layer.training = training
        if vars(layer).get("momentum") == 0:  # which stores no mini-batch
            layer.momentum = 0.1  # type: ignore[assignment]
        if statistics is not None:
            for name, value in zip((MEAN, VARIANCE), statistics, strict=True):
                buffer = layer.get_buffer(name)
                layer._buffers[name] = value.to(buffer).expand_as(buffer).clone()
        args, kwargs = map_inputs(torch.clone, self.call)
        with torch.no_grad():
            # Not called as a module: hooks of the user are not to see it.
            outputs = [output.double() for output in tensors(layer.forward(*args, **kwargs))]
        return outputs, (layer.get_buffer(MEAN).double(), layer.get_buffer(VARIANCE).double())

    @cached_property
    def trained(self) -> list[Tensor]:
        """What train mode gives."""
        return self.run(None, training=True)[0]

    def gap(self, expected: list[Tensor], statistics: Statistics) -> float:
        """Largest difference of eval mode with these statistics, relative to the outputs."""
        try:
            outputs, _ = self.run(statistics, training=False)
        except Exception:  # statistics of another number of channels
            return float("inf")
        return _gap(outputs, expected)

    def agrees(self, expected: list[Tensor], statistics: Statistics) -> bool:
        """Whether eval mode with these statistics gives what is expected."""
        if self.gap(expected, statistics) <= self.tolerance:
            return True
        # The outputs of a dead layer are rounding: compared with what a step of one deviation does.
        mean, variance = statistics
        step = (variance.clamp_min(0) + getattr(self.layer, "eps", UNKNOWN_EPSILON)).sqrt()
        try:
            outputs, _ = self.run(statistics, training=False)
            shifted, _ = self.run((mean + step, variance), training=False)
        except Exception:  # statistics of another number of channels
            return False
        return _gap(outputs, expected, shifted) <= self.tolerance

    def statistics(self) -> Statistics | None:
        """The statistics of the mini-batch, as train mode stores them."""
        buffer = self.layer.get_buffer(MEAN)
        zero = torch.zeros_like(buffer)
        expected, (mean, variance) = self.run((zero, zero), training=True)
        # From values of the size of those that are stored, beside which no difference is rounding.
        starts = [(1 + value.abs()).to(buffer.dtype) for value in (mean, variance)]
        others, (mean_1, variance_1) = self.run((starts[0], starts[1]), training=True)
        if _gap(others, expected) > self.tolerance or not expected:
            return None  # its train mode uses the running statistics
        shares = 1 - (mean_1 - mean) / starts[0], 1 - (variance_1 - variance) / starts[1]
        if any(bool((share <= 1e-9).any()) for share in shares):
            return None  # it does not store those of this mini-batch
        mean, variance = mean / shares[0], variance / shares[1]
        factor = self._factor(expected, mean, variance)
        if not self.agrees(expected, (mean, factor * variance)):
            return None
        return mean, factor * variance

    def _factor(self, expected: list[Tensor], mean: Tensor, variance: Tensor) -> float:
        """What the stored variance is multiplied by to be the biased one."""

        def gap(factor: float) -> float:
            return self.gap(expected, (mean, factor * variance))

        if self.agrees(expected, (mean, variance)):
            return 1.0
        options = {"xatol": 1e-12}
        nearest = minimize_scalar(
            gap, bounds=(SMALLEST_FACTOR, 1), method="bounded", options=options
        )
        number = round(1 / max(1 - float(nearest.x), 1e-12))
        exact = [(n - 1) / n for n in range(max(2, number - 2), number + 3)]
        return min([float(nearest.x), *exact], key=gap)


def _gap(
    outputs: list[Tensor], expected: list[Tensor], shifted: list[Tensor] | None = None
) -> float:
    """Largest difference, relative to the largest output, or to how far the shifted ones moved."""
    if [o.shape for o in outputs] != [e.shape for e in expected]:
        return float("inf")
    gaps = []
    for one, other, moved in zip(outputs, expected, shifted or expected, strict=True):
        if other.numel() > 0:
            scale = max(float(other.abs().max()), float((moved - other).abs().max()), 1e-30)
            gap = float((one - other).abs().max()) / scale
            gaps.append(gap if gap == gap else float("inf"))
    return max(gaps, default=0.0)
