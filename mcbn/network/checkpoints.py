"""A user's network: built by a function of their own, which is run, with weights from a file."""

import importlib
import importlib.util
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch.nn import Module

from mcbn.io.archives import require_archive_size
from mcbn.network.isolation import random_streams

LENGTH = 500  # characters of another library's error that are told


def import_builder(name: str) -> Callable[[], Module]:
    """The function that `module:function` or `file.py:function` names; importing runs its code.

    Raises:
        ImportError: there is no such module.
        ValueError: the name has no function in it, or there is no such file or function.
    """
    place, _, function = name.rpartition(":")
    if not place:
        raise ValueError(f"expected --model module:function or file.py:function, got {name!r}")
    if place.endswith(".py"):
        spec = importlib.util.spec_from_file_location(Path(place).stem, place)
        if spec is None or spec.loader is None or not Path(place).is_file():
            raise ValueError(f"expected a Python file in --model, got {place!r}; check the path")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    else:
        if str(Path.cwd()) not in sys.path:
            sys.path.insert(0, str(Path.cwd()))
        module = importlib.import_module(place)
    if not hasattr(module, function):
        raise ValueError(f"expected a function {function!r} in {place}, got none; check --model")
    found: Callable[[], Module] = getattr(module, function)
    return found


def load_network(name: str, weights: str | None) -> Module:
    """Build the network that `module:function` names, and load its weights; in eval mode.

    Raises:
        FileNotFoundError: there is no such checkpoint.
        ImportError: there is no such module.
        ValueError: the name or the checkpoint is not as expected.
    """
    builder = import_builder(name)
    # Building draws weights, even if a checkpoint replaces them: not from the caller's stream.
    with random_streams(0, "model"):
        network = builder()
    if weights is not None:
        _load(network, weights)
    return network.eval()


def _load(network: Module, path: str) -> None:
    state = _weights(path)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:  # says which names and shapes do not fit
        raise ValueError(
            f"expected the weights of a {type(network).__name__} in {path}, got others: "
            f"{' '.join(str(error).split())[:LENGTH]}; check --model and --weights"
        ) from error


def _weights(path: str) -> dict[str, Any]:
    if not Path(path).is_file():
        raise FileNotFoundError(f"expected a checkpoint at {path}, got none; check --weights")
    try:
        if path.endswith(".safetensors"):
            return dict(load_file(path))
        if zipfile.is_zipfile(path):
            require_archive_size(path)
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
        found = dict(state.get("state_dict", state))
        if not all(isinstance(name, str) for name in found):
            raise ValueError("names that are no text")
    except Exception as error:  # whatever a foreign file makes the readers raise
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ValueError(
            f"expected a checkpoint of tensors, got {path} ({reason[:LENGTH]}); save its state_dict"
        ) from error
    return found
