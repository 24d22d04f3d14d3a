"""What is left of a regression's draws once they are averaged: means and variances."""

from dataclasses import dataclass

from jaxtyping import Float64
from torch import Tensor

from mcbn.predictive.gaussian import GaussianPredictive


@dataclass(frozen=True, eq=False)
class Moments:
    """A mean and a variance for each example and output: all of a mixture that most files hold.

    Attributes:
        mean: predictive mean.
        variance: total predictive variance.
        epistemic_variance: the part of it that comes from the draws; None if it is not known.
        draw_count: T, the number of draws averaged; 0 if it is not known.
    """

    mean: Float64[Tensor, "batch *outputs"]
    variance: Float64[Tensor, "batch *outputs"]
    epistemic_variance: Float64[Tensor, "batch *outputs"] | None
    draw_count: int

    @classmethod
    def from_predictive(cls, predictive: GaussianPredictive) -> "Moments":
        """The moments of a mixture."""
        epistemic = predictive.epistemic_variance
        variance = epistemic + predictive.aleatoric_variance
        return cls(predictive.mean, variance, epistemic, predictive.draw_count)

    def __len__(self) -> int:
        return len(self.mean)

    @property
    def aleatoric_variance(self) -> Tensor | None:
        """The part of the variance that is noise; None if it is not known."""
        if self.epistemic_variance is None:
            return None
        return (self.variance - self.epistemic_variance).clamp_min(0.0)

    def gaussian(self) -> GaussianPredictive:
        """The one Gaussian with this mean and variance, which stands for the mixture in scores."""
        return GaussianPredictive(self.mean[None], self.variance[None])
