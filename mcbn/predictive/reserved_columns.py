"""The names of columns that predictions themselves have in a file."""

from collections.abc import Iterable

from mcbn.io.tables import shortened
from mcbn.predictive.class_columns import PREFIX
from mcbn.predictive.real_columns import PARTS, SPREADS
from mcbn.predictive.targets import TARGETS

CLASS_COLUMNS = ("prediction", "confidence", "probabilities", "entropy", "expected_entropy",
                 "mutual_information", "variation_ratio")  # fmt: skip
RESERVED_NAMES = frozenset({"index", "target", "draws", "classes", "mean", "sd", "std", "variance",
                            "epistemic_sd", "aleatoric_sd", *CLASS_COLUMNS})  # fmt: skip
LISTS = ("classes", "outputs", "units")  # of an NPZ file, no values of examples
IGNORED = "ignore_index"  # of an NPZ file: the label of positions that are not labelled
# What the names of numbered columns begin with.
BEGINNINGS = frozenset({"mean", *SPREADS, *PARTS, *TARGETS})


def require_unreserved(names: Iterable[str]) -> None:
    """Check that no column of the data has a name that is reserved for predictions.

    Raises:
        ValueError: one has.
    """
    taken = sorted(
        name
        for name in names
        if is_reserved(name) or name in (*LISTS, IGNORED) or _without_number(name) in BEGINNINGS
    )
    if taken:
        raise ValueError(
            f"expected other names for the columns of the data, got {shortened(taken)}, which are "
            "reserved for predictions; rename them"
        )


def is_reserved(name: str) -> bool:
    """Whether a name is that of a column of predictions, such as `entropy`, `p_cat`, `mean_0`."""
    return name.startswith(PREFIX) or {name, _without_number(name)} & RESERVED_NAMES != set()


def _without_number(name: str) -> str:
    return name.rstrip("0123456789").rstrip("_")
