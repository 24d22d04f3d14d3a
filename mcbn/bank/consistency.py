"""Compare a bank with the running statistics of the network it was drawn from.

The statistics averaged over draws should equal the network's running statistics, within the noise
of both. If they do not, the mini-batches are not what the network was trained on.
"""

import statistics
from dataclasses import dataclass

import torch
from torch import Tensor

from mcbn.bank.bank import Bank
from mcbn.io.display import Display, Displayed
from mcbn.network.batchnorm import MEAN, VARIANCE

# PyTorch's default momentum a: a running average, with weights a (1 - a)^k, has the variance of one
# batch times a / (2 - a).
MOMENTUM = 0.1
# The training batch size is not known; it is assumed to be at least this, or that of the bank.
MIN_TRAINING_BATCH_SIZE = 32
# Gaps of a typical layer beyond this many times the expected noise are not noise.
MAX_EXCESS = 3.0
# Gaps below this fraction of a standard deviation change no prediction, and are ignored.
MIN_GAP = 0.005


class InconsistentBankWarning(UserWarning):
    """A bank disagrees with the running statistics of the network it was drawn from."""


@dataclass(frozen=True)
class LayerConsistency:
    """Gap between one layer's draws and its running statistics, in units of the expected noise.

    Attributes:
        name: the layer.
        mean_excess: root mean square over channels of the gap in the mean, over expected noise.
        variance_excess: the same for the logarithm of the variance.
        variance_ratio: median over channels of the pooled variance over the running one.
    """

    name: str
    mean_excess: float
    variance_excess: float
    variance_ratio: float


@dataclass(frozen=True, repr=False)
class Consistency(Displayed):
    """Agreement of a bank with the running statistics of its network; `print` it to read it.

    Attributes:
        layers: the gaps of each layer, in the order of the network.
        excess: median over layers of the gap, in units of the expected noise; about 1 is right.
        variance_ratio: median over all channels of the pooled variance over the running one.
    """

    layers: tuple[LayerConsistency, ...]
    excess: float
    variance_ratio: float

    def display(self) -> Display:
        """Whether noise explains the gaps, and those of each layer, the largest first."""
        verdict = "agrees" if self.passed else "disagrees"
        heading = (
            f"The bank {verdict} with the running statistics: the typical gap is {self.excess:.1f} "
            f"times the noise expected, the median ratio of variances {self.variance_ratio:.4f}"
        )
        worst = sorted(self.layers, key=lambda each: -max(each.mean_excess, each.variance_excess))
        return Display(heading, ("layer", "gap of mean", "gap of variance", "ratio"), [
            (layer.name or "(itself)", f"{layer.mean_excess:.2f}", f"{layer.variance_excess:.2f}",
             f"{layer.variance_ratio:.4f}")
            for layer in worst
        ])  # fmt: skip

    @property
    def passed(self) -> bool:
        """Whether noise explains the gaps."""
        return self.excess <= MAX_EXCESS

    def __str__(self) -> str:
        if self.passed:
            return (
                f"the bank agrees with the running statistics: the typical gap is "
                f"{self.excess:.1f} times the noise expected, the median ratio of variances "
                f"{self.variance_ratio:.4f}"
            )
        worst = max(self.layers, key=lambda layer: max(layer.mean_excess, layer.variance_excess))
        return (
            f"the bank disagrees with the network's running statistics: the typical gap is "
            f"{self.excess:.1f} times the noise expected, the median ratio of variances "
            f"{self.variance_ratio:.4f}, the worst layer {worst.name!r}. Either the mini-batches "
            "did not go through the training transform (augmentation included), or they are other "
            "data or preprocessed otherwise, or the network was fine-tuned with frozen batch norm, "
            "or its running statistics lag behind its last weights; predictions will differ from "
            "the trained network's"
        )


def consistency(bank: Bank) -> Consistency:
    """Compare the draws of a bank with the running statistics of its network.

    The expected noise of a gap is that of the mean of T draws together with that of a running
    average of mini-batches, both estimated from the spread of the draws. Banks without spread, of
    one draw or with M = N, always pass. See docs/method.md.
    """
    pooled = bank.pooled()
    share = _noise_share(bank)
    layers, ratios = [], []
    for name in (name for name in bank.statistics if name.endswith(VARIANCE)):
        mean_name = name.removesuffix(VARIANCE) + MEAN
        alive = (bank.trained[name] > 0) & (bank.statistics[name] > 0).all(0)
        if share is None or not alive.any():
            continue
        logs = bank.statistics[name].double().log()[:, alive]
        ratio = pooled[name][alive] / bank.trained[name].double()[alive]
        gap = (pooled[mean_name] - bank.trained[mean_name].double())[alive]
        deviation = bank.trained[name].double()[alive].sqrt()
        means = bank.statistics[mean_name].double()[:, alive] / deviation
        ratios.append(ratio)
        layers.append(
            LayerConsistency(
                name.removesuffix(VARIANCE).removesuffix("."),
                _excess(gap / deviation, means.var(0), share),
                _excess(ratio.log(), logs.var(0), share),
                float(ratio.median()),
            )
        )
    if not layers:
        return Consistency((), 0.0, 1.0)
    typical = statistics.median(max(each.mean_excess, each.variance_excess) for each in layers)
    return Consistency(tuple(layers), typical, float(torch.cat(ratios).median()))


def _noise_share(bank: Bank) -> float | None:
    """Variance of a gap over that of one draw; None where the bank has no spread."""
    size = bank.size
    # Finite-population factor: draws of many of the examples spread less than batches of training.
    factor = 1.0 if bank.population is None else (bank.population - size) / bank.population
    if len(bank) < 2 or factor <= 0:
        return None
    running = MOMENTUM / (2 - MOMENTUM) * max(1.0, size / MIN_TRAINING_BATCH_SIZE)
    return 1 / len(bank) + running / factor


def _excess(gap: Tensor, spread: Tensor, share: float) -> float:
    noise = max(float((spread.mean() * share).sqrt()), MIN_GAP)
    return float(gap.square().mean().sqrt()) / noise
