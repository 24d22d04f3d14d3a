"""What is known of several labels an example: the answers that a recalibration is fitted on."""

from dataclasses import dataclass

from jaxtyping import Bool, Float64
from torch import Tensor

from mcbn.network.targets import Targets
from mcbn.predictive.bernoulli import UNKNOWN, BernoulliPredictive


@dataclass(frozen=True, eq=False)
class KnownAnswers:
    """The answers of one label, over examples and positions, whose truth is known.

    Attributes:
        log_odds: of the mean probability of each.
        present: whether the label is there.
    """

    log_odds: Float64[Tensor, " answers"]
    present: Bool[Tensor, " answers"]

    def __len__(self) -> int:
        return len(self.log_odds)

    @classmethod
    def by_label(
        cls, predictive: BernoulliPredictive, targets: Targets, ignore_index: int | None
    ) -> "list[KnownAnswers]":
        """Those of each label; the arguments are those of `BernoulliPredictive.aligned`.

        Raises:
            TypeError: targets of the wrong kind.
            ValueError: targets that do not fit, or are neither 0 nor 1.
        """
        aligned = predictive.aligned(targets, ignore_index=ignore_index)
        aligned = aligned.to(predictive.log_odds.device)
        return [
            cls(odds[(known := truth != UNKNOWN)], truth[known] == 1)
            for odds, truth in zip(predictive.log_odds.unbind(1), aligned.unbind(1), strict=True)
        ]
