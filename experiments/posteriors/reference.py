"""Reference posteriors: what is sampled by Hamiltonian Monte Carlo, and what comes back."""

import importlib
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Float64

from experiments.posteriors.layout import Layout

# A reference is used if all of this holds, which was written before the full run.
R_HAT, SHARE = 1.1, 0.9  # split R-hat of the outputs is at most 1.1 at nine tenths of the points
SAMPLE_SIZE = 100  # least median effective sample size of the outputs
DIVERGING = 0.05  # largest share of divergent transitions


@dataclass(frozen=True)
class Settings:
    """How long is sampled.

    Attributes:
        chains: number of chains.
        warmup: iterations of each chain that adapt the sampler and are not kept.
        draws: iterations of each chain that are kept.
        depth: largest depth of a trajectory's tree; it has at most 2^depth - 1 steps.
        acceptance: probability of acceptance that the step size is adapted to.
    """

    chains: int
    warmup: int
    draws: int
    depth: int
    acceptance: float = 0.8


@dataclass(frozen=True, eq=False)
class Problem:
    """A network, data and a known noise, whose posterior is wanted.

    Attributes:
        layout: of the network; its batch norm has the statistics of all inputs.
        inputs: of the training data.
        targets: of the training data.
        noise: standard deviation of the targets.
        points: where the outputs are wanted.
        settings: how long is sampled.
        seed: of the chains.
        start: weights that each chain starts from; near 0 by default.
    """

    layout: Layout
    inputs: Float32[np.ndarray, "examples features"]
    targets: Float32[np.ndarray, " examples"]
    noise: float
    points: Float32[np.ndarray, "points features"]
    settings: Settings
    seed: int
    start: Float32[np.ndarray, "chains weights"] | None = None


@dataclass(frozen=True, eq=False)
class Answer:
    """Moments of the outputs at the points under the posterior, and diagnostics.

    Attributes:
        mean: posterior mean.
        sd: posterior standard deviation.
        halves: standard deviation of the first and the second half of the chains.
        r_hat: split R-hat.
        sample_size: effective sample size.
        diverging: share of divergent transitions.
        steps: mean steps of a trajectory.
    """

    mean: Float64[np.ndarray, " points"]
    sd: Float64[np.ndarray, " points"]
    halves: Float64[np.ndarray, "2 points"]
    r_hat: Float[np.ndarray, " points"]
    sample_size: Float[np.ndarray, " points"]
    diverging: float
    steps: float

    def to_lists(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        return {key: np.asarray(value).tolist() for key, value in asdict(self).items()}

    @classmethod
    def from_lists(cls, values: dict[str, Any]) -> "Answer":
        """Rebuild what `to_lists` returned."""
        arrays: dict[str, Any] = {
            key: np.array(value) if isinstance(value, list) else value
            for key, value in values.items()
        }
        return cls(**arrays)

    def diagnostics(self) -> dict[str, Any]:
        """Numbers to judge convergence by, and the verdict of the rule."""
        r_hat = float(np.quantile(self.r_hat, SHARE))
        sample_size = float(np.median(self.sample_size))
        return {
            "r_hat_90": r_hat,
            "r_hat_max": float(self.r_hat.max()),
            "sample_size_median": sample_size,
            "sample_size_min": float(self.sample_size.min()),
            "diverging": self.diverging,
            "steps": self.steps,
            "converged": r_hat <= R_HAT
            and sample_size >= SAMPLE_SIZE
            and self.diverging <= DIVERGING,
        }


@contextmanager
def worker() -> Iterator[ProcessPoolExecutor]:
    """A process that runs JAX; what it compiles is used again by problems of the same size."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        yield pool


def posterior(problem: Problem) -> Answer:
    """Draw from the posterior; to be called in a worker, where JAX is imported."""
    answer: Answer = importlib.import_module("experiments.posteriors.hmc").posterior(problem)
    return answer


def outputs(problem: Problem) -> Float32[np.ndarray, "chains points"]:
    """Outputs at the points of the networks to start from; to be called in a worker."""
    hmc = importlib.import_module("experiments.posteriors.hmc")
    count = len(problem.inputs)
    found = [
        hmc.outputs(problem.layout, vector, problem.inputs, problem.points)[count:]
        for vector in (() if problem.start is None else problem.start)
    ]
    return np.array(found)
