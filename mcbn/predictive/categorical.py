"""Classification: draws of logits averaged into a predictive distribution over classes."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from mcbn import validation
from mcbn.io.display import Display, Displayed
from mcbn.network.output_kind import output_kind
from mcbn.predictive.frames import frame_of, spread_row
from mcbn.predictive.joining import joined_parts

# Probabilities below this lose digits or vanish, and are summed as logarithms.
MIN_PROBABILITY = 1e-290
# What the network's answer holds for each class.
Outputs = Literal["logits", "probabilities"]


@dataclass(frozen=True, eq=False, repr=False)
class CategoricalPredictive(Displayed):
    """A distribution over classes for each example (and position), averaged over draws.

    Probabilities are averaged, never logits, by a log-mean-exp in float64. Entropies are in nats.

    Attributes:
        log_probabilities: log of the mean probability of each class.
        expected_entropy: mean over draws of the entropy; the aleatoric part of `entropy`.
        variance: biased variance over draws of the probability of each class.
        variation_ratio: fraction of the draws that do not choose the class chosen most often.
        draw_count: T, the number of draws averaged.
        draws: the logits of each draw, if they were kept.
        energy: mean over draws of `-log sum_c exp z[c]` of the logits z; None where they are not
            known, as from a file of probabilities.
        max_logit: mean over draws of the largest logit; None likewise.
    """

    log_probabilities: Float64[Tensor, "batch classes *positions"]
    expected_entropy: Float64[Tensor, "batch *positions"]
    variance: Float64[Tensor, "batch classes *positions"]
    variation_ratio: Float64[Tensor, "batch *positions"]
    draw_count: int
    draws: Float[Tensor, "draws batch classes *positions"] | None = None
    energy: Float64[Tensor, "batch *positions"] | None = None
    max_logit: Float64[Tensor, "batch *positions"] | None = None

    def __len__(self) -> int:
        return len(self.log_probabilities)

    def display(self) -> Display:
        """How certain the predictions are."""
        classes, *positions = self.log_probabilities.shape[1:]
        dense = f" of {' x '.join(map(str, positions))} positions" if positions else ""
        heading = (
            f"Predictive over {classes} classes for {len(self):,} examples{dense}, "
            f"T = {self.draw_count}"
        )
        quantities = ("confidence", "entropy", "expected_entropy", "mutual_information",
                      "variation_ratio")  # fmt: skip
        rows = [spread_row(name, getattr(self, name)) for name in quantities]
        return Display(heading, ("quantity", "mean", "least", "most"), rows)

    def to_dataframe(self, classes: Sequence[str] = ()) -> Any:
        """A pandas DataFrame with a row per example: prediction, uncertainties, probabilities.

        Args:
            classes: names of the classes, in the columns `p_<class>` and in `prediction`.

        Raises:
            ImportError: pandas is not installed.
            ValueError: there are positions, as of a segmentation.
        """
        frame = frame_of(
            {
                "prediction": self.prediction,
                "confidence": self.confidence,
                "entropy": self.entropy,
                "expected_entropy": self.expected_entropy,
                "mutual_information": self.mutual_information,
                "variation_ratio": self.variation_ratio,
                "p": self.probabilities,
            },
            classes,
        )
        if classes:
            frame["prediction"] = [classes[k] for k in frame["prediction"]]
        return frame

    @property
    def probabilities(self) -> Float64[Tensor, "batch classes *positions"]:
        """Mean over draws of the probability of each class."""
        return self.log_probabilities.exp()

    @property
    def prediction(self) -> Tensor:
        """The most probable class, the first of them in case of ties."""
        return self.log_probabilities.argmax(1)

    @property
    def confidence(self) -> Float64[Tensor, "batch *positions"]:
        """The probability of the most probable class."""
        return self.log_probabilities.amax(1).exp()

    @property
    def entropy(self) -> Float64[Tensor, "batch *positions"]:
        """Predictive entropy: the total uncertainty, in nats."""
        return unchecked_entropy(self.probabilities)

    @property
    def mutual_information(self) -> Float64[Tensor, "batch *positions"]:
        """Predictive minus expected entropy: the epistemic uncertainty, in nats, at least 0.

        Reference:
            Houlsby et al. 2011, "Bayesian Active Learning for Classification and Preference
            Learning", equation 2.
        """
        return (self.entropy - self.expected_entropy).clamp_min(0.0)


@dataclass(frozen=True)
class Categorical:
    """The likelihood of class labels: the network answers with a value per class along axis 1.

    Args:
        outputs: what the values are: "logits", which log-probabilities are too, or "probabilities",
            as of a network that ends in a softmax. If left out they are taken for logits, unless
            they look like something else: rows of probabilities that sum to 1 are taken for what
            they are, with a warning, and values between 0 and 1 that do not are refused.
    """

    outputs: Outputs | None = None

    def __post_init__(self) -> None:
        if self.outputs not in (None, *get_args(Outputs)):
            raise ValueError(
                f"expected outputs among {get_args(Outputs)}, got {self.outputs!r}; leave it out "
                "for logits"
            )

    def summarize(
        self, passes: Iterable[Tensor], *, keep_draws: bool = False
    ) -> CategoricalPredictive:
        """Average the draws one at a time; memory does not grow with their number.

        Raises:
            ValueError: fewer than two classes, or logits that are not finite; probabilities that do
                not sum to one, or values of no known kind between 0 and 1.

        Warns:
            UserWarning: the network's outputs are probabilities, and `outputs` does not say so.
        """
        sums, draws = _RunningSums(), []
        kinds: list[Outputs] = []
        for logits in as_logits(passes, self.outputs, kinds.append):
            sums.add(logits)
            if keep_draws:
                draws.append(logits.detach())
        predictive = sums.predictive(torch.stack(draws) if draws else None)
        if kinds[0] == "logits":
            return predictive
        # Logarithms of probabilities have lost what all logits of an example have in common.
        return replace(predictive, energy=None, max_logit=None)

    def join(self, parts: Sequence[CategoricalPredictive]) -> CategoricalPredictive:
        """One predictive of the examples of all parts, in order."""
        return joined_parts(parts)


@dataclass(eq=False)
class _RunningSums:
    """Running sums over draws: all that the averages need, without the draws themselves.

    Attributes:
        count: draws so far.
        mean: mean probability of each class.
        squares: sum of squared deviations of the probabilities from their mean.
        entropy: sum of the entropies.
        votes: how many draws chose each class.
        tops: sum of the largest logits.
        masses: sum of the logarithms of the sums of exponentials of the logits.
        log_sum: log of the sum of probabilities, from when one of them is near underflow.
    """

    count: int = 0
    mean: Tensor = field(default_factory=torch.Tensor)
    squares: Tensor = field(default_factory=torch.Tensor)
    entropy: Tensor = field(default_factory=torch.Tensor)
    votes: Tensor = field(default_factory=torch.Tensor)
    tops: Tensor = field(default_factory=torch.Tensor)
    masses: Tensor = field(default_factory=torch.Tensor)
    log_sum: Tensor | None = None

    def add(self, logits: Tensor) -> None:
        """Add one draw.

        Raises:
            ValueError: fewer than two classes, or logits that are not finite.
        """
        # One exponential per element: with many classes they are most of the cost.
        values = _checked(logits, self.count).detach().to(torch.float64, copy=True)
        top, chosen = values.max(1, keepdim=True)
        values.sub_(top)
        weights = values.exp()
        total = weights.sum(1, keepdim=True)
        if self.log_sum is not None or bool(weights.amin() < MIN_PROBABILITY):
            self._add_logs((values - total.log()).clamp_min(torch.finfo(values.dtype).min))
            values.clamp_min_(torch.finfo(values.dtype).min)  # 0 * -inf is NaN
        # With the largest logit at 0 both terms are positive, so nothing cancels.
        log_total = total.log().squeeze(1)
        entropy = log_total - (values.mul_(weights).sum(1, keepdim=True) / total).squeeze(1)
        top = top.squeeze(1)
        probabilities = weights.div_(total)
        self.count += 1
        if self.count == 1:
            self.mean, self.entropy = probabilities, entropy
            self.tops, self.masses = top, top + log_total
            self.squares, self.votes = torch.zeros_like(weights), torch.zeros_like(weights)
        else:
            # Welford's update has no difference of large sums, so equal draws have variance 0.
            step = probabilities.sub_(self.mean)
            self.mean.add_(step, alpha=1 / self.count)
            self.squares.addcmul_(step, step, value=1 - 1 / self.count)
            self.entropy += entropy
            self.tops = self.tops + top
            self.masses += top + log_total
        self.votes.scatter_add_(1, chosen, torch.ones_like(top).unsqueeze(1))

    def _add_logs(self, logs: Tensor) -> None:
        if self.count > 0:
            known = (self.mean * self.count).log() if self.log_sum is None else self.log_sum
            logs = torch.logaddexp(known, logs)
        self.log_sum = logs

    def predictive(self, draws: Tensor | None = None) -> CategoricalPredictive:
        """The averages over draws; `draws` are their logits, if they are to be kept.

        Raises:
            ValueError: there were no draws.
        """
        if self.count == 0:
            raise ValueError(
                "expected at least one draw of logits, got none; add draws to the sampler"
            )
        return CategoricalPredictive(
            self._log_mean(),
            self.entropy / self.count,
            self.squares / self.count,
            1 - self.votes.amax(1) / self.count,
            self.count,
            draws,
            -self.masses / self.count,
            self.tops / self.count,
        )

    def _log_mean(self) -> Tensor:
        logs = self.mean.log()
        if self.log_sum is not None:
            logs = torch.where(
                self.mean < MIN_PROBABILITY, self.log_sum - math.log(self.count), logs
            )
        # A class of probability near 1 has more digits in the sum of the others.
        top, chosen = self.mean.max(1, keepdim=True)
        others = self.mean.scatter(1, chosen, 0.0).sum(1, keepdim=True)
        return logs.scatter_(1, chosen, torch.where(top > 0.5, (-others).log1p(), top.log()))


def as_logits(
    passes: Iterable[Tensor],
    outputs: Outputs | None = None,
    tell: Callable[[Outputs], object] = lambda _: None,
) -> Iterator[Tensor]:
    """Yield the logits of every draw, whatever the network answers with.

    Args:
        passes: the network's outputs under one draw at a time.
        outputs: what they are; found by their values if not given, as `Categorical` says.
        tell: takes what they are, with every draw.

    Raises:
        ValueError: they are not logits, nor probabilities that sum to 1.
    """
    for answer in passes:
        outputs = outputs or seen_outputs(validation.real(answer, "logits"))
        tell(outputs)
        yield _logs(answer) if outputs == "probabilities" else answer


def seen_outputs(answer: Tensor) -> Outputs:
    """What the values of a network look like, for one draw.

    Raises:
        ValueError: they lie between 0 and 1, and do not sum to 1 over the classes.

    Warns:
        UserWarning: they are probabilities.
    """
    kind = output_kind(answer)
    if kind == "probabilities":
        validation.warn(
            "the network's outputs sum to 1 over the classes, as those of a softmax, so they are "
            "taken for probabilities; say so by likelihood=mcbn.Categorical("
            'outputs="probabilities"), or outputs="logits" if they are logits'
        )
        return "probabilities"
    if kind == "between 0 and 1":
        low, high = (float(end) for end in answer.detach().aminmax())
        raise ValueError(
            f"expected logits, got {answer.numel()} values from {low:.4g} to {high:.4g}, which do "
            "not sum to 1 over the classes; for several labels an example, as of a sigmoid, give "
            'likelihood=mcbn.Bernoulli(outputs="probabilities") (on the command line --likelihood '
            "bernoulli --outputs probabilities), and for logits that happen to be so "
            'mcbn.Categorical(outputs="logits") (--outputs logits)'
        )
    return "logits"


def _logs(probabilities: Tensor) -> Tensor:
    """The logarithms of probabilities, finite where one is 0."""
    validation.probabilities(probabilities.detach(), "the network's outputs")
    kind = torch.promote_types(probabilities.dtype, torch.float32)
    return probabilities.to(kind).clamp_min(torch.finfo(kind).tiny).log()


def _checked(logits: Tensor, draw: int) -> Tensor:
    if logits.ndim < 2 or logits.shape[1] < 2:
        raise ValueError(
            f"expected logits with axes (batch, classes, *positions) of at least 2 classes, got "
            f"shape {tuple(logits.shape)}; for one logit per example give "
            'likelihood="bernoulli", or two classes by the sampler\'s '
            "output=lambda z: torch.cat([torch.zeros_like(z), z], 1), and for real values the "
            "likelihood mcbn.Gaussian(...)"
        )
    # A finite sum has finite terms and is far quicker to check; the full check names the place.
    if logits.numel() > 0 and bool(logits.detach().sum().isfinite()):
        return logits
    return validation.finite(logits, f"the logits of draw {draw}")


def entropy(
    probabilities: Float[Tensor, "batch classes *positions"],
) -> Float64[Tensor, "batch *positions"]:
    """Return the entropy of each predictive distribution.

    `-sum_c p[c] log p[c]`, in nats, with `0 log 0 = 0`; from 0 (certain) to log(classes).
    Rounding in the input (a probability a little over 1) cannot make it negative.

    Raises:
        ValueError: values are not probabilities.

    Reference: Shannon, A Mathematical Theory of Communication, 1948.

    >>> entropy(torch.tensor([[0.5, 0.5], [0.0, 1.0]]))
    tensor([0.6931, 0.0000], dtype=torch.float64)
    """
    return unchecked_entropy(validation.probabilities(probabilities))


def unchecked_entropy(probabilities: Tensor) -> Tensor:
    """Return what `entropy` returns, of probabilities that are known to be valid."""
    total: Tensor = torch.special.entr(probabilities.double()).sum(1)
    return total.clamp(min=0)
