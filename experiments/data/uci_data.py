"""UCI regression sets as stacks of equally large training parts, each standardised separately."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mcbn.tasks.datasets import LabeledData, Task

FOLDS = 5

Generators = list[torch.Generator]


@dataclass(frozen=True, eq=False)
class Data:
    """Equally large sets, each standardised on its training part.

    Attributes:
        inputs: inputs of the training parts.
        targets: targets of the training parts.
        held_inputs: inputs of the held-out parts.
        held_targets: targets of the held-out parts.
        means: means of the targets, in original units.
        scales: standard deviations of the targets, in original units.
        seeds: seeds of initial weights, order of examples and dropout masks for each set.
    """

    inputs: Float[Tensor, "sets features train"]
    targets: Float[Tensor, "sets train"]
    held_inputs: Float[Tensor, "sets features held"]
    held_targets: Float[Tensor, "sets held"]
    means: Float[Tensor, " sets"]
    scales: Float[Tensor, " sets"]
    seeds: tuple[int, ...]

    def generators(self) -> Generators:
        """One generator per set, in its initial state."""
        return [torch.Generator().manual_seed(seed) for seed in self.seeds]

    def sources(self, nets: int) -> Int[Tensor, " nets"]:
        """The set of each network: for each configuration, all sets in order."""
        return torch.arange(len(self.seeds)).repeat(nets // len(self.seeds))


def original(task: Task, part: LabeledData) -> LabeledData:
    """The examples with targets in original units."""
    values = part.targets.flatten().double()
    return LabeledData(part.inputs, task.target_mean + task.target_scale * values)


def both(task: Task) -> LabeledData:
    """The 80% (or 90%) that are not in the test set."""
    parts = [original(task, task.train), original(task, task.validation)]
    return LabeledData(
        *(torch.cat(each) for each in zip(*((p.inputs, p.targets) for p in parts), strict=True))
    )


def fold_parts(task: Task) -> list[tuple[LabeledData, LabeledData]]:
    """Training and held-out examples of equal folds; remaining examples are never held out."""
    outer = both(task)
    order = torch.from_numpy(np.random.RandomState(1).permutation(len(outer)))
    size, every = len(outer) // FOLDS, torch.arange(len(outer))
    held = [(every >= fold * size) & (every < (fold + 1) * size) for fold in range(FOLDS)]
    return [(outer.rows(order[~rows]), outer.rows(order[rows])) for rows in held]


def stacked(parts: Sequence[tuple[LabeledData, LabeledData]], seeds: Sequence[int]) -> Data:
    """Training and held-out parts, each standardised on its training part."""
    columns: list[list[Tensor]] = [[], [], [], [], [], []]
    for inside, held in parts:
        spread, middle = torch.std_mean(inside.inputs, 0, correction=0)
        spread = torch.where(spread > 1e-6, spread, 1.0)  # constant columns stay unscaled
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
