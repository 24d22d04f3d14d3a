"""All strangers' networks, by name."""

from zoo import (
    chance,
    in_place,
    neighbours,
    outputs,
    own_forward,
    ragged,
    states,
    structures,
    wrapped,
)
from zoo.stranger import Stranger

SOURCES = (
    in_place,
    neighbours,
    own_forward,
    ragged,
    outputs,
    states,
    chance,
    structures,
    wrapped,
)
STRANGERS: dict[str, Stranger] = {
    stranger.name: stranger for source in SOURCES for stranger in source.STRANGERS
}
