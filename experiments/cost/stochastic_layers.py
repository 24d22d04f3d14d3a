"""Cost and effect of making only the last batch-norm layers stochastic.

Run: python -m experiments.cost.stochastic_layers
(about 4 minutes on 2 cores; data root in MCBN_DATA)
"""

import json
import statistics
import time

import torch
from scipy.stats import spearmanr
from tqdm import tqdm

import mcbn
from experiments.record import RESULTS
from mcbn.io.atomic import write_whole
from mcbn.tasks.datasets import CropAndFlip, cifar10_images, data_root, normalize_cifar10
from mcbn.tasks.networks import load_resnet20

LAYERS = (1, 2, 4, 8, 12, 16, 18, 19)  # number of last layers; ResNet20 has 19
DRAWS, BATCH_SIZE = 64, 32
EXAMPLES = 500
TIMED, ROUNDS = 64, 5  # examples in a timed pass; rounds, of which the median is taken
RESULT = RESULTS / "stochastic_layers.json"


def main() -> None:
    """Compare each choice of layers with all layers and with the plain network."""
    data, test = cifar10_images()
    network = load_resnet20(data_root() / "cifar10_resnet_weights" / "resnet20-12fca82f.th")
    inputs, targets = normalize_cifar10(test.inputs[:EXAMPLES]), test.targets[:EXAMPLES]
    batches = mcbn.minibatches(CropAndFlip(data), batch_size=BATCH_SIZE, draws=DRAWS, seed=0)
    bank = mcbn.collect(network, batches)
    samplers = {count: mcbn.MCBatchNorm(network, bank, layers=count) for count in LAYERS}
    whole = mcbn.predict(samplers[LAYERS[-1]], inputs).mutual_information
    times = timed(samplers, inputs[:TIMED])
    rows = []
    for count, sampler in samplers.items():
        predictive = mcbn.predict(sampler, inputs)
        rows.append(
            {
                "last_layers": count,
                "mutual_information": float(predictive.mutual_information.mean()),
                "share": float(predictive.mutual_information.mean() / whole.mean()),
                "spearman": float(spearmanr(predictive.mutual_information, whole).statistic),
                "nll": mcbn.evaluate(predictive, targets)["nll"].value,
                "time": times[count],
            }
        )
    plain = mcbn.evaluate(mcbn.predict(mcbn.Deterministic(network), inputs), targets)["nll"].value
    settings = {"draws": DRAWS, "batch_size": BATCH_SIZE, "examples": EXAMPLES, "plain_nll": plain}
    text = json.dumps({**settings, "rows": rows}, indent=1) + "\n"
    write_whole(RESULT, text.encode())


def timed(samplers: dict[int, mcbn.MCBatchNorm], inputs: torch.Tensor) -> dict[int, float]:
    """Time of all draws relative to that with all layers, median over rounds."""
    shares: dict[int, list[float]] = {count: [] for count in samplers}
    for number in tqdm(range(ROUNDS + 1), "time", leave=False):
        seconds = {}
        for count, sampler in samplers.items():
            start = time.perf_counter()
            for _ in sampler.passes(inputs):
                pass
            seconds[count] = time.perf_counter() - start
        for count in samplers if number > 0 else ():  # the first round is a warm-up
            shares[count].append(seconds[count] / seconds[LAYERS[-1]])
    return {count: statistics.median(ratios) for count, ratios in shares.items()}


if __name__ == "__main__":
    main()
