"""The mutation score: the share of mutmut's small changes of the code that a test noticed.

Run by `make -C tools mutate`. Which changes survive, and why, is in docs/guarantees.md.
"""

import json
import sys
from pathlib import Path

MIN_SCORE = 0.9
STATISTICS = Path("mutants/mutmut-cicd-stats.json")


def main() -> int:
    """Print the score; the exit status says whether it is high enough."""
    counts = json.loads(STATISTICS.read_text())
    noticed = counts["killed"] + counts["timeout"]  # a change that never ends is noticed, too
    score = noticed / counts["total"]
    print(f"{noticed} of {counts['total']} changes noticed: {score:.1%}, expected {MIN_SCORE:.0%}")
    return int(score < MIN_SCORE)


if __name__ == "__main__":
    sys.exit(main())
