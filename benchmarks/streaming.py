"""Memory and throughput of streamed predictions with 1,000 classes.

Run: python benchmarks/streaming.py    (3 minutes on 2 cores)
"""

import json
import resource
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.models import resnet18, resnet50

import mcbn
from mcbn.io.atomic import write_whole
from mcbn.predictive.predict import predict_batches

RESULTS = Path(__file__).parent / "streaming.json"
CLASSES, FEATURES, BATCH = 1000, 64, 256
EXAMPLES, DRAWS = (5_000, 50_000), (8, 64)
PAIRS = 7
MEGABYTE = 1024  # in the units of ru_maxrss on Linux


class Drawn(Dataset[Tensor]):
    """Examples generated on access, so that the data need no memory."""

    def __init__(self, examples: int) -> None:
        self.examples = examples

    def __len__(self) -> int:
        return self.examples

    def __getitems__(self, places: list[int]) -> list[Tensor]:
        generator = torch.Generator().manual_seed(places[0])
        return list(torch.randn(len(places), FEATURES, generator=generator))


def main() -> None:
    """Measure in separate processes, or run as one of them."""
    torch.set_num_threads(1)
    if sys.argv[1:]:
        way, examples, draws = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
        print(json.dumps(memory(way, examples, draws)))
        return
    results = {
        "memory": [
            in_process(way, examples, draws)
            for way in ("engine", "predict_batches", "predict")
            for examples in EXAMPLES
            for draws in DRAWS
        ],
        "throughput": [throughput(name, *case()) for name, case in CASES.items()],
    }
    write_whole(RESULTS, (json.dumps(results, indent=1) + "\n").encode())
    print(json.dumps(results, indent=1))


def in_process(way: str, examples: int, draws: int) -> dict[str, float | str]:
    """Measure in a fresh process, so that the peak belongs to this measurement alone."""
    command = [sys.executable, __file__, way, str(examples), str(draws)]
    answer = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603
    print(answer.stdout.strip(), file=sys.stderr, flush=True)
    return json.loads(answer.stdout)


def memory(way: str, examples: int, draws: int) -> dict[str, float | str]:
    """Peak resident memory in MB, its increase over that of one batch, and seconds."""
    sampler = small(draws)
    WAYS["engine"](sampler, Drawn(BATCH))
    WAYS["predict_batches"](sampler, Drawn(BATCH))
    before, start = peak(), time.perf_counter()
    answer = WAYS[way](sampler, Drawn(examples))
    seconds = time.perf_counter() - start
    return {
        "way": way,
        "examples": examples,
        "draws": draws,
        "peak_mb": round(peak(), 1),
        "grown_mb": round(peak() - before, 1),
        "answer_mb": round(answer / 2**20, 1),
        "seconds": round(seconds, 2),
    }


def peak() -> float:
    """Peak resident memory of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MEGABYTE


def engine_alone(sampler: mcbn.MCBatchNorm, data: Drawn) -> int:
    """Run all passes and discard their outputs."""
    with torch.no_grad():
        for batch in DataLoader(data, batch_size=BATCH):
            for _ in sampler.passes(batch):
                pass
    return 0


def one_by_one(sampler: mcbn.MCBatchNorm, data: Drawn) -> int:
    """Reduce each batch to a number and discard its predictive."""
    for part in predict_batches(sampler, DataLoader(data, batch_size=BATCH)):
        part.mutual_information.sum()
    return 0


def whole(sampler: mcbn.MCBatchNorm, data: Drawn) -> int:
    """Keep the whole result; return its size in bytes."""
    answer = mcbn.predict(sampler, data, batch_size=BATCH, progress=False)
    return sum(value.nbytes for value in vars(answer).values() if isinstance(value, Tensor))


WAYS: dict[str, Callable[[mcbn.MCBatchNorm, Drawn], int]] = {
    "engine": engine_alone,
    "predict_batches": one_by_one,
    "predict": whole,
}


def small(draws: int) -> mcbn.MCBatchNorm:
    """A sampler of a small network with a 1,000-class head."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(FEATURES, FEATURES), nn.BatchNorm1d(FEATURES), nn.ReLU(),
        nn.Linear(FEATURES, CLASSES),
    ).eval()  # fmt: skip
    return sampled(model, torch.randn(2000, FEATURES), draws)


def sampled(model: nn.Module, inputs: Tensor, draws: int) -> mcbn.MCBatchNorm:
    """A sampler of a few draws of the network's statistics."""
    with warnings.catch_warnings():
        # The networks are untrained, so their running statistics are meaningless.
        warnings.simplefilter("ignore", mcbn.InconsistentBankWarning)
        batches = mcbn.minibatches(inputs, batch_size=min(32, len(inputs) // 2), draws=draws)
        return mcbn.MCBatchNorm(model, mcbn.collect(model, batches))


def of_images(
    build: Callable[[], nn.Module], side: int, batch: int
) -> tuple[mcbn.MCBatchNorm, Tensor]:
    """A sampler of an image network, and a batch of images."""
    torch.manual_seed(0)
    model = build().eval()
    return sampled(model, torch.randn(8, 3, side, side), 2), torch.randn(batch, 3, side, side)


CASES: dict[str, Callable[[], tuple[mcbn.MCBatchNorm, Tensor]]] = {
    "dense 64-64-1000": lambda: (small(64), torch.randn(BATCH, FEATURES)),
    "ResNet-18, 64x64": lambda: of_images(resnet18, 64, 32),
    "ResNet-50, 224x224": lambda: of_images(resnet50, 224, 8),
}


def throughput(name: str, sampler: mcbn.MCBatchNorm, inputs: Tensor) -> dict[str, float | str]:
    """Time of `predict_batches` as a multiple of the passes alone: median of pairs in turn."""

    def alone() -> None:
        with torch.no_grad():
            for _ in sampler.passes(inputs):
                pass

    def predicted() -> None:
        for _ in predict_batches(sampler, inputs, batch_size=len(inputs)):
            pass

    alone(), predicted()
    pairs = [(seconds(alone), seconds(predicted)) for _ in range(PAIRS)]
    per_image = 1 / (len(sampler) * len(inputs))
    # The summary is timed separately, since the difference of two long times is mostly noise.
    outputs = list(sampler.passes(inputs))
    summary = statistics.median(
        seconds(lambda: mcbn.Categorical().summarize(outputs)) for _ in range(PAIRS)
    )
    engine = statistics.median(first for first, _ in pairs)
    return {
        "network": name,
        "batch": len(inputs),
        "draws": len(sampler),
        "engine_us_per_image_and_draw": round(engine * per_image * 1e6, 2),
        "summary_us_per_image_and_draw": round(summary * per_image * 1e6, 2),
        "summary_share_of_engine": round(summary / engine, 5),
        "predict_batches_over_engine": round(
            statistics.median(second / first for first, second in pairs), 4
        ),
    }


def seconds(call: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
