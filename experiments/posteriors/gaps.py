"""Regression data with a gap: two one-dimensional generators, and gap splits of UCI sets."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from experiments.data.uci_data import both, original
from mcbn.tasks.datasets import LabeledData, uci
from mcbn.tasks.names import Regression

REGIONS = ("inside", "gap", "outside")

Piece = tuple[float, float]


@dataclass(frozen=True)
class Generator:
    """A one-dimensional function, its noise and where its inputs lie, in input units.

    Attributes:
        truth: mean of the targets.
        noise: standard deviation of the targets.
        inside: two intervals of training inputs.
        reach: how far the outside goes beyond them.
    """

    truth: Callable[[Tensor], Tensor]
    noise: float
    inside: tuple[Piece, Piece]
    reach: float

    def pieces(self) -> dict[str, tuple[Piece, ...]]:
        """The intervals of each region."""
        (far_left, left), (right, far_right) = self.inside
        outside = (far_left - self.reach, far_left), (far_right, far_right + self.reach)
        return {"inside": self.inside, "gap": ((left, right),), "outside": outside}


GENERATORS = {
    # As in experiments/reproductions/toy.py.
    "sine": Generator(lambda x: torch.sin(3 * x) + x / 2, 0.2, ((-2.0, -0.5), (0.5, 2.0)), 1.0),
    # Foong, Li, Hernandez-Lobato and Turner 2019, whose two clusters are not symmetric.
    "cosine": Generator(lambda x: torch.cos(4 * x + 0.8), 0.1, ((-1.0, -0.7), (0.5, 1.0)), 0.5),
}


@dataclass(frozen=True, eq=False)
class Case:
    """One data set, standardised on its training part.

    Attributes:
        name: of the set.
        train: training data; targets have one axis.
        held_out: data of the same regions, on which factors are fitted.
        points: where uncertainties are compared, with targets that are scored.
        region: index in `REGIONS` of each point.
        noise: standard deviation of the targets, the same for all methods; None if it is unknown.
        x: the points in input units; of the one input whose middle is left out.
    """

    name: str
    train: LabeledData
    held_out: LabeledData
    points: LabeledData
    region: Int[Tensor, " points"]
    noise: float | None
    x: Float[Tensor, " points"]


def curve_case(name: str, examples: int, per_region: int, seed: int) -> Case:
    """A data set of a generator, with a fixed grid of points in each region."""
    source, generator = GENERATORS[name], torch.Generator().manual_seed(seed)
    pieces = source.pieces()
    grids = {region: grid(ends, per_region) for region, ends in pieces.items()}
    x = torch.cat(list(grids.values()))
    region = torch.arange(len(REGIONS)).repeat_interleave(per_region)
    order = x.argsort()
    drawn = [uniform(source.inside, size, generator) for size in (examples, examples)]
    parts = [
        LabeledData(
            each[:, None],
            source.truth(each) + source.noise * torch.randn(len(each), generator=generator),
        )
        for each in (*drawn, x[order])
    ]
    scale = float(parts[0].targets.std(correction=0))
    train, held_out, points = standardised(parts)
    noise = source.noise / scale
    return Case(f"{name}, N = {examples}", train, held_out, points, region[order], noise, x[order])


def grid(ends: tuple[Piece, ...], count: int) -> Float[Tensor, " points"]:
    """The middles of equal cells of a union of intervals, in proportion to their lengths."""
    total = sum(high - low for low, high in ends)
    places = (torch.arange(count) + 0.5) / count * total
    return placed(places, ends)


def uniform(
    ends: tuple[Piece, ...], count: int, generator: torch.Generator
) -> Float[Tensor, " points"]:
    """Independent uniform points in a union of intervals."""
    total = sum(high - low for low, high in ends)
    return placed(total * torch.rand(count, generator=generator), ends)


def placed(places: Float[Tensor, " points"], ends: tuple[Piece, ...]) -> Float[Tensor, " points"]:
    """Lengths along a union of intervals as points in it."""
    (low, high), *rest = ends
    if not rest:
        return low + places
    further = placed(places - (high - low), tuple(rest))
    return torch.where(places < high - low, low + places, further)


def standardised(parts: list[LabeledData]) -> list[LabeledData]:
    """The parts in units of the first, which is the training part."""
    middle, spread = parts[0].inputs.mean(0), parts[0].inputs.std(0, correction=0)
    spread = torch.where(spread > 1e-6, spread, 1.0)  # constant columns stay unscaled
    mean, scale = parts[0].targets.mean(), parts[0].targets.std(correction=0)
    return [
        LabeledData(
            ((part.inputs - middle) / spread).float(), ((part.targets - mean) / scale).float()
        )
        for part in parts
    ]


def gap_split(
    values: Float[Tensor, " examples"],
) -> tuple[Int[Tensor, " outer"], Int[Tensor, " middle"]]:
    """Rows of the outer thirds and of the middle third in the order of one input.

    Rows of equal values keep their order.

    Reference:
        Foong, Li, Hernandez-Lobato and Turner 2019, "'In-Between' Uncertainty in Bayesian Neural
        Networks".
    """
    order = values.argsort(stable=True)
    third = len(values) // 3
    return torch.cat([order[:third], order[-third:]]), order[third:-third]


def uci_data(name: Regression) -> LabeledData:
    """All examples of a UCI set, with targets of one axis in original units."""
    task = uci(name)
    parts = [both(task), original(task, task.test)]
    inputs, targets = (
        torch.cat(each) for each in zip(*((p.inputs, p.targets) for p in parts), strict=True)
    )
    return LabeledData(inputs, targets)


def table_case(name: str, data: LabeledData, rank: int, *, examples: int, points: int) -> Case:
    """A gap split of a table along one of its inputs, in a part of its rows.

    Args:
        name: of the set.
        data: all its examples.
        rank: which input, by the number of its distinct values, the most first.
        examples: training examples.
        points: largest number of held-out examples, and of points in each of the two regions.
    """
    distinct = torch.tensor([len(column.unique()) for column in data.inputs.T])
    column = int((-distinct).argsort(stable=True)[rank])
    outer, middle = gap_split(data.inputs[:, column])
    generator = torch.Generator().manual_seed(rank)
    outer = outer[torch.randperm(len(outer), generator=generator)]
    middle = middle[torch.randperm(len(middle), generator=generator)][:points]
    held = examples + (len(outer) - examples) // 2
    inside = outer[held:][:points]
    chosen = torch.cat([inside, middle])
    rows = [data.rows(each) for each in (outer[:examples], outer[examples:held][:points], chosen)]
    region = torch.tensor([0] * len(inside) + [1] * len(middle))
    x = data.inputs[chosen, column].float()
    train, held_out, points_there = standardised(rows)
    return Case(f"{name}, input {column}", train, held_out, points_there, region, None, x)
