"""Scores of classes of rows that lie in several places: sums that add, scored where the rows are.

Every row belongs to one of a fixed number of blocks. A shard keeps what the scores need of each
block, and the blocks of all shards are added; so neither the rows nor the shards are held. Blocks
of independent rows that were chosen by chance are independent and alike, so the bootstrap draws
whole blocks, as it draws clusters.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64, Int
from scipy.sparse import csr_array
from torch import Tensor

from mcbn import validation
from mcbn.evaluation.class_images import ClassImages, row_entries
from mcbn.evaluation.class_scores import class_columns, rows_of_positions
from mcbn.evaluation.clusters import Groups, names_of_groups
from mcbn.evaluation.evaluate import require_predictive
from mcbn.evaluation.evaluation import Evaluation
from mcbn.evaluation.image_sums import ImageSums
from mcbn.evaluation.images import ScoredImages
from mcbn.io.display import Display, Displayed
from mcbn.network.isolation import derived_seed
from mcbn.network.targets import Targets
from mcbn.predictive.categorical import CategoricalPredictive

BLOCKS = 256
MIN_BLOCKS = 2  # one alone says nothing of others

# Predictions, their targets and, optionally, what examples that hang together share.
Batch = tuple[CategoricalPredictive, Targets] | tuple[CategoricalPredictive, Targets, Groups]


@dataclass(frozen=True, eq=False, repr=False)
class ShardScores(Displayed):
    """What the scores of some rows are computed from; `ShardScores + ShardScores` is of both.

    Scores that are means, and calibration errors in bins of equal width, are those of one pass over
    all rows, to rounding. Where rows are ranked or put into bins of equal mass, confidences that
    agree to 1/8192 count as equal: `auroc_of_errors` then differs by at most half the share of
    pairs of a wrong and a right row that do. `nll_calibrated` is not known.

    Attributes:
        shards: names of the parts that were added.
        sums: of every score, what each block adds to it: axes (blocks, entries). They are sparse,
            so a shard of a few rows is small where it is sent.
        rows: of each block.
        draw_count: T of the predictions.
        seed: chooses the block of each row.
    """

    shards: tuple[str, ...]
    sums: Mapping[str, csr_array]
    rows: Float64[np.ndarray, " blocks"]
    draw_count: int = 0
    seed: int = 0

    @classmethod
    def of(
        cls, batches: Iterable[Batch], *, shard: str | int, blocks: int = BLOCKS, seed: int = 0
    ) -> "ShardScores":
        """Score the rows of one shard, batch by batch; memory does not grow with their number.

        Args:
            batches: predictions of classes with their targets. As a third entry, what examples that
                hang together share: all rows of a group are then of one block, in whichever shard
                they are.
            shard: its name, unlike that of every other shard.
            blocks: how many there are, the same for all shards. The width of an interval is known
                to a relative error of `1 / sqrt(2 blocks)`.
            seed: the same for all shards.

        Raises:
            TypeError: predictions of another kind.
            ValueError: too few blocks, or predictions and targets that do not fit.
        """
        if blocks < MIN_BLOCKS:
            raise ValueError(
                f"expected at least {MIN_BLOCKS} blocks, got {blocks}; {BLOCKS} is usual"
            )
        generator = torch.Generator().manual_seed(derived_seed(seed, f"shard {shard}"))
        found = _Accumulated(np.zeros(blocks))
        for predictive, targets, *group in batches:
            require_predictive(predictive, CategoricalPredictive)
            columns = class_columns(predictive, targets)
            if group:
                block = _blocks_of_groups(group[0], len(predictive), blocks, seed)
            else:
                block = torch.randint(blocks, (len(predictive),), generator=generator)
            block = block.repeat_interleave(columns["nll"][0].numel())
            found.add(rows_of_positions(columns), block.numpy())
            found.draw_count = predictive.draw_count
        sums = {name: csr_array(values) for name, values in found.sums.items()}
        return cls((str(shard),), sums, found.rows, found.draw_count, seed)

    def __add__(self, other: "ShardScores") -> "ShardScores":
        """The sums of both.

        Raises:
            ValueError: a shard is in both, or blocks, seeds or classes differ.
        """
        if twice := sorted(set(self.shards) & set(other.shards)):
            raise ValueError(
                f"expected different shards, got {', '.join(twice)} on both sides; add each shard "
                "once, under a name of its own"
            )
        if self._kind != other._kind and self.sums and other.sums:
            raise ValueError(
                f"expected shards of equal classes, blocks and seed, got {self._kind} and "
                f"{other._kind}; score all of them alike"
            )
        shards = tuple(sorted((*self.shards, *other.shards)))
        if not (self.sums and other.sums):  # one had no rows
            return replace(self if self.sums else other, shards=shards)
        sums = {name: values + other.sums[name] for name, values in self.sums.items()}
        return replace(self, shards=shards, sums=sums, rows=self.rows + other.rows)

    @property
    def _kind(self) -> tuple[int, int, int]:
        """Classes, blocks and seed: the same of what can be added."""
        classes = self.sums["found"].shape[1] // 3 if self.sums else 0
        return classes, len(self.rows), self.seed

    def display(self) -> Display:
        """How many rows there are."""
        rows = int(self.rows.sum())
        return Display(f"Sums of the scores of {rows:,} rows in {len(self.shards)} shards")

    def evaluation(
        self, *, resamples: int = 1000, level: float = 0.95, seed: int = 0, progress: bool = False
    ) -> Evaluation:
        """The scores of all rows; the arguments are those of `evaluate`.

        Raises:
            ValueError: there are no rows, or they are of fewer than two blocks.
        """
        validation.fraction(level, "level")
        filled = self.rows.nonzero()[0]
        if len(filled) < MIN_BLOCKS:
            raise ValueError(
                f"expected rows in at least {MIN_BLOCKS} blocks, got {int(self.rows.sum())} rows "
                f"in {len(filled)}; give more rows, or use mcbn.evaluate"
            )
        entries = {
            name: [
                (values.indices[start:stop], values.data[start:stop])
                for start, stop in zip(
                    values.indptr[filled], values.indptr[filled + 1], strict=True
                )
            ]
            for name, values in self.sums.items()
        }
        size = {name: values.shape[1] for name, values in self.sums.items()}
        sums = ImageSums(size, entries, self.rows[filled].astype(int).tolist())
        images = ScoredImages(
            kind=ClassImages(sums), count=len(filled), labelled=list(range(len(filled))),
            draw_count=self.draw_count,
        )  # fmt: skip
        found = images.evaluation(resamples=resamples, level=level, seed=seed, progress=progress)
        return replace(found, clusters=len(filled))


@dataclass(eq=False)
class _Accumulated:
    """The sums of a shard, batch by batch."""

    rows: Float64[np.ndarray, " blocks"]
    sums: dict[str, np.ndarray] = field(default_factory=dict)
    draw_count: int = 0

    def add(self, columns: Mapping[str, Tensor], block: Int[np.ndarray, " rows"]) -> None:
        """Add rows of blocks."""
        np.add.at(self.rows, block, 1.0)
        for name, (places, values, size) in row_entries(columns).items():
            if name not in self.sums:
                self.sums[name] = np.zeros((len(self.rows), size))
            of_block = block.reshape(-1, *[1] * (places.ndim - 1)) * size
            where = (torch.from_numpy(of_block) + places).flatten().numpy()
            added = values.double().expand(places.shape).flatten().numpy()
            if self.sums[name].shape[1] != size:
                raise ValueError(
                    f"expected the classes of the batches before, got {size // 3} classes now; "
                    "give every batch with all classes"
                )
            np.add.at(self.sums[name].reshape(-1), where, added)


def _blocks_of_groups(groups: Groups, examples: int, blocks: int, seed: int) -> Any:
    """The block of each example: that of its group, in every shard."""
    names, of_row = np.unique(names_of_groups(groups, examples), return_inverse=True)
    chosen = [
        int.from_bytes(hashlib.blake2b(f"{seed} {name}".encode(), digest_size=8).digest()) % blocks
        for name in names.tolist()
    ]
    return torch.tensor(chosen)[torch.from_numpy(of_row)]
