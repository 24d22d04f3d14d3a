"""What a file can hold of a predictive distribution: its tensors, and whether they are one."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mcbn import validation
from mcbn.predictive.bernoulli import BernoulliPredictive
from mcbn.predictive.categorical import CategoricalPredictive
from mcbn.predictive.gaussian import GaussianPredictive, Moments

ROUNDING, VARIANCE_ROUNDING = 1e-6, 1e-9  # of what a file holds; of variances relatively
CATEGORICAL_TENSORS = ("log_probabilities", "expected_entropy", "variance", "variation_ratio")
# Known where a network answered with logits; files of earlier versions do not have them.
LOGIT_TENSORS = ("energy", "max_logit")
LABEL_TENSORS = ("log_odds", "expected_entropy", "variance", "variation_ratio")
# Unlike what `predict` gives, moments without the mixture they are of.
StoredPredictive = CategoricalPredictive | BernoulliPredictive | GaussianPredictive | Moments
# The tensors of each kind of predictive. The epistemic variance and those of logits may be missing.
TENSORS = {
    "categorical": (*CATEGORICAL_TENSORS, *LOGIT_TENSORS),
    "bernoulli": LABEL_TENSORS,
    "gaussian": ("means", "variances"),
    "moments": ("mean", "variance", "epistemic_variance"),
}


def kind_of(predictive: StoredPredictive) -> tuple[str, tuple[str, ...]]:
    """The likelihood as a file names it, and the names of its tensors."""
    kinds = {
        CategoricalPredictive: "categorical",
        BernoulliPredictive: "bernoulli",
        GaussianPredictive: "gaussian",
    }
    likelihood = kinds.get(type(predictive), "moments")
    return likelihood, TENSORS[likelihood]


def from_tensors(
    tensors: Mapping[str, Tensor], likelihood: str, draw_count: int
) -> StoredPredictive:
    """The predictive distribution of tensors, which are complete."""
    stored = {name: tensors[name] for name in TENSORS[likelihood] if name in tensors}
    draws = tensors.get("draws")
    if likelihood == "categorical":
        return CategoricalPredictive(**stored, draw_count=draw_count, draws=draws)
    if likelihood == "bernoulli":
        return BernoulliPredictive(**stored, draw_count=draw_count, draws=draws)
    if likelihood == "gaussian":
        return GaussianPredictive(**stored)
    epistemic = stored.get("epistemic_variance")
    return Moments(stored["mean"], stored["variance"], epistemic, draw_count)


def is_complete(tensors: Mapping[str, Tensor], likelihood: Any) -> bool:
    """Whether tensors are all that their kind of predictive needs, in the right shapes."""
    if likelihood not in TENSORS or not all(
        name in tensors and tensors[name].dtype == torch.float64 for name in TENSORS[likelihood][:2]
    ):
        return False
    shape = tensors[TENSORS[likelihood][0]].shape
    if likelihood == "categorical":
        cases = shape[:1] + shape[2:]
        return len(shape) >= 2 and all(
            name in tensors
            and tensors[name].dtype == torch.float64
            and tensors[name].shape == (shape if name == "variance" else cases)
            for name in (*CATEGORICAL_TENSORS[1:], *(set(LOGIT_TENSORS) & set(tensors)))
        )
    if likelihood == "bernoulli":
        return len(shape) >= 2 and all(
            name in tensors
            and tensors[name].dtype == torch.float64
            and tensors[name].shape == shape
            for name in LABEL_TENSORS
        )
    if likelihood == "gaussian":
        noise = tensors["variances"].shape
        return len(shape) >= 2 and noise in (torch.Size(()), shape)
    return len(shape) >= 1 and all(
        tensors[name].shape == shape for name in TENSORS[likelihood][1:] if name in tensors
    )


def require_real(given: GaussianPredictive | Moments, targets: Tensor | None) -> None:
    """Check that means and variances are a distribution of real values, and that targets fit it.

    Raises:
        ValueError: they are not finite, not positive, or of another shape.
    """
    spreads = (given.variance, given.epistemic_variance)
    for each in (given.mean, *(each for each in spreads if each is not None)):
        validation.finite(each, "means and variances")
    if not bool((given.variance > 0).all()):
        raise ValueError("expected variances above 0, got 0 or less; predict again")
    part = given.epistemic_variance
    most = (1 + VARIANCE_ROUNDING) * given.variance
    if part is not None and bool(((part < 0) | (part > most)).any()):
        raise ValueError(
            "expected epistemic variances from 0 to the whole variance, got others; predict again"
        )
    if targets is not None:
        validation.finite(targets, "targets")
        validation.require_same_shape(targets, given.mean, ("targets", "means"))


def require_names_of_outputs(
    names: Sequence[str], units: Sequence[str], shape: tuple[int, ...]
) -> None:
    """Check names and units of real targets.

    Args:
        names: of the outputs, if they have any.
        units: one for all, or one for each, if they are known.
        shape: of the predictive mean, axes (examples, outputs, ...).

    Raises:
        ValueError: there are more or fewer of them than outputs, or two outputs of one name.
    """
    count = shape[1] if len(shape) > 1 else 1
    if names and (len(names) != count or len(set(names)) < count):
        raise ValueError(
            f"expected a name for each of {count} outputs, got {list(names)}; give as many"
        )
    if len(units) not in (0, 1, count):
        raise ValueError(
            f"expected one unit for all {count} outputs, or one for each, got {list(units)}; "
            "give as many"
        )


def require_classes(
    given: CategoricalPredictive, targets: Tensor | None, names: Sequence[str]
) -> None:
    """Check that numbers are a distribution over classes, and that targets and names fit it.

    Raises:
        ValueError: they are no probabilities, or out of range, or too many or few.
    """
    logs = given.log_probabilities
    validation.probabilities(logs.exp(), "exp(log_probabilities)")
    validation.finite(given.expected_entropy, "expected_entropy")
    cases, count = logs.shape[:1] + logs.shape[2:], logs.shape[1]
    if names and len(names) != count:
        raise ValueError(f"expected the names of {count} classes, got {len(names)}; predict again")
    _require_spreads(given, math.log(count))
    for name in LOGIT_TENSORS:
        if (values := getattr(given, name)) is not None:
            validation.finite(values, name)
    if given.draws is not None:
        validation.finite(given.draws, "draws")
        validation.require_same_shape(given.draws[0], logs, ("a draw", "log_probabilities"))
    if targets is not None:
        validation.labels(targets, count, tuple(cases))


def require_labels(
    given: BernoulliPredictive,
    targets: Tensor | None,
    names: Sequence[str],
    ignore_index: int | None,
) -> None:
    """Check that numbers are probabilities of labels, and that targets and names fit them.

    Raises:
        ValueError: they are no probabilities, or out of range, or too many or few.
    """
    validation.finite(given.log_odds, "log_odds")
    validation.finite(given.expected_entropy, "expected_entropy")
    count = given.log_odds.shape[1]
    if names and len(names) != count:
        raise ValueError(f"expected the names of {count} labels, got {len(names)}; predict again")
    _require_spreads(given, math.log(2))
    if given.draws is not None:
        validation.finite(given.draws, "draws")
        validation.require_same_shape(given.draws[0], given.log_odds, ("a draw", "log_odds"))
    if targets is not None:
        given.aligned(targets, ignore_index=ignore_index)


def _require_spreads(given: CategoricalPredictive | BernoulliPredictive, entropy: float) -> None:
    """Check that what is told of the draws is in range; `entropy` is the largest there is."""
    most = {"expected_entropy": entropy, "variation_ratio": 1.0, "variance": 1.0}
    for name, end in most.items():
        values = getattr(given, name)  # NaN where it is not known
        if bool(((values < -ROUNDING) | (values > end + ROUNDING)).any()):
            raise ValueError(f"expected {name} from 0 to {end:g}, got others; predict again")
