"""Clusters of rows that hang together, such as the pixels of an image or the scans of a patient."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from mcbn.io.display import Display, Displayed
from mcbn.io.tables import texts

# What examples share: one value per example, in a sequence, an array, a tensor or a column.
Groups = Any
MIN_CLUSTERS = 2  # one alone says nothing of others
MISSING = frozenset({"", "nan", "None", "<NA>", "NaT"})


@dataclass(frozen=True, eq=False, repr=False)
class Clusters(Displayed):
    """The cluster of each row; the bootstrap draws whole clusters, never rows.

    Rows of one cluster are not independent, so an interval from resampled rows would be too narrow,
    by a factor of up to the square root of the rows in a cluster.

    Attributes:
        of_row: the cluster of each row, numbered from 0 as they appear.

    Reference:
        Field and Welsh 2007, "Bootstrapping Clustered Data".
    """

    of_row: Int[Tensor, " rows"]

    def __len__(self) -> int:
        return len(self.sizes)

    def display(self) -> Display:
        """How many there are, and their sizes."""
        least, most = self.sizes.aminmax()
        sizes = f"{len(self):,} clusters of {int(least):,} to {int(most):,} rows"
        return Display(f"{sizes}, {len(self.of_row):,} rows in all")

    @classmethod
    def alone(cls, examples: int) -> "Clusters":
        """Every example by itself: the clusters of its positions."""
        return cls(torch.arange(examples))

    @classmethod
    def of_groups(cls, group: Groups, examples: int) -> "Clusters":
        """The clusters of examples by what they share.

        Args:
            group: one value per example, such as the identifier of its patient: a sequence, an
                array, a tensor or a column of a data frame.
            examples: how many there are.

        Raises:
            ValueError: another number of values, a missing one, or one group alone.
        """
        names = names_of_groups(group, examples)
        codes = {name: code for code, name in enumerate(dict.fromkeys(names))}
        if len(codes) < MIN_CLUSTERS:
            raise ValueError(
                f"expected groups of examples, got {names[0]!r:.80} for all of them; leave group= "
                "out"
            )
        return cls(torch.tensor([codes[name] for name in names]))

    @cached_property
    def sizes(self) -> Int[Tensor, " clusters"]:
        """Rows in each cluster."""
        return self.of_row.bincount()

    @cached_property
    def _rows(self) -> tuple[Tensor, Tensor]:
        """All rows, cluster by cluster, and where each cluster begins among them."""
        return self.of_row.argsort(stable=True), self.sizes.cumsum(0) - self.sizes

    def rows_of(self, drawn: Int[Tensor, " drawn"]) -> Int[Tensor, " rows"]:
        """The rows of drawn clusters, one cluster after another."""
        rows, starts = self._rows
        sizes = self.sizes[drawn]
        ends = sizes.cumsum(0)
        # Counts up from the beginning of each drawn cluster.
        offsets = (starts[drawn] - (ends - sizes)).repeat_interleave(sizes)
        chosen: Tensor = rows[torch.arange(int(ends[-1])) + offsets]
        return chosen

    def spread(self, positions: Int[Tensor, " rows"]) -> "Clusters":
        """The clusters of rows that are positions of examples, such as labelled pixels of images.

        Args:
            positions: the example of each row; an example may have none.
        """
        _, codes = np.unique(self.of_row[positions.cpu()].numpy(), return_inverse=True)
        return Clusters(torch.from_numpy(codes))


def clusters_of(group: Groups | None, examples: int) -> Clusters | None:
    """The clusters of examples by what they share; None where no groups are given."""
    return None if group is None else Clusters.of_groups(group, examples)


def names_of_groups(group: Groups, examples: int) -> tuple[str, ...]:
    """What each example shares with others, as text: 7 and "7" are the same.

    Raises:
        ValueError: another number of values, or a missing one.
    """
    values = group.cpu() if isinstance(group, Tensor) else group
    names = texts(np.asarray(values).reshape(-1))
    missing = sum(name in MISSING for name in names)
    if len(names) != examples or missing:
        raise ValueError(
            f"expected a group for each of {examples} examples, got {len(names)} values, of "
            f"which {missing} are missing; give one value per example"
        )
    return names
