"""Names that a study may use: of networks, of methods, and of the scores it reports."""

from typing import Literal

from mcbn.evaluation.glossary import ScoreName

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
CLASSIFICATION: tuple[ScoreName, ...] = (
    "nll", "accuracy", "brier", "ece_debiased", "ece_smooth", "auroc_of_errors", "aurc",
    "mutual_information", "epistemic_sd",
)  # fmt: skip
REGRESSION: tuple[ScoreName, ...] = (
    "pll", "rmse", "crps", "coverage_90", "width_90", "pit_error", "epistemic_sd",
)  # fmt: skip
