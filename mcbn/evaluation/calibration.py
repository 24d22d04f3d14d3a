"""Calibration errors: how far stated probabilities are from what happens. 0 is best in all.

`confidence` is a probability, and `correct` is whether the event it was given to happened. For a
classifier they are the largest probability and `scores.correct`; for a binary problem, the
probability of the positive class and `targets == 1`. Logits are refused, never guessed.
"""

from typing import Literal

from jaxtyping import Bool, Float, Int
from scipy import stats
from torch import Tensor

from mcbn import validation
from mcbn.evaluation import formulas
from mcbn.evaluation.reliability import Reliability as Reliability
from mcbn.evaluation.reliability import checked_bins


def expected_calibration_error(
    confidence: Float[Tensor, " batch"],
    correct: Bool[Tensor, " batch"],
    *,
    bins: int = 15,
    binning: Literal["width", "mass"] = "width",
    norm: Literal["l1", "l2", "max"] = "l1",
    debiased: bool = False,
) -> float:
    """Return the gap between confidence and accuracy over bins; 0 is best, lower is better.

    With `norm` "l1" the expected, "l2" the root-mean-square and "max" the maximum error of a
    `Reliability`, in bins of equal width or mass. They are biased upwards: a calibrated forecaster
    scores above 0. `debiased` takes this off the "l2" error, see `debiased_calibration_error`.

    Raises:
        ValueError: confidence is not a probability, or an option is unknown or does not fit.

    Reference: Naeini, Cooper, Hauskrecht, Obtaining Well Calibrated Probabilities, 2015.

    >>> expected_calibration_error(torch.tensor([1.0, 0.5]), torch.tensor([False, True]), bins=1)
    0.25
    """
    if binning not in ("width", "mass") or norm not in ("l1", "l2", "max"):
        raise ValueError(
            "expected binning 'width' or 'mass' and norm 'l1', 'l2' or 'max', got "
            f"{binning!r} and {norm!r}; choose one of each"
        )
    if debiased and norm != "l2":
        raise ValueError(
            f"expected norm 'l2' with debiased=True, got {norm!r}; no other norm is debiased here"
        )
    width = binning == "width"
    build = Reliability.from_predictions if width else Reliability.from_quantiles
    reliability = build(confidence, correct, bins=bins)
    if debiased:
        return reliability.debiased_error
    return {
        "l1": reliability.expected_error,
        "l2": reliability.root_mean_square_error,
        "max": reliability.maximum_error,
    }[norm]


def debiased_calibration_error(
    confidence: Float[Tensor, " batch"], correct: Bool[Tensor, " batch"], *, bins: int = 15
) -> float:
    """Return the root-mean-square error over bins of equal mass, minus what chance adds.

    The root of `Reliability.debiased_square_error`, clipped at 0: where chance explains more than
    the whole square, the result is exactly 0. The square before clipping is unbiased, the root is
    not.

    Raises:
        ValueError: confidence is not a probability, or `bins` is below 1.

    Reference: Kumar, Liang, Ma, Verified Uncertainty Calibration, 2019; Broecker, 2012.

    >>> sure = torch.ones(10)  # sqrt((1 - 0.8)^2 - 0.8 * 0.2 / 9)
    >>> round(debiased_calibration_error(sure, torch.arange(10) < 8), 6)
    0.149071
    """
    return expected_calibration_error(
        confidence, correct, bins=bins, binning="mass", norm="l2", debiased=True
    )


def classwise_calibration_error(
    probabilities: Float[Tensor, "batch classes *positions"],
    targets: Int[Tensor, "batch *positions"],
    *,
    bins: int = 15,
) -> float:
    """Return the mean over classes of the expected error of "is it this class", equal width.

    All probabilities count, not only the largest; a class that never happens counts too. Lower is
    better.

    Raises:
        ValueError: values are not probabilities, or labels are out of range.

    Reference: Kull and others, Beyond Temperature Scaling, 2019, definition 5.

    >>> classwise_calibration_error(torch.tensor([[0.75, 0.25]]), torch.tensor([0]))
    0.25
    """
    validation.probabilities(probabilities)
    validation.unit_interval(probabilities.flatten(), "probabilities")
    shape = (probabilities.shape[0], *probabilities.shape[2:])
    validation.labels(targets, probabilities.shape[1], shape)
    return formulas.classwise_calibration_error(probabilities, targets, bins=checked_bins(bins))


def smooth_calibration_error(
    confidence: Float[Tensor, " batch"], correct: Bool[Tensor, " batch"]
) -> float:
    """Return the calibration error smoothed by a kernel, with no bins to choose.

    `smECE_s = int_0^1 |1/n sum_i K_s(t, confidence_i) (correct_i - confidence_i)| dt`, with K_s a
    Gaussian of bandwidth s reflected at 0 and 1, at the one bandwidth where `smECE_s = s`.
    Lower is better. Values lie on 8192 cells; an error below 0.001 is exact to its order only.

    Raises:
        ValueError: confidence is not a probability.

    Reference: Blasiok and Nakkiran, Smooth ECE, 2023.

    >>> sure = torch.ones(100)
    >>> round(smooth_calibration_error(sure, torch.arange(100) < 90), 4)
    0.1
    """
    values = validation.unit_interval(confidence, "confidence")
    validation.mask(correct, "correct", confidence, "confidence")
    return formulas.smooth_calibration_error(values, correct)


def quantile_calibration_error(pit: Float[Tensor, " batch"]) -> float:
    """Return the mean gap between nominal and observed coverage of all lower quantiles.

    `int_0^1 |F_n(u) - u| du`, where F_n is the empirical distribution function of the probability
    integral transforms `F_i(y_i)`: exact, from one sort. From 1 / 4n to 1/2; lower is better.

    Raises:
        ValueError: a value lies outside [0, 1].

    Reference: Kuleshov, Fenner, Ermon, Accurate Uncertainties for Deep Learning, 2018.

    >>> quantile_calibration_error(torch.tensor([0.5]))
    0.25
    >>> quantile_calibration_error(torch.tensor([0.0, 0.0]))
    0.5
    """
    return formulas.quantile_calibration_error(validation.unit_interval(pit, "pit"))


def pit_band(count: int, *, level: float = 0.95) -> float:
    """Return how far the empirical distribution function of calibrated PITs strays from uniform.

    The half-width w of the band `u - w .. u + w` that holds the whole curve of `count` values with
    probability `level`: the exact quantile of the Kolmogorov-Smirnov statistic.

    Raises:
        ValueError: `count` is below 1, or `level` is not inside (0, 1).

    Reference: Simard and L'Ecuyer, Computing the Two-Sided Kolmogorov-Smirnov Distribution, 2011.

    >>> round(pit_band(100), 4)
    0.134
    """
    if count < 1:
        raise ValueError(f"expected a count of at least 1, got {count}; give the number of PITs")
    return float(stats.kstwo.ppf(validation.fraction(level, "level"), count))
