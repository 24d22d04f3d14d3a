"""Batches made of examples, where the user gives no function for it."""

import importlib
from collections.abc import Iterable, Mapping
from typing import Any

from torch.utils.data import default_collate

from mcbn.network.inputs import is_graph


def collated(examples: list[Any]) -> Any:
    """The batch of some examples: as PyTorch makes it, and of graphs as torch_geometric does.

    Raises:
        TypeError: PyTorch has no rule for such examples.
        ValueError: they are of different shapes.
    """
    if any(map(is_graph, _parts(examples[0]))):
        loaders = importlib.import_module("torch_geometric.loader")
        return loaders.DataLoader(examples).collate_fn(examples)
    try:
        return default_collate(examples)
    except (RuntimeError, TypeError, KeyError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(
            f"expected examples that stack to a batch, got {_shapes(examples)}; give minibatches "
            "collate=, or a DataLoader collate_fn=, a function that makes a batch of a list of "
            "examples, such as torch.nn.utils.rnn.pad_sequence for sequences of different lengths"
        ) from None


def _parts(example: Any) -> Iterable[Any]:
    """What an example consists of: itself, or the entries of a tuple, a list or a dict."""
    if isinstance(example, Mapping):
        return example.values()
    return example if isinstance(example, (tuple, list)) else (example,)


def _shapes(examples: list[Any]) -> str:
    """The shapes, or else the types, of what the first examples consist of."""
    kinds = [
        ", ".join(
            str(tuple(part.shape)) if hasattr(part, "shape") else type(part).__name__
            for part in _parts(example)
        )
        for example in examples
    ]
    return " and ".join(list(dict.fromkeys(kinds))[:2])
