"""Whether mutual information ranks examples otherwise than expected entropy does."""

from collections.abc import Iterator

from mcbn.checks.check import Check
from mcbn.checks.claim import Claim
from mcbn.checks.subject import Subject
from mcbn.evaluation.comparison import Comparison
from mcbn.evaluation.distributions import spearman
from mcbn.evaluation.glossary import number
from mcbn.evaluation.separation import ROUNDING

ALIKE = 0.99  # rank correlation above which two scores are one
MIN_EXAMPLES = 30  # of fewer a rank correlation says little


def rank_correlations(comparison: Comparison) -> dict[str, float]:
    """Spearman's correlation of mutual information and expected entropy, by method.

    Only of methods whose draws disagree on some example, and whose predictions were kept.
    """
    found = {}
    for name, entry in comparison.entries.items():
        predictive = entry.predictive
        if predictive is None or len(predictive) < MIN_EXAMPLES:
            continue
        information = predictive.mutual_information.flatten()
        expected = predictive.expected_entropy.flatten()
        varies = [float(each.max() - each.min()) > ROUNDING for each in (information, expected)]
        if all(varies):
            found[name] = spearman(information, expected)
    return found


def ranking_claim(comparison: Comparison) -> Claim | None:
    """Name the method whose two scores rank most alike; None without several draws."""
    found = rank_correlations(comparison)
    if not found:
        return None
    name = max(found, key=lambda each: found[each])
    others = f", the highest of {len(found)} methods" if len(found) > 1 else ""
    alike = found[name] > ALIKE
    word = "as" if alike else "otherwise than"
    text = (
        f"The mutual information of {name} ranks the test examples {word} its expected entropy "
        f"does (Spearman correlation {number(found[name], 3)}{others})"
    )
    if alike:
        text += ": as a ranking it holds nothing of the model that entropy does not"
    return Claim("Epistemic ranking", "uncertain" if alike else "good", f"{text}.")


def judge(subject: Subject) -> Iterator[Claim]:
    """Judge a comparison with methods of several draws."""
    if subject.comparison and (claim := ranking_claim(subject.comparison)):
        yield claim


CHECK = Check(
    code="MCBN007",
    name="mutual-information-ranks-as-entropy",
    looks_at=(
        "Spearman's rank correlation, over test examples, of mutual information and expected "
        "entropy."
    ),
    threshold=f"A correlation above {ALIKE:g}, of at least {MIN_EXAMPLES} examples.",
    source=(
        "At large M the draws of MCBN differ little, and their mutual information is nearly a "
        "function of the entropy: correlations of 0.996 were seen at M = 32, of 0.970 at M = 8."
    ),
    remedy=(
        "Rank by entropy, which needs one pass; or draw at a smaller M "
        "(bank.rescale(batch_size=M)), or use an ensemble."
    ),
    judge=judge,
)
