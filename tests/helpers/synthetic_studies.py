"""Studies whose cells were never run: scores are made up from the configuration of each cell."""

import zlib

import numpy as np

from mcbn.study.names import OVER_BATCH_SIZES
from mcbn.study.plan import DataAxes, InferenceAxes, NetworkAxes, Plan, TrainingAxes
from mcbn.study.results import Result, Study

EVERY_METHOD = (
    "Deterministic", "Population BN", "MCBN", "MCBN rescaled", "MCBN joint", "Stochastic BN",
    "MC Dropout", "Deep ensemble",
)  # fmt: skip


def made_study(plan, scores, *, missing=lambda cell: False, failed=lambda cell: False):
    """The study of a plan whose every cell has the scores that a function gives it."""
    results, failures, count = [], {}, 0
    for cell in plan.cells():
        if failed(cell):
            failures[cell] = "RuntimeError: the loss is <nan>"
        elif missing(cell):
            count += 1
        else:
            size = cell.batch_size or 0
            seconds = {"collect": 0.01 * size, "predict": 0.1 * cell.draws}
            results.append(Result(cell, scores(cell), seconds))
    return Study(plan, tuple(results), failures, count)


def noise(cell, *what):
    """Standard normal numbers of a cell's own: the same each time."""
    return np.random.default_rng(zlib.crc32(repr((cell, what)).encode())).standard_normal()


def spread_of(cell, *, power=-0.5, sd=0.05):
    """A standard deviation that goes as a power of M times log-normal noise."""
    if cell.batch_size is None:
        return {"Deterministic": 0.0, "Population BN": 0.0}.get(cell.method, 0.05)
    return 0.3 * cell.batch_size**power * np.exp(sd * noise(cell, "spread"))


def classification_scores(cell):
    """Scores much like those of MCBN on a small classification task."""
    spread = spread_of(cell)
    size = cell.batch_size or 1e9
    level = {"Deterministic": 0.42, "Population BN": 0.41, "MC Dropout": 0.38,
             "Deep ensemble": 0.31}.get(cell.method, 0.36)  # fmt: skip
    nll = (level + 1 / size) * (1 + 0.03 * noise(cell))
    information = spread**2 * 3
    found = {
        "nll": nll, "accuracy": 0.95 - nll / 10, "brier": nll / 3, "ece_debiased": nll / 20,
        "ece_smooth": nll / 18, "auroc_of_errors": 0.9 - nll / 20, "aurc": nll / 50,
        "mutual_information": information, "epistemic_sd": spread,
    }  # fmt: skip
    for number, name in enumerate(cell.outside, start=2):
        found[f"mutual_information_{name}"] = number * information
        found[f"epistemic_sd_{name}"] = number * spread
        found[f"auroc_{name}_by_mutual_information"] = (
            0.9 - 0.02 * np.log2(size + 1) / number + 0.01 * noise(cell, name)
            if cell.method in OVER_BATCH_SIZES
            else 0.5 if spread == 0 else 0.88
        )  # fmt: skip
        found[f"auroc_{name}_by_entropy"] = 0.8 + 0.01 * noise(cell, name)
    return found


def regression_scores(cell):
    """Scores much like those of MCBN on real targets."""
    spread = spread_of(cell)
    shift = 1 + 0.02 * noise(cell)
    return {
        "pll": -2.5 - 3 * spread * shift + 0.1 * (cell.method == "MCBN"), "rmse": 2.9 * shift,
        "crps": 1.5 * shift, "crps_moment_matched": 1.51 * shift, "coverage_90": 0.9 / shift**2,
        "width_90": 8 * shift, "pit_error": 0.03 * shift, "epistemic_sd": spread,
    }  # fmt: skip


def classification_plan(**changes):
    """Every method on digits, at three training and four inference batch sizes."""
    given = {
        "title": "Digits",
        "data": DataAxes(train_sizes=(1000,), test_size=400, outside=("photographs", "rotated")),
        "training": TrainingAxes(batch_sizes=(32, 64, 256)),
        "inference": InferenceAxes(batch_sizes=(4, 16, 64, 256)),
        "methods": EVERY_METHOD,
        "seeds": (0, 1, 2, 3, 4),
    }
    return Plan(**given | changes)


def classification_study(**changes):
    return made_study(classification_plan(**changes), classification_scores)


def regression_study(**changes):
    given = {
        "title": "Two sets of real targets",
        "data": DataAxes(names=("bostonHousing", "yacht"), splits=(0, 1, 2, 3)),
        "network": NetworkAxes(names=("mlp",)),
        "training": TrainingAxes(batch_sizes=(32,)),
        "inference": InferenceAxes(batch_sizes=(8, 32, 128)),
        "methods": ("Deterministic", "MCBN", "MC Dropout"),
        "seeds": (0,),
    }
    return made_study(Plan(**given | changes), regression_scores)
