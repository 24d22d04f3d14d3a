"""Proper scores, one number per example; the caller takes the mean.

All are computed in float64, whatever the type of the input. Half precision enters as it is.
"""

import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor

from mcbn import validation
from mcbn.evaluation import formulas


def _check_labels(targets: Tensor, values: Tensor) -> None:
    """Check class indices against values with a class axis."""
    validation.labels(targets, values.shape[1], (values.shape[0], *values.shape[2:]))


def negative_log_likelihood(
    log_probabilities: Float[Tensor, "batch classes *positions"],
    targets: Int[Tensor, "batch *positions"],
) -> Float64[Tensor, "batch *positions"]:
    """Return the negative log-likelihood (logarithmic score) of each example.

    `-log p[y]`, in nats; 0 is perfect, lower is better. It takes logarithms of probabilities, so
    that nothing underflows: the predictive distribution over draws is a log-mean-exp.

    A log-probability of minus infinity is a probability of exactly zero (a masked class). It
    costs nothing where it does not happen, and infinity where it does.

    Args:
        log_probabilities: logarithms of probabilities, never raw logits.
        targets: the class that happened.

    Raises:
        ValueError: NaN or plus infinity, rows that do not sum to one, labels out of range.

    Reference: Good, Rational Decisions, 1952.

    >>> negative_log_likelihood(torch.tensor([[0.25, 0.75]]).log(), torch.tensor([0]))
    tensor([1.3863], dtype=torch.float64)
    """
    values = validation.tensor(log_probabilities, "log_probabilities").double()
    # The clamp lifts minus infinity, which is allowed, over the check for finite numbers.
    validation.finite(values.clamp(min=torch.finfo(torch.float64).min), "log_probabilities")
    validation.probabilities(values.exp(), "exp(log_probabilities)")
    _check_labels(targets, values)
    return formulas.negative_log_likelihood(values, targets)


def brier(
    probabilities: Float[Tensor, "batch classes *positions"],
    targets: Int[Tensor, "batch *positions"],
) -> Float64[Tensor, "batch *positions"]:
    """Return the multiclass Brier score of each example.

    `sum_c (p[c] - 1[c = y])^2`, from 0 (perfect) to 2; lower is better. For two classes it is
    twice the binary score `(p - y)^2`.

    Raises:
        ValueError: values are not probabilities, or labels are out of range.

    Reference: Brier, Verification of Forecasts Expressed in Terms of Probability, 1950.

    >>> brier(torch.tensor([[0.5, 0.5], [0.0, 1.0]]), torch.tensor([0, 0]))
    tensor([0.5000, 2.0000], dtype=torch.float64)
    """
    validation.probabilities(probabilities)
    _check_labels(targets, probabilities)
    return formulas.brier(probabilities.double(), targets)


def correct(
    probabilities: Float[Tensor, "batch classes *positions"],
    targets: Int[Tensor, "batch *positions"],
) -> Bool[Tensor, "batch *positions"]:
    """Return whether the most probable class happened; the first of tied classes is taken.

    Raises:
        ValueError: values are not probabilities, or labels are out of range.

    >>> correct(torch.tensor([[0.5, 0.5], [0.5, 0.5]]), torch.tensor([0, 1]))
    tensor([ True, False])
    """
    validation.probabilities(probabilities)
    _check_labels(targets, probabilities)
    return formulas.correct(probabilities, targets)


def squared_error(
    mean: Float[Tensor, "*shape"], targets: Float[Tensor, "*shape"]
) -> Float64[Tensor, "*shape"]:
    """Return `(mean - y)^2` of each example, in squared target units; lower is better.

    Raises:
        ValueError: a value is not finite, or the shapes differ (nothing is broadcast).

    >>> squared_error(torch.tensor([1.0, 3.0]), torch.tensor([1.0, 1.0]))
    tensor([0., 4.], dtype=torch.float64)
    """
    validation.finite(mean, "mean")
    validation.finite(targets, "targets")
    validation.require_same_shape(mean, targets, ("mean", "targets"))
    return formulas.squared_error(mean, targets)
