"""Whether other data have drifted from the bank."""

from collections.abc import Iterator, Mapping

from mcbn.checks.check import Check
from mcbn.checks.claim import Claim
from mcbn.checks.subject import Subject
from mcbn.drift.drift_test import DriftTest
from mcbn.evaluation import glossary


def drift_claims(tests: Mapping[str, DriftTest]) -> tuple[Claim, ...]:
    """What the test of each data set says."""
    return tuple(_claim(name, test) for name, test in tests.items())


def _claim(name: str, test: DriftTest) -> Claim:
    said = f"{glossary.probability(test.p_value)}, {len(test.distances)} mini-batches of "
    said += f"{test.batch_size:g}"
    if not test.drifted:
        return Claim("Drift", "good", f"No drift was found in {name} ({said}).")
    first = test.first_layer
    layer = "" if first is None else f", first in the layer {layer_text(first)}"
    text = (
        f"{name} is not drawn from what the bank was drawn from{layer} ({said}), so the scores "
        "here may not hold there."
    )
    return Claim("Drift", "bad", text)


def layer_text(name: str) -> str:
    """The name of a layer, also of a network that is one layer itself."""
    return name or "(itself)"


def judge(subject: Subject) -> Iterator[Claim]:
    """Judge every data set that was tested for drift."""
    yield from drift_claims(subject.drift)


CHECK = Check(
    code="MCBN012",
    name="drift-found",
    looks_at="The distance of mini-batches of other data from the bank's draws.",
    threshold="A p value below the level of the test, 0.05 by default.",
    source="The test is calibrated on held-out draws of the bank: see docs/drift.md.",
    remedy=(
        "Do not trust the scores of this report there: collect labels of the new data and evaluate"
        " on them."
    ),
    judge=judge,
)
