"""The events whose probabilities a calibration is about, and the answers that may be wrong."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from mcbn.evaluation import formulas
from mcbn.evaluation.clusters import Clusters
from mcbn.evaluation.detection import RiskCoverage, risk_coverage
from mcbn.evaluation.label_scores import label_columns
from mcbn.evaluation.reliability import Reliability
from mcbn.predictive.bernoulli import BernoulliPredictive


@dataclass(frozen=True)
class Tally:
    """What a sample of forecasts shows, and would show if they were calibrated.

    Attributes:
        events: how many happened.
        calibrated_variance: of their number, if they are calibrated and independent.
        squared_gaps: sum of the squares of probability minus outcome.
    """

    events: float
    calibrated_variance: float
    squared_gaps: float


@dataclass(frozen=True, eq=False)
class Forecasts:
    """A row for each example, position or label that is scored.

    Of classes the event is that the most probable class is right, so that its probability is the
    confidence. Of several labels an example it is that a label is there.

    Attributes:
        probability: of the event.
        happened: whether it did.
        confidence: probability of the answer.
        correct: whether the answer is right.
        example: that the row is of.
    """

    probability: Float64[Tensor, " rows"]
    happened: Bool[Tensor, " rows"]
    confidence: Float64[Tensor, " rows"]
    correct: Bool[Tensor, " rows"]
    example: Int64[Tensor, " rows"]

    @classmethod
    def of(cls, predictive: Any, targets: Tensor) -> "Forecasts":
        """The forecasts of classes or labels.

        Args:
            predictive: of what is scored.
            targets: as `ScoredRows` has them.
        """
        if isinstance(predictive, BernoulliPredictive):
            columns = label_columns(predictive, targets)
            names = ("probability", "present", "confidence", "correct", "example")
            return cls(*(columns[name] for name in names))
        confidence = predictive.confidence
        correct = formulas.correct(predictive.probabilities, targets.to(confidence.device))
        rows = torch.arange(len(confidence)).repeat_interleave(math.prod(confidence.shape[1:]))
        flags = confidence.flatten().cpu(), correct.flatten().cpu()
        return cls(*flags, *flags, rows)

    def reliability(self) -> Reliability:
        """Probability against frequency in bins of equal width."""
        return Reliability.from_predictions(self.probability, self.happened)

    def risk_coverage(self) -> RiskCoverage:
        """Risk among the most certain answers."""
        return risk_coverage(1 - self.confidence, ~self.correct)

    @property
    def tally(self) -> Tally:
        """Events, and how far they are from their probabilities."""
        expected = self.probability * (1 - self.probability)
        gaps = self.probability - self.happened.double()
        return Tally(
            float(self.happened.sum()), float(expected.clamp(min=0).sum()),
            float(gaps.square().sum()),
        )  # fmt: skip

    def confidence_gaps(
        self, clusters: Clusters
    ) -> tuple[Float64[Tensor, " clusters"], Float64[Tensor, " clusters"]]:
        """The sum of probability minus outcome over each cluster of examples, and its rows."""
        gaps = self.probability - self.happened.double()
        of_rows = clusters.spread(self.example)
        sums = torch.zeros(len(of_rows), dtype=gaps.dtype)
        return sums.index_add(0, of_rows.of_row, gaps), of_rows.sizes.double()
