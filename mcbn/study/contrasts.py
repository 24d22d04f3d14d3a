"""Paired tests between the methods of a study, corrected for their number."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from mcbn.evaluation import glossary
from mcbn.evaluation.glossary import BETTER
from mcbn.evaluation.significance import holm, paired_test
from mcbn.study.names import OVER_BATCH_SIZES
from mcbn.study.results import Point, Study, point

BASELINE = "Deterministic"

Place = tuple[str, int | None]  # a method, and its M where it has one


@dataclass(frozen=True)
class Contrast:
    """One method less another on networks trained alike, paired over splits and seeds.

    Attributes:
        score: of which the difference is taken.
        part: of the study.
        training_batch_size: of the networks.
        method: the one.
        batch_size: its M, where it has one.
        other: the one that is taken off.
        other_batch_size: its M.
        pairs: splits and seeds that both have.
        difference: mean difference with its Student-t interval.
        p_value: two-sided, of the paired t test; NaN where there is none to be made.
        adjusted: the same by Holm's method, over all tests of the score in the study.
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
    adjusted: float = math.nan

    @property
    def better(self) -> bool:
        """Whether the mean difference is to the better side."""
        return (self.difference.mean > 0) == (BETTER[self.score] == "higher")


def contrasts(parts: Mapping[str, Study], score: str) -> tuple[Contrast, ...]:
    """Every planned comparison of a score, in all parts of a study, with Holm's correction.

    For each training batch size: every other method, at each of its M, less Deterministic; MCBN
    less every other method over M at equal M; and MCBN, at the M nearest to that of training, less
    every other method without an M.

    Args:
        parts: of `Study.parts`.
        score: one of which a direction is better.

    Raises:
        ValueError: of this score no direction is the better one.
    """
    if not glossary.judged(score):
        raise ValueError(f"expected a score with a better direction, got {score!r}; choose another")
    found = [
        contrast
        for name, study in parts.items()
        for size in study.training_batch_sizes
        for one, other in _planned(study, size)
        if (contrast := _contrast(name, study, score, size, (one, other))) is not None
    ]
    tests = _distinct(found)
    adjusted = dict(zip(tests, holm([test.p_value for test in tests]), strict=True))
    return tuple(
        replace(contrast, adjusted=adjusted.get(replace(contrast, part=""), math.nan))
        for contrast in found
    )


def count(found: Sequence[Contrast]) -> int:
    """How many different tests there are among contrasts."""
    return len(_distinct([replace(contrast, adjusted=math.nan) for contrast in found]))


def _distinct(found: Sequence[Contrast]) -> list[Contrast]:
    """Tests that were made, once each: methods without a T are the same in parts that differ in it.

    Told by their numbers, which are equal to the last bit only if the cells behind them are.
    """
    made = (contrast for contrast in found if not math.isnan(contrast.p_value))
    return list(dict.fromkeys(replace(contrast, part="") for contrast in made))


def matched(batch_sizes: Sequence[int], training_batch_size: int) -> int:
    """The inference batch size nearest to that of training, by ratio; the smaller of two."""
    return min(
        sorted(batch_sizes), key=lambda size: abs(math.log(size / training_batch_size))
    )  # fmt: skip


def _planned(study: Study, training_batch_size: int) -> Iterator[tuple[Place, Place]]:
    methods, sizes = study.methods, study.batch_sizes
    over = [name for name in methods if name in OVER_BATCH_SIZES]
    levels = [name for name in methods if name not in OVER_BATCH_SIZES and name != BASELINE]
    if BASELINE in methods:
        yield from (((name, size), (BASELINE, None)) for name in over for size in sizes)
        yield from (((name, None), (BASELINE, None)) for name in levels)
    if "MCBN" in over:
        yield from (
            (("MCBN", size), (name, size)) for name in over if name != "MCBN" for size in sizes
        )
        at = matched(sizes, training_batch_size)
        yield from ((("MCBN", at), (name, None)) for name in levels)


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
    return Contrast(
        score, part, size, method, at, rival, rival_at, len(differences), point(differences),
        paired_test(differences),
    )  # fmt: skip
