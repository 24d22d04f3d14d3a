"""The check on groups: a worse one is found, equal ones pass, small ones are left open."""

import pytest
import torch

from mcbn.checks.group_claim import group_claim
from mcbn.evaluation.subgroups import subgroups
from mcbn.predictive.categorical import Categorical


def claim(noise, sizes, *, seed=0):
    """What is said of groups of examples by one method whose logits are noisy in the last."""
    generator = torch.Generator().manual_seed(seed)
    count = sum(sizes)
    truth = 2 * torch.randn(1, count, 3, generator=generator)
    targets = torch.multinomial(truth[0].softmax(1), 1, generator=generator)[:, 0]
    names = [name for name, size in zip("abc", sizes, strict=False) for _ in range(size)]
    last = torch.tensor([name == names[-1] for name in names])
    truth[:, last] += noise * torch.randn(1, int(last.sum()), 3, generator=generator)
    made = subgroups(Categorical().summarize(truth), targets, names, resamples=20)
    return group_claim("m", "site", made)


def test_a_group_that_is_worse_is_an_issue():
    found = claim(6.0, (200, 200))
    assert (found.mark, found.status) == ("bad", "issue")
    assert "does worst on b" in found.sentence


def test_a_small_group_is_left_open():
    """Whatever the t test says by five examples, whose log scores are skewed."""
    assert {claim(0.0, (200, 5), seed=seed).mark for seed in range(5)} == {"uncertain"}


@pytest.mark.parametrize("runs", [60, pytest.param(400, marks=pytest.mark.slow)])
def test_equal_groups_pass_but_for_the_level(runs):
    """The chance of any false alarm among three groups is at most 5%."""
    alarms = sum(claim(0.0, (80, 80, 80), seed=seed).mark == "bad" for seed in range(runs))
    assert alarms <= runs * 0.05 + 3 * (runs * 0.05 * 0.95) ** 0.5
    assert claim(0.0, (80, 80, 80), seed=1).mark == "good"
