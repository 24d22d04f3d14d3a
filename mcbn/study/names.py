"""Names that a study may use: of data sets, of their outside sets, of networks and of methods."""

from collections.abc import Mapping
from typing import Literal, get_args

Regression = Literal[
    "bostonHousing",
    "concrete",
    "energy",
    "kin8nm",
    "power-plant",
    "protein-tertiary-structure",
    "wine-quality-red",
    "yacht",
]
DataName = Literal["digits", "mnist", "cifar10", Regression]
# Out-of-distribution sets by data set; real targets have none.
OUTSIDE: Mapping[str, tuple[str, ...]] = {
    "digits": ("photographs", "rotated"),
    "mnist": ("notmnist", "fashion_mnist", "usps"),
    "cifar10": ("fashion_mnist", "notmnist"),
}

Architecture = Literal["mlp", "convnet", "resnet20"]
PUBLISHED: Architecture = "resnet20"  # loaded, not trained
PUBLISHED_BATCH_SIZE = 128  # at which it was trained

Method = Literal[
    "Deterministic",
    "Population BN",
    "MCBN",
    "MCBN rescaled",
    "MCBN joint",
    "Stochastic BN",
    "MC Dropout",
    "Deep ensemble",
]
# Methods that draw mini-batches at inference, and so have a batch size M.
OVER_BATCH_SIZES: tuple[Method, ...] = ("MCBN", "MCBN rescaled", "MCBN joint", "Stochastic BN")

ScoreName = Literal[
    "accuracy",
    "nll",
    "brier",
    "ece",
    "ece_equal_mass",
    "ece_debiased",
    "ece_classwise",
    "ece_smooth",
    "mce",
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
CLASSIFICATION: tuple[ScoreName, ...] = (
    "nll", "accuracy", "brier", "ece_debiased", "ece_smooth", "auroc_of_errors", "aurc",
    "mutual_information", "epistemic_sd",
)  # fmt: skip
REGRESSION: tuple[ScoreName, ...] = (
    "pll", "rmse", "crps", "coverage_90", "width_90", "pit_error", "epistemic_sd",
)  # fmt: skip

Direction = Literal["lower", "higher"]

# What is better of each score. Keys name the positive class where there is one.
BETTER: Mapping[str, Direction] = {
    "accuracy": "higher",
    "nll": "lower",
    "brier": "lower",
    "ece": "lower",
    "ece_equal_mass": "lower",
    "ece_debiased": "lower",
    "ece_classwise": "lower",
    "ece_smooth": "lower",
    "mce": "lower",
    "auroc_of_errors": "higher",
    "aurc": "lower",
    "e_aurc": "lower",
    "augrc": "lower",
    "rmse": "lower",
    "pll": "higher",
    "crps": "lower",
    "crps_moment_matched": "lower",
    "coverage_90": "higher",
    "width_90": "lower",
    "pit_error": "lower",
    "auroc_out_of_distribution": "higher",
    "aupr_out_of_distribution": "higher",
    "fpr95_out_of_distribution": "lower",
}


def is_regression(data: str) -> bool:
    """Whether the targets of this data set are real numbers."""
    return data in get_args(Regression)
