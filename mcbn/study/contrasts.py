"""Paired tests between the methods of a study, corrected for multiple testing."""

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from mcbn.evaluation import glossary
from mcbn.evaluation.glossary import BETTER
from mcbn.evaluation.significance import holm, paired_test
from mcbn.study.names import OVER_BATCH_SIZES, Method
from mcbn.study.power import detectable
from mcbn.study.results import Point, Study, bounded_difference, point

BASELINE = "Deterministic"
ALPHA = 0.05  # differences with a smaller adjusted p value are called better or worse
# The comparisons that a study is made for, declared before its data are seen: MCBN, at the M
# nearest to that of training, against each of these, for each training batch size. All others
# explore.
PRIMARY: tuple[Method, ...] = ("Deterministic", "MC Dropout", "Deep ensemble")

Place = tuple[str, int | None]  # a method and its M, if it has one


@dataclass(frozen=True)
class Contrast:
    """The difference method - other of a score, paired over splits and seeds.

    Attributes:
        score: name of the score.
        part: name of the part of the study.
        training_batch_size: mini-batch size of training.
        method: name of the method.
        batch_size: M of the method; None without one.
        other: name of the method that is subtracted.
        other_batch_size: M of that method.
        pairs: number of splits and seeds that both have.
        difference: mean difference with its Student-t interval.
        p_value: two-sided p-value of the paired t test; NaN where no test can be made.
        primary: whether it is one of the few comparisons that are declared in `PRIMARY`.
        sd: standard deviation of the paired differences; NaN of a single one.
        adjusted: Holm-adjusted p-value, over all primary tests of the score in the study or, of
            another test, over all others.
        detectable: the difference that would be found in 80% of such studies, by the standard
            deviation of the differences, their number and the first threshold of Holm's method.
    """

    score: str
    part: str
    training_batch_size: int
    method: str
    batch_size: int | None
    other: str
    other_batch_size: int | None
    pairs: int
    difference: Point
    p_value: float
    primary: bool
    sd: float
    adjusted: float = math.nan
    detectable: float = math.nan

    @property
    def better(self) -> bool:
        """Whether the mean difference is in favour of `method`."""
        return (self.difference.mean > 0) == (BETTER[self.score] == "higher")


def contrasts(parts: Mapping[str, Study], score: str) -> tuple[Contrast, ...]:
    """All planned comparisons of a score, in all parts of a study, with Holm's correction.

    For each training batch size: every other method, at each of its M, against Deterministic; MCBN
    against every other method with an M at equal M; and MCBN, at the M nearest to that of training,
    against every other method without an M. Those of `PRIMARY` are corrected among themselves: few
    tests keep their power. All others explore, and are corrected among themselves, too.

    Args:
        parts: parts of a study, as `Study.parts` returns them.
        score: name of a score with a better direction.

    Raises:
        ValueError: neither direction of the score is better.
    """
    if not glossary.judged(score):
        raise ValueError(f"expected a score with a better direction, got {score!r}; choose another")
    planned = [
        contrast
        for name, study in parts.items()
        for size in study.training_batch_sizes
        for one, other in _planned(study, size)
        if (contrast := _contrast(name, study, score, size, (one, other))) is not None
    ]
    known: dict[Contrast, Contrast] = {}
    for is_primary in (True, False):
        known |= _corrected([each for each in planned if each.primary == is_primary])
    return tuple(
        replace(known.get(replace(contrast, part=""), contrast), part=contrast.part)
        for contrast in planned
    )


def _corrected(planned: Sequence[Contrast]) -> dict[Contrast, Contrast]:
    """The tests of one family, each with what it becomes by Holm's method over all of them."""
    tests = _distinct(planned)
    adjusted = holm([test.p_value for test in tests])
    return {
        test: replace(
            test, adjusted=p_value, detectable=test.sd * detectable(test.pairs, tests=len(tests))
        )
        for test, p_value in zip(tests, adjusted, strict=True)
    }


def count(tests: Sequence[Contrast]) -> int:
    """The number of distinct tests among contrasts."""
    return len(
        _distinct([replace(test, adjusted=math.nan, detectable=math.nan) for test in tests])
    )  # fmt: skip


def _distinct(planned: Sequence[Contrast]) -> list[Contrast]:
    """The tests with a p-value, once each: parts that differ in T share the methods without a T.

    They are identified by their numbers, which are equal to the last bit only for the same cells.
    """
    tests = (contrast for contrast in planned if not math.isnan(contrast.p_value))
    return list(dict.fromkeys(replace(test, part="") for test in tests))


def matched(batch_sizes: Sequence[int], training_batch_size: int) -> int:
    """The inference batch size nearest to that of training by ratio; the smaller one of a tie."""
    return min(
        sorted(batch_sizes), key=lambda size: abs(math.log(size / training_batch_size))
    )  # fmt: skip


def _planned(study: Study, training_batch_size: int) -> Iterator[tuple[Place, Place]]:
    methods, sizes = study.methods, study.batch_sizes
    with_size = [name for name in methods if name in OVER_BATCH_SIZES]
    without_size = [name for name in methods if name not in OVER_BATCH_SIZES and name != BASELINE]
    if BASELINE in methods:
        yield from (((name, size), (BASELINE, None)) for name in with_size for size in sizes)
        yield from (((name, None), (BASELINE, None)) for name in without_size)
    if "MCBN" in with_size:
        yield from (
            (("MCBN", size), (name, size)) for name in with_size if name != "MCBN" for size in sizes
        )
        at = matched(sizes, training_batch_size)
        yield from ((("MCBN", at), (name, None)) for name in without_size)


def _contrast(
    part: str, study: Study, score: str, size: int, places: tuple[Place, Place]
) -> Contrast | None:
    one, other = (
        study.values(score, name, training_batch_size=size, batch_size=batch_size)
        for name, batch_size in places
    )
    differences = [
        one[replicate] - other[replicate]
        for replicate in sorted(one.keys() & other.keys())
        if math.isfinite(one[replicate]) and math.isfinite(other[replicate])
    ]
    if not differences:
        return None
    (method, at), (rival, rival_at) = places
    is_primary = (
        method == "MCBN" and at == matched(study.batch_sizes, size)
        and rival_at is None and rival.split(",")[0] in PRIMARY
    )  # fmt: skip
    return Contrast(
        score, part, size, method, at, rival, rival_at, len(differences),
        bounded_difference(point(differences), score), paired_test(differences), is_primary,
        statistics.stdev(differences) if len(differences) > 1 else math.nan,
    )  # fmt: skip
