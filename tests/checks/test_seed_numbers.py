"""MCBN015 and MCBN016: unfinished cells, and the number of seeds."""

import pytest
from scipy import stats
from synthetic_studies import classification_plan, classification_scores, made_study

from mcbn.checks import replicates, seeds
from mcbn.checks.subject import Subject


@pytest.mark.parametrize(
    ("count", "wanted"), [(1, "issue"), (2, "tip"), (4, "tip"), (5, "passed"), (7, "passed")]
)
def test_few_seeds_are_told(count, wanted):
    study = made_study(classification_plan(seeds=tuple(range(count))), classification_scores)
    result = seeds.CHECK(Subject(study=study))
    assert result.status == wanted
    (claim,) = result.claims
    assert (str(count) if count > 1 else "single seed") in claim.sentence
    assert claim.topic == "Replicates"


def test_unfinished_cells_are_told_apart_from_seeds():
    plan = classification_plan(seeds=tuple(range(5)))
    whole = made_study(plan, classification_scores)
    first = plan.cells()[0]
    missing = made_study(plan, classification_scores, missing=lambda cell: cell == first)
    failed = made_study(plan, classification_scores, failed=lambda cell: cell == first)
    for study, wanted in ((whole, "passed"), (missing, "tip"), (failed, "issue")):
        assert replicates.CHECK(Subject(study=study)).status == wanted
        assert seeds.CHECK(Subject(study=study)).status == "passed"
    empty = made_study(plan, classification_scores, missing=lambda _: True)
    assert seeds.CHECK(Subject(study=empty)).status == "not applicable"


@pytest.mark.parametrize(("count", "sds"), [(3, 3.3), (5, 1.7), (10, 1.0)])
def test_the_stated_differences_are_found_in_four_of_five_studies(count, sds):
    assert f"{sds:g} " in seeds.CHECK.source or f"{sds:.1f} " in seeds.CHECK.source
    bound = stats.t.ppf(0.975, count - 1)
    power = stats.nct.sf(bound, count - 1, sds * count**0.5)
    assert power == pytest.approx(0.8, abs=0.02)
