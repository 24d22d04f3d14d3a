"""Run the experiments, the shortest first.

Run: python -m experiments [--fast] [NAME ...]

Says how long each takes. After an interruption it goes on: what came to its end is marked in
results/parts until all have, and the scripts themselves keep the parts that they have finished.
"""

import argparse
import subprocess
import sys

from experiments.record import RESULTS

# Minutes on two cores.
MINUTES = {
    "choosing.batch_size_gradient": 2,
    "choosing.chosen_batch_size": 15,
    "choosing.directions": 5,
    "choosing.directions_images": 20,
    "choosing.large_batch": 5,
    "choosing.rescaling": 30,
    "choosing.rescaling_networks": 30,
    "choosing.which_layers": 60,
    "comparisons.alternatives": 25,
    "comparisons.baselines": 200,
    "comparisons.labels": 30,
    "comparisons.mutual_information": 10,
    "comparisons.tabular": 25,
    "cost.bfloat16": 6,
    "cost.fewer_draws": 15,
    "cost.linearized_bfloat16": 6,
    "cost.propagation": 15,
    "cost.stochastic_layers": 4,
    "posteriors.shape": 60,
    "reproductions.batch_size": 100,
    "reproductions.elbo": 5,
    "reproductions.images": 20,
    "reproductions.minibatch_elbo": 60,
    "reproductions.pretrained": 10,
    "reproductions.segmentation": 20,
    "reproductions.toy": 2,
    "reproductions.uci": 490,
    "shift.drift": 60,
    "uses.acquisition": 40,
    "uses.super_resolution": 5,
}
# These have a tiny scale.
FAST = (
    "choosing.directions",
    "choosing.directions_images",
    "choosing.which_layers",
    "comparisons.alternatives",
    "comparisons.baselines",
    "comparisons.labels",
    "comparisons.mutual_information",
    "comparisons.tabular",
    "posteriors.shape",
    "reproductions.batch_size",
    "reproductions.elbo",
    "reproductions.images",
    "reproductions.minibatch_elbo",
    "reproductions.segmentation",
    "reproductions.toy",
    "reproductions.uci",
    "shift.drift",
    "uses.acquisition",
    "uses.super_resolution",
)


def main() -> None:
    """Run those that are asked for and did not come to their end yet."""
    parser = argparse.ArgumentParser(prog="experiments", allow_abbrev=False)
    parser.add_argument("names", nargs="*", metavar="NAME", help="such as comparisons.baselines")
    parser.add_argument("--fast", action="store_true", help="at a scale that proves nothing")
    options = parser.parse_args()
    names = options.names or sorted(FAST if options.fast else MINUTES, key=MINUTES.__getitem__)
    if unknown := set(names) - set(FAST if options.fast else MINUTES):
        parser.error(f"expected names among {', '.join(MINUTES)}, got {', '.join(unknown)}")
    marks = RESULTS / "parts"
    marks.mkdir(parents=True, exist_ok=True)
    ended = [] if options.fast else [name for name in names if (marks / f"{name}.end").exists()]
    for name in (name for name in names if name not in ended):
        print(f"{name}: about {length(MINUTES[name])}", file=sys.stderr, flush=True)
        subprocess.run(  # noqa: S603
            [sys.executable, "-m", f"experiments.{name}", *["--fast"] * options.fast], check=True
        )
        if not options.fast:
            (marks / f"{name}.end").touch()
    for name in names:
        (marks / f"{name}.end").unlink(missing_ok=True)


def length(minutes: int) -> str:
    """Minutes in words, from two hours on as hours."""
    return f"{minutes} minutes" if minutes < 120 else f"{minutes / 60:.1f} hours"


if __name__ == "__main__":
    main()
