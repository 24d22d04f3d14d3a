"""Load a network by its name, with the weights of a checkpoint as its trainer wrote it."""

import copy
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch.nn import Module

from mcbn import validation
from mcbn.io.archives import damaged, require_archive_size
from mcbn.network.builders import build, is_published, require_plain_input
from mcbn.network.isolation import random_streams
from mcbn.network.readings import (
    Candidate,
    Reading,
    candidates,
    class_count,
    distinct,
    entries,
    listed,
    options,
    shortened,
)

EXPECTED = "a checkpoint of tensors"
SAVE = 'torch.save(model.state_dict(), "weights.pt")'
# In messages of PyTorch about a class that it does not make from a file of unknown origin.
REFUSED_CLASS = re.compile(
    r"GLOBAL (\S+) was not an allowed global|Unsupported global: GLOBAL (\S+)"
)
CLASS = re.compile(r"[\w.]{1,100}")
# Entries of zip archives that hold a program, and how its weights are had from it.
PROGRAMS = {
    "/constants.pkl": ("a TorchScript archive", "torch.jit.load(path).state_dict()"),
    "/models/model.json": ("a program of torch.export", "torch.export.load(path).state_dict"),
}
MAX_CHOICES = 3  # that an error offers
MAX_TRIALS = 8  # of readings that fit by no name, each with a copy of the network


@dataclass(frozen=True, eq=False)
class Loaded:
    """A network with its weights, and where they were read.

    Attributes:
        network: in eval mode.
        reading: where in the checkpoint its weights were; None without a checkpoint. As text, it
            is a sentence.
    """

    network: Module
    reading: Reading | None


def load_network(
    name: str, weights: str | None, *, key: str | None = None, prefix: str | None = None
) -> Module:
    """Build the network of a name, load its weights, and set eval mode; see `load`.

    Raises:
        FileNotFoundError: there is no such checkpoint.
        ImportError: there is no such module, or timm is not installed.
        TypeError: the function returns no network.
        ValueError: the name or the checkpoint is not as expected.

    Warns:
        UserWarning: tensors beside those of the network were not read.
    """
    loaded = load(name, weights, key=key, prefix=prefix)
    if loaded.reading is not None and loaded.reading.unread and prefix is None:
        validation.warn(f"{weights}: {loaded.reading}; confirm by --prefix {loaded.reading.prefix}")
    return loaded.network


def load(
    name: str, weights: str | None, *, key: str | None = None, prefix: str | None = None
) -> Loaded:
    """Build the network of a name, load its weights, and set eval mode.

    The weights may be the whole checkpoint or an entry of it, and their names may have a prefix, as
    those of DataParallel, torch.compile and Lightning have. They are read where all names and
    shapes are those of the network; counters of batches may be missing. If that is so in two places
    with different weights, `key` or `prefix` has to say which are meant.

    Args:
        name: module:function, file.py:function, torchvision:NAME or timm:NAME; the function's code
            is run.
        weights: a checkpoint, safetensors or a file of `torch.save`. None leaves a user's network
            as it was built, and downloads the published weights of one from a library.
        key: entry of the checkpoint, with dots between nested ones; "" for the checkpoint itself.
        prefix: what the names in the file have before those of the network; "" for nothing.

    Raises:
        FileNotFoundError: there is no such checkpoint.
        ImportError: there is no such module, or timm is not installed.
        TypeError: the function returns no network.
        ValueError: the name or the checkpoint is not as expected.
    """
    if weights is None and (key is not None or prefix is not None):
        raise ValueError(
            "expected --key and --prefix with --weights only, got no checkpoint; leave them out"
        )
    network = _built(name, published=weights is None)
    if weights is None:
        return Loaded(network.eval(), None)
    require_plain_input(name)
    checkpoint = _Checkpoint(weights, read_checkpoint(weights), key, prefix)
    network, fit = _fit(name, network, checkpoint)
    _fill(network, fit, weights)
    return Loaded(network.eval(), fit.reading)


def read_checkpoint(path: str) -> Any:
    """Read what a checkpoint holds, without running any code of it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, expands to too much, holds objects other than plain values and
            tensors, or no tensors by name.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"expected a checkpoint at {path}, got none; check --weights")
    content = _safetensors(path) if path.endswith(".safetensors") else _pickled_tensors(path)
    if next(entries(content), None) is None:
        numbered = isinstance(content, Mapping) and not all(
            isinstance(name, str) for name in content
        )
        reason = ValueError("names that are not text" if numbered else "no tensors by name")
        raise damaged(path, EXPECTED, reason, remedy="save a state_dict")
    return content


def _safetensors(path: str) -> dict[str, Any]:
    try:
        return dict(load_file(path))
    except Exception as error:  # the readers raise many kinds of errors on a damaged file
        raise damaged(path, EXPECTED, error, remedy="save a state_dict") from error


def _pickled_tensors(path: str) -> Any:
    try:
        if zipfile.is_zipfile(path):
            require_archive_size(path)
            program = _program(path)
        else:
            program = None
    except Exception as error:  # as above
        raise damaged(path, EXPECTED, error, remedy="save a state_dict") from error
    if program is not None:
        raise damaged(path, EXPECTED, program[0], remedy=(
            f'save its weights alone, torch.save({program[1]}, "weights.pt"), and give that file'
        ))  # fmt: skip
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # as above
        raise _refusal(path, _refused_classes(path, error)) from error


def _program(path: str) -> tuple[str, str] | None:
    """What kind of program an archive holds, and how its weights are had; None for tensors."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    found = (kind for end, kind in PROGRAMS.items() if any(name.endswith(end) for name in names))
    return next(found, None)


def _refused_classes(path: str, error: Exception) -> list[str]:
    """The classes in a file for which PyTorch does not read it, as far as they can be named."""
    try:
        found = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # an older format, or a damaged file
        found = [name for pair in REFUSED_CLASS.findall(str(error)) for name in pair if name]
    return sorted({name for name in found if CLASS.fullmatch(name)})


def _refusal(path: str, classes: Sequence[str]) -> ValueError:
    """The error for a file that PyTorch does not read without running its code."""
    layers = [name for name in classes if name.startswith("torch.nn.modules.")]
    if layers:
        return ValueError(
            f"expected {EXPECTED} in {path}, got a network or layers of one ({listed(layers)}), "
            f"which could run any code; save the weights alone where you trained it, {SAVE}"
        )
    if not classes:
        return damaged(
            path, EXPECTED, "a truncated, corrupted or different file", remedy="save a state_dict"
        )
    # Those of NumPy need others as well, and those of a script have another name elsewhere.
    importable = not any(name.startswith(("numpy.", "__main__.")) for name in classes)
    allow = f"torch.serialization.add_safe_globals([{', '.join(classes)}])"
    trust = f", or call {allow} in the file that --model names if you trust them"
    return ValueError(
        f"expected {EXPECTED} in {path}, got objects of {listed(classes)} too, which are not read "
        f"since they could run code; save the weights alone where you trained the network, {SAVE}"
        f"{trust if importable and len(classes) <= 3 else ''}"
    )


@dataclass(frozen=True, eq=False)
class _Checkpoint:
    """The content of a file of weights, and which part of it the user asked for."""

    path: str
    content: Any
    key: str | None
    prefix: str | None

    def candidates(self, wanted: Mapping[str, Any]) -> list[Candidate]:
        """The readings that the user's choice leaves.

        Raises:
            ValueError: there is no such entry, or no such prefix in it.
        """
        keys = [key for key, _ in entries(self.content)]
        if self.key is not None and self.key not in keys:
            choice = f"choose one of {listed([repr(key) for key in keys])}"
            raise ValueError(
                f"expected --key to be an entry with tensors in {self.path}, got {self.key!r}; "
                f"{choice if any(keys) else 'leave it out, since there are no entries'}"
            )
        found = candidates(self.content, wanted, key=self.key, prefix=self.prefix)
        if not found:
            names = [str(name) for _, entry in entries(self.content) for name in entry]
            raise ValueError(
                f"expected names that begin with --prefix in {self.path}, got none with "
                f"{self.prefix!r}; give what stands before the network's own in {listed(names)}"
            )
        return found


Fit = tuple[Module, Candidate]


def _built(name: str, *, published: bool = False, classes: int | None = None) -> Module:
    # Building draws weights, even if a checkpoint replaces them; the caller's stream must not move.
    with random_streams(0, "model"):
        network = build(name, published=published, classes=classes)
    if not isinstance(network, Module):
        raise TypeError(
            f"expected {name} to return a torch.nn.Module, got {type(network).__name__}; "
            "return the network"
        )
    return network


def _fit(name: str, network: Module, checkpoint: _Checkpoint) -> Fit:
    """The network and the one reading of the checkpoint that holds its weights.

    A library's network is built anew where its number of classes is another in the checkpoint.

    Raises:
        ValueError: no reading fits, or several with different weights do.
    """
    wanted = network.state_dict()
    found = checkpoint.candidates(wanted)
    fits = _fits(network, found)
    if is_published(name):
        for classes in sorted({class_count(each, wanted) or 0 for each in found} - {0}):
            fits += _fits(_built(name, classes=classes), found)
    fits = fits or _renamed(network, found)
    readings = [reading for _, reading in fits]
    different = distinct(readings)
    if len(different) > 1:
        choices = [options(each, readings) for each in different[:MAX_CHOICES]]
        if len(different) > MAX_CHOICES:
            choices.append(f"one for the {len(different) - MAX_CHOICES:,} others")
        raise ValueError(
            f"expected the weights of one {type(network).__name__} in {checkpoint.path}, got "
            f"{len(different)} that fit and differ; choose by {' or '.join(choices)}"
        )
    if checkpoint.prefix is None:
        agreed = [fit for fit in fits if not fit[1].reading.needs_consent]
        if fits and not agreed:
            raise _partial(fits[0], checkpoint)
        fits = agreed
    if not fits:
        raise _mismatch(name, network, found, checkpoint)
    return fits[0]


def _fits(network: Module, found: Sequence[Candidate]) -> list[Fit]:
    wanted = network.state_dict()
    return [(network, each) for each in found if not each.differences(wanted)]


def _renamed(network: Module, found: Sequence[Candidate]) -> list[Fit]:
    """Readings that fit once the network itself renames them, as some layers do for old files."""
    wanted = network.state_dict()
    whole = [each for each in found if not each.reading.unread and not each.mismatches(wanted)]
    if len(whole) > MAX_TRIALS:
        return []
    return [(network, each) for each in whole if _takes(network, each)]


def _takes(network: Module, candidate: Candidate) -> bool:
    try:
        # Not by a method of the user's own, which may let differences pass.
        Module.load_state_dict(copy.deepcopy(network), candidate.state(network.state_dict()))
    except Exception:  # hooks of any kind
        return False
    return True


def _fill(network: Module, fit: Candidate, path: str) -> None:
    try:
        Module.load_state_dict(network, fit.state(network.state_dict()))
    except Exception as error:  # a layer of the user's own may refuse its state in any way
        raise damaged(path, f"the weights of a {type(network).__name__}", error) from error


def _partial(fit: Fit, checkpoint: _Checkpoint) -> ValueError:
    network, reading = fit[0], fit[1].reading
    return ValueError(
        f"expected the weights of a {type(network).__name__} alone in {checkpoint.path}, got some "
        f"that fit behind the prefix {reading.prefix!r} and others beside them "
        f"({listed(reading.unread)}); give --prefix {reading.prefix} if these are meant"
    )


def _mismatch(
    name: str, network: Module, found: Sequence[Candidate], checkpoint: _Checkpoint
) -> ValueError:
    """The error where no reading fits; it tells how the nearest differs."""
    wanted = network.state_dict()
    nearest = max(found, key=lambda each: (each.agreement(wanted), -len(each.tensors)))
    reading = nearest.reading
    place = f" under the key {shortened(repr(reading.key))}" if reading.key else ""
    place += f" behind the prefix {shortened(repr(reading.prefix))}" if reading.prefix else ""
    if wanted.keys() & nearest.tensors.keys():
        told = listed(nearest.differences(wanted))
    else:
        told = f"none of {listed(list(wanted))} is among {listed(list(nearest.tensors))}"
    advice = "check --model and --weights"
    if is_published(name):
        advice += ", or give a function that builds the network as it was trained"
    return ValueError(
        f"expected the weights of a {type(network).__name__} in {checkpoint.path}, got others"
        f"{place}: {told}; {advice}"
    )
