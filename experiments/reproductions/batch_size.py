"""MCBN at large batch sizes: epistemic spread against M and N, and its effect on the scores.

Run: python -m experiments.reproductions.batch_size [--fast]
(about 120 minutes on 1 core; data root in MCBN_DATA)

MCBN and the ensemble are of networks without dropout. MC Dropout is of networks of the same shape
and seeds that were trained with it, at the rate, among several, of the best held-out log score. All
networks take about as many steps, whatever N and the batch size of training are. Mutual information
of T draws is multiplied by T / (T - 1), since methods differ in T.
"""

import warnings
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

import mcbn
from experiments.record import Record, asked
from experiments.reproductions.batch_size_figure import draw
from experiments.reproductions.batch_size_photos import (
    Photos,
    Training,
    dropout_nll,
    published,
    trained_here,
)
from experiments.reproductions.batch_size_summary import by_training_size, summary
from mcbn.evaluation.scores import negative_log_likelihood
from mcbn.tasks.datasets import LabeledData, Task, mnist
from mcbn.tasks.networks import convnet
from mcbn.tasks.training import build, train

TRAINED_AT = 64  # batch size of training
PAPER = {
    "source": "Mukhoti et al. 2020, abstract only",
    "claims": [
        "for larger batch sizes MCBN fails to capture epistemic uncertainty",
        "the fix is to view the batch size as a variational parameter",
        "as the data set grows without limit so must the batch size",
    ],
}


@dataclass(frozen=True)
class Scale:
    """Size of the experiment.

    Attributes:
        train_sizes: N, numbers of MNIST training images.
        batch_sizes: inference batch sizes M; those above N / 2 are skipped.
        largest: N / 2 is added as an M if it is at most this.
        seeds: networks per training set.
        steps: approximate number of training steps.
        width: channels of the network's first block.
        draws: number of draws T.
        few_draws: T when choosing M and on CIFAR-10.
        test: number of MNIST test images.
        outside: images of each OOD set.
        held_out: validation images on which M and dropout rates are chosen.
        rates: dropout rates that are tried.
        trained_with: other batch sizes of training, tried at the middle N.
        photo_sizes: M on CIFAR-10.
        photos: number of CIFAR-10 test images.
        training: settings of our own networks on CIFAR-10.
        resamples: bootstrap resamples of the test images.
    """

    train_sizes: tuple[int, ...]
    batch_sizes: tuple[int, ...]
    largest: int
    seeds: int
    steps: int
    width: int
    draws: int
    few_draws: int
    test: int
    outside: int
    held_out: int
    rates: tuple[float, ...]
    trained_with: tuple[int, ...]
    photo_sizes: tuple[int, ...]
    photos: int
    training: Training
    resamples: int


RATES = (0.02, 0.05, 0.1, 0.2)
FULL = Scale((1000, 4000, 16000), (8, 16, 32, 64, 128, 256, 512), 2000, 5, 750, 8, 64, 32, 500,
             200, 300, RATES, (16, 256), (8, 32, 128, 512), 500,
             Training(10_000, 20, TRAINED_AT, 32, RATES, 300, 5), 500)  # fmt: skip
FAST = Scale((64, 128), (8, 16), 32, 3, 2, 2, 4, 3, 30, 10, 10, RATES[:2], (32,), (4, 8), 8,
             Training(64, 1, 16, 2, RATES[:1], 10, 2), 5)  # fmt: skip


def main(record: Record) -> None:
    """Measure each network, summarise, write the result and draw the figure."""
    warnings.simplefilter("ignore", mcbn.InconsistentBankWarning)
    torch.set_num_threads(1)
    scale = FAST if record.fast else FULL
    task = mnist()
    # Seed by seed, so that an interrupted run has every N.
    runs = {
        (seed, size): record.part(
            f"{size}-{seed}", lambda size=size, seed=seed: measured(scale, task, size, seed)
        )
        for seed in range(scale.seeds)
        for size in scale.train_sizes
    }
    parts = {size: [runs[seed, size] for seed in range(scale.seeds)] for size in scale.train_sizes}
    middle = scale.train_sizes[len(scale.train_sizes) // 2]
    others = {
        size: [
            record.part(
                f"trained-with-{size}-{seed}",
                lambda size=size, seed=seed: trained_with(scale, task, middle, size, seed),
            )
            for seed in range(scale.seeds)
        ]
        for size in scale.trained_with
    }
    photos = Photos(scale.photo_sizes, scale.photos, scale.few_draws, scale.resamples)
    cifar = record.part("photos", lambda: published(photos))
    own = record.part("own", lambda: trained_here(photos, scale.training))
    result = {
        "trained_at": TRAINED_AT,
        "scale": asdict(scale),
        "paper": PAPER,
        **summary(parts, task.test.targets[: scale.test], scored, scale.resamples),
        "training batch sizes": by_training_size({TRAINED_AT: parts[middle], **others}, middle),
        "cifar10": cifar,
        "cifar10 trained here": own,
    }
    draw(record, record.write(result))


def sizes_at(scale: Scale, size: int) -> list[int]:
    """Batch sizes for a training set: those up to N / 2, and N / 2 itself if it is small enough."""
    allowed = {each for each in scale.batch_sizes if 2 * each <= size}
    return sorted(allowed | ({size // 2} if size // 2 <= scale.largest else set()))


def measured(scale: Scale, task: Task, size: int, seed: int) -> dict:
    """Measure one network: MCBN at every M and at the chosen M, MC Dropout, and its logits."""
    data, sets, targets = examples(scale, task, size)
    net = trained(scale, data, seed=seed)
    banks = collected(scale, net, data, seed=seed)
    rows = {
        str(each): scored(predictions(mcbn.MCBatchNorm(net, bank), sets), targets)
        for each, bank in banks.items()
    }
    bank = banks[min(TRAINED_AT, size // 2)]
    held_out = task.validation.rows(torch.arange(scale.held_out))
    choice = mcbn.choose_batch_size(
        net, bank.first(scale.few_draws), held_out.inputs, held_out.targets, points=9
    )
    chosen = mcbn.MCBatchNorm(net, bank.rescale(choice.best))
    rows["chosen"] = scored(predictions(chosen, sets), targets)
    rate, dropped = with_dropout(scale, data, held_out, seed=seed)
    dropout = mcbn.MCDropout(dropped, draws=scale.draws, seed=seed)
    rows["MC Dropout"] = scored(predictions(dropout, sets), targets)
    plain = predictions(mcbn.Deterministic(net), sets)
    rows["plain"] = scored(plain, targets)
    return {
        "rows": rows,
        "statistics": {str(each): spread_of_means(bank) for each, bank in banks.items()},
        "choice": choice.to_dict(),
        "dropout": rate,
        "epochs": epochs_of(scale, data, TRAINED_AT),
        "logits": {name: predictive.draws[0].tolist() for name, predictive in plain.items()},
    }


def trained_with(scale: Scale, task: Task, size: int, batch_size: int, seed: int) -> dict:
    """Measure a network trained with another batch size for as many steps: MCBN at every M."""
    data, sets, targets = examples(scale, task, size)
    net = trained(scale, data, batch_size=batch_size, seed=seed)
    banks = collected(scale, net, data, seed=seed)
    samplers = {str(each): mcbn.MCBatchNorm(net, bank) for each, bank in banks.items()}
    samplers["plain"] = mcbn.Deterministic(net)
    return {
        "rows": {
            name: scored(predictions(sampler, sets), targets) for name, sampler in samplers.items()
        },
        "statistics": {str(each): spread_of_means(bank) for each, bank in banks.items()},
        "epochs": epochs_of(scale, data, batch_size),
    }


def examples(scale: Scale, task: Task, size: int) -> tuple[LabeledData, dict[str, Tensor], Tensor]:
    """The first training images; the test digits and the OOD sets; the targets of the digits."""
    sets = {"test": task.test.inputs[: scale.test]}
    sets |= {name: images[: scale.outside] for name, images in task.outside.items()}
    return task.train.rows(torch.arange(size)), sets, task.test.targets[: scale.test]


def epochs_of(scale: Scale, data: LabeledData, batch_size: int) -> int:
    """Epochs that make about the number of steps."""
    return max(1, round(scale.steps / (len(data) // batch_size)))


def trained(
    scale: Scale, data: LabeledData, *, seed: int, batch_size: int = TRAINED_AT, dropout: float = 0
) -> nn.Module:
    """One network."""
    net = build(lambda: convnet(1, 10, width=scale.width, dropout=dropout), seed=seed)
    epochs = epochs_of(scale, data, batch_size)
    return train(net, data, epochs=epochs, batch_size=batch_size, seed=seed)


def with_dropout(
    scale: Scale, data: LabeledData, held_out: LabeledData, *, seed: int
) -> tuple[float, nn.Module]:
    """The dropout rate of the best held-out log score of MC Dropout, and the network with it."""
    nets = {rate: trained(scale, data, seed=seed, dropout=rate) for rate in scale.rates}
    best = min(nets, key=lambda rate: dropout_nll(nets[rate], held_out, scale.few_draws, seed=seed))
    return best, nets[best]


def collected(
    scale: Scale, net: nn.Module, data: LabeledData, *, seed: int
) -> dict[int, mcbn.Bank]:
    """Banks at every M."""
    sizes = sorted({*sizes_at(scale, len(data)), min(TRAINED_AT, len(data) // 2)})
    return {
        size: mcbn.collect(
            net, mcbn.minibatches(data.inputs, batch_size=size, draws=scale.draws, seed=seed)
        )
        for size in sizes
    }


def predictions(sampler: mcbn.MCBatchNorm | mcbn.MCDropout | mcbn.Deterministic,
                sets: dict[str, Tensor]) -> dict[str, mcbn.CategoricalPredictive]:  # fmt: skip
    """Predictions for each set, with the draws."""
    return {name: mcbn.predict(sampler, images, keep_draws=True) for name, images in sets.items()}


def spread_of_means(bank: mcbn.Bank) -> float:
    """Standard deviation of batch means over that of the activations, averaged over channels."""
    log_ratios = []
    for name, rows in bank.statistics.items():
        if name.endswith("running_mean"):
            variance = bank.trained[name.replace("running_mean", "running_var")].double()
            ratio = rows.double().std(0) / variance.sqrt()
            log_ratios.append(ratio[variance > 1e-7].log().mean())
    return float(torch.stack(log_ratios).mean().exp())


def scored(predictives: dict[str, mcbn.CategoricalPredictive], targets: Tensor) -> dict:
    """Uncertainty on each set, scores on the test set, and the AUROC of each OOD set."""
    row: dict = {}
    for name, predictive in predictives.items():
        row |= {f"{key} {name}": value for key, value in spreads_of(predictive).items()}
        if name == "test":
            continue
        for kind in ("mutual_information", "entropy"):
            if kind == "entropy" or predictive.draw_count > 1:
                separation = mcbn.out_of_distribution(
                    predictives["test"], predictive, uncertainty=kind, resamples=0
                )
                row[f"auroc by {kind} {name}"] = separation["auroc_out_of_distribution"].value
    evaluation = mcbn.evaluate(predictives["test"], targets, resamples=0)
    row |= {name: evaluation[name].value for name in ("accuracy", "nll", "ece", "ece_debiased")}
    losses = negative_log_likelihood(predictives["test"].log_probabilities, targets)
    return row | {"losses": losses.tolist()}


def spreads_of(predictive: mcbn.CategoricalPredictive) -> dict[str, float]:
    """Mean uncertainty over images; standard deviations over draws use unbiased variances."""
    measures = {"entropy": float(predictive.entropy.mean())}
    count = predictive.draw_count
    if count > 1 and predictive.draws is not None:
        variance = predictive.variance * count / (count - 1)
        logits = predictive.draws.double()
        centered = logits - logits.mean(2, keepdim=True)  # a shift of all classes has no effect
        measures |= {
            "epistemic_sd": float(variance.sqrt().mean()),
            "logit_sd": float(centered.std(0).mean()),
            "mutual_information": float(predictive.mutual_information.mean()) * count / (count - 1),
        }
    return measures


if __name__ == "__main__":
    main(asked("batch_size"))
