"""Temperature scaling: of the average over draws, or of every draw before they are averaged.

Each method is fitted by `fit` and called with predictions of other examples; it returns a
predictive of the same kind. Which to use when: docs/recalibration.md.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from mcbn import validation
from mcbn.evaluation import scores
from mcbn.evaluation.clusters import Groups
from mcbn.evaluation.evaluate import ScoredRows, require_predictive
from mcbn.evaluation.line_search import end_of
from mcbn.evaluation.temperature_search import BOUNDS, MASKED, best_temperature
from mcbn.network.targets import Targets, as_targets
from mcbn.predictive.bernoulli import UNKNOWN, BernoulliPredictive
from mcbn.predictive.categorical import Categorical, CategoricalPredictive, as_logits
from mcbn.recalibration import held_out
from mcbn.recalibration.held_out import HeldOut, require_prior
from mcbn.recalibration.known_answers import KnownAnswers
from mcbn.recalibration.shares import averaged, averaged_labels
from mcbn.recalibration.temperature_labels import independent_labels, warn_at_bound


@dataclass(frozen=True, repr=False)
class TemperedCategorical:
    """The likelihood of class labels with one temperature for each draw's logits.

    `p = 1/T sum_t softmax(f_t / temperature)`. Give it to `predict`, which streams, or call it
    with predictions whose draws were kept. Draws are averaged after it, so the probabilities are
    no sharper than the draws disagree, and the most probable class may change. Entropy, its parts,
    variance and votes are those of the tempered draws.

    Attributes:
        temperature: divides the logits of every draw.
        labels: how many it was fitted on; None if it was not. As the prior counts them: an example
            is one, whatever its number of positions, and with groups each of these is one.
    """

    temperature: float
    labels: int | None = None
    held_out: HeldOut = field(default_factory=HeldOut, repr=False, compare=False)

    def __post_init__(self) -> None:
        require_temperature(self.temperature)

    def __repr__(self) -> str:
        return _fields(self)

    def __str__(self) -> str:
        return _sentence(self, "of each draw")

    @classmethod
    def fit(
        cls,
        predictive: CategoricalPredictive,
        targets: Targets,
        *,
        prior: float = 1.0,
        ignore_index: int | None = None,
        group: Groups | None = None,
    ) -> "TemperedCategorical":
        """Fit the temperature T of the highest posterior density given held-out targets.

        The loss is the mean negative log-likelihood of the average plus
        `prior / (2 n) (log T)^2`, n as in `TemperatureScaling.fit`. It is solved by its exact
        slope, which may have several roots: the best is taken.

        Args:
            predictive: predictions of held-out examples, with their draws.
            targets: their class indices.
            prior: precision of a Gaussian prior on log T around 0. 0 is maximum likelihood.
            ignore_index: the target of positions of which the truth is not known; they are left
                out.
            group: what these examples share, such as the patient of a scan: each group is one of n,
                and the fit refuses others of the same; see `HeldOut`.

        Raises:
            TypeError: predictions or targets of the wrong kind.
            ValueError: targets or groups that do not fit, a prior below 0, or predictions without
                draws.

        Warns:
            TemperatureBoundWarning: T lies at a bound of the search.
        """
        held_out.require_of_classes(predictive, "TemperatureScaling")
        require_prior(prior)
        draws, labels = _draws(predictive), as_targets(targets)
        rows = ScoredRows.of(predictive, labels, ignore_index=ignore_index)
        checked_logs(rows.predictive, rows.targets)
        known = _known(labels, ignore_index)
        count = independent_labels(known, group)
        temperature = best_temperature(draws, labels, pull=prior / count, known=known)
        warn_at_bound(temperature, count)
        return cls(temperature, count, HeldOut.of(predictive, group))

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


@dataclass(frozen=True, repr=False)
class TemperatureScaling:
    """One temperature for the average over draws: `softmax(log p / T)`, p the mean probability.

    Of several labels an example it is `sigmoid(log(p / (1 - p)) / T)`, with one T for all labels.
    Above 1 it softens, below 1 it sharpens; the order of the classes stays. Entropy is that of the
    new probabilities; the shares of its parts stay, see `averaged`.

    Attributes:
        temperature: T.
        labels: how many it was fitted on; None if it was not. See `TemperedCategorical`; each label
            of an example counts.

    Reference:
        Guo, Pleiss, Sun and Weinberger 2017, "On Calibration of Modern Neural Networks"; the
        average over draws stands for their one network.
    """

    temperature: float
    labels: int | None = None
    held_out: HeldOut = field(default_factory=HeldOut, repr=False, compare=False)

    def __post_init__(self) -> None:
        require_temperature(self.temperature)

    def __repr__(self) -> str:
        return _fields(self)

    def __str__(self) -> str:
        return _sentence(self, "of the average")

    @classmethod
    def fit(
        cls,
        predictive: CategoricalPredictive | BernoulliPredictive,
        targets: Targets,
        *,
        prior: float = 1.0,
        ignore_index: int | None = None,
        group: Groups | None = None,
    ) -> "TemperatureScaling":
        """Fit the temperature T of the highest posterior density given held-out targets.

        The loss is the mean negative log-likelihood plus `prior / (2 n) (log T)^2`, solved by its
        exact slope. The mean is over all positions and labels, n is the number of independent ones:
        the labels of an example are counted apart, but its positions are alike and count as one,
        and so do the examples of a group. Where every example has one label, n is their number.

        Args:
            predictive: predictions of held-out examples.
            targets: their class indices; of several labels, 1 for each that is there and 0 for the
                others.
            prior: precision of a Gaussian prior on log T around 0, which keeps T near 1 where few
                labels say little. 0 is maximum likelihood.
            ignore_index: the target of positions, or labels, of which the truth is not known; they
                are left out.
            group: what these examples share, such as the patient of a scan: each group is one of n,
                and the fit refuses others of the same; see `HeldOut`.

        Raises:
            TypeError: predictions or targets of the wrong kind.
            ValueError: targets or groups that do not fit, one of probability 0, or a prior below 0.

        Warns:
            TemperatureBoundWarning: T lies at a bound of the search.
        """
        require_predictive(predictive, CategoricalPredictive, BernoulliPredictive)
        require_prior(prior)
        if isinstance(predictive, BernoulliPredictive):
            logits, happened, known = _states(predictive, targets, ignore_index)
            count = sum(independent_labels(each, group) for each in known.unbind(1))
        else:
            labels = as_targets(targets)
            rows = ScoredRows.of(predictive, labels, ignore_index=ignore_index)
            logits, happened = checked_logs(rows.predictive, rows.targets), rows.targets
            count = independent_labels(_known(labels, ignore_index), group)
        temperature = best_temperature(logits[None], happened, pull=prior / count)
        warn_at_bound(temperature, count)
        return cls(temperature, count, HeldOut.of(predictive, group))

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


def fit_temperature(
    predictive: CategoricalPredictive | BernoulliPredictive,
    targets: Targets,
    *,
    prior: float = 1.0,
    ignore_index: int | None = None,
    group: Groups | None = None,
) -> TemperedCategorical | TemperatureScaling:
    """Fit a temperature of each draw where several were kept, else one of their average.

    The temperature of each draw keeps apart what the draws disagree about, and gives the
    probabilities of one draw as well as those of many. Of several labels an example, and of a
    single draw, for which the two are the same, it is one of the average.

    Args:
        predictive: predictions of held-out examples; with their draws, by `keep_draws=True`.
        targets: as in `TemperatureScaling.fit`, and so are the other arguments and errors.
        prior: precision of a Gaussian prior on log T around 0. 0 is maximum likelihood.
        ignore_index: the target of positions, or labels, of which the truth is not known.
        group: what these examples share.
    """
    options: Any = {"prior": prior, "ignore_index": ignore_index, "group": group}
    if isinstance(predictive, CategoricalPredictive) and has_several_draws(predictive):
        return TemperedCategorical.fit(predictive, targets, **options)
    return TemperatureScaling.fit(predictive, targets, **options)


def has_several_draws(predictive: CategoricalPredictive) -> bool:
    """Whether there are several draws, and they were kept."""
    return predictive.draws is not None and len(predictive.draws) > 1


def _known(targets: Tensor, ignore_index: int | None) -> Bool[Tensor, "batch *positions"]:
    """Which class indices are those of a class."""
    if ignore_index is None:
        return torch.ones_like(targets, dtype=torch.bool)
    return targets != ignore_index


def _states(
    predictive: BernoulliPredictive, targets: Targets, ignore_index: int | None
) -> tuple[Float64[Tensor, "answers 2"], Tensor, Bool[Tensor, "batch labels *positions"]]:
    """The logits of absent and present of each known label, which it is, and which are known."""
    known = predictive.aligned(targets, ignore_index=ignore_index) != UNKNOWN
    answers = KnownAnswers.by_label(predictive, targets, ignore_index)
    odds = torch.cat([each.log_odds for each in answers])
    present = torch.cat([each.present for each in answers]).long()
    return torch.stack([torch.zeros_like(odds), odds], dim=1), present, known


def _fields(fitted: "TemperatureScaling | TemperedCategorical") -> str:
    """The call that makes it, with the bound that it lies at."""
    labels = "" if fitted.labels is None else f", labels={fitted.labels}"
    end = "" if fitted.at_bound is None else f", at_bound={fitted.at_bound!r}"
    return f"{type(fitted).__name__}(temperature={fitted.temperature}{labels}{end})"


def _sentence(fitted: "TemperatureScaling | TemperedCategorical", of: str) -> str:
    """The temperature in words."""
    text = f"T = {fitted.temperature:.3g} {of}"
    if fitted.labels is not None:
        text += f", fitted on {fitted.labels:,} label{'s' if fitted.labels != 1 else ''}"
    return text if fitted.at_bound is None else f"{text}, at the {fitted.at_bound} bound"
