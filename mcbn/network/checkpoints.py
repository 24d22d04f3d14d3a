"""Load a user's network: built by their own function, with weights from a checkpoint."""

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

from mcbn.io.archives import damaged, require_archive_size
from mcbn.network.isolation import random_streams

MAX_REASON_CHARACTERS = 500  # quoted from another library's error


def import_builder(name: str) -> Callable[[], Module]:
    """Import the function that `module:function` or `file.py:function` names; its code is run.

    Raises:
        ImportError: there is no such module.
        ValueError: the name has no function in it, or there is no such file or function.
    """
    source, _, function = name.rpartition(":")
    if not source:
        raise ValueError(
            f"expected --model module:function or file.py:function, got {name!r}; add the name of "
            "the function that builds the network after a colon"
        )
    if source.endswith(".py"):
        spec = importlib.util.spec_from_file_location(Path(source).stem, source)
        if spec is None or spec.loader is None or not Path(source).is_file():
            raise ValueError(f"expected a Python file in --model, got {source!r}; check the path")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    else:
        module = importlib.import_module(source)
    if not hasattr(module, function):
        raise ValueError(f"expected a function {function!r} in {source}, got none; check --model")
    builder: Callable[[], Module] = getattr(module, function)
    return builder


def build(name: str) -> Module:
    """The network that `module:function` or `file.py:function` builds.

    Its file may import the modules beside it, as it may when it is run as a script.

    Raises:
        ImportError: there is no such module.
        ValueError: the name has no function in it, or there is no such file or function.
    """
    source = name.rpartition(":")[0]
    folder = Path(source).absolute().parent if source.endswith(".py") else Path.cwd()
    path = list(sys.path)
    sys.path.insert(0, str(folder))
    try:
        return import_builder(name)()
    finally:
        sys.path[:] = path


def load_network(name: str, weights: str | None) -> Module:
    """Build the network that `module:function` names, load its weights, and set eval mode.

    Raises:
        FileNotFoundError: there is no such checkpoint.
        ImportError: there is no such module.
        ValueError: the name or the checkpoint is not as expected.
    """
    # Building draws weights, even if a checkpoint replaces them; the caller's stream must not move.
    with random_streams(0, "model"):
        network = build(name)
    if weights is not None:
        _load_weights(network, weights)
    return network.eval()


def _load_weights(network: Module, path: str) -> None:
    state = _read_weights(path)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:  # says which names and shapes differ
        raise ValueError(
            f"expected the weights of a {type(network).__name__} in {path}, got others: "
            f"{' '.join(str(error).split())[:MAX_REASON_CHARACTERS]}; check --model and --weights"
        ) from error


def _read_weights(path: str) -> dict[str, Any]:
    if not Path(path).is_file():
        raise FileNotFoundError(f"expected a checkpoint at {path}, got none; check --weights")
    try:
        if path.endswith(".safetensors"):
            return dict(load_file(path))
        if zipfile.is_zipfile(path):
            require_archive_size(path)
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
        weights = dict(state.get("state_dict", state))
        if not all(isinstance(name, str) for name in weights):
            raise ValueError("names that are not text")
    except Exception as error:  # the readers raise many kinds of errors on a damaged file
        raise damaged(path, "a checkpoint of tensors", error, remedy="save a state_dict") from error
    return weights
