"""A batch-size study: the same networks under every method, over training and inference sizes."""

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from scipy import stats
from torch.nn import Module
from tqdm import tqdm

from mcbn.collection import collect
from mcbn.data import Task
from mcbn.evaluation import evaluate, out_of_distribution
from mcbn.minibatches import minibatches
from mcbn.predictive import Sampler, predict
from mcbn.samplers import DeepEnsemble, Deterministic, MCBatchNorm, MCDropout
from mcbn.training import build, train

# For each training batch size and seed: the members of an ensemble, the first one also on its own.
Networks = Mapping[tuple[int, int], Sequence[Module]]


@dataclass(frozen=True)
class Cell:
    """One method on one set of trained networks.

    Attributes:
        method: "MCBN", "MC Dropout", "Deterministic" or "Deep ensemble".
        training_batch_size: the mini-batch size of training.
        batch_size: M at inference, for MCBN only.
        seed: of training, of the mini-batches and of the masks.
        scores: figures by name: the scores of `evaluate`, mean mutual information inside and for
            each out-of-distribution set, and the AUROC between them.
    """

    method: str
    training_batch_size: int
    batch_size: int | None
    seed: int
    scores: Mapping[str, float]


@dataclass(frozen=True)
class Point:
    """A mean over seeds with its Student-t interval; NaN ends with a single seed."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Study:
    """All cells of a study, and the sets it looked at."""

    task: str
    draws: int
    outside: tuple[str, ...]
    cells: tuple[Cell, ...]

    @property
    def methods(self) -> tuple[str, ...]:
        """Methods in the order they were run."""
        return tuple(dict.fromkeys(cell.method for cell in self.cells))

    @property
    def training_batch_sizes(self) -> tuple[int, ...]:
        """Training batch sizes, ascending."""
        return tuple(sorted({cell.training_batch_size for cell in self.cells}))

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """Inference batch sizes of MCBN, ascending."""
        return tuple(sorted({cell.batch_size for cell in self.cells if cell.batch_size}))

    def point(
        self,
        score: str,
        method: str,
        *,
        training_batch_size: int,
        batch_size: int | None = None,
        level: float = 0.95,
    ) -> Point:
        """Mean of a score over seeds, with the interval of that mean.

        Raises:
            KeyError: the study has no such cell.
        """
        wanted = (method, training_batch_size, batch_size)
        found = [
            cell.scores[score]
            for cell in self.cells
            if (cell.method, cell.training_batch_size, cell.batch_size) == wanted
        ]
        if not found:
            raise KeyError(f"expected a cell of the study, got {wanted}")
        mean = statistics.fmean(found)
        if len(found) == 1:
            return Point(mean, float("nan"), float("nan"))
        half = stats.t.ppf((1 + level) / 2, len(found) - 1) * statistics.stdev(found)
        half /= len(found) ** 0.5
        return Point(mean, mean - half, mean + half)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        return asdict(self)


def train_networks(
    task: Task,
    builder: Callable[[], Module],
    *,
    batch_sizes: Sequence[int],
    seeds: Sequence[int],
    members: int = 3,
    epochs: int = 20,
    progress: bool = True,
) -> dict[tuple[int, int], list[Module]]:
    """Train the networks a study needs: for each batch size and seed, the members of an ensemble.

    Every network has a seed of its own, for its weights, its order of examples and its dropout.
    """
    grid = [(size, seed) for size in batch_sizes for seed in seeds]
    hidden = None if progress else True  # None: hidden unless on a terminal
    networks: dict[tuple[int, int], list[Module]] = {}
    with tqdm(
        total=len(grid) * members, desc="train", unit="network", leave=False, disable=hidden
    ) as bar:
        for size, seed in grid:
            for member in range(members):
                own = seed * members + member
                model = build(builder, seed=own)
                train(model, task.train, epochs=epochs, batch_size=size, seed=own)
                networks.setdefault((size, seed), []).append(model)
                bar.update()
    return networks


def study_batch_sizes(
    task: Task,
    networks: Networks,
    *,
    batch_sizes: Sequence[int],
    draws: int = 64,
    progress: bool = True,
) -> Study:
    """Score MCBN at each inference batch size, and the other methods, on trained networks.

    Args:
        task: training examples to draw mini-batches from, test and out-of-distribution sets.
        networks: from `train_networks`.
        batch_sizes: inference batch sizes M of MCBN.
        draws: T of MCBN and MC Dropout.
        progress: show a bar, on a terminal only.

    Reference:
        Mukhoti, Dokania, Torr and Gal 2020, "On Batch Normalisation for Approximate Bayesian
        Inference": MCBN at large batch sizes fails to capture epistemic uncertainty.
    """
    hidden = None if progress else True  # None: hidden unless on a terminal
    cells = []
    with tqdm(
        total=len(networks) * (len(batch_sizes) + 3), desc="study", unit="cell", leave=False,
        disable=hidden,
    ) as bar:  # fmt: skip
        for (training_size, seed), members in networks.items():
            for method, size, sampler in _samplers(task, members, batch_sizes, draws, seed):
                cells.append(Cell(method, training_size, size, seed, _scores(sampler, task)))
                bar.update()
    return Study(task.name, draws, tuple(task.outside), tuple(cells))


def _samplers(
    task: Task, members: Sequence[Module], batch_sizes: Sequence[int], draws: int, seed: int
) -> Iterator[tuple[str, int | None, Sampler]]:
    model = members[0]
    yield "Deterministic", None, Deterministic(model)
    for size in batch_sizes:
        batches = minibatches(task.train.dataset(), batch_size=size, draws=draws, seed=seed)
        yield "MCBN", size, MCBatchNorm(model, collect(model, batches, progress=False))
    yield "MC Dropout", None, MCDropout(model, draws=draws, seed=seed)
    yield "Deep ensemble", None, DeepEnsemble(members)


def _scores(sampler: Sampler, task: Task) -> dict[str, float]:
    inside = predict(sampler, task.test.inputs, progress=False)
    evaluation = evaluate(inside, task.test.targets, resamples=0)
    found = {name: score.value for name, score in evaluation.items()}
    found["mutual_information"] = float(inside.mutual_information.mean())
    for name, inputs in task.outside.items():
        outside = predict(sampler, inputs, progress=False)
        found[f"mutual_information_{name}"] = float(outside.mutual_information.mean())
        for kind in ("mutual_information", "entropy"):
            # One draw has no mutual information: nothing but ties to tell apart by.
            separation = out_of_distribution(inside, outside, uncertainty=kind, resamples=0)
            found[f"auroc_{name}_by_{kind}"] = separation["auroc_out_of_distribution"].value
    return found
