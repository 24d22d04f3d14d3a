"""UCI regression sets as stacks: training parts of one size, each standardised by itself."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mcbn.tasks.datasets import Labeled, Task

FOLDS = 5

Generators = list[torch.Generator]


@dataclass(frozen=True, eq=False)
class Data:
    """Sets of one size, each standardised on its own training part.

    Attributes:
        inputs: of the training parts, as the other three.
        means: that a standardised target of zero stands for, in original units.
        scales: of the targets, in original units.
        seeds: choose initial weights, order of examples and dropout masks of each set's nets.
    """

    inputs: Float[Tensor, "sets features train"]
    targets: Float[Tensor, "sets train"]
    held_inputs: Float[Tensor, "sets features held"]
    held_targets: Float[Tensor, "sets held"]
    means: Float[Tensor, " sets"]
    scales: Float[Tensor, " sets"]
    seeds: tuple[int, ...]

    def generators(self) -> Generators:
        """One for each set, at its start."""
        return [torch.Generator().manual_seed(seed) for seed in self.seeds]

    def sources(self, nets: int) -> Int[Tensor, " nets"]:
        """The set of each net: configuration by configuration, in each all sets."""
        return torch.arange(len(self.seeds)).repeat(nets // len(self.seeds))


def original(task: Task, part: Labeled) -> Labeled:
    """The examples with targets in original units."""
    values = part.targets.flatten().double()
    return Labeled(part.inputs, task.target_mean + task.target_scale * values)


def both(task: Task) -> Labeled:
    """The 80 % (or 90 %) that are not test."""
    parts = [original(task, task.train), original(task, task.validation)]
    return Labeled(
        *(torch.cat(each) for each in zip(*((p.inputs, p.targets) for p in parts), strict=True))
    )


def fold_parts(task: Task) -> list[tuple[Labeled, Labeled]]:
    """Training and held-out examples of folds of one size; what is left over is never held out."""
    outer = both(task)
    order = torch.from_numpy(np.random.RandomState(1).permutation(len(outer)))
    size, every = len(outer) // FOLDS, torch.arange(len(outer))
    held = [(every >= fold * size) & (every < (fold + 1) * size) for fold in range(FOLDS)]
    return [(outer.rows(order[~rows]), outer.rows(order[rows])) for rows in held]


def stacked(parts: Sequence[tuple[Labeled, Labeled]], seeds: Sequence[int]) -> Data:
    """Training and held-out parts, standardised each on its training part."""
    columns: list[list[Tensor]] = [[], [], [], [], [], []]
    for inside, held in parts:
        spread, middle = torch.std_mean(inside.inputs, 0, correction=0)
        spread = torch.where(spread > 1e-6, spread, 1.0)  # a constant column has none
        scale, mean = torch.std_mean(inside.targets, correction=0)
        values = [((p.inputs - middle) / spread).T for p in (inside, held)]
        values += [((p.targets - mean) / scale).float() for p in (inside, held)]
        for column, value in zip(columns, [*values, mean, scale], strict=True):
            column.append(value)
    x, held_x, y, held_y, means, scales = (torch.stack(column) for column in columns)
    return Data(x, y, held_x, held_y, means, scales, tuple(seeds))


def targets(data: Data, index: int) -> Tensor:
    """Held-out targets of one set in original units."""
    return data.means[index] + data.scales[index] * data.held_targets[index].double()
