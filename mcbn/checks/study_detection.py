"""Whether a study detects its out-of-distribution sets."""

import math
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import replace

from mcbn.checks.check import Check
from mcbn.checks.claim import Claim, Mark
from mcbn.checks.subject import Subject
from mcbn.study.names import OVER_BATCH_SIZES
from mcbn.study.results import Point, Study, point
from mcbn.study.summary import span

GOOD_AUROC, GUESSING = 0.8, 0.5


def detection_claims(study: Study) -> Iterator[Claim]:
    """How well MCBN, or the first method over M, detects each out-of-distribution set."""
    over = [name for name in study.methods if name in OVER_BATCH_SIZES]
    if not over:
        return
    method = "MCBN" if "MCBN" in over else over[0]
    for name in study.outside:
        score = f"auroc_{name}_by_mutual_information"
        aurocs = {}
        for size in study.training_batch_sizes:
            for batch_size in study.batch_sizes:
                values = study.values(
                    score, method, training_batch_size=size, batch_size=batch_size
                )
                if values and all(map(math.isfinite, values.values())):
                    aurocs[size, batch_size] = list(values.values())
        if aurocs:
            yield _detection(name, method, aurocs)


def _detection(ood_set: str, method: str, aurocs: Mapping[tuple[int, int], list[float]]) -> Claim:
    """How well a method detects a set, at the pair of batch sizes where it does so best.

    By an interval that holds for all pairs at once, by Bonferroni's correction.

    Args:
        ood_set: name of the out-of-distribution set.
        method: name of the method.
        aurocs: by training and inference batch size, over seeds and splits.
    """
    means = {sizes: statistics.fmean(values) for sizes, values in aurocs.items()}
    size, batch_size = max(means, key=lambda sizes: means[sizes])
    top = _at_once(aurocs[size, batch_size], len(aurocs))
    mark: Mark = "uncertain"
    if top.low > GOOD_AUROC:
        mark, word = "good", "detects it well"
    elif math.isnan(top.low):
        word = "detects it, as far as a single replicate shows"
    elif top.low > GUESSING:
        word = "detects it only partly"
    else:
        mark, word = "bad", "does not detect it significantly better than guessing"
    text = (
        f"Out-of-distribution set {ood_set}: the mutual information of {method} {word}, best with "
        f"M = {batch_size} trained at {size}: AUROC {span(top, 3)}"
    )
    largest = max(other for trained, other in aurocs if trained == size)
    if largest != batch_size:
        text += (
            f"; with M = {largest} there, {span(_at_once(aurocs[size, largest], len(aurocs)), 3)}"
        )
    return Claim("Out of distribution", mark, f"{text}.")


def _at_once(values: list[float], count: int) -> Point:
    estimate = point(values, level=1 - 0.05 / count)
    return replace(estimate, low=max(estimate.low, 0.0), high=min(estimate.high, 1.0))


def judge(subject: Subject) -> Iterator[Claim]:
    """Judge each part of a study."""
    if not subject.comparison:
        for name, part in subject.study_parts.items():
            for claim in detection_claims(part):
                yield replace(claim, part=name)


CHECK = Check(
    code="MCBN020",
    name="not-detected-over-seeds",
    looks_at=(
        "The AUROC of out-of-distribution against test examples by mutual information, over seeds."
    ),
    threshold="An interval that lies above 0.8 passes; one that reaches 0.5 is an issue.",
    source=(
        "0.5 is guessing; 0.8 is a convention for good discrimination (Hosmer and Lemeshow 2000)."
    ),
    remedy=(
        "Compare energy and nearest neighbours, which often detect what mutual information does "
        "not."
    ),
    judge=judge,
)
