"""Which batch-norm layers of a network are meant: by number, place, name or stage."""

import re
from collections.abc import Iterable, Sequence

# All for None; the last k; "first k" or "last k"; names of layers, or of modules that hold them.
Layers = int | str | Sequence[str] | None
PLACE = re.compile(r"(first|last) (\d+)")


def chosen_layers(layers: Iterable[str], choice: Layers) -> list[str]:
    """Names of the chosen layers, in the order of the network.

    Args:
        layers: the names of all, in that order.
        choice: None for all; k or "last k" for the last k, "first k" for the first; the name of a
            layer, or of a stage, a module that holds several; or a list of names.

    Raises:
        ValueError: there are fewer layers, or none of that name.
    """
    names = list(layers)
    if choice is None:
        return names
    if isinstance(choice, int):
        return _at_an_end(names, "last", choice)
    if isinstance(choice, str) and choice not in names and (place := PLACE.fullmatch(choice)):
        return _at_an_end(names, place[1], int(place[2]))
    wanted = [choice] if isinstance(choice, str) else list(choice)
    unknown = [part for part in wanted if not any(_is_in(name, part) for name in names)]
    if unknown or not wanted:
        raise ValueError(
            f"expected batch-norm layers among {names}, got {unknown or 'none'}; name some of "
            "these, or the modules that they are in, or give the number of last layers, or "
            "'first 5'"
        )
    return [name for name in names if any(_is_in(name, part) for part in wanted)]


def layers_text(choice: Layers) -> str:
    """A choice of layers in words."""
    if choice is None:
        return "all layers"
    place = PLACE.fullmatch(choice) if isinstance(choice, str) else None
    if isinstance(choice, int) or place:
        end, count = ("last", choice) if place is None else (place[1], int(place[2]))
        return f"the {end} layer" if count == 1 else f"the {end} {count} layers"
    return f"layers {choice if isinstance(choice, str) else ', '.join(choice)}"


def stages(layers: Iterable[str]) -> dict[str, list[str]]:
    """The layers in each part of a network, by the name of the part.

    The parts are the outermost modules that tell layers apart: `layer1` and `layer2`, or
    `model.layer1` and `model.layer2` where the whole network is in `model`.
    """
    names = list(layers)
    paths = [name.split(".") for name in names]
    depth = 0
    while all(len(path) > depth + 1 for path in paths) and len({path[depth] for path in paths}) < 2:
        depth += 1
    found: dict[str, list[str]] = {}
    for name, path in zip(names, paths, strict=True):
        found.setdefault(".".join(path[: depth + 1]), []).append(name)
    return found


def _at_an_end(names: list[str], end: str, count: int) -> list[str]:
    if not 1 <= count <= len(names):
        raise ValueError(
            f"expected a number of {end} layers from 1 to {len(names)}, got {count}; leave layers "
            "out to draw the statistics of all"
        )
    return names[:count] if end == "first" else names[-count:]


def _is_in(name: str, part: str) -> bool:
    """Whether a layer is the one of that name, or in the module of that name."""
    return name == part or (part != "" and name.startswith(f"{part}."))
