"""What the scores are called, how they are written, and what they mean in one line."""

import math
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from typing import Literal

ScoreName = Literal[
    "accuracy",
    "exact_match",
    "nll",
    "nll_calibrated",
    "nll_extrapolated",
    "ensemble_equivalent",
    "brier",
    "ece",
    "ece_equal_mass",
    "ece_debiased",
    "ece_classwise",
    "ece_smooth",
    "mce",
    "f1_micro",
    "f1_macro",
    "auroc_micro",
    "auroc_macro",
    "aupr_micro",
    "aupr_macro",
    "aurc",
    "e_aurc",
    "augrc",
    "auroc_of_errors",
    "rmse",
    "pll",
    "crps",
    "crps_moment_matched",
    "coverage_90",
    "width_90",
    "pit_error",
    "mutual_information",
    "epistemic_sd",
]

Direction = Literal["lower", "higher"]

# Which direction of a score is better. Of a coverage, a width and a spread neither is.
BETTER: Mapping[str, Direction] = {
    "accuracy": "higher",
    "exact_match": "higher",
    "nll": "lower",
    "nll_calibrated": "lower",
    "nll_extrapolated": "lower",
    "brier": "lower",
    "ece": "lower",
    "ece_equal_mass": "lower",
    "ece_debiased": "lower",
    "ece_classwise": "lower",
    "ece_smooth": "lower",
    "mce": "lower",
    "f1_micro": "higher",
    "f1_macro": "higher",
    "auroc_micro": "higher",
    "auroc_macro": "higher",
    "aupr_micro": "higher",
    "aupr_macro": "higher",
    "auroc_of_errors": "higher",
    "aurc": "lower",
    "e_aurc": "lower",
    "augrc": "lower",
    "ensemble_equivalent": "higher",
    "rmse": "lower",
    "pll": "higher",
    "crps": "lower",
    "crps_moment_matched": "lower",
    "pit_error": "lower",
    "recall": "higher",
    "precision": "higher",
    "iou": "higher",
    "f1": "higher",
    "auroc": "higher",
    "aupr": "higher",
    "auroc_out_of_distribution": "higher",
    "aupr_out_of_distribution": "higher",
    "fpr95_out_of_distribution": "lower",
}


@dataclass(frozen=True)
class Term:
    """A score as the report writes it.

    Attributes:
        label: short name.
        meaning: one plain sentence.
        digits: digits after the point.
        percent: whether it is written as a percentage.
        in_unit: whether it is in the unit of a real target.
    """

    label: str
    meaning: str
    digits: int = 4
    percent: bool = False
    in_unit: bool = False


SCORES: Mapping[str, Term] = {
    "accuracy": Term("Accuracy", "Share of examples whose most probable class is right; of several "
                     "labels, share of labels that are right.", 1, True),
    "exact_match": Term("Exact match", "Share of examples with every label right.", 1, True),
    "nll": Term("NLL", "Mean negative log-probability of the true class, in nats. It judges the "
                "whole forecast and cannot be improved by anything but better probabilities."),
    "nll_calibrated": Term("NLL, calibrated", "NLL at a temperature that was fitted on the other "
                           "half of the examples: what is left after a few labels have mended the "
                           "confidence."),
    "nll_extrapolated": Term("NLL, T to infinity", "NLL without its bias of order 1/T: what "
                             "infinitely many draws would give."),
    "brier": Term("Brier", "Mean squared distance between the probabilities and the true class, "
                  "0 to 2, and 0 to 1 of several labels. Proper like the NLL, but mild on rare "
                  "confident errors."),
    "ece": Term("ECE", "Expected calibration error: mean gap between confidence and accuracy (of "
                "several labels, between probability and frequency) over 15 bins of equal width. "
                "Biased upwards by chance."),
    "ece_equal_mass": Term("ECE, equal mass", "The same over bins with equally many examples."),
    "ece_debiased": Term("ECE, debiased", "Root mean square gap between confidence and accuracy "
                         "over bins of equal mass, minus what chance adds. 0 if calibrated."),
    "ece_classwise": Term("ECE, classwise", "Calibration error of the probability of each class or "
                          "label, averaged over them."),
    "ece_smooth": Term("Smooth ECE", "Calibration error smoothed by a kernel: no bins to choose."),
    "mce": Term("MCE", "Largest gap of any bin, however few examples it holds. Very noisy."),
    "f1_micro": Term("F1, micro", "Harmonic mean of recall and precision of all labels "
                     "together, at a probability of one half.", 3),
    "f1_macro": Term("F1, macro", "The same of each label, averaged over labels.", 3),
    "auroc_micro": Term("AUROC, micro", "Chance that a label that is there has a higher "
                        "probability than one that is not, whichever labels they are. 0.5 is "
                        "guessing.", 3),
    "auroc_macro": Term("AUROC, macro", "Chance that an example with a label has a higher "
                        "probability of it than one without, averaged over labels. 0.5 is "
                        "guessing.", 3),
    "aupr_micro": Term("AUPR, micro", "Average precision of finding the labels that are there, all "
                       "labels together.", 3),
    "aupr_macro": Term("AUPR, macro", "Average precision of finding the examples with a label, "
                       "averaged over labels (mAP).", 3),
    "aurc": Term("AURC", "Area under the risk-coverage curve: mean error rate as ever more "
                 "uncertain examples are answered."),
    "e_aurc": Term("Excess AURC", "AURC minus that of the best order of the same answers."),
    "augrc": Term("AUGRC", "Area under the generalised risk-coverage curve: mean share of "
                  "undetected errors."),
    "auroc_of_errors": Term("AUROC of errors", "Chance that a wrong answer is less confident than "
                            "a right one. 0.5 is guessing.", 3),
    "ensemble_equivalent": Term("Ensemble equivalent", "Number of networks of which a deep "
                                "ensemble would have the same calibrated NLL.", 1),
    "rmse": Term("RMSE", "Root mean square error of the mean, in the unit of the target.",
                 in_unit=True),
    "pll": Term("PLL", "Mean log-density of the true value under the forecast, in nats. It judges "
                "the whole forecast."),
    "crps": Term("CRPS", "Continuous ranked probability score, in the unit of the target: the "
                 "absolute error of a whole forecast. Proper, and mild on rare misses.",
                 in_unit=True),
    "crps_moment_matched": Term("CRPS, moment-matched", "The same of the Gaussian with the "
                                "forecast's mean and variance.", in_unit=True),
    "coverage_90": Term("Coverage at 90%", "Share of true values inside the central 90% "
                        "interval. 90% is right, not more.", 1, True),
    "width_90": Term("Width at 90%", "Mean width of the central 90% interval, in the unit of "
                     "the target.", in_unit=True),
    "pit_error": Term("PIT error", "Mean distance of the probability integral transforms from "
                      "uniform. 0 if calibrated."),
    "mutual_information": Term("Mutual information", "Epistemic part of the entropy, in nats: how "
                               "much the draws disagree.", 5),
    "epistemic_sd": Term("Epistemic sd", "Mean standard deviation over draws of each class's "
                         "probability, or of the predicted value in the unit of the target.", 5),
    "recall": Term("Recall", "Share of the examples of a class that are predicted as it.", 1, True),
    "precision": Term("Precision", "Share of what is predicted as a class that is of it.", 1,
                      True),
    "iou": Term("IoU", "Intersection over union: examples of a class that are predicted as it, "
                "among those that are of it or predicted as it.", 1, True),
    "f1": Term("F1", "Harmonic mean of recall and precision.", 3),
    "auroc": Term("AUROC", "Chance that an example with the label has a higher probability of it "
                  "than one without.", 3),
    "aupr": Term("AUPR", "Average precision of finding the examples with the label.", 3),
    "entropy": Term("Entropy", "Mean total uncertainty, in nats."),
    "auroc_out_of_distribution": Term("AUROC", "Chance that an out-of-distribution example is more "
                                      "uncertain than a test example. 0.5 is guessing.", 3),
    "aupr_out_of_distribution": Term("AUPR", "Average precision of detecting out-of-distribution "
                                     "examples. Guessing gives their share.", 3),
    "fpr95_out_of_distribution": Term("FPR95", "Share of test examples that are flagged where 95% "
                                      "of the out-of-distribution examples are.", 1, True),
}  # fmt: skip

IN_UNIT = frozenset(name for name, term in SCORES.items() if term.in_unit)
HEADLINE = (
    "accuracy",
    "nll",
    "nll_calibrated",
    "ensemble_equivalent",
    "brier",
    "ece_debiased",
    "ece_smooth",
    "aurc",
    "auroc_of_errors",
)
REGRESSION_HEADLINE = ("pll", "crps", "rmse", "coverage_90", "width_90", "pit_error")
LABEL_HEADLINE = ("accuracy", "nll", "f1_macro", "auroc_macro", "aupr_macro", "ece_debiased",
                  "ece_classwise")  # fmt: skip
# Of each class or label, in a table; those of labels alone have more.
IN_TABLE = ("recall", "precision", "iou", "f1", "auroc", "aupr", "ece", "mutual_information")
OF_CLASSES = ("recall", "precision", "iou", "f1", "auroc", "aupr")
ERRORS = ("auroc_of_errors", "aurc", "e_aurc", "augrc")
SEPARATION = ("auroc_out_of_distribution", "aupr_out_of_distribution", "fpr95_out_of_distribution")

# Scores of uncertainty whose names are not their words, and those that are in nats.
UNCERTAINTIES = {"max_softmax": "one minus max softmax", "margin": "one minus margin",
                 "max_logit": "minus max logit", "knn": "nearest neighbours"}  # fmt: skip
IN_NATS = ("entropy", "expected_entropy", "mutual_information", "energy")

# What a score can be: those that are not here are at least 0.
UNBOUNDED = ("pll",)
BY_SET = ("auroc_", "mutual_information_", "epistemic_sd_")  # the name of a set follows
SHARES = frozenset(BETTER) - {
    "nll", "nll_calibrated", "nll_extrapolated", "brier", "ensemble_equivalent", "rmse", "pll",
    "crps", "crps_moment_matched",
} | {"coverage_90"}  # fmt: skip
# Words of the page that are not scores.
WORDS: Mapping[str, str] = {
    "Interval": "Where the value would plausibly lie with other test examples of the same kind; "
    "found by drawing the examples again with replacement, unless said otherwise. That of a "
    "calibration error may lie below the value, which chance makes too large; of errors about as "
    "small as chance, an interval of 95% held the true difference of two in 82% or more of our "
    "simulations.",
    "Paired difference": "Difference of two methods on the same examples. It can be clear although "
    "the two separate intervals overlap.",
    "Calibrated": "Of the answers given with confidence 0.8, 80% are right.",
    "Entropy": "Total uncertainty of a forecast, in nats.",
    "Mutual information": "Epistemic part of the entropy, in nats: how much the draws disagree. "
    "0 for a single draw.",
    "M": "Inference batch size: how many training examples a mini-batch holds whose statistics "
    "batch normalisation uses in one draw.",
    "T": "Number of draws averaged: mini-batches for MCBN, dropout masks or networks of an "
    "ensemble.",
    "Monte Carlo error": "How much the score would change with other draws of the same number.",
}


# Words of a study page that mean something else there, or that it alone has.
STUDY_WORDS: Mapping[str, str] = {
    "Interval": "Where the mean would plausibly lie with other seeds and splits: Student's t, "
    "cut where the score ends.",
    "Paired difference": "Difference of two methods at the same seed and split. It can be clear "
    "although the two separate intervals overlap.",
    "N": "Number of training examples.",
    "M": WORDS["M"],
    "T": WORDS["T"],
    "Epistemic spread": "How much the draws disagree: a standard deviation, or the mutual "
    "information, which goes as its square. 0 for a single draw.",
    "MCBN": "Monte Carlo batch normalisation: each draw normalises by the statistics of a "
    "mini-batch of training examples.",
    "MCBN rescaled": "MCBN with mini-batches of one size, their deviations scaled as if they "
    "were of size M.",
    "MCBN joint": "Draws from a Gaussian fitted to the mini-batches' statistics together, "
    "dependences between channels kept.",
    "Stochastic BN": "Draws from distributions fitted to each channel's statistics apart.",
    "Population BN": "One pass with the statistics of the whole training set.",
    "Holm's method": "Makes p values larger, so that the chance of even one false alarm among "
    "the primary tests of a score, or among all others, stays below 5%.",
}


def headline(present: Container[str]) -> list[str]:
    """The most important of some scores: those of labels, of classes or of regression."""
    names = LABEL_HEADLINE if "f1_macro" in present else (*HEADLINE, *REGRESSION_HEADLINE)
    return [name for name in names if name in present]


def limits(name: str) -> tuple[float, float]:
    """The lowest and the highest value that a score can have, also one of an OOD set."""
    if name in UNBOUNDED or not (name in SCORES or name.startswith(BY_SET)):
        return -math.inf, math.inf
    if name == "brier":
        return 0.0, 2.0
    return 0.0, 1.0 if name in SHARES or name.startswith("auroc_") else math.inf


def label(name: str) -> str:
    """What a score is called."""
    return SCORES[name].label if name in SCORES else name.replace("_", " ")


def uncertainty(name: str) -> str:
    """What a score of uncertainty is called."""
    return UNCERTAINTIES.get(name, name.replace("_", " "))


def arrow(name: str) -> str:
    """The better direction as an arrow; empty where there is none."""
    signs = {"higher": "\N{UPWARDS ARROW}", "lower": "\N{DOWNWARDS ARROW}"}
    return signs[BETTER[name]] if judged(name) else ""


def direction(name: str) -> str:
    """The better direction in words; empty where there is none."""
    return f"{BETTER[name].capitalize()} is better." if judged(name) else ""


def judged(name: str) -> bool:
    """Whether this score has a better direction."""
    return name in BETTER


def written(name: str, value: float, *, signed: bool = False) -> str:
    """A score's value as text, with a true minus sign; a dash for NaN."""
    term = SCORES.get(name, Term(name, ""))
    return number(value * (100 if term.percent else 1), term.digits, signed=signed)


def unit(name: str) -> str:
    """The percent sign after a score that is written as a percentage; else empty."""
    return "%" if name in SCORES and SCORES[name].percent else ""


def number(value: float, digits: int, *, signed: bool = False) -> str:
    """A number with fixed digits, a true minus sign, and a dash for NaN."""
    if math.isnan(value):
        return "\N{EN DASH}"
    if math.isinf(value):
        return _infinity(value, signed=signed)
    if round(value, digits) == 0:
        value = 0.0  # never a negative zero
    return f"{value:{'+' if signed and value else ''}.{digits}f}".replace("-", "\N{MINUS SIGN}")


def significant(value: float, digits: int = 3, *, signed: bool = False) -> str:
    """A number with so many significant digits, a true minus sign, and a dash for NaN."""
    if math.isnan(value):
        return "\N{EN DASH}"
    if math.isinf(value):
        return _infinity(value, signed=signed)
    text = f"{value:{'+' if signed and value else ''}#.{digits}g}".rstrip(".")
    return text.replace("-", "\N{MINUS SIGN}")


def _infinity(value: float, *, signed: bool) -> str:
    sign = "\N{MINUS SIGN}" if value < 0 else "+" if signed else ""
    return f"{sign}\N{INFINITY}"


def probability(value: float) -> str:
    """A p value as text."""
    return f"p = {value:.3f}" if value >= 0.001 else "p < 0.001"


def interval(low: float, high: float, write: Callable[[float], str], *, missing: str = "") -> str:
    """The two ends of an interval in brackets, or `missing` where an end is NaN.

    Args:
        low: lower end.
        high: upper end.
        write: turns an end into text.
        missing: what is said without an interval.
    """
    if math.isnan(low) or math.isnan(high):
        return missing
    return f"[{write(low)}, {write(high)}]"
