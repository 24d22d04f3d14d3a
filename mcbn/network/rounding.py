"""Whether rounding explains the difference between the outputs of two passes."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn import Module

from mcbn.network.batchnorm import HALF_PRECISION

# Largest differences that rounding explains between an example's outputs alone and among others:
# fractions of the largest output, and of the range of the outputs.
FLOAT64, FLOAT32, HALF = (1e-9, 1e-7), (1e-5, 1e-3), (2e-2, 2e-2)


def all_near(model: Module, ones: Sequence[Tensor], others: Sequence[Tensor]) -> bool:
    """Whether all outputs of two passes of a network are near each other."""
    return len(ones) == len(others) and all(map(partial(near, model), ones, others))


def near(model: Module, one: Tensor, other: Tensor) -> bool:
    """Whether rounding explains the difference between an output of two passes of a network."""
    if (one.shape, one.dtype) != (other.shape, other.dtype):
        return False
    if one.numel() == 0 or equal(one, other):
        return True
    if not one.is_floating_point():
        parts = torch.view_as_real
        return one.is_complex() and near(model, parts(one), parts(other))
    finite = one.isfinite() & other.isfinite()
    if not bool(finite.all()):  # a class that is ruled out has the logit minus infinity
        if not equal(one[~finite].nan_to_num(), other[~finite].nan_to_num()):
            return False
        return near(model, one[finite], other[finite])
    half = _in_half_precision(model, one)
    largest, span = HALF if half else FLOAT64 if one.dtype == torch.float64 else FLOAT32
    low, high = (float(end) for end in other.detach().double().aminmax())
    limit = largest * max(abs(low), abs(high)) + span * (high - low)
    return float((one.double() - other.double()).abs().max()) <= limit


def _in_half_precision(model: Module, output: Tensor) -> bool:
    kinds = {output.dtype, *(parameter.dtype for parameter in model.parameters())}
    return bool(kinds & {*HALF_PRECISION}) or autocasts(output)


def autocasts(tensor: Tensor) -> bool:
    """Whether a pass where the tensor lies would run in half precision."""
    try:
        return torch.is_autocast_enabled(tensor.device.type)
    except RuntimeError:  # a device that knows no autocast
        return False


def equal(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors hold the same values, also sparse ones."""
    if one.layout != torch.strided and other.layout == one.layout:
        one, other = one.to_dense(), other.to_dense()
    return one.shape == other.shape and torch.equal(one, other)
