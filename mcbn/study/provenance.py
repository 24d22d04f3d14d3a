"""What a result was made from besides its configuration: files of data, and a user's network."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from mcbn.io.plain import matches_type

# Between machines the last bits of random weights differ, and of outputs some more.
WEIGHT_TOLERANCE, OUTPUT_TOLERANCE = 1e-5, 1e-3


@dataclass(frozen=True)
class Fingerprint:
    """What identifies a network that a user's function builds, without the place of its file.

    Attributes:
        sources: digest of the source of each of the user's modules, by the module's name.
        structure: digest of its layers, with the plain values of their attributes, and the shapes
            of its tensors; empty if two builds differ.
        input_shape: shape of one example, at which the outputs were computed.
        weights: three numbers for the weights that it is built with; None if two builds differ.
        outputs: three numbers each for the outputs in eval and in train mode; empty if it fails,
            None if two builds differ.
    """

    sources: Mapping[str, str]
    structure: str
    input_shape: tuple[int, ...]
    weights: tuple[float, ...] | None
    outputs: tuple[float, ...] | None

    def difference(self, other: "Fingerprint") -> str:
        """Say in which respect another network differs; empty if it is the same network."""
        names = sorted(
            name
            for name in self.sources.keys() | other.sources.keys()
            if self.sources.get(name) != other.sources.get(name)
        )
        if names:
            return f"the source of {', '.join(names)} differs"
        if self.structure and other.structure and self.structure != other.structure:
            return "its source is the same, but its layers or their settings differ"
        if not is_close(self.weights, other.weights, WEIGHT_TOLERANCE):
            return "its source is the same, but the weights that it is built with differ"
        if not is_close(self.outputs, other.outputs, OUTPUT_TOLERANCE):
            return "its source is the same, but its outputs differ"
        return ""


def is_close(
    one: tuple[float, ...] | None, two: tuple[float, ...] | None, tolerance: float
) -> bool:
    """Whether summaries are equal up to a tolerance, relative to the norm that ends each three."""
    if one is None or two is None:
        return one is two
    scales = [abs(one[index // 3 * 3 + 2]) for index in range(len(one))]
    return len(one) == len(two) and all(
        abs(a - b) <= tolerance * scale for a, b, scale in zip(one, two, scales, strict=True)
    )


@dataclass(frozen=True)
class Provenance:
    """What one result, or all results of a study, were made from.

    Attributes:
        data: digest of the files of each data set, by its name; without those that are not known.
        networks: fingerprints of the user's networks, by builder and data set.
    """

    data: Mapping[str, str] = field(default_factory=dict)
    networks: Mapping[str, Fingerprint] = field(default_factory=dict)

    def differences(self, other: "Provenance") -> list[str]:
        """Say how each data set and network of `other` differs from the one here."""
        found = [
            f"another data set {name} (its files differ)"
            for name in sorted(self.data.keys() & other.data.keys())
            if self.data[name] != other.data[name]
        ]
        for name in sorted(self.networks.keys() & other.networks.keys()):
            if words := self.networks[name].difference(other.networks[name]):
                found.append(f"another network {name} ({words})")
        return found

    def merged(self, other: "Provenance") -> "Provenance":
        """Add what is not here yet."""
        return Provenance({**other.data, **self.data}, {**other.networks, **self.networks})

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Any) -> "Provenance":
        """Read the values of `to_dict`.

        Raises:
            ValueError: they are damaged.
        """
        _require_fields(cls, values)
        networks = {name: _fingerprint(each) for name, each in _texts(values["networks"])}
        return cls(dict(_texts(values["data"], str)), networks)


def _fingerprint(values: Any) -> Fingerprint:
    _require_fields(Fingerprint, values)
    sources = dict(_texts(values["sources"], str))
    for each in fields(Fingerprint)[1:]:
        if not matches_type(values[each.name], each.type):
            raise ValueError(f"{each.name} that is {values[each.name]!r:.80}")
    if any(len(values[name] or ()) % 3 for name in ("weights", "outputs")):
        raise ValueError("summaries that are not of three numbers each")
    arrays = {name: values[name] if values[name] is None else tuple(values[name])
              for name in ("input_shape", "weights", "outputs")}  # fmt: skip
    return Fingerprint(sources, values["structure"], **arrays)


def _require_fields(kind: Callable[..., Any], values: Any) -> None:
    names = {each.name for each in fields(kind)}  # type: ignore[arg-type]
    if not isinstance(values, dict) or set(values) != names:
        raise ValueError(f"no values of {sorted(names)}")


def _texts(values: Any, kind: type = dict) -> Any:
    if not (isinstance(values, dict) and all(isinstance(each, kind) for each in values.values())):
        raise ValueError("damaged values")
    return values.items()
