"""What a network returns: the one tensor that counts, and all tensors in any nesting."""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

from mcbn import validation
from mcbn.network.inputs import Inputs, can_be_cut, count

Output = Callable[[Any], Tensor]
# Values beside tensors that a network may return: they hold no tensor themselves.
PLAIN = (type(None), bool, int, float, str, torch.dtype, torch.device)


def tensor_output(raw: Any, output: Output | None) -> Tensor:
    """Return the tensor of a network's output, picked by `output` where that is needed.

    Raises:
        TypeError: it is not a tensor; names what there is.
    """
    picked = output(raw) if output is not None else raw
    if isinstance(picked, Tensor):
        return picked
    keys = f" with the keys {list(picked)}" if isinstance(picked, Mapping) else ""
    raise TypeError(
        f"expected a network whose output is one tensor, got {type(picked).__name__}{keys}; "
        "give output=function that picks it, such as output=lambda answer: answer['logits']"
    )


def stacked(draws: Iterable[Tensor], inputs: Inputs) -> Tensor:
    """All draws in one tensor.

    Raises:
        ValueError: their shapes differ, as those of detections do.

    Warns:
        UserWarning: there is not one output per row of the inputs.
    """
    every = list(draws)
    if len({outputs.shape for outputs in every}) > 1:
        shapes = [tuple(outputs.shape) for outputs in every[:2]]
        raise ValueError(
            f"expected outputs of one shape in every draw, got {shapes[0]} and {shapes[1]} ...; "
            "give output=, a function that makes the same number of outputs per example"
        )
    whole = torch.stack(every)
    if can_be_cut(inputs) and (whole.ndim < 2 or whole.shape[1] != count(inputs)):
        validation.warn(
            f"the network returned {tuple(whole.shape[1:])} for inputs of {count(inputs)} rows: "
            "the outputs are not one per row of the inputs"
        )
    return whole


def told_if_equal(draws: Iterator[Tensor], reason: str) -> Iterator[Tensor]:
    """Yield the draws, and warn at the end if there were several and all were equal."""
    first, equal, number = None, True, 0
    for outputs in draws:
        if equal and first is not None:
            equal = torch.equal(first, outputs)
        first = outputs.detach() if first is None else first
        number += 1
        yield outputs
    if equal and number > 1:
        validation.warn(
            f"all {number} draws gave the same outputs, so there is no epistemic uncertainty: "
            f"{reason}",
            code="MCBN022",
        )


def map_tensors(change: Callable[[Tensor], Any], values: Any) -> Any:
    """Apply `change` to every tensor in nested mappings, sequences and dataclasses.

    The nesting keeps its types, so that what picks an output from it works as before.

    Raises:
        TypeError: a value of another type, which may hold tensors that are not seen.
    """
    if isinstance(values, Tensor):
        return change(values)
    if is_dataclass(values) and not isinstance(values, type):
        changed = {f.name: map_tensors(change, getattr(values, f.name)) for f in fields(values)}
        return replace(values, **changed)
    if isinstance(values, Mapping):
        kind: Any = type(values)
        return kind({key: map_tensors(change, value) for key, value in values.items()})
    if isinstance(values, (list, tuple)):
        items = [map_tensors(change, value) for value in values]
        return type(values)(*items) if hasattr(values, "_fields") else type(values)(items)
    if isinstance(values, PLAIN):
        return values
    raise TypeError(f"expected tensors in mappings, sequences or dataclasses, got {type(values)}")


def at_draw(values: Any, draw: int) -> Any:
    """What a network returned under one draw, of what it returned under several at once."""
    return map_tensors(lambda tensor: tensor[draw], values)


def all_tensors(values: Any) -> list[Tensor]:
    """Return every tensor in nested values, in order.

    Raises:
        TypeError: as for `map_tensors`.
    """
    tensors: list[Tensor] = []

    def note(tensor: Tensor) -> Tensor:
        tensors.append(tensor)
        return tensor

    map_tensors(note, values)
    return tensors


def nesting(values: Any) -> Any:
    """Return the types, keys and plain values that tensors are nested in, to be compared."""
    # A trace makes a dict of either; other mappings may have attributes that are read.
    kind = dict if type(values) is OrderedDict else type(values)
    if isinstance(values, Mapping):
        return kind, [(key, nesting(value)) for key, value in values.items()]
    if isinstance(values, (list, tuple)):
        return kind, [nesting(value) for value in values]
    if is_dataclass(values):
        return kind, [nesting(getattr(values, field.name)) for field in fields(values)]
    return kind, values if isinstance(values, PLAIN) else None
