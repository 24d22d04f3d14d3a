"""Scores of a predictive distribution over classes, by their names."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float64
from torch import Tensor

from mcbn import validation
from mcbn.predictive.bernoulli import BernoulliPredictive
from mcbn.predictive.categorical import CategoricalPredictive
from mcbn.uncertainty.score import UncertaintyScore, known_values, score_values

UncertaintyName = Literal[
    "max_softmax", "margin", "entropy", "expected_entropy", "mutual_information",
    "variation_ratio", "energy", "max_logit",
]  # fmt: skip
# Compared where nothing else is asked for: what every method has, and what its draws add.
USUAL: tuple[UncertaintyName, ...] = ("entropy", "mutual_information")
# A network whose energies are all this small, in nats, answers with log-probabilities.
NO_ENERGY = 1e-3
Values = Float64[Tensor, "batch *positions"]


@dataclass(frozen=True)
class PredictiveScore:
    """A score of a predictive distribution over classes.

    Of several labels an example it is the mean of the scores of each label, taken as two classes,
    absent and present.

    Attributes:
        name: of the score.
        of: the score of each example, and position, of a predictive distribution over classes.
    """

    name: str
    of: Callable[[CategoricalPredictive], Tensor]

    def __call__(self, predictive: CategoricalPredictive | BernoulliPredictive, /) -> Values:
        """The score of each example (and position).

        Raises:
            TypeError: it is not a predictive distribution over classes or labels.
            ValueError: what the score is of is not known.
        """
        if isinstance(predictive, BernoulliPredictive):
            return self.of(predictive.as_classes).mean(1)
        advice = "give what mcbn.predict returns, or a detector of inputs such as NearestNeighbors"
        validation.require_type(
            predictive, CategoricalPredictive, f"predictions of classes for {self.name!r}", advice
        )
        return self.of(predictive)


def max_softmax(predictive: CategoricalPredictive) -> Values:
    r"""Return the probability that is left for other classes than the most probable one.

    $1 - \max_{c} p_{c}$, from 0 to 1; near 0 to more digits than one minus the confidence.

    Reference:
        Hendrycks and Gimpel 2017, "A Baseline for Detecting Misclassified and Out-of-Distribution
        Examples in Neural Networks".
    """
    return -torch.expm1(predictive.log_probabilities.amax(1))


def margin(predictive: CategoricalPredictive) -> Values:
    r"""Return one minus the lead of the most probable class over the next.

    $1 - (p_{(1)} - p_{(2)})$, from 0 to 1.

    Reference:
        Scheffer, Decomain and Wrobel 2001, "Active Hidden Markov Models for Information
        Extraction".
    """
    first, second = predictive.log_probabilities.topk(2, dim=1).values.unbind(1)
    return second.exp() - torch.expm1(first)


def entropy(predictive: CategoricalPredictive) -> Values:
    """Return the entropy of the mean probabilities, in nats: the total uncertainty.

    Reference: Shannon 1948, "A Mathematical Theory of Communication".
    """
    return predictive.entropy


def expected_entropy(predictive: CategoricalPredictive) -> Values:
    """Return the mean over draws of the entropy, in nats: the aleatoric uncertainty.

    That of a single draw is its entropy.

    Reference:
        Depeweg et al. 2018, "Decomposition of Uncertainty in Bayesian Deep Learning for Efficient
        and Risk-sensitive Learning", equation 7.
    """
    return predictive.expected_entropy


def mutual_information(predictive: CategoricalPredictive) -> Values:
    """Return the entropy minus the expected entropy, in nats: the epistemic uncertainty.

    That of a single draw is 0 for every example.

    Reference:
        Houlsby et al. 2011, "Bayesian Active Learning for Classification and Preference Learning",
        equation 2.
    """
    return predictive.mutual_information


def variation_ratio(predictive: CategoricalPredictive) -> Values:
    """Return the share of the draws that do not choose the class chosen most often.

    That of a single draw is 0 for every example.

    Reference:
        Freeman 1965, "Elementary Applied Statistics"; Gal 2016, "Uncertainty in Deep Learning",
        section 3.3.1.

    Raises:
        ValueError: it is not known, as in a table of another tool.
    """
    if bool(predictive.variation_ratio.isnan().any()):
        raise ValueError(
            "expected predictions with their variation ratio, got a table without it; predict with "
            "mcbn, or choose another score such as 'entropy'"
        )
    return predictive.variation_ratio


def energy(predictive: CategoricalPredictive) -> Values:
    r"""Return the free energy of the logits z: of several draws, the mean of their energies.

    $-\frac{1}{T} \sum_{t} \log \sum_{c} \exp z_{tc}$, in nats: a constant added to all logits
    lowers it by that constant. It is the energy at temperature 1. The paper is about one draw; the
    mean over draws is an estimate without bias at any T, and at most the energy of the mean logits.

    Reference:
        Liu, Wang, Owens and Li 2020, "Energy-based Out-of-distribution Detection", equation 4.

    Raises:
        ValueError: the logits are not known, or they are log-probabilities, whose energy is 0.
    """
    values = predictive.energy
    if values is None and predictive.draws is not None:
        values = -predictive.draws.double().logsumexp(2).mean(0)
    known = _require_logits(values, "energy")
    if bool((known.abs() < NO_ENERGY).all()):
        raise ValueError(
            "expected logits for the score 'energy', got log-probabilities, whose energy is 0; "
            "let the network answer with logits, or choose 'max_softmax'"
        )
    return known


def max_logit(predictive: CategoricalPredictive) -> Values:
    r"""Return minus the largest logit: of several draws, minus the mean of their largest logits.

    $-\frac{1}{T} \sum_{t} \max_{c} z_{tc}$.

    Reference:
        Hendrycks et al. 2022, "Scaling Out-of-Distribution Detection for Real-World Settings",
        section 3.

    Raises:
        ValueError: the logits are not known.
    """
    values = predictive.max_logit
    if values is None and predictive.draws is not None:
        values = predictive.draws.double().amax(2).mean(0)
    return -_require_logits(values, "max_logit")


def _require_logits(values: Tensor | None, name: str) -> Tensor:
    if values is None:
        raise ValueError(
            f"expected predictions with their logits for the score {name!r}, got probabilities "
            "alone, as from a table, after recalibration or of several labels; predict classes "
            "with mcbn.predict from a network that answers with logits, or choose 'max_softmax'"
        )
    return values


PREDICTIVE_SCORES: Mapping[str, PredictiveScore] = {
    function.__name__: PredictiveScore(function.__name__, function)
    for function in (
        max_softmax, margin, entropy, expected_entropy, mutual_information, variation_ratio,
        energy, max_logit,
    )
}  # fmt: skip


def as_score(given: str | UncertaintyScore) -> UncertaintyScore:
    """Return the score of this name, or the score itself.

    Raises:
        TypeError: it is not a score.
        ValueError: there is no score of this name.
    """
    if isinstance(given, str):
        if given not in PREDICTIVE_SCORES:
            raise ValueError(
                f"expected a score of uncertainty among {list(PREDICTIVE_SCORES)}, got "
                f"{given!r:.80}; choose one, or give an object with a name and a call"
            )
        return PREDICTIVE_SCORES[given]
    known = isinstance(given, UncertaintyScore) and not isinstance(given, type)
    if not (known and callable(given) and isinstance(given.name, str)):
        raise TypeError(
            f"expected the name of a score, or an object with a name and a call, got "
            f"{type(given).__name__}; see mcbn.UncertaintyScore"
        )
    return given


def as_scores(given: Iterable[str | UncertaintyScore]) -> tuple[UncertaintyScore, ...]:
    """Return scores of different names.

    Raises:
        TypeError: one is not a score, or a single name was given for several.
        ValueError: there is none, or two have the same name.
    """
    if isinstance(given, str):
        raise TypeError(f"expected several scores, got {given!r}; give ({given!r},)")
    scores = tuple(as_score(each) for each in given)
    names = [score.name for score in scores]
    if not names or len(set(names)) < len(names):
        raise ValueError(
            f"expected scores of different names, got {names}; give at least one, and each once"
        )
    return scores


def uncertainty_of(given: Any, by: str | UncertaintyScore | None) -> Tensor:
    """The uncertainty of each example, however it is given.

    Args:
        given: values as a tensor or an array, a predictive distribution, or data for a detector.
        by: the score of what is given. By default values are taken as they are, and predictions by
            `max_softmax`.

    Raises:
        TypeError: it is something else, or not a score.
        ValueError: there is no score of this name, or it is not known of these predictions.
    """
    if by is None and isinstance(given, (CategoricalPredictive, BernoulliPredictive)):
        by = "max_softmax"
    if by is not None:
        return score_values(as_score(by), given)
    return given if isinstance(given, Tensor) else known_values(given, "uncertainty")


def is_epistemic(score: Any) -> bool:
    """Whether a score is about the disagreement of draws, so that a single draw has none."""
    return score.name in ("mutual_information", "variation_ratio")
