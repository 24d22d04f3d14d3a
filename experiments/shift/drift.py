"""Drift from a bank: how often is each kind of shift seen in one mini-batch, and how often none?

Run: python -m experiments.shift.drift [--fast]    (under an hour on 1 core; data root in MCBN_DATA)

A network of each kind has a bank of mini-batches that are preprocessed as in production. Windows of
new data are tested one by one, and in fours together, by the bank, and by Kolmogorov-Smirnov tests
of the same windows: on the features before the last layer (the smallest p value, after Bonferroni)
and on the largest softmax probability, or the output of a regression. A stream of windows, of which
the first are clean, is watched by the monitor's rule. Clean windows of other sizes than the bank's
are tested by its rescaled draws.
"""

import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from scipy.stats import ks_2samp
from torch import Tensor, nn
from torch.nn import functional

import mcbn
from experiments.data import cifar10
from experiments.record import Record, asked
from experiments.shift.drift_figure import drawn
from mcbn.drift.martingale import Jumper
from mcbn.drift.ranks import rank_sum_p_value, smoothed_rank
from mcbn.drift.reference import Distances, Reference
from mcbn.tasks.datasets import data_root, digits, mnist, normalize_cifar10, uci
from mcbn.tasks.networks import convnet, load_resnet20, mlp
from mcbn.tasks.training import build, train

WINDOW = 32  # M
DRAWS = 198  # of which 99 to compare with: alpha = .05 is then exact
ALPHA, ALARM = 0.05, 0.01
TOGETHER = 4  # windows
SPLITS = 10  # of the draws into two halves, over which rates are averaged
KNOWN = 2_000  # examples that the Kolmogorov-Smirnov tests compare with
CLEAN, STREAMS = 20, 100  # windows before the drift, and orders of the windows
SIZES, SIZED = (8, 16, 24, 48, 64, 128), 150  # windows of other sizes, and how many of each
SEED = 0

Shift = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Case:
    """A network, the examples of its bank, and windows of new data by the name of their shift."""

    network: nn.Module
    examples: Tensor
    windows: dict[str, list[Tensor]]


def main(record: Record) -> None:
    """Measure and write."""
    torch.set_num_threads(1)
    count = 12 if record.fast else 200
    # Digits are in the package, so that a tiny run needs no data.
    cases = {"digits": digits_case} if record.fast else {
        "mnist": mnist_case, "protein": protein_case, "cifar10": cifar10_case
    }  # fmt: skip
    rows = {name: record.part(name, lambda make=make: measured(make(count), record.fast))
            for name, make in cases.items()}  # fmt: skip
    sizes = {name: record.part(f"{name}-sizes", lambda make=make: levels(make(count), record.fast))
             for name, make in cases.items()}  # fmt: skip
    record.write(
        {"window": WINDOW, "draws": DRAWS, "alpha": ALPHA, "alarm": ALARM, "together": TOGETHER,
         "splits": SPLITS, "seed": SEED, "cases": rows, "sizes": sizes}
    )  # fmt: skip
    record.draw(drawn(rows, ALPHA))


def measured(case: Case, fast: bool) -> dict[str, Any]:
    """The rates of every shift."""
    bank = collected(case.network, mcbn.minibatches(
        case.examples, batch_size=WINDOW, draws=38 if fast else DRAWS, seed=SEED))  # fmt: skip
    known = outputs(case.network, case.examples[:KNOWN])
    statistics = {
        name: collected(case.network, windows).statistics for name, windows in case.windows.items()
    }
    halves = [shuffled(bank, seed) for seed in range(2 if fast else SPLITS)]
    clean = [half.distances(statistics["clean"]) for half in halves]
    return {
        name: {
            "windows": len(windows),
            "bank": rate(halves, statistics[name], 1),
            f"bank, {TOGETHER} together": rate(halves, statistics[name], TOGETHER),
            **baselines(case.network, windows, known),
            **alarms(halves[0], clean[0], halves[0].distances(statistics[name]), name == "clean"),
        }
        for name, windows in case.windows.items()
    }


def levels(case: Case, fast: bool) -> dict[str, Any]:
    """Rates of clean windows of each size, by draws that are rescaled to it; None if refused.

    The windows are of half of the bank's examples, and the draws of the other half.
    """
    half = len(case.examples) // 2
    draws = mcbn.minibatches(
        case.examples[:half], batch_size=WINDOW, draws=38 if fast else DRAWS, seed=SEED
    )
    bank = collected(case.network, draws, limit=512)
    found: dict[str, Any] = {}
    for size in SIZES[1:3] if fast else SIZES:
        windows = mcbn.minibatches(
            case.examples[half:], batch_size=size, draws=4 if fast else SIZED, seed=SEED + 1
        )
        doubts = bank.doubts(size)
        found[str(size)] = {"windows": len(windows), "refused": bool(doubts), "rate": None}
        if not doubts:
            rescaled = bank.rescale(size, warn=False)
            halves = [shuffled(rescaled, seed) for seed in range(2 if fast else SPLITS)]
            statistics = collected(case.network, windows).statistics
            found[str(size)]["rate"] = rate(halves, statistics, 1)
    return found


def collected(network: nn.Module, batches: Any, **options: Any) -> mcbn.Bank:
    """Statistics of mini-batches."""
    with warnings.catch_warnings():
        # Without augmentation, and with drift, they differ from those of training.
        warnings.simplefilter("ignore", mcbn.InconsistentBankWarning)
        return mcbn.collect(network, batches, progress=False, **({"limit": None} | options))


def shuffled(bank: mcbn.Bank, seed: int) -> Reference:
    """A reference of the draws in another order."""
    order = np.random.default_rng(seed).permutation(len(bank))
    moved = {name: rows[order] for name, rows in bank.statistics.items()}
    return Reference.from_bank(replace(bank, statistics=moved))


def rate(halves: list[Reference], statistics: Any, together: int) -> float:
    """The share of windows, or of groups of them, that are rejected."""
    rejected = []
    for half in halves:
        found = half.distances(statistics).whole
        groups = found[: len(found) // together * together].reshape(-1, together)
        rejected += [rank_sum_p_value(half.calibration.whole, each) <= ALPHA for each in groups]
    return float(np.mean(rejected))


def baselines(
    network: nn.Module, windows: list[Tensor], known: tuple[Tensor, Tensor]
) -> dict[str, float]:
    """The share of windows that Kolmogorov-Smirnov tests reject."""
    rejected: dict[str, list[bool]] = {"KS of features": [], "KS of outputs": []}
    for window in windows:
        features, answers = outputs(network, window)
        p_values = [
            ks_2samp(ours, theirs).pvalue
            for ours, theirs in zip(features.T.numpy(), known[0].T.numpy(), strict=True)
        ]
        rejected["KS of features"].append(min(p_values) * len(p_values) <= ALPHA)
        p_value = ks_2samp(answers.numpy(), known[1].numpy()).pvalue
        rejected["KS of outputs"].append(p_value <= ALPHA)
    return {name: float(np.mean(each)) for name, each in rejected.items()}


def outputs(network: nn.Module, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Features before the last layer, and the largest softmax probability or the only output."""
    last = [module for module in network.modules() if isinstance(module, nn.Linear)][-1]
    seen: list[Tensor] = []
    hook = last.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.no_grad():
        answers = network(inputs)
    hook.remove()
    alone = answers.shape[1] == 1
    return seen[0], answers[:, 0] if alone else answers.softmax(1).amax(1)


def alarms(
    half: Reference, clean: Distances, found: Distances, same: bool
) -> dict[str, float | None]:
    """How often the monitor alarms after clean windows, and the typical number of windows it takes.

    Clean windows are drawn in a new order each time. Where all are clean it may alarm at any time.
    """
    times = []
    for seed in range(STREAMS):
        chance = np.random.default_rng(seed)
        before = chance.permutation(clean.whole.numpy())[: 0 if same else CLEAN]
        stream = [*before, *chance.permutation(found.whole.numpy())]
        seen, jumper, time = half.calibration.whole, Jumper(), None
        for number, value in enumerate(stream, 1 - len(before)):
            jumper = jumper.bet(smoothed_rank(seen, float(value), float(chance.random())))
            seen = torch.cat([seen, torch.tensor([value]).to(seen)])
            if jumper.total >= 1 / ALARM:
                time = number
                break
        times.append(time)
    raised = [time for time in times if time is not None]
    middle = float(np.median(raised)) if 2 * len(raised) >= len(times) else None
    return {"alarms": len(raised) / len(times), "windows to alarm": middle}


def cut(examples: Tensor, count: int | None = None) -> list[Tensor]:
    """Windows in the order of the examples."""
    whole = len(examples) // WINDOW
    return [*examples[: whole * WINDOW].reshape(whole, WINDOW, *examples.shape[1:])][:count]


def by_class(inputs: Tensor, classes: Tensor, count: int) -> dict[str, list[Tensor]]:
    """Windows of two neighbouring classes of ten, and windows with all classes alike."""
    pairs = [inputs[(classes == k) | (classes == (k + 1) % 10)] for k in range(10)]
    windows = [window for pair in pairs for window in cut(pair)]
    least = int(classes.bincount().min())
    order = torch.stack([(classes == k).nonzero().flatten()[:least] for k in range(10)], 1)
    chosen = [windows[k] for k in np.random.default_rng(SEED).permutation(len(windows))[:count]]
    return {"two classes of ten": chosen, "balanced classes": cut(inputs[order.flatten()], count)}


def image_shifts(jpeg: Shift, normalize: Shift) -> dict[str, Shift]:
    """Shifts of images in [0, 1]."""
    noise = torch.Generator().manual_seed(SEED)

    def noisy(level: float) -> Shift:
        return lambda x: (x + level * torch.randn(x.shape, generator=noise)).clamp(0, 1)

    shifts: dict[str, Shift] = {
        "clean": lambda x: x,
        "JPEG": jpeg,
        "noise, sd 2/255": noisy(2 / 255),
        "noise, sd 8/255": noisy(8 / 255),
        "blur": lambda x: functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False) / 2 + x / 2,
        "brightness x 0.95": lambda x: 0.95 * x,
        "brightness x 0.7": lambda x: 0.7 * x,
    }
    return {name: lambda x, f=shift: normalize(f(x)) for name, shift in shifts.items()}


def cifar10_case(count: int) -> Case:
    """The published ResNet20; bank of its training images, windows of the 1,000 test images."""
    data, test = cifar10.images()
    network = load_resnet20(data_root() / "cifar10_resnet_weights" / "resnet20-12fca82f.th")
    pixels = test.inputs[: count * WINDOW].float() / 255
    compressed = cifar10.jpeg_images(len(pixels)).float() / 255

    def normalize(images: Tensor) -> Tensor:
        mean, scale = normalize_cifar10(torch.tensor([[0], [255]]).byte().view(2, 1, 1, 1)
                                        .expand(2, 3, 1, 1))  # fmt: skip
        return mean + images * (scale - mean)

    shifts = image_shifts(lambda _: compressed, normalize)
    windows = {name: cut(shift(pixels)) for name, shift in shifts.items()}
    windows |= by_class(normalize(pixels), test.targets[: len(pixels)], count)
    return Case(network, normalize_cifar10(data.inputs), windows)


def digits_case(count: int) -> Case:
    """Digits of 8x8 pixels, for a tiny run."""
    return grey_case(digits(), 640, count)


def mnist_case(count: int) -> Case:
    """MNIST: a bank of training images that the network was not trained on."""
    return grey_case(mnist(), 10_000, count)


def grey_case(task: mcbn.Task, size: int, count: int) -> Case:
    """A small convolutional network, trained on the first training images."""
    network = build(lambda: convnet(1, 10, width=8), seed=SEED)
    train(network, task.train.rows(torch.arange(size)), epochs=3, batch_size=WINDOW, seed=SEED)
    # Not its test images, of which half are of other writers than those of training.
    new = task.validation.rows(torch.arange(min(count * WINDOW, len(task.validation))))
    pixels, classes = new.inputs, new.targets
    low, high = float(pixels.min()), float(pixels.max())

    def normalize(images: Tensor) -> Tensor:
        return low + (high - low) * images

    shifts = image_shifts(compressed, normalize)
    unit = (pixels - low) / (high - low)
    windows = {name: cut(shift(unit)) for name, shift in shifts.items()}
    windows |= by_class(pixels, classes, count)
    windows["test images"] = cut(task.test.inputs, count)
    return Case(network, task.train.inputs[size:], windows)


def compressed(images: Tensor) -> Tensor:
    """Grey images after JPEG of quality 75."""
    made = []
    for image in (images * 255).round().byte()[:, 0].numpy():
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=75)
        made.append(np.array(Image.open(file)))
    return torch.from_numpy(np.stack(made)).float()[:, None] / 255


def protein_case(count: int) -> Case:
    """A dense network of a table; bank of training rows that it was not trained on."""
    task = uci("protein-tertiary-structure")
    size = 10_000
    network = build(lambda: mlp(9, 1, width=32), seed=SEED)
    train(network, task.train.rows(torch.arange(size)), epochs=10, batch_size=WINDOW, seed=SEED,
          loss="mse")  # fmt: skip
    half = len(task.test) // 2
    inputs, targets = task.test.inputs, task.test.targets.flatten()
    noise = torch.Generator().manual_seed(SEED)
    first = torch.zeros(9)
    first[0] = 1.0
    ordered = inputs[targets.argsort()]
    windows = {
        "clean": inputs,
        "noise, sd 0.1": inputs + 0.1 * torch.randn(inputs.shape, generator=noise),
        "noise, sd 0.3": inputs + 0.3 * torch.randn(inputs.shape, generator=noise),
        "a column + 0.3 sd": inputs + 0.3 * first,
        "a column x 1.5": inputs * (1 + 0.5 * first),
        "the larger targets": ordered[half:][torch.randperm(len(ordered) - half, generator=noise)],
        # Every window has rows of small and of large targets alike.
        "balanced targets": ordered[: len(ordered) // WINDOW * WINDOW].reshape(
            WINDOW, -1, 9).transpose(0, 1).reshape(-1, 9),
    }  # fmt: skip
    return Case(network, task.train.inputs[size:],
                {name: cut(each, count) for name, each in windows.items()})  # fmt: skip


if __name__ == "__main__":
    main(asked("drift"))
