"""Where in a checkpoint the weights of a network are: under which key, behind which prefix."""

import re
import shlex
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

MAX_KEY_CHARACTERS = 1000  # of an entry in a checkpoint; no trainer nests so deep
MAX_PREFIXES = 100  # of one entry, those before most names of the network
SHOWN = 3  # names in an error
MAX_WORD_CHARACTERS = 200  # of what is told of a name from a file
# Prefixes of wrappers that hold one network: of DataParallel, torch.compile and Lightning. Other
# tensors beside them belong to the training.
WRAPPERS = re.compile(r"((module|_orig_mod|model|net|network)\.)*")
BOOKKEEPING = frozenset({"n_averaged"})  # of an average of weights
COLLECTIONS = (Mapping, list, tuple)
COUNTER = "num_batches_tracked"  # not in files of PyTorch before 0.4.1; no output depends on it


@dataclass(frozen=True)
class Reading:
    """Where in a checkpoint the weights were read.

    Attributes:
        key: of the entry that holds the weights, with dots between those of nested entries; empty
            if they are the checkpoint itself.
        prefix: what the names in the file have before those of the network; may be empty.
        unread: names of the other tensors in that entry.
    """

    key: str = ""
    prefix: str = ""
    unread: tuple[str, ...] = ()

    def __str__(self) -> str:
        place = f"the entry {self.key!r}" if self.key else "the whole file"
        names = f" without the prefix {self.prefix!r} of the names" if self.prefix else ""
        return f"weights read from {place}{names}{self.omission}"

    @property
    def omission(self) -> str:
        """What was left unread, as the end of a sentence; empty if nothing was."""
        return f"; not read: {listed(self.unread)}" if self.unread else ""

    @property
    def needs_consent(self) -> bool:
        """Whether these may be the weights of a mere part of what the checkpoint holds."""
        return bool(self.unread) and not WRAPPERS.fullmatch(self.prefix)


@dataclass(frozen=True, eq=False)
class Candidate:
    """The tensors of one reading, by the names that a network would have for them."""

    reading: Reading
    tensors: Mapping[str, Any]

    def differences(self, wanted: Mapping[str, Any]) -> list[str]:
        """What keeps these from being the tensors of a network's state, in words."""
        return [
            *self.mismatches(wanted),
            *(f"{name} is missing" for name in self.missing(wanted)),
            *(f"{name} is not in the network" for name in self.unexpected(wanted)),
        ]

    def mismatches(self, wanted: Mapping[str, Any]) -> list[str]:
        """How tensors differ from those that the network has by the same name, in words."""
        common = (name for name in wanted if name in self.tensors)
        told = (_difference(name, self.tensors[name], wanted[name]) for name in common)
        return [each for each in told if each]

    def missing(self, wanted: Mapping[str, Any]) -> list[str]:
        """Names of the network that are not here."""
        absent = (name for name in wanted if name not in self.tensors)
        return [name for name in absent if not _is_counter(name)]

    def unexpected(self, wanted: Mapping[str, Any]) -> list[str]:
        """Names here that the network does not have."""
        return [name for name in self.tensors if name not in wanted and name not in BOOKKEEPING]

    def agreement(self, wanted: Mapping[str, Any]) -> int:
        """The number of names of the network that are here with the right shape."""
        return len(wanted.keys() & self.tensors.keys()) - len(self.mismatches(wanted))

    def state(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        """The state to load, with the network's own counters where the file has none."""
        own = {name: value for name, value in wanted.items() if _is_counter(name)}
        return own | {name: self.tensors[name] for name in self.tensors if name not in BOOKKEEPING
                      or name in wanted}  # fmt: skip

    def equals(self, other: "Candidate") -> bool:
        """Whether both hold the same weights, to the last bit."""
        one, two = (
            {name: value for name, value in each.tensors.items() if not _is_count(name)}
            for each in (self, other)
        )
        return one.keys() == two.keys() and all(_same_bits(one[name], two[name]) for name in one)


def candidates(
    checkpoint: Any, wanted: Mapping[str, Any], *, key: str | None = None, prefix: str | None = None
) -> list[Candidate]:
    """All readings of a checkpoint in which there is a name of the network, and the plain one.

    Args:
        checkpoint: what a file holds.
        wanted: the state of the network.
        key: of the only entry to look in, if given.
        prefix: the only one to look for, if given; a dot at its end may be left out.
    """
    if prefix is not None:
        prefix = prefix if prefix == "" or prefix.endswith(".") else f"{prefix}."
    found: list[Candidate] = []
    known: set[int] = set()
    for place, entry in entries(checkpoint):
        if key not in (None, place) or id(entry) in known:
            continue
        known.add(id(entry))  # the same object may stand under several keys
        tensors = {name: value for name, value in entry.items() if _is_state(name, value)}
        prefixes = _prefixes(tensors, wanted) if prefix is None else [prefix]
        found += [_candidate(place, each, tensors) for each in prefixes]
    return [each for each in found if each.tensors]


def entries(checkpoint: Any) -> Iterator[tuple[str, Mapping[Any, Any]]]:
    """Yield the mappings in a checkpoint that hold tensors by name, each with its key."""
    waiting: deque[tuple[str, Any]] = deque([("", checkpoint)])
    known: set[int] = set()  # whose content is walked once, however often they are in the file
    while waiting:
        place, entry = waiting.popleft()
        if isinstance(entry, Mapping) and any(map(_is_named, entry, entry.values())):
            yield place, entry
        if id(entry) not in known:
            known.add(id(entry))
            inner = ((f"{place}.{name}" if place else str(name), each)
                     for name, each in _inner(entry))  # fmt: skip
            waiting += (each for each in inner if len(each[0]) <= MAX_KEY_CHARACTERS)


def _inner(entry: Any) -> Iterator[tuple[str | int, Any]]:
    """The collections in one, by their names or positions."""
    if not isinstance(entry, COLLECTIONS):
        return
    for name, each in entry.items() if isinstance(entry, Mapping) else enumerate(entry):
        if isinstance(name, (str, int)) and isinstance(each, COLLECTIONS):
            yield name, each


def _is_named(name: object, value: object) -> bool:
    return isinstance(name, str) and isinstance(value, Tensor)


def distinct(fits: Sequence[Candidate]) -> list[Candidate]:
    """One candidate for each different set of weights: the first, the shortest prefix."""
    different: list[Candidate] = []
    for each in fits:
        if not any(each.equals(other) for other in different):
            different.append(each)
    return different


def options(chosen: Candidate, fits: Sequence[Candidate]) -> str:
    """The options of the command line that choose one of several readings, as few as can be."""
    for parts in (["key"], ["prefix"]):
        if len(distinct([each for each in fits if _agree(each, chosen, parts)])) == 1:
            break
    else:
        parts = ["key", "prefix"]
    return " ".join(f"--{part} {shlex.quote(getattr(chosen.reading, part))}" for part in parts)


def class_count(candidate: Candidate, wanted: Mapping[str, Any]) -> int | None:
    """The number of classes that a network has to be built with, if that is all that differs."""
    if candidate.missing(wanted) or candidate.unexpected(wanted):
        return None
    sizes = set()
    for name, value in wanted.items():
        given = candidate.tensors.get(name, value)
        if not _difference(name, given, value):
            continue
        if (
            not _is_dense(given)
            or given.shape[1:] != value.shape[1:]
            or not value.ndim * given.ndim
        ):
            return None
        # A view may claim any length; the network would take memory for it.
        if given.untyped_storage().nbytes() < given.nbytes or _kind(given) != _kind(value):
            return None
        sizes.add((len(value), len(given)))
    return sizes.pop()[1] if len(sizes) == 1 else None


def listed(words: Sequence[str]) -> str:
    """The first few of some words, and the number of the others."""
    few = ", ".join(shortened(word) for word in words[:SHOWN])
    return few + (f" and {len(words) - SHOWN:,} more" if len(words) > SHOWN else "")


def shortened(word: str) -> str:
    """A name or a word about one, without its end if a file makes it longer than any name is."""
    return word if len(word) <= MAX_WORD_CHARACTERS else f"{word[:MAX_WORD_CHARACTERS]}..."


def _prefixes(names: Iterable[str], wanted: Mapping[str, Any]) -> list[str]:
    """What stands before names of the network among some names, most names first; and nothing."""
    depth = max((name.count(".") + 1 for name in wanted), default=0)
    counts = Counter({"": 0})
    for name in names:
        parts = name.rsplit(".", depth)
        ends = (".".join(parts[start:]) for start in range(len(parts)))
        counts.update(name.removesuffix(end) for end in ends if end in wanted)
    order = sorted(counts, key=lambda prefix: (-counts[prefix], len(prefix), prefix))
    return list(dict.fromkeys([*order[:MAX_PREFIXES], ""]))


def _candidate(key: str, prefix: str, tensors: Mapping[str, Any]) -> Candidate:
    inside = {name.removeprefix(prefix): value for name, value in tensors.items()
              if name.startswith(prefix)}  # fmt: skip
    unread = (name for name in tensors if not name.startswith(prefix) and name not in BOOKKEEPING)
    return Candidate(Reading(key, prefix, tuple(unread)), inside)


def _is_state(name: object, value: object) -> bool:
    extra = isinstance(name, str) and name.endswith("_extra_state")
    return extra or _is_named(name, value)


def _is_counter(name: str) -> bool:
    return name.rpartition(".")[2] == COUNTER


def _is_count(name: str) -> bool:
    return _is_counter(name) or name in BOOKKEEPING


def _is_dense(value: object) -> bool:
    """Whether a value is a tensor of plain numbers."""
    return (
        isinstance(value, Tensor)
        and value.layout == torch.strided
        and not (value.is_quantized or value.is_meta or value.is_nested)
    )


def _kind(value: Tensor) -> tuple[bool, bool]:
    return value.is_floating_point(), value.is_complex()


def _difference(name: str, given: Any, wanted: Any) -> str:
    """How a tensor in a file differs from what the network has by that name; empty if it fits."""
    if not isinstance(wanted, Tensor):  # an extra state of a layer's own
        return ""
    if not _is_dense(given):
        return f"{name} is not a dense tensor"
    if is_lazy(wanted):  # takes any shape
        return ""
    if given.shape != wanted.shape:
        return f"{name} has shape {tuple(given.shape)} instead of {tuple(wanted.shape)}"
    if _kind(given) != _kind(wanted) and not _is_counter(name):
        return f"{name} is of {given.dtype} instead of {wanted.dtype}"
    return ""


def _same_bits(one: Any, two: Any) -> bool:
    if one is two:
        return True
    if not (_is_dense(one) and _is_dense(two)) or one.shape != two.shape or one.dtype != two.dtype:
        return False
    bits = [each.detach().resolve_conj().resolve_neg().contiguous().flatten().view(torch.uint8)
            for each in (one, two)]  # fmt: skip
    return torch.equal(*bits)


def _agree(one: Candidate, two: Candidate, parts: Sequence[str]) -> bool:
    return all(getattr(one.reading, part) == getattr(two.reading, part) for part in parts)
