"""Gal's evaluation of MC Dropout on UCI sets, as a check of our baseline."""

from functools import partial
from itertools import product

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

import mcbn
from experiments.data.uci_data import Data, both, original, stacked, targets
from experiments.record import Record
from experiments.reproductions.nets import Settings, passes, train
from experiments.reproductions.uci_table import rmse
from mcbn.tasks.datasets import uci

TAUS = {  # as published, in original units; the larger sets would take hours
    "yacht": (0.25, 0.5, 0.75), "bostonHousing": (0.1, 0.15, 0.2), "energy": (0.25, 0.5, 0.75),
    "concrete": (0.025, 0.05, 0.075), "wine-quality-red": (2.5, 3.0, 3.5),
}  # fmt: skip
RATES, BATCH, LENGTH = (0.005, 0.01, 0.05, 0.1), 128, 1e-2
DRAWS = 200


def gal(parts: Record, epochs: int, splits: int) -> dict[str, dict]:
    """MC Dropout by Gal's protocol: one hidden layer, 90/10 splits."""
    return {
        "epochs": epochs,
        "splits": splits,
        "draws": DRAWS,
        "sets": {name: parts.part(name, partial(gal_set, name, epochs, splits)) for name in TAUS},
    }


def gal_set(name: str, epochs: int, splits: int) -> dict[str, dict[str, float]]:
    """RMSE and log-likelihood, with rate and precision chosen by validation likelihood."""
    tasks = [uci(name, split=split) for split in range(splits)]
    options = list(product(RATES, TAUS[name]))
    inner = [(original(task, task.train), original(task, task.validation)) for task in tasks]
    likely = gal_scores(stacked(inner, range(splits)), options, epochs)["ll"]
    best = likely.argmax(0).tolist()
    scores: dict[str, list[float]] = {"rmse": [], "ll": []}
    for option in sorted(set(best)):
        mine = [split for split in range(splits) if best[split] == option]
        outer = [(both(tasks[split]), original(tasks[split], tasks[split].test)) for split in mine]
        each = gal_scores(stacked(outer, mine), [options[option]], epochs)
        for key, values in scores.items():
            values += each[key][0].tolist()
    return {
        key: {"mean": float(np.mean(each)), "error": float(np.std(each, ddof=1)) / splits**0.5}
        for key, each in scores.items()
    }


def gal_scores(
    data: Data, options: list[tuple[float, float]], epochs: int
) -> dict[str, Float[Tensor, "options splits"]]:
    """Held-out scores of one network for each rate and precision on each split."""
    count, splits = data.targets.shape[1], len(data.seeds)
    decays = tuple(LENGTH**2 * (1 - rate) / (2 * count * tau) for rate, tau in options)
    rates = tuple(rate for rate, _ in options)
    settings = Settings(decays, rates, BATCH, epochs, hidden=(50,), keep_rest=True)
    drawn = torch.stack(list(passes(data, train(data, settings), DRAWS)))
    scores = {"rmse": torch.zeros(len(options), splits), "ll": torch.zeros(len(options), splits)}
    for option, split in product(range(len(options)), range(splits)):
        own = mcbn.Gaussian(precision=1.0).summarize(drawn[:, option * splits + split])
        own = own.in_units(float(data.means[split]), float(data.scales[split]))
        observed = targets(data, split)
        scores["rmse"][option, split] = rmse(own, observed)
        likely = own.with_precision(options[option][1]).log_prob(observed)
        scores["ll"][option, split] = float(likely.mean())
    return scores
