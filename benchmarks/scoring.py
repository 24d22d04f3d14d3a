"""Cost of the intervals of scores: CPU time per resample.

Run: python benchmarks/scoring.py    (2 minutes on one core)
"""

import json
import statistics
import time
from pathlib import Path

import torch

import mcbn
from mcbn.io.atomic import write_whole

RESULTS = Path(__file__).parent / "scoring.json"
# Examples, classes, and the number of resamples that is timed.
SIZES = ((1_000, 10, 200), (10_000, 10, 100), (10_000, 100, 100), (50_000, 1_000, 20))
PAIRS = 5


def main() -> None:
    """Measure all sizes and write the results."""
    torch.set_num_threads(1)
    rows = [scoring(*size) for size in SIZES]
    write_whole(RESULTS, (json.dumps(rows, indent=1) + "\n").encode())
    print(json.dumps(rows, indent=1))


def scoring(examples: int, classes: int, resamples: int) -> dict[str, float]:
    """CPU time of one resample, of the set-up and of the scores alone; medians of pairs."""
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(examples, classes, generator=generator)
    targets = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    predictive = mcbn.Categorical().summarize([logits])

    def seconds(count: int) -> float:
        start = time.process_time()
        mcbn.evaluate(predictive, targets, resamples=count, progress=False)
        return time.process_time() - start

    seconds(1)
    pairs = [(seconds(1), seconds(1 + resamples)) for _ in range(PAIRS)]
    each = statistics.median((many - few) / resamples for few, many in pairs)
    once = statistics.median(seconds(0) for _ in range(PAIRS))
    return {
        "examples": examples,
        "classes": classes,
        "scores_ms": round(1e3 * once, 2),
        "setup_ms": round(1e3 * (statistics.median(few for few, _ in pairs) - once - each), 2),
        "resample_ms": round(1e3 * each, 3),
    }


if __name__ == "__main__":
    main()
