"""Names of the built-in data sets and of the sets that are out of distribution for each."""

from collections.abc import Mapping
from typing import Literal, get_args

Regression = Literal[
    "bostonHousing",
    "concrete",
    "energy",
    "kin8nm",
    "power-plant",
    "protein-tertiary-structure",
    "wine-quality-red",
    "yacht",
]
DataName = Literal["digits", "mnist", "cifar10", Regression]
# Out-of-distribution sets by data set; real targets have none.
OUTSIDE: Mapping[str, tuple[str, ...]] = {
    "digits": ("photographs", "rotated"),
    "mnist": ("notmnist", "fashion_mnist", "usps"),
    "cifar10": ("fashion_mnist", "notmnist"),
}


def is_regression(data: str) -> bool:
    """Whether the targets of this data set are real numbers."""
    return data in get_args(Regression)
