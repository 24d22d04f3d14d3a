"""MCBN on a published CIFAR-10 ResNet20: inference batch size and augmentation of the mini-batches.

Run: python -m experiments.reproductions.pretrained
(about 10 minutes on 2 cores; data root in MCBN_DATA)
"""

import json
import warnings

from torch.utils.data import Dataset, TensorDataset

import mcbn
from experiments.record import RESULTS
from mcbn.io.atomic import write_whole
from mcbn.tasks.datasets import CropAndFlip, cifar10_images, data_root, normalize_cifar10
from mcbn.tasks.networks import load_resnet20

BATCH_SIZES = (16, 32, 128)  # M; the network was trained at 128
DRAWS = 64  # T
SEED = 0
RESAMPLES = 500
SCORES = ("accuracy", "nll", "ece", "ece_debiased", "brier", "aurc")
RESULT = RESULTS / "pretrained.json"


def main() -> None:
    """Score the plain network and MCBN on the first 1,000 lossless test images."""
    train, test = cifar10_images()
    network = load_resnet20(data_root() / "cifar10_resnet_weights" / "resnet20-12fca82f.th")
    inputs = normalize_cifar10(test.inputs)
    sources: dict[str, Dataset] = {
        "augmented": CropAndFlip(train),
        "plain": TensorDataset(normalize_cifar10(train.inputs), train.targets),
    }
    plain = mcbn.predict(mcbn.Deterministic(network), inputs)
    baseline = mcbn.evaluate(plain, test.targets, resamples=RESAMPLES)
    rows = [row("Deterministic", None, None, baseline)]
    for name, dataset in sources.items():
        for size in BATCH_SIZES:
            batches = mcbn.minibatches(dataset, batch_size=size, draws=DRAWS, seed=SEED)
            with warnings.catch_warnings():
                # The plain mini-batches disagree on purpose; the excess is in the result.
                warnings.simplefilter("ignore", mcbn.InconsistentBankWarning)
                bank = mcbn.collect(network, batches)
            predictive = mcbn.predict(mcbn.MCBatchNorm(network, bank), inputs)
            evaluation = mcbn.evaluate(predictive, test.targets, resamples=RESAMPLES)
            check = mcbn.consistency(bank)
            rows.append(
                row("MCBN", name, size, evaluation)
                | {
                    "nll_minus_deterministic": interval(evaluation.minus(baseline)["nll"]),
                    "mutual_information": float(predictive.mutual_information.mean()),
                    "consistency_excess": check.excess,
                    "variance_ratio": check.variance_ratio,
                }
            )
            print(rows[-1], flush=True)
    result = {"draws": DRAWS, "seed": SEED, "images": len(test), "rows": rows}
    write_whole(RESULT, (json.dumps(result, indent=1) + "\n").encode())


def row(method: str, batches: str | None, size: int | None, evaluation: mcbn.Evaluation) -> dict:
    """One row of the table."""
    scores = {name: interval(evaluation[name]) for name in SCORES}
    return {"method": method, "mini_batches": batches, "batch_size": size, **scores}


def interval(score: mcbn.Score) -> list[float]:
    """Value and 95% interval, rounded to five digits."""
    return [round(number, 5) for number in (score.value, score.low, score.high)]


if __name__ == "__main__":
    main()
