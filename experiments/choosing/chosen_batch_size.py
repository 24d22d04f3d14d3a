"""Is the batch size that is chosen from one bank the one that really collected banks prefer?

Run: python -m experiments.choosing.chosen_batch_size [NETWORK ...]
(about 15 minutes on one core for all; data root in MCBN_DATA; "crepe" needs torchcrepe)
"""

import json
import math
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

import mcbn
from experiments.choosing.rescaling_cases import (
    Trained,
    dense_bn_relu,
    dense_relu_bn,
    pitch,
    regression,
)
from experiments.record import RESULTS, STYLE, rounded
from mcbn.drawing import figures
from mcbn.io.tensors import write_whole
from mcbn.tasks.datasets import mnist
from mcbn.tasks.networks import mlp
from mcbn.tasks.training import build, train

BANK_SIZE, BANK_DRAWS = 32, 64  # of the bank that is rescaled
SIZES = (8, 11, 16, 23, 32, 45, 64, 91, 128)  # M of the real banks
REAL_DRAWS = 128
PRECISION = 20.0  # of the noise of standardised targets
TRAINED_ON, HELD_OUT = 4096, 1000  # MNIST digits
RESULT = RESULTS / "chosen_batch_size.json"
FIGURE = RESULT.with_suffix(".svg")


def mnist_case() -> Trained:
    """Three dense layers of 128 on 4,096 digits; held-out digits."""
    task = mnist(train_size=TRAINED_ON)
    data, held_out = (
        replace(part, inputs=part.inputs.flatten(1))
        for part in (task.train, task.validation.rows(torch.arange(HELD_OUT)))
    )
    network = build(lambda: mlp(784, 10, width=128, depth=3, dropout=0.0), seed=0)
    train(network, data, epochs=20, batch_size=128)
    return Trained("MNIST", network, data.inputs, held_out.inputs, held_out.targets)


class PitchDistribution(nn.Module):
    """CREPE with the logarithms of its labels, whose softmax is a distribution of one pitch."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, sounds: Tensor) -> Tensor:
        """Logits of shape (sounds, pitches)."""
        return self.network(sounds).clamp_min(torch.finfo(sounds.dtype).tiny).log()


def pitch_case() -> Trained:
    """The published CREPE of size tiny, scored by the pitch nearest to each tone's."""
    case = pitch()
    cents = 1200 * (case.targets[:, 0] / 10).log2()
    # As the package does: 360 pitches, 20 cents apart, the first at this many above 10 Hz.
    nearest = ((cents - 1997.3794084376191) / 20).round().long()
    return replace(case, network=PitchDistribution(case.network), targets=nearest, outputs="logits")


CASES: dict[str, Callable[[], Trained]] = {
    "concrete_1": partial(regression, "concrete", 1),
    "concrete_2": partial(regression, "concrete", 2),
    "concrete_3": partial(regression, "concrete", 3),
    "digits": lambda: replace(dense_bn_relu(), title="digits, BN-ReLU"),
    "digits_relu_bn": lambda: replace(dense_relu_bn(0), title="digits, ReLU-BN"),
    "mnist": mnist_case,
    "crepe": pitch_case,
}


def measured(case: Trained) -> dict:
    """The choice from one bank, and from one without a measured limit; the NLL of real banks."""
    real = {
        size: [
            nll(case, case.bank(size, seed=1000 * index + size, draws=REAL_DRAWS))
            for index in range(case.banks)
        ]
        for size in SIZES
    }
    choice, without = chosen(case, limit=512), chosen(case, limit=None)
    return {
        "title": case.title,
        "population": len(case.examples),
        "held_out": len(case.targets),
        "real_nll": {str(size): values for size, values in real.items()},
        "real": really_best(real),
        "choice": choice.to_dict(),
        "choice_without_limit": without.to_dict(),
        "largest_gap": largest_gap(choice, real),
        "largest_gap_without_limit": largest_gap(without, real),
    }


def chosen(case: Trained, limit: int | None) -> mcbn.BatchSizeChoice:
    """Choose from a bank, as a user does, and confirm it."""
    batches = mcbn.minibatches(case.examples, batch_size=BANK_SIZE, draws=BANK_DRAWS, seed=0)
    bank = mcbn.collect(case.network, batches, limit=limit, progress=False)
    return mcbn.choose_batch_size(
        case.network,
        bank,
        case.inputs,
        case.targets,
        batches=batches,
        likelihood=likelihood(case),
        progress=False,
    )


def really_best(real: dict[int, list[float]]) -> dict:
    """The size with the lowest mean NLL, and those that the banks cannot tell from it.

    A size is as good as the best where its mean is higher by at most twice the standard error of
    the difference, whose variance is pooled over sizes.
    """
    table = torch.tensor(list(real.values()), dtype=torch.float64)
    means = table.mean(1)
    error = math.sqrt(2 * float(table.var(1).mean()) / table.shape[1])
    as_good = [
        size for size, mean in zip(real, means, strict=True) if mean <= means.min() + 2 * error
    ]
    return {"best": list(real)[int(means.argmin())], "as_good": as_good, "standard_error": error}


def largest_gap(choice: mcbn.BatchSizeChoice, real: dict[int, list[float]]) -> float:
    """The largest difference in NLL between the curve and real banks, from M/2 to 4M."""
    logs, values = choice.batch_sizes.log().numpy(), choice.values.numpy()
    sizes = [size for size in real if BANK_SIZE / 2 <= size <= 4 * BANK_SIZE]
    return max(
        abs(float(np.interp(math.log(size), logs, values)) - statistics.fmean(real[size]))
        for size in sizes
    )


def likelihood(case: Trained) -> mcbn.Gaussian | str:
    """Of the outputs."""
    return mcbn.Gaussian(precision=PRECISION) if case.outputs == "values" else "categorical"


def nll(case: Trained, bank: mcbn.Bank) -> float:
    """Negative log-likelihood of held-out examples, in nats per example."""
    sampler = mcbn.MCBatchNorm(case.network, bank)
    predictive = mcbn.predict(sampler, case.inputs, likelihood(case), progress=False)
    if isinstance(predictive, mcbn.GaussianPredictive):
        return -float(predictive.log_prob(case.targets).mean())
    return -float(predictive.log_probabilities.gather(1, case.targets[:, None]).mean())


def main(names: Iterable[str]) -> None:
    """Measure the named networks, all by default; other results are kept."""
    warnings.simplefilter("ignore", mcbn.InconsistentBankWarning)
    warnings.simplefilter("ignore", mcbn.RescalingWarning)
    torch.set_num_threads(1)
    results = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    for name in names or CASES:
        start = time.perf_counter()
        results[name] = measured(CASES[name]())
        results = {each: results[each] for each in CASES if each in results}
        write_whole(RESULT, (json.dumps(rounded(results), indent=1) + "\n").encode())
        choice = results[name]["choice"]
        print(name, results[name]["real"], choice["best"], choice["interval"], flush=True)
        print(f"{time.perf_counter() - start:.0f} s", flush=True)
    draw(json.loads(RESULT.read_text()))


def draw(results: dict) -> None:
    """Draw, by network, the curves of real banks and of rescaled ones with the choice."""
    with matplotlib.rc_context(STYLE):
        columns = math.ceil(len(results) / 2)
        figure = Figure(figsize=(3.3 * columns, 5.6), layout="constrained")
        panels = figure.subplots(2, columns, squeeze=False).flatten()
        for ax, result in zip(panels, results.values(), strict=False):
            draw_curves(result, ax)
            ax.set_title(result["title"])
        for ax in panels[len(results) :]:
            ax.set_axis_off()
        handles, labels = panels[0].get_legend_handles_labels()
        panels[-1].legend(handles, labels, frameon=False, loc="center left")
        figure.savefig(FIGURE, metadata=dict.fromkeys(("Date", "Creator")))


def draw_curves(result: dict, ax: Axes) -> None:
    """Draw one network's curves; the interval of the choice is shaded."""
    table = torch.tensor(list(result["real_nll"].values()), dtype=torch.float64)
    real, rescaled, unlimited = figures.SERIES[:3]
    choice, without = result["choice"], result["choice_without_limit"]
    ax.plot(SIZES, table.mean(1).tolist(), color=real, marker="o", label="really collected banks")
    ax.plot(choice["batch_sizes"], choice["values"], color=rescaled, label="one bank, rescaled")
    # Dashed, since it may lie on the other.
    ax.plot(
        without["batch_sizes"],
        without["values"],
        color=unlimited,
        linestyle="--",
        label="the same without limit",
    )
    ax.axvline(choice["best"], color=rescaled, linewidth=0.8, label="chosen batch size")
    low, high = choice["interval"]
    ends = low or SIZES[0], high or SIZES[-1]
    ax.axvspan(*ends, color=rescaled, alpha=0.12, label="its interval")
    figures.doubling_axis(SIZES[::2], ax, label="Batch size")
    ax.set_ylabel("Held-out NLL")


if __name__ == "__main__":
    main(sys.argv[1:])
