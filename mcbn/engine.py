"""Stochastic passes: the network called once a draw, its own tensors replaced by the draw's."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from mcbn.inputs import Inputs, device_of, forward, moved, require_finite, tensors
from mcbn.isolation import eval_mode

Output = Callable[[Any], Tensor]


def passes(
    model: Module,
    states: Iterable[Mapping[str, Tensor]],
    inputs: Inputs,
    *,
    output: Output | None = None,
) -> Iterator[Tensor]:
    """Yield the network's output once for each state, in eval mode, the model left as found.

    Gradients with respect to the inputs flow if an input requires them; else none are tracked.

    Raises:
        ValueError: an input or an output is NaN or infinite.
        TypeError: the network's output is no tensor.
    """
    require_finite(inputs, "the inputs")
    inputs = moved(inputs, device_of(model))
    buffers = dict(model.named_buffers())
    wanted = any(tensor.requires_grad for tensor in tensors(inputs))
    for state in states:
        matching = {name: value.to(buffers[name]) for name, value in state.items()}
        # Nothing stays switched while the caller holds the iterator: yield is outside.
        with eval_mode(model), torch.set_grad_enabled(wanted and torch.is_grad_enabled()):
            raw = forward(model, matching, inputs)
        yield tensor_output(raw, output)


def tensor_output(raw: Any, output: Output | None) -> Tensor:
    """The one tensor that the network answers with, picked by `output` where that is needed.

    Raises:
        TypeError: there is no tensor; names what there is.
    """
    found = output(raw) if output is not None else raw
    if isinstance(found, Tensor):
        return found
    keys = f" with the keys {list(found)}" if isinstance(found, Mapping) else ""
    raise TypeError(
        f"expected a network whose output is one tensor, got {type(found).__name__}{keys}; "
        "give output=function that picks it, such as output=lambda answer: answer['logits']"
    )
