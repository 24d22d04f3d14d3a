"""The mutation score: of the small breaks that mutmut made, the share that a test noticed.

Run by `make mutate`. Which breaks survive, and why, is in docs/guarantees.md.
"""

import json
import sys
from pathlib import Path

LEAST = 0.9
STATISTICS = Path("mutants/mutmut-cicd-stats.json")


def main():
    """Print the score; say by the exit status whether it is high enough."""
    counts = json.loads(STATISTICS.read_text())
    noticed = counts["killed"] + counts["timeout"]  # a break that never ends is noticed, too
    score = noticed / counts["total"]
    print(
        f"{noticed} of {counts['total']} breaks noticed: {score:.1%}, at least {LEAST:.0%} wanted"
    )
    return score < LEAST


if __name__ == "__main__":
    sys.exit(main())
