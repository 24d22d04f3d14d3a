"""How much a temperature was fitted on, and the warning where none is best."""

from jaxtyping import Bool
from torch import Tensor

from mcbn import validation
from mcbn.evaluation.clusters import Groups, names_of_groups
from mcbn.evaluation.line_search import end_of
from mcbn.evaluation.temperature_search import BOUNDS


class TemperatureBoundWarning(UserWarning):
    """A fitted temperature lies at a bound of its search, so that no temperature is best."""


def independent_labels(known: Bool[Tensor, "batch *positions"], group: Groups | None) -> int:
    """How many independent labels there are: examples with a known target, or groups of them.

    An example counts as one however many positions it has, and a group however many examples:
    their errors are alike, so that more of them are not as much more evidence.

    Args:
        known: which targets are known.
        group: what examples share; None where every example is by itself.
    """
    examples = known.flatten(1).any(1) if known.ndim > 1 else known
    if group is None:
        return int(examples.sum())
    names = names_of_groups(group, len(known))
    return len({name for name, counts in zip(names, examples.tolist(), strict=True) if counts})


def warn_at_bound(temperature: float, labels: int) -> None:
    """Warn where a fitted temperature lies at a bound of the search."""
    end = end_of(temperature, BOUNDS)
    if end is None:
        return
    better = {"lower": "more", "upper": "less"}[end]
    validation.warn(
        f"expected a temperature between {BOUNDS[0]:g} and {BOUNDS[1]:g}, got the {end} bound of "
        f"the search, {temperature:g}, from {labels:,} labels, of which {better} confidence would "
        "always have been better; hold out more labels, or give a larger prior",
        TemperatureBoundWarning,
        code="MCBN010",
    )
