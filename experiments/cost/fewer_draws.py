"""Fewer draws: plain draws, selected draws, and linearised draws.

Run: python -m experiments.cost.fewer_draws [resnet20] [convnet] [concrete] [energy]
(about 10 minutes on one core for all; data root in MCBN_DATA)
"""

import json
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from statistics import median

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

import mcbn
from experiments.record import RESULTS, rounded
from mcbn.io.tensors import write_whole
from mcbn.samplers.linearized import LinearizedBatchNorm, correction
from mcbn.tasks.datasets import (
    CropAndFlip,
    cifar10_images,
    data_root,
    mnist,
    normalize_cifar10,
    uci,
)
from mcbn.tasks.networks import convnet, load_resnet20, mlp
from mcbn.tasks.training import build, train

BATCH_SIZE = 32  # M
POOL = 256  # draws of the bank that every method selects from
PLAIN = (4, 8, 16, 32, 64)
TOP = 3  # outputs that are linearised, if there are more
EXACT = 4  # exact draws in addition to the linearised ones
REPEATS = 4  # repeats of the methods that construct or select draws
PICKED = 16  # draws of each of these methods
SIZES = (2, 4, 8, 16, 32, 128)  # M at which linearity is measured
LINEARITY_DRAWS = 64
TIMED = 3
RESULT = RESULTS / "fewer_draws.json"


@dataclass(frozen=True)
class Case:
    """A trained network, the data of its mini-batches and its test data."""

    network: nn.Module
    dataset: Dataset
    inputs: Tensor
    targets: Tensor
    reference: int  # draws
    sizes: tuple[int, ...] = SIZES
    noise: float | None = field(default=None)  # variance, for regression

    def bank(self, batch_size: int, draws: int, seed: int) -> mcbn.Bank:
        """Collect a bank with replacement."""
        batches = mcbn.minibatches(
            self.dataset, batch_size=batch_size, draws=draws, seed=seed, replacement=True
        )
        return mcbn.collect(self.network, batches)

    def rows(self, bank: mcbn.Bank) -> Tensor:
        """Exact outputs for every draw."""
        return mcbn.MCBatchNorm(self.network, bank)(self.inputs)

    def summary(self, rows: Tensor) -> dict[str, Tensor]:
        """Mean, epistemic measure and NLL of each example."""
        if self.noise is None:
            predictive = mcbn.Categorical().summarize(rows)
            nll = -predictive.log_probabilities.gather(1, self.targets[:, None])[:, 0]
            return {
                "mean": predictive.probabilities,
                "epistemic": predictive.mutual_information,
                "nll": nll,
            }
        gaussian = mcbn.Gaussian(precision=1 / self.noise).summarize(rows)
        return {
            "mean": gaussian.mean,
            "epistemic": gaussian.epistemic_variance.sqrt(),
            "nll": -gaussian.log_prob(self.targets),
        }


def resnet20_case() -> Case:
    """The published CIFAR-10 ResNet20 with crops and flips; 100 test images."""
    data, test = cifar10_images()
    network = load_resnet20(data_root() / "cifar10_resnet_weights" / "resnet20-12fca82f.th")
    inputs, targets = normalize_cifar10(test.inputs[:100]), test.targets[:100]
    return Case(network, CropAndFlip(data), inputs, targets, reference=512, sizes=(4, 8, 32, 128))


def convnet_case() -> Case:
    """Three convolutions trained on 4,096 MNIST digits at M = 32; 200 test images."""
    task = mnist(train_size=4096)
    network = build(lambda: convnet(1, 10, width=8, dropout=0.0), seed=0)
    train(network, task.train, epochs=3, batch_size=BATCH_SIZE)
    test = task.test.rows(torch.arange(200))
    return Case(network, TensorDataset(task.train.inputs), test.inputs, test.targets, 1024)


def uci_case(name: str) -> Case:
    """Two layers of 50 trained on a UCI set at M = 32; up to 200 test examples."""
    task = uci(name)
    network = build(lambda: mlp(task.train.inputs.shape[1], 1, width=50, dropout=0.0), seed=0)
    train(network, task.train, epochs=40, batch_size=BATCH_SIZE, loss="mse")
    plain = mcbn.Deterministic(network)(task.validation.inputs)[0]
    noise = float((plain - task.validation.targets).square().mean())
    test = task.test.rows(torch.arange(min(200, len(task.test))))
    data = TensorDataset(task.train.inputs)
    return Case(network, data, test.inputs, test.targets, 1024, noise=noise)


def measured(case: Case) -> dict:
    """Errors and cost of every method, and the linearity at several batch sizes."""
    target = case.summary(case.rows(case.bank(BATCH_SIZE, case.reference, seed=1)))
    bank = case.bank(BATCH_SIZE, POOL, seed=0)
    exact = case.rows(bank)
    sampler = LinearizedBatchNorm(case.network, bank, exact=0)
    linear = sampler(case.inputs)
    unit, price = timed(case, bank, sampler)
    methods = {f"plain {t}": (t, list(exact.split(t))) for t in PLAIN}
    methods[f"plain {POOL}"] = (POOL, [exact])
    picked = herded(bank, PICKED, sets=REPEATS)
    methods[f"herding {PICKED} of {POOL}"] = (PICKED, [exact[chosen] for chosen in picked])
    for name, maker in (("mirrored", mirrored), ("mixed", mixed), ("sigma points", sigma_points)):
        banks = maker(bank)
        methods[f"{name} {PICKED}"] = (PICKED, [case.rows(each) for each in banks])
    methods[f"linear {POOL}"] = (price, [linear])
    corrected = [with_exact(linear, exact, chosen) for chosen in torch.arange(POOL).split(EXACT)]
    methods[f"linear {POOL} + {EXACT} exact"] = (price + EXACT, corrected)
    if linear.shape[2] > TOP:
        few = replace(sampler, top=TOP)
        rows = few(case.inputs)
        corrected_few = [with_exact(rows, exact, c) for c in torch.arange(POOL).split(EXACT)]
        cost = timed(case, bank, few)[1] + EXACT
        methods[f"linear {POOL}, top {TOP} + {EXACT} exact"] = (cost, corrected_few)
    for count in (EXACT, PICKED):
        outputs = [with_exact(linear, exact, c) for c in herded(bank, count, sets=REPEATS)]
        methods[f"linear {POOL} + {count} herded"] = (price + count, outputs)
    own = LinearizedBatchNorm(case.network, bank, exact=EXACT)(case.inputs)
    torch.testing.assert_close(own, corrected[0], rtol=1e-4, atol=1e-4)
    rows = [
        {"method": name, "forwards": cost, "repeats": len(outputs)} | errors(case, outputs, target)
        for name, (cost, outputs) in methods.items()
    ]
    for row in rows:
        print(rounded(row), flush=True)
    return {
        "batch_size": BATCH_SIZE,
        "reference_draws": case.reference,
        "examples": len(case.inputs),
        "seconds_a_forward": unit,
        "methods": rows,
        "linearity": [linearity(case, size) for size in case.sizes],
    }


def timed(case: Case, bank: mcbn.Bank, linear: LinearizedBatchNorm) -> tuple[float, float]:
    """Seconds of a plain pass, and the linear sampler's time in plain passes; medians."""
    plain = mcbn.MCBatchNorm(case.network, bank.first(16))
    pairs = [(seconds(plain, case.inputs) / 16, seconds(linear, case.inputs)) for _ in range(TIMED)]
    return median(unit for unit, _ in pairs), median(whole / unit for unit, whole in pairs)


def seconds(sampler: Callable[[Tensor], Tensor], inputs: Tensor) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    sampler(inputs)
    return time.perf_counter() - start


def errors(case: Case, outputs: list[Tensor], target: dict[str, Tensor]) -> dict:
    """Root-mean-square errors over examples and repeats; the epistemic one is relative."""
    summaries = [case.summary(rows) for rows in outputs]
    missed = {
        name: torch.stack([each[name] - values for each in summaries])
        for name, values in target.items()
    }
    scale = target["epistemic"].square().mean().sqrt()
    return {
        "mean_rmse": float(missed["mean"].square().mean().sqrt()),
        "epistemic_rmse": float(missed["epistemic"].square().mean().sqrt() / scale),
        "epistemic_bias": float(missed["epistemic"].mean() / target["epistemic"].mean()),
        "nll_rmse": float(missed["nll"].flatten(1).mean(1).square().mean().sqrt()),
    }


def with_exact(linear: Tensor, exact: Tensor, chosen: Tensor) -> Tensor:
    """Linearised outputs corrected by the chosen exact ones, as in the sampler."""
    rows = linear + correction(exact[chosen] - linear[chosen])
    rows[chosen] = exact[chosen]
    return rows


def deviations(bank: mcbn.Bank) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Mean of the bank's coordinates, and the deviation of each draw from it."""
    posterior = mcbn.JointPosterior.from_bank(bank)
    return dict(posterior.center), dict(posterior.deviations)


def combined(bank: mcbn.Bank, weights: Tensor) -> mcbn.Bank:
    """The bank of centre + weights @ deviations."""
    center, moved = deviations(bank)
    return bank.with_coordinates({n: center[n] + weights @ rows for n, rows in moved.items()})


def mirrored(bank: mcbn.Bank) -> list[mcbn.Bank]:
    """Draws in pairs, each with its reflection about the centre."""
    identity = torch.eye(POOL, dtype=torch.float64)
    halves = identity[: REPEATS * PICKED // 2].split(PICKED // 2)
    return [combined(bank, torch.cat([half, -half])) for half in halves]


def mixed(bank: mcbn.Bank) -> list[mcbn.Bank]:
    """Random orthogonal mixtures of all deviations, reflected: each has the bank's covariance."""
    generator = torch.Generator().manual_seed(0)
    banks = []
    for _ in range(REPEATS):
        noise = torch.randn(POOL, PICKED // 2, generator=generator, dtype=torch.float64)
        half = torch.linalg.qr(noise).Q.T
        banks.append(combined(bank, torch.cat([half, -half])))
    return banks


def sigma_points(bank: mcbn.Bank) -> list[mcbn.Bank]:
    """Pairs along the leading principal directions, scaled to their variances."""
    rows = standardised(bank)
    vectors = torch.linalg.eigh(rows @ rows.T).eigenvectors
    count = PICKED // 2
    # The variance of the bank along u is |u^T D|^2 / POOL, and each pair contributes 1 / count.
    half = vectors[:, -count:].T * (count / POOL) ** 0.5
    return [combined(bank, torch.cat([half, -half]))]


def herded(bank: mcbn.Bank, count: int, *, sets: int) -> list[Tensor]:
    """Disjoint sets of draws, selected greedily to match the pool's mean in a kernel space.

    Each set is selected from the draws that the sets before it have left.
    """
    rows = standardised(bank)
    squares = torch.cdist(rows, rows).square()
    kernel = (-squares / squares.median()).exp()
    taken: list[int] = []
    for _ in range(sets):
        chosen: list[int] = []
        for step in range(count):
            score = kernel.mean(1) - kernel[:, chosen].sum(1) / (step + 1)
            score[taken + chosen] = -torch.inf
            chosen.append(int(score.argmax()))
        taken += chosen
    return [torch.tensor(taken[start : start + count]) for start in range(0, sets * count, count)]


def standardised(bank: mcbn.Bank) -> Tensor:
    """All deviations in one matrix, in units of their standard deviation over draws."""
    rows = torch.cat(list(deviations(bank)[1].values()), dim=1)
    return rows / rows.std(0).clamp_min(1e-12)


def linearity(case: Case, size: int) -> dict:
    """Errors of the linearisation alone at a batch size: linearised and exact draws of one bank."""
    bank = case.bank(size, LINEARITY_DRAWS, seed=2)
    sampler = LinearizedBatchNorm(case.network, bank, exact=EXACT)
    measured_errors = errors(case, [sampler(case.inputs)], case.summary(case.rows(bank)))
    check = sampler.linearity(case.inputs)
    row = {"batch_size": size, "residual": check.residual, "bias": check.bias}
    row |= {"trusted": check.trusted} | measured_errors
    print(rounded(row), flush=True)
    return row


CASES: dict[str, Callable[[], Case]] = {
    "resnet20": resnet20_case,
    "convnet": convnet_case,
    "concrete": lambda: uci_case("concrete"),
    "energy": lambda: uci_case("energy"),
}


def main(names: list[str]) -> None:
    """Measure the named cases, all by default; other results are kept."""
    warnings.simplefilter("ignore", mcbn.InconsistentBankWarning)
    torch.set_num_threads(1)
    for name in names or list(CASES):
        print(name, flush=True)
        result = rounded(measured(CASES[name]()))
        kept = json.loads(RESULT.read_text()) if RESULT.exists() else {}
        write_whole(RESULT, (json.dumps({**kept, name: result}, indent=1) + "\n").encode())


if __name__ == "__main__":
    main(sys.argv[1:])
