"""Names of the networks, methods and scores of a study."""

from typing import Literal

from mcbn.evaluation.glossary import ScoreName

Architecture = Literal["mlp", "convnet", "resnet20"]
PUBLISHED: Architecture = "resnet20"  # its published weights are loaded
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
# Methods that depend on a batch size M at inference.
OVER_BATCH_SIZES: tuple[Method, ...] = ("MCBN", "MCBN rescaled", "MCBN joint", "Stochastic BN")
# Scores shown by default.
CLASSIFICATION_SCORES: tuple[ScoreName, ...] = (
    "nll", "accuracy", "brier", "ece_debiased", "ece_smooth", "auroc_of_errors", "aurc",
    "mutual_information", "epistemic_sd",
)  # fmt: skip
LABEL_SCORES: tuple[ScoreName, ...] = (
    "nll", "accuracy", "f1_macro", "auroc_macro", "aupr_macro", "ece_debiased", "ece_classwise",
    "mutual_information", "epistemic_sd",
)  # fmt: skip
REGRESSION_SCORES: tuple[ScoreName, ...] = (
    "pll", "rmse", "crps", "coverage_90", "width_90", "pit_error", "epistemic_sd",
)  # fmt: skip
