"""What passes in bfloat16 change in a published network's answers, beside their Monte Carlo error.

Run: python -m experiments.cost.bfloat16    (about 6 minutes on 2 cores; data root in MCBN_DATA)
"""

import json

import torch
from tqdm import tqdm

import mcbn
from experiments.record import RESULTS
from mcbn.evaluation.detection import auroc
from mcbn.io.atomic import write_whole
from mcbn.tasks.datasets import CropAndFlip, cifar10_images, data_root, normalize_cifar10
from mcbn.tasks.networks import load_resnet20

DRAWS, BATCH_SIZE, EXAMPLES, BANKS = 64, 32, 300, 6
RESULT = RESULTS / "bfloat16.json"


def main() -> None:
    """Score each of several banks in both precisions.

    The Monte Carlo error of a score is its standard deviation over banks of as many draws.
    """
    data, test = cifar10_images()
    network = load_resnet20(data_root() / "cifar10_resnet_weights" / "resnet20-12fca82f.th")
    inside = normalize_cifar10(test.inputs[:EXAMPLES])
    generator = torch.Generator().manual_seed(0)
    order = torch.rand(EXAMPLES, 1024, generator=generator).argsort(1)
    shuffled = inside.flatten(2).gather(2, order[:, None].expand(-1, 3, -1)).view_as(inside)
    rows = []
    for seed in tqdm(range(BANKS), "banks"):
        drawn = mcbn.minibatches(
            CropAndFlip(data), batch_size=BATCH_SIZE, draws=DRAWS, seed=seed
        )  # fmt: skip
        bank = mcbn.collect(network, drawn, limit=None, progress=False)
        exact, rounded = (
            scores(mcbn.MCBatchNorm(network, bank, precision=precision), inside, shuffled,
                   test.targets[:EXAMPLES])
            for precision in ("float32", "bfloat16")
        )  # fmt: skip
        rows.append({"float32": exact, "bfloat16": rounded})
    chosen = mcbn.MCBatchNorm(network, bank, precision="auto")
    mcbn.predict(chosen, inside[:64])
    summary = {name: summarized(rows, name) for name in rows[0]["float32"]}
    settings = {"draws": DRAWS, "batch_size": BATCH_SIZE, "examples": EXAMPLES, "banks": BANKS}
    result = {**settings, "auto": str(chosen.precision_choice), "scores": summary, "rows": rows}
    write_whole(RESULT, (json.dumps(result, indent=1) + "\n").encode())


def scores(
    sampler: mcbn.MCBatchNorm, inside: torch.Tensor, outside: torch.Tensor, targets: torch.Tensor
) -> dict[str, float]:
    """Scores of the predictions, and how well mutual information tells shuffled images apart."""
    known, unknown = mcbn.predict(sampler, inside), mcbn.predict(sampler, outside)
    evaluation = mcbn.evaluate(known, targets, resamples=0)
    both = torch.cat([known.mutual_information, unknown.mutual_information])
    told = auroc(both, torch.arange(len(both)) >= len(known))
    return {
        "accuracy": evaluation["accuracy"].value,
        "nll": evaluation["nll"].value,
        "mutual_information": float(known.mutual_information.mean()),
        "ood_auroc": float(told),
    }


def summarized(rows: list[dict[str, dict[str, float]]], name: str) -> dict[str, float]:
    """Change of a score by bfloat16, and its Monte Carlo error at this number of draws."""
    exact = torch.tensor([row["float32"][name] for row in rows], dtype=torch.float64)
    rounded = torch.tensor([row["bfloat16"][name] for row in rows], dtype=torch.float64)
    change, error = (rounded - exact).square().mean().sqrt(), exact.std()
    return {
        "float32": float(exact.mean()), "change": float(change), "monte_carlo": float(error),
        "share": float(change / error),
    }  # fmt: skip


if __name__ == "__main__":
    main()
