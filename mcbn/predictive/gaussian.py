"""Regression: draws of means as a mixture of Gaussians, one component per draw."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Float, Float64
from scipy.optimize import minimize_scalar
from torch import Tensor

from mcbn import validation
from mcbn.io.display import Display, Displayed
from mcbn.network.targets import Targets, as_targets
from mcbn.predictive import mixture
from mcbn.predictive.frames import frame_of, spread_row

# Range of the precisions searched, as multiples of one over the mean squared residual.
SEARCH_RANGE = (1e-3, 1e6)
Precision = float | Sequence[float]


class RealPredictive(Displayed):
    """How distributions of real values show themselves, from their moments."""

    def spreads(self: Any) -> dict[str, Tensor]:
        """The mean, and the standard deviations that are known, by name."""
        variances = {
            "sd": self.variance,
            "epistemic_sd": self.epistemic_variance,
            "aleatoric_sd": self.aleatoric_variance,
        }
        known = {name: each.sqrt() for name, each in variances.items() if each is not None}
        return {"mean": self.mean, **known}

    def display(self: Any) -> Display:
        """How large the predictions and their uncertainties are."""
        outputs = self.mean.shape[1:]
        each = f" of {' x '.join(map(str, outputs))} outputs" if outputs.numel() > 1 else ""
        heading = f"{type(self).__name__} for {len(self):,} examples{each}, T = {self.draw_count}"
        rows = [spread_row(name, values) for name, values in self.spreads().items()]
        return Display(heading, ("quantity", "mean", "least", "most"), rows)

    def to_dataframe(self, outputs: Sequence[str] = ()) -> Any:
        """A pandas DataFrame with a row per example: mean, sd, epistemic and aleatoric sd.

        Args:
            outputs: names of several outputs, which have a column each; by default their numbers.

        Raises:
            ImportError: pandas is not installed.
            ValueError: there are positions, as of a map of depths.
        """
        return frame_of(self.spreads(), outputs)


@dataclass(frozen=True, eq=False, repr=False)
class GaussianPredictive(RealPredictive):
    """A mixture of T equally weighted Gaussians for each example and output, in float64.

    Attributes:
        means: mean of each component.
        variances: noise variance of each component, broadcastable to `means`.
    """

    means: Float[Tensor, "draws batch *outputs"]
    variances: Float[Tensor, "..."]

    def __len__(self) -> int:
        return self.means.shape[1]

    @property
    def draw_count(self) -> int:
        """T, the number of draws in the mixture."""
        return len(self.means)

    @property
    def mean(self) -> Float[Tensor, "batch *outputs"]:
        """Predictive mean."""
        return self.means.mean(0)

    @property
    def epistemic_variance(self) -> Float[Tensor, "batch *outputs"]:
        """Biased variance over draws of the mean (Teye et al. 2018, section 3.4)."""
        return self.means.var(0, correction=0)

    @property
    def aleatoric_variance(self) -> Float[Tensor, "batch *outputs"]:
        """Mean over draws of the noise variance; 1/tau for a constant precision."""
        return self.variances.expand(self.means.shape).mean(0)

    @property
    def variance(self) -> Float[Tensor, "batch *outputs"]:
        """Total variance: epistemic plus aleatoric."""
        return self.epistemic_variance + self.aleatoric_variance

    def log_prob(
        self, targets: Targets
    ) -> Float[Tensor, " batch"] | Float[Tensor, "batch *positions"]:
        """Log-density of the T-component mixture, joint over outputs; in nats, higher is better.

        `log 1/T sum_t prod_d N(y_d; m_td, v_td)`, the predictive log-likelihood (PLL) of
        Gal and Ghahramani 2016, equation 8. Of a dense prediction, whose means have axes beyond
        the second, each value is a target by itself: joint over the pixels of an image, the draw
        that fits it best would be all that counts.
        """
        targets = self.aligned(targets)
        if self.means.ndim != 3:
            return mixture.log_density(self.means, self.variances, targets)
        # As many draws at once as keep the temporary arrays small.
        draws = max(1, mixture.PAIR_BUDGET // max(1, targets.numel()))
        variances = self.variances.expand(self.means.shape)
        parts = zip(torch.split(self.means, draws), torch.split(variances, draws), strict=True)
        each = [
            mixture.gaussian_log_density(means, noise, targets.expand(means.shape))
            .flatten(2)
            .sum(2)
            for means, noise in parts
        ]
        return torch.cat(each).logsumexp(0) - math.log(self.draw_count)

    def crps(self, targets: Targets) -> Float[Tensor, "batch *outputs"]:
        """Exact CRPS of the mixture, in target units; lower is better."""
        return mixture.crps(self.means, self.variances, self.aligned(targets))

    def crps_moment_matched(self, targets: Targets) -> Float[Tensor, "batch *outputs"]:
        """CRPS of the Gaussian with the mixture's mean and variance, as in Teye et al. 2018."""
        return mixture.gaussian_crps(self.mean, self.variance, self.aligned(targets))

    def cdf(self, targets: Targets) -> Float[Tensor, "batch *outputs"]:
        """Distribution function at the targets: their probability integral transform (PIT)."""
        return mixture.cdf(self.means, self.variances, self.aligned(targets))

    def quantile(self, level: float) -> Float[Tensor, "batch *outputs"]:
        """The value that the target is below with probability `level`."""
        return mixture.quantile(self.means, self.variances, level)

    def interval(self, level: float = 0.95) -> tuple[Tensor, Tensor]:
        """Ends of the central interval that contains the target with probability `level`."""
        validation.fraction(level, "level")
        return self.quantile((1 - level) / 2), self.quantile((1 + level) / 2)

    def with_precision(self, precision: Precision) -> "GaussianPredictive":
        """The same means under another noise precision, one number or one per output."""
        return replace(self, variances=_noise(precision, self.means))

    def in_units(self, mean: float, scale: float) -> "GaussianPredictive":
        """The same distribution for `mean + scale * y`: a standardised target's original units."""
        return GaussianPredictive(mean + scale * self.means, scale**2 * self.variances)

    def output(self, number: int) -> "GaussianPredictive":
        """The distribution of one output alone, without an axis for it; the first is number 0."""
        variances = self.variances
        if variances.ndim:
            variances = variances.expand(self.means.shape)[:, :, number]
        return GaussianPredictive(self.means[:, :, number], variances)

    def aligned(self, targets: Targets) -> Tensor:
        """Targets in the shape of the predictions; an output axis of length 1 may be absent.

        Raises:
            ValueError: they do not fit, or are not finite.
        """
        values = validation.finite(as_targets(targets), "targets")
        expected = self.means.shape[1:]
        single = expected.numel() == values.numel() == len(self)
        if single and values.shape[:1] == expected[:1]:
            values = values.reshape(expected)
        validation.require_same_shape(values, self.means[0], ("targets", "predictions"))
        return values.to(self.means.device).double()


@dataclass(frozen=True)
class Gaussian:
    """The likelihood of real targets with Gaussian noise.

    Args:
        precision: tau, one over the noise variance, in inverse squared target units: one number,
            or one for each output. Without it the network gives the noise itself: along axis 1
            first the means, then as many log-variances.
    """

    precision: Precision | None = None

    def __post_init__(self) -> None:
        if self.precision is not None:
            values = _checked(self.precision).tolist()
            plain = tuple(values) if isinstance(values, list) else values
            object.__setattr__(self, "precision", plain)

    def summarize(
        self,
        passes: Iterable[Tensor],
        *,
        keep_draws: bool = False,  # noqa: ARG002
    ) -> GaussianPredictive:
        """Gather the draws of the mean, which are the mixture's components and always kept.

        Raises:
            ValueError: there are no draws, outputs are not finite, or they do not split into means
                and log-variances.
        """
        draws = [validation.real(output.detach(), "outputs").double() for output in passes]
        if not draws:
            raise ValueError(
                "expected at least one draw of the mean, got none; add draws to the sampler"
            )
        outputs = torch.stack(draws)
        validation.finite(outputs, "the network's outputs")
        if self.precision is not None:
            return GaussianPredictive(outputs, _noise(self.precision, outputs))
        if outputs.ndim < 3 or outputs.shape[2] % 2:
            raise ValueError(
                "expected outputs of shape (batch, 2 * outputs), means then log-variances, got "
                f"{tuple(outputs.shape[1:])}; give Gaussian(precision=...) if the network has "
                "no noise output"
            )
        means, logs = outputs.chunk(2, dim=2)
        return GaussianPredictive(means, logs.exp())

    def join(self, parts: Sequence[GaussianPredictive]) -> GaussianPredictive:
        """One predictive of the examples of all parts, in order."""
        means = torch.cat([part.means for part in parts], dim=1)
        if self.precision is not None:
            return GaussianPredictive(means, _noise(self.precision, means))
        return GaussianPredictive(means, torch.cat([part.variances for part in parts], dim=1))


def fit_precision(
    predictive: GaussianPredictive,
    targets: Targets,
    *,
    criterion: Literal["log_prob", "crps"] = "log_prob",
    each_output: bool = False,
) -> Gaussian:
    """Fit the constant noise precision that predicts held-out targets best.

    Never fit on the test set. A scan over nine decades brackets the optimum, and Brent's method
    refines it.

    Args:
        predictive: predictions of held-out examples, under any precision.
        targets: what was observed, in the units of the predictions: a tensor, an array, a column
            of a data frame, or the data set or loader that was predicted.
        criterion: maximise the mean mixture log-density, or minimise the moment-matched CRPS, as
            Teye et al. 2018 do.
        each_output: fit one precision for each output, from its targets alone, instead of one for
            all: for outputs in different units.

    Raises:
        TypeError: predictions or targets of the wrong kind.
        ValueError: another criterion, predictions that fit the targets perfectly, or no axis of
            outputs to fit each of.
    """
    advice = "give what mcbn.predict returns with mcbn.Gaussian(precision=1.0)"
    validation.require_type(predictive, GaussianPredictive, "a GaussianPredictive", advice)
    if criterion not in ("log_prob", "crps"):
        raise ValueError(
            f"expected criterion 'log_prob' or 'crps', got {criterion!r}; choose one of them"
        )
    targets = predictive.aligned(targets)
    if not each_output:
        return Gaussian(_best_precision(predictive, targets, criterion))
    if predictive.means.ndim < 3:
        raise ValueError(
            "expected predictions with an axis of outputs for each_output=True, got the shape "
            f"{tuple(predictive.mean.shape)}; leave it out for a single output"
        )
    return Gaussian([
        _best_precision(predictive.output(number), targets[:, number], criterion)
        for number in range(predictive.means.shape[2])
    ])  # fmt: skip


def _best_precision(
    predictive: GaussianPredictive, targets: Tensor, criterion: Literal["log_prob", "crps"]
) -> float:
    residual = float((predictive.mean - targets).square().mean())
    if residual == 0:
        raise ValueError(
            "expected targets that differ from the predictions, got a perfect fit, whose precision "
            "is infinite; fit on data that the network was not trained on"
        )

    def loss(log_precision: float) -> float:
        candidate = predictive.with_precision(math.exp(log_precision))
        if criterion == "log_prob":
            return -float(candidate.log_prob(targets).mean())
        return float(candidate.crps_moment_matched(targets).mean())

    low, high = (math.log(factor / residual) for factor in SEARCH_RANGE)
    scan = torch.linspace(low, high, 37, dtype=torch.float64).tolist()
    best = min(range(len(scan)), key=lambda index: loss(scan[index]))
    bounds = (scan[max(best - 1, 0)], scan[min(best + 1, len(scan) - 1)])
    optimum = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-8})
    return math.exp(float(optimum.x))


def _checked(precision: Precision) -> Tensor:
    values = torch.as_tensor(precision, dtype=torch.float64)
    if values.ndim > 1 or not values.numel() or not bool(((values > 0) & values.isfinite()).all()):
        raise ValueError(
            f"expected a positive, finite precision tau, got {precision}; fit it on held-out data "
            "with mcbn.fit_precision"
        )
    return values


def _noise(precision: Precision, means: Tensor) -> Tensor:
    """The variance of a precision: one number, or of each of `means`, whose axis 2 is outputs."""
    noise = 1 / _checked(precision).to(means.device)
    if noise.ndim == 0:
        return noise
    if means.ndim < 3 or means.shape[2] != len(noise):
        raise ValueError(
            f"expected a precision for each output of means of shape {tuple(means.shape[1:])}, got "
            f"{len(noise)}; give as many as there are outputs, or one number for all"
        )
    return noise.reshape(-1, *(1 for _ in means.shape[3:])).expand(means.shape)


@dataclass(frozen=True, eq=False, repr=False)
class Moments(RealPredictive):
    """A mean and a variance for each example and output: what most files keep of a mixture.

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
        """Compute the moments of a mixture."""
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

    def output(self, number: int) -> "Moments":
        """The moments of one output alone, without an axis for it; the first is number 0."""
        epistemic = self.epistemic_variance
        part = None if epistemic is None else epistemic[:, number]
        return Moments(self.mean[:, number], self.variance[:, number], part, self.draw_count)

    def in_units(self, mean: float, scale: float) -> "Moments":
        """The same moments for `mean + scale * y`: a standardised target's original units."""
        epistemic = self.epistemic_variance
        part = None if epistemic is None else scale**2 * epistemic
        return Moments(mean + scale * self.mean, scale**2 * self.variance, part, self.draw_count)

    def gaussian(self) -> GaussianPredictive:
        """The Gaussian with this mean and variance, which replaces the mixture in scores."""
        return GaussianPredictive(self.mean[None], self.variance[None])
