"""Several labels an example, each there or not: draws averaged into a probability of each."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor
from torch.nn.functional import logsigmoid

from mcbn import validation
from mcbn.io.display import Display, Displayed
from mcbn.network.output_kind import output_kind
from mcbn.network.targets import Targets, as_targets
from mcbn.predictive.categorical import Categorical, CategoricalPredictive, Outputs
from mcbn.predictive.frames import frame_of, spread_row
from mcbn.predictive.joining import joined_parts

UNKNOWN = -1  # in aligned targets: a label of which it is not known whether it is there


@dataclass(frozen=True, eq=False, repr=False)
class BernoulliPredictive(Displayed):
    """The probability of each label of an example (and position), averaged over draws.

    Labels are independent of each other within a draw, as a network with a sigmoid for each
    assumes. Probabilities are averaged, never logits. Entropies are of each label, in nats.

    Attributes:
        log_odds: logarithm of the odds `p / (1 - p)` of the mean probability p of each label.
        expected_entropy: mean over draws of the entropy; the aleatoric part of `entropy`.
        variance: biased variance over draws of the probability.
        variation_ratio: fraction of the draws that decide against most of them.
        draw_count: T, the number of draws averaged.
        draws: the logits of each draw, if they were kept.
    """

    log_odds: Float64[Tensor, "batch labels *positions"]
    expected_entropy: Float64[Tensor, "batch labels *positions"]
    variance: Float64[Tensor, "batch labels *positions"]
    variation_ratio: Float64[Tensor, "batch labels *positions"]
    draw_count: int
    draws: Float[Tensor, "draws batch labels *positions"] | None = None

    def __len__(self) -> int:
        return len(self.log_odds)

    def display(self) -> Display:
        """How certain the predictions are."""
        labels, *positions = self.log_odds.shape[1:]
        dense = f" of {' x '.join(map(str, positions))} positions" if positions else ""
        heading = (
            f"Predictive of {labels} labels for {len(self):,} examples{dense}, "
            f"T = {self.draw_count}"
        )
        quantities = ("probabilities", "entropy", "expected_entropy", "mutual_information",
                      "variation_ratio")  # fmt: skip
        rows = [spread_row(name, getattr(self, name)) for name in quantities]
        return Display(heading, ("quantity", "mean", "least", "most"), rows)

    def to_dataframe(self, labels: Sequence[str] = ()) -> Any:
        """A pandas DataFrame with a row per example, and columns such as `p_<label>`.

        Args:
            labels: names of the labels; by default their numbers.

        Raises:
            ImportError: pandas is not installed.
            ValueError: there are positions, as of a segmentation.
        """
        return frame_of(
            {
                "prediction": self.prediction,
                "p": self.probabilities,
                "entropy": self.entropy,
                "expected_entropy": self.expected_entropy,
                "mutual_information": self.mutual_information,
                "variation_ratio": self.variation_ratio,
            },
            labels,
        )

    @property
    def probabilities(self) -> Float64[Tensor, "batch labels *positions"]:
        """Mean over draws of the probability of each label."""
        return self.log_odds.sigmoid()

    @property
    def prediction(self) -> Int64[Tensor, "batch labels *positions"]:
        """1 for each label of a probability above one half, else 0."""
        return (self.log_odds > 0).long()

    @property
    def entropy(self) -> Float64[Tensor, "batch labels *positions"]:
        """Entropy of each label: its total uncertainty, in nats, at most log 2."""
        p, q = self.log_odds.sigmoid(), (-self.log_odds).sigmoid()
        return -(p * logsigmoid(self.log_odds) + q * logsigmoid(-self.log_odds))

    @property
    def mutual_information(self) -> Float64[Tensor, "batch labels *positions"]:
        """Entropy minus expected entropy of each label: its epistemic uncertainty, in nats."""
        return (self.entropy - self.expected_entropy).clamp_min(0.0)

    def log_prob(self, targets: Targets) -> Float64[Tensor, "batch labels *positions"]:
        """The log-probability of whether each label is there, in nats.

        Args:
            targets: 1 or 0 for every label of every example.

        Raises:
            ValueError: targets that do not fit, or are neither 0 nor 1.
        """
        present = self.aligned(targets).to(self.log_odds.device) == 1
        return logsigmoid(torch.where(present, self.log_odds, -self.log_odds))

    @property
    def as_classes(self) -> CategoricalPredictive:
        """The same over two classes, absent and present, with labels as the first position."""
        return CategoricalPredictive(
            torch.stack([logsigmoid(-self.log_odds), logsigmoid(self.log_odds)], dim=1),
            self.expected_entropy,
            self.variance.unsqueeze(1).expand(-1, 2, *self.variance.shape[1:]),
            self.variation_ratio,
            self.draw_count,
        )

    @classmethod
    def from_classes(
        cls, states: CategoricalPredictive, draws: Tensor | None = None
    ) -> "BernoulliPredictive":
        """The predictive whose `as_classes` this is.

        Args:
            states: over the classes absent and present.
            draws: the logits of each draw, if they are kept.
        """
        absent, present = states.log_probabilities.unbind(1)
        return cls(
            present - absent,
            states.expected_entropy,
            states.variance[:, 1].clone(),
            states.variation_ratio,
            states.draw_count,
            draws,
        )

    def aligned(
        self, targets: Targets, *, ignore_index: int | None = None
    ) -> Int64[Tensor, "batch labels *positions"]:
        """Targets in the shape of the predictions: 1, 0, or `UNKNOWN` for what is left out.

        Args:
            targets: 1 or 0 (or True and False) for every label of every example; where there is
                one label alone, its axis may be missing.
            ignore_index: the value of what is not labelled.

        Raises:
            TypeError: targets of the wrong kind.
            ValueError: targets that do not fit, or are neither 0 nor 1.
        """
        return aligned_labels(targets, tuple(self.log_odds.shape), ignore_index=ignore_index)


def aligned_labels(
    targets: Targets, shape: tuple[int, ...], *, ignore_index: int | None = None
) -> Int64[Tensor, "batch labels *positions"]:
    """The targets of predictions of this shape; see `BernoulliPredictive.aligned`."""
    values = as_targets(targets)
    if shape[1] == 1 and values.shape == shape[:1] + shape[2:]:
        values = values.unsqueeze(1)
    if values.shape != shape:
        raise ValueError(
            f"expected a target of each label, shape {shape}, got {tuple(values.shape)}; give 1 "
            "for each label that an example has, and 0 for the others"
        )
    known = torch.ones_like(values, dtype=torch.bool)
    if ignore_index is not None:
        known = values != ignore_index
    return _binary(values, known)


def _binary(values: Tensor, known: Bool[Tensor, "*shape"]) -> Int64[Tensor, "*shape"]:
    """Values of 0 and 1 as integers, with `UNKNOWN` where they are not known.

    Raises:
        ValueError: there are others, or all are unknown.
    """
    other = known & (values != 0) & (values != 1)
    if bool(other.any()):
        value = values[other][0].item()
        remedy = "binarise soft targets, for example by targets > 0.5"
        if value != value or value < 0:
            remedy = "mark what is not known by one integer such as -1, and give ignore_index=-1"
        raise ValueError(f"expected targets of 0 and 1, got {value:g} at {_place(other)}; {remedy}")
    if known.numel() > 0 and not bool(known.any()):
        raise ValueError(
            "expected labels that are known, got the value of ignore_index for all of them; check "
            "ignore_index"
        )
    return torch.where(known, values.nan_to_num(), UNKNOWN).long()


def _place(chosen: Tensor) -> tuple[int, ...]:
    return tuple(chosen.nonzero()[0].tolist())


@dataclass(frozen=True)
class Bernoulli:
    """The likelihood of several labels an example, each there or not: a value for each on axis 1.

    One label is allowed, as of a network with a single logit.

    Args:
        outputs: what the values are: "logits", or "probabilities", as of a network that ends in a
            sigmoid. If left out they are taken for logits, and refused where they look like
            probabilities.
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
    ) -> BernoulliPredictive:
        """Average the draws one at a time; memory does not grow with their number.

        Raises:
            ValueError: values that are not finite, probabilities that are none, or logits that
                look like probabilities, where `outputs` does not say what they are.
        """
        kept: list[Tensor] = []
        states = Categorical("logits").summarize(self._states(passes, kept if keep_draws else None))
        return BernoulliPredictive.from_classes(states, torch.stack(kept) if kept else None)

    def join(self, parts: Sequence[BernoulliPredictive]) -> BernoulliPredictive:
        """One predictive of the examples of all parts, in order."""
        return joined_parts(parts)

    def _states(self, passes: Iterable[Tensor], kept: list[Tensor] | None) -> Iterator[Tensor]:
        """The logits of absent and present of each draw, along axis 1."""
        for answer in passes:
            logits = self._logits(validation.real(answer, "the network's outputs"))
            if kept is not None:
                kept.append(logits.detach())
            yield torch.stack([torch.zeros_like(logits), logits], dim=1)

    def _logits(self, answer: Tensor) -> Tensor:
        if answer.ndim == 0:
            raise ValueError(
                "expected outputs with axes (batch, labels, *positions), got a single number; give "
                "the sampler output=, a function that makes one output of each example"
            )
        values = answer.unsqueeze(1) if answer.ndim == 1 else answer
        if self.outputs == "probabilities":
            return log_odds(values, "the network's outputs")
        if self.outputs is None and output_kind(values) != "logits":
            raise probabilities_met("values from 0 to 1")
        return values


def probabilities_met(got: str) -> ValueError:
    """The error where a network answers with probabilities, and logits were expected."""
    return ValueError(
        f'expected logits, got {got}; give likelihood=mcbn.Bernoulli(outputs="probabilities") (on '
        "the command line --likelihood bernoulli --outputs probabilities) for several labels an "
        'example, and outputs="logits" (--outputs logits) for logits all the same'
    )


def log_odds(probabilities: Float[Tensor, "*shape"], name: str) -> Float64[Tensor, "*shape"]:
    """The logarithm of the odds, finite where a probability is 0 or 1.

    What is rounded to 1 may be as far below it as half of the distance to the next number.

    Args:
        probabilities: of any shape.
        name: what they are, for errors.

    Raises:
        ValueError: they are not numbers from 0 to 1.
    """
    flat = validation.unit_interval(probabilities.detach().flatten(), name)
    values, rounding = flat.reshape(probabilities.shape), torch.finfo(probabilities.dtype)
    absent = (1 - values).clamp_min(rounding.eps / 4)
    return values.clamp_min(rounding.tiny).log() - absent.log()
