"""Temperature scaling: of the average over draws, or of every draw before they are averaged.

Each method is fitted by `fit` and called with predictions of other examples; it returns a
predictive of the same kind. Which to use when: docs/recalibration.md.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from mcbn import validation
from mcbn.evaluation import scores
from mcbn.evaluation.clusters import Groups
from mcbn.evaluation.evaluate import ScoredRows, require_predictive
from mcbn.network.targets import Targets, as_targets
from mcbn.predictive.bernoulli import BernoulliPredictive
from mcbn.predictive.categorical import Categorical, CategoricalPredictive, as_logits, entropy
from mcbn.recalibration import held_out
from mcbn.recalibration.held_out import HeldOut, end_of, lowest
from mcbn.recalibration.known_answers import KnownAnswers

# Temperatures searched.
BOUNDS = (1e-2, 1e2)
# Stands for the log-probability of a masked class, minus infinity; times 0 it is 0, not NaN.
MASKED = -1e100


@dataclass(frozen=True)
class TemperedCategorical:
    """The likelihood of class labels with one temperature for each draw's logits.

    `p = 1/T sum_t softmax(f_t / temperature)`. Give it to `predict`, which streams, or call it
    with predictions whose draws were kept. Draws are averaged after it, so the probabilities are
    no sharper than the draws disagree, and the most probable class may change. Entropy, its parts,
    variance and votes are those of the tempered draws.

    Attributes:
        temperature: divides the logits of every draw.
    """

    temperature: float
    held_out: HeldOut = field(default_factory=HeldOut, repr=False, compare=False)

    def __post_init__(self) -> None:
        require_temperature(self.temperature)

    @classmethod
    def fit(
        cls,
        predictive: CategoricalPredictive,
        targets: Targets,
        *,
        group: Groups | None = None,
    ) -> "TemperedCategorical":
        """Fit the temperature of the lowest mean negative log-likelihood of the average.

        Solved by its exact slope, which may have several roots: the best is taken.

        Args:
            predictive: predictions of held-out examples, with their draws.
            targets: their class indices.
            group: what these examples share, such as the patient of a scan, by which the fit
                refuses others of the same; see `HeldOut`.

        Raises:
            TypeError: predictions or targets of the wrong kind.
            ValueError: targets or groups that do not fit, or predictions without draws.
        """
        held_out.require_of_classes(predictive, "TemperatureScaling")
        draws = _draws(predictive)
        targets = as_targets(targets)
        checked_logs(predictive, targets)
        return cls(best_temperature(draws, targets), HeldOut.of(predictive, group))

    @property
    def at_bound(self) -> str | None:
        """Which bound of the search, 0.01 to 100, the temperature lies at, if it does."""
        return end_of(self.temperature, BOUNDS)

    def __call__(
        self, predictive: CategoricalPredictive, *, group: Groups | None = None
    ) -> CategoricalPredictive:
        """Return the average of the kept draws at this temperature.

        Args:
            predictive: of other examples than those fitted on.
            group: what they share, to make sure that no group was fitted on.

        Raises:
            TypeError: they are not of classes.
            ValueError: draws were not kept, or they are the ones fitted on, or of groups fitted on.
        """
        held_out.require_of_classes(predictive, "TemperatureScaling")
        self.held_out.require_other(predictive, group)
        return self.summarize(_draws(predictive), keep_draws=True)

    def summarize(
        self, passes: Iterable[Tensor], *, keep_draws: bool = False
    ) -> CategoricalPredictive:
        """Average the tempered draws; with `keep_draws` these are kept, in float64."""
        tempered = (logits.double() / self.temperature for logits in as_logits(passes))
        return Categorical(outputs="logits").summarize(tempered, keep_draws=keep_draws)

    def join(self, parts: Sequence[CategoricalPredictive]) -> CategoricalPredictive:
        """Return one predictive of the examples of all parts, in order."""
        return Categorical().join(parts)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        return held_out.to_dict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "TemperedCategorical":
        """Rebuild what `to_dict` returned."""
        return held_out.from_dict(cls, values)


def checked_logs(
    predictive: CategoricalPredictive, targets: Tensor
) -> Float64[Tensor, "batch classes *positions"]:
    """Check predictions and targets, and return the log-probabilities, made finite.

    Raises:
        TypeError: targets of the wrong kind.
        ValueError: targets that do not fit, or one of probability 0.
    """
    logs = predictive.log_probabilities
    targets = validation.tensor(targets, "targets").to(logs.device)
    losses = scores.negative_log_likelihood(logs, targets)
    validation.finite(losses, "the negative log-likelihood of the targets")
    return logs.clamp_min(MASKED)


def best_temperature(
    draws: Float[Tensor, "draws batch classes *positions"], targets: Int[Tensor, "batch *positions"]
) -> float:
    """Return the temperature of all draws at which the mean log-probability is highest."""
    index = targets.to(draws.device).long().unsqueeze(1)

    def curve(log_temperature: float) -> tuple[float, float]:
        # The slope is in the logarithm of T, where beta = 1/T has the slope -beta.
        beta = math.exp(-log_temperature)
        rows = [_chosen(logits, index, beta) for logits in draws]
        chosen, slopes = (torch.stack(part) for part in zip(*rows, strict=True))
        loss = math.log(len(draws)) - chosen.logsumexp(0)
        slope = beta * (chosen.softmax(0) * slopes).sum(0)
        return float(loss.mean()), float(slope.mean())

    return lowest(curve, BOUNDS)


def _chosen(logits: Tensor, index: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """Return the log-probability of the targets by one draw, and its slope in beta."""
    values = logits.double() - logits.double().amax(1, keepdim=True)
    logs = (beta * values).log_softmax(1)
    slope = values.gather(1, index) - (logs.exp() * values).sum(1, keepdim=True)
    return logs.gather(1, index).squeeze(1), slope.squeeze(1)


def _draws(predictive: CategoricalPredictive) -> Float[Tensor, "draws batch classes *positions"]:
    if predictive.draws is None:
        raise ValueError(
            "expected predictions with their draws, got none, to which this temperature applies; "
            "predict with keep_draws=True, or take TemperatureScaling"
        )
    return predictive.draws


def require_temperature(temperature: float) -> None:
    """Check that a temperature is positive and finite.

    Raises:
        ValueError: it is not positive and finite.
    """
    if not (temperature > 0 and math.isfinite(temperature)):
        raise ValueError(
            f"expected a positive, finite temperature, got {temperature}; fit it on held-out "
            "data with .fit"
        )


@dataclass(frozen=True)
class TemperatureScaling:
    """One temperature for the average over draws: `softmax(log p / T)`, p the mean probability.

    Of several labels an example it is `sigmoid(log(p / (1 - p)) / T)`, with one T for all labels.
    Above 1 it softens, below 1 it sharpens; the order of the classes stays. Entropy is that of the
    new probabilities; the shares of its parts stay, see `averaged`.

    Attributes:
        temperature: T.

    Reference:
        Guo, Pleiss, Sun and Weinberger 2017, "On Calibration of Modern Neural Networks"; the
        average over draws stands for their one network.
    """

    temperature: float
    held_out: HeldOut = field(default_factory=HeldOut, repr=False, compare=False)

    def __post_init__(self) -> None:
        require_temperature(self.temperature)

    @classmethod
    def fit(
        cls,
        predictive: CategoricalPredictive | BernoulliPredictive,
        targets: Targets,
        *,
        ignore_index: int | None = None,
        group: Groups | None = None,
    ) -> "TemperatureScaling":
        """Fit the temperature of the lowest mean negative log-likelihood of held-out targets.

        The loss is convex in 1/T, and solved by its exact slope. Positions, and labels, count as
        examples.

        Args:
            predictive: predictions of held-out examples.
            targets: their class indices; of several labels, 1 for each that is there and 0 for the
                others.
            ignore_index: the target of positions, or labels, of which the truth is not known; they
                are left out.
            group: what these examples share, such as the patient of a scan, by which the fit
                refuses others of the same; see `HeldOut`.

        Raises:
            TypeError: predictions or targets of the wrong kind.
            ValueError: targets or groups that do not fit, or one of probability 0.
        """
        require_predictive(predictive, CategoricalPredictive, BernoulliPredictive)
        if isinstance(predictive, BernoulliPredictive):
            known = KnownAnswers.by_label(predictive, targets, ignore_index)
            odds = torch.cat([each.log_odds for each in known])
            logits = torch.stack([torch.zeros_like(odds), odds], dim=1)
            happened = torch.cat([each.present for each in known]).long()
        else:
            rows = ScoredRows.of(predictive, targets, ignore_index=ignore_index)
            logits, happened = checked_logs(rows.predictive, rows.targets), rows.targets
        return cls(best_temperature(logits[None], happened), HeldOut.of(predictive, group))

    @property
    def at_bound(self) -> str | None:
        """Which bound of the search, 0.01 to 100, T lies at, if it does: then no T is best."""
        return end_of(self.temperature, BOUNDS)

    @overload
    def __call__(
        self, predictive: CategoricalPredictive, *, group: Groups | None = None
    ) -> CategoricalPredictive: ...

    @overload
    def __call__(
        self, predictive: BernoulliPredictive, *, group: Groups | None = None
    ) -> BernoulliPredictive: ...

    def __call__(
        self,
        predictive: CategoricalPredictive | BernoulliPredictive,
        *,
        group: Groups | None = None,
    ) -> CategoricalPredictive | BernoulliPredictive:
        """Return the predictions at this temperature; draws are not kept.

        Args:
            predictive: of other examples than those fitted on.
            group: what they share, to make sure that no group was fitted on.

        Raises:
            ValueError: they are the ones fitted on, or of groups fitted on.
        """
        self.held_out.require_other(predictive, group)
        if isinstance(predictive, BernoulliPredictive):
            return averaged_labels(predictive, predictive.log_odds / self.temperature)
        return averaged(predictive, predictive.log_probabilities / self.temperature)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        return held_out.to_dict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "TemperatureScaling":
        """Rebuild what `to_dict` returned."""
        return held_out.from_dict(cls, values)


def averaged(
    predictive: CategoricalPredictive, logits: Float64[Tensor, "batch classes *positions"]
) -> CategoricalPredictive:
    """Return the predictive with `softmax(logits)` as mean probability; draws are not kept.

    A change of the average says nothing about the draws. So each part of an uncertainty keeps its
    share of the whole: expected entropy and mutual information of the entropy, and the variance
    over draws of `p (1 - p)`, which is the variance of "is it this class". No part is ever below
    0 or above the whole. The variation ratio stays.
    """
    log_probabilities = logits.log_softmax(1)
    total, before = entropy(log_probabilities.exp()), predictive.entropy
    aleatoric = torch.where(before > 0, predictive.expected_entropy / before, 1.0).clamp(0, 1)
    spread, spread_before = _spread(log_probabilities), _spread(predictive.log_probabilities)
    epistemic = torch.where(spread_before > 0, predictive.variance / spread_before, 0.0)
    return CategoricalPredictive(
        log_probabilities,
        total * aleatoric,
        spread * epistemic.clamp(0, 1),
        predictive.variation_ratio,
        predictive.draw_count,
    )


def averaged_labels(
    predictive: BernoulliPredictive, log_odds: Float64[Tensor, "batch labels *positions"]
) -> BernoulliPredictive:
    """Return the predictive with these log-odds of the mean probability; see `averaged`."""
    states = torch.stack([torch.zeros_like(log_odds), log_odds], dim=1)
    return BernoulliPredictive.from_classes(averaged(predictive.as_classes, states))


def _spread(log_probabilities: Tensor) -> Tensor:
    """Return `p (1 - p)`, exact also where p is nearly 1."""
    return log_probabilities.exp() * -torch.expm1(log_probabilities)
