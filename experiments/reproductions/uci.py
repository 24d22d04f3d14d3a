"""Teye et al.'s evaluation on UCI regression sets: MCBN against MC Dropout, and Gal's baseline.

Run: python -m experiments.reproductions.uci [--fast] [SET ...]
(about 7 hours on 2 cores; data root in MCBN_DATA). Named sets, or `gal`, are added to the existing
result.
"""

import json
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import product

import torch

import mcbn
from experiments.data.uci_data import FOLDS, Data, both, fold_parts, original, stacked, targets
from experiments.record import Record, asked
from experiments.reproductions.nets import Settings, Trained, mc_errors, module, train
from experiments.reproductions.uci_gal import gal
from experiments.reproductions.uci_table import (
    agreement,
    draw,
    precisions,
    published,
    rmse,
    scored,
    summary,
)
from mcbn.predictive.gaussian import GaussianPredictive
from mcbn.tasks.datasets import Task, uci

DROPOUT_BATCH = 32
ENSEMBLE_FOLDS = 2  # folds on which the ensemble's precision is fitted


@dataclass(frozen=True)
class Scale:
    """Size of the experiment on one data set; the defaults are the paper's grid.

    Attributes:
        decays: candidates for lambda.
        batch_sizes: candidates for batch norm; at most the number of examples.
        rates: candidates for the dropout rate.
        epochs: maximum number of epochs.
        check_every: epochs between evaluations on the held-out fold.
        splits: number of 80/20 splits.
        seeds: trainings per split.
        choice_draws: T when choosing lambda, batch size and rate.
        draws: T otherwise.
        precisions: range of tau, as in the paper.
        hidden: units of each hidden layer.
    """

    decays: tuple[float, ...] = tuple(10.0**-power for power in range(1, 16))
    batch_sizes: tuple[int, ...] = (32, 64, 128, 256, 512, 1024)
    rates: tuple[float, ...] = (0.2, 0.1, 0.05, 0.01, 0.005, 0.001)
    epochs: int = 2000
    check_every: int = 20
    splits: int = 5
    seeds: int = 5
    choice_draws: int = 500
    draws: int = 500
    precisions: tuple[float, float] = (0.01, 10.0)
    hidden: tuple[int, ...] = (50, 50)


LARGE = Scale((1e-3, 1e-5), (128, 512), (0.05, 0.005), epochs=100, choice_draws=32)
FULL = {
    "yacht": Scale(precisions=(0.01, 100.0)),
    "bostonHousing": Scale(),
    "energy": Scale(batch_sizes=(32, 64, 128, 256, 512), precisions=(0.01, 100.0)),
    "wine-quality-red": Scale(),
    "concrete": Scale(precisions=(0.001, 10.0)),
    "kin8nm": replace(LARGE, precisions=(10.0, 1000.0)),
    "power-plant": LARGE,
    "protein-tertiary-structure": replace(LARGE, epochs=60, splits=2, hidden=(100, 100)),
}
TINY = Scale((1e-2, 1e-4), (64,), (0.05, 0.01), 4, 2, splits=2, seeds=2, choice_draws=2, draws=8)
FAST = {"yacht": TINY}
GAL_FULL, GAL_FAST = (4000, 20), (2, 2)  # epochs and splits


def main(record: Record, names: Sequence[str] = ()) -> None:
    """Measure the sets, storing each as it is completed, and draw the figure."""
    warnings.simplefilter("ignore", mcbn.InconsistentBankWarning)
    torch.set_num_threads(1)
    scales = FAST if record.fast else FULL
    for name in names or [*scales, "gal"]:
        # Parts have their own name: writing the result deletes the parts named after it.
        parts = replace(record, name=f"uci_{name}")
        if name == "gal":
            measures = gal(parts, *(GAL_FAST if record.fast else GAL_FULL))
        else:
            measures = measured(parts, name, scales[name])
        path = record.folder / f"{record.name}.json"
        result = json.loads(path.read_text()) if path.is_file() else {"sets": {}, "gal": {}}
        if name == "gal":
            result["gal"] = measures
        else:
            result["sets"][name] = measures
        result["paper"] = published()
        result["agreement"] = agreement(result)
        draw(record, record.write(result))
        for part in (record.folder / "parts").glob(f"uci_{name}-*.json"):
            part.unlink()


def measured(parts: Record, name: str, scale: Scale) -> dict:
    """Measure every method on every split of a data set."""
    makers = {"bn": batch_norm, "dropout": dropout}
    results: dict[str, list[dict]] = {method: [] for method in makers}
    for split, (method, make) in product(range(scale.splits), makers.items()):
        task = uci(name, split=split, protocol="teye")
        run = partial(make, task, split, scale)
        results[method].append(parts.part(f"{split}-{method}", run))
    splits = {
        method: [split["runs"][method] for split in each]
        for each in results.values()
        for method in each[0]["runs"]
    }
    return {
        "scale": asdict(scale),
        "chosen": {method: [each["chosen"] for each in results[method]] for method in results},
        "scores": summary(splits),
        "runs": splits,
    }


def batch_norm(task: Task, split: int, scale: Scale) -> dict:
    """Measure MCBN, and the ensemble of the same networks, on one split."""
    folds = folds_of(task, split)
    tried = [
        searched(folds, scale, size, scale.decays, None)
        for size in different(scale.batch_sizes, folds.targets.shape[1])
    ]
    best, chosen = choose(folds, tried, scale)
    data = repeated(task, scale)
    final = train(data, fixed(best))
    count = data.targets.shape[1]
    chosen["noise"] = 1 - (min(best.settings.batch_size, count) - 1) / (count - 1)
    runs = monte_carlo(folds, best, data, final, scale)
    seeds = range(scale.seeds)
    # As many networks per fold as in the ensemble, since its precision depends on its errors.
    parts = [fold_parts(task)[fold] for fold in range(ENSEMBLE_FOLDS) for _ in seeds]
    many = stacked(parts, [1000 + 100 * split + index for index in range(len(parts))])
    fitted = train(many, fixed(best))
    held = [
        ensemble(many, fitted, range(start, start + scale.seeds))
        for start in range(0, len(parts), scale.seeds)
    ]
    observed = [targets(many, fold * scale.seeds) for fold in range(ENSEMBLE_FOLDS)]
    taus = precisions(held, observed, scale.precisions)
    run = scored(ensemble(data, final, seeds), taus, targets(data, 0))
    return {"chosen": chosen, "runs": {"MCBN": runs, "ensemble": [run]}}


def dropout(task: Task, split: int, scale: Scale) -> dict:
    """Measure MC Dropout on one split."""
    folds = folds_of(task, split)
    decays, rates = zip(*product(scale.decays, scale.rates), strict=True)
    best, chosen = choose(folds, [searched(folds, scale, DROPOUT_BATCH, decays, rates)], scale)
    data = repeated(task, scale)
    runs = monte_carlo(folds, best, data, train(data, fixed(best)), scale)
    return {"chosen": chosen, "runs": {"MCDO": runs}}


def different(sizes: Sequence[int], count: int) -> list[int]:
    """The sizes below the number of examples, and one that uses all of them."""
    return [size for size in sizes if size < count] + [size for size in sizes if size >= count][:1]


def folds_of(task: Task, split: int) -> Data:
    """The cross-validation folds as one stack."""
    return stacked(fold_parts(task), [100 * split + fold for fold in range(FOLDS)])


def repeated(task: Task, scale: Scale) -> Data:
    """The 80% and the test set, once per seed."""
    return stacked(
        [(both(task), original(task, task.test))] * scale.seeds, range(1, scale.seeds + 1)
    )


def searched(
    folds: Data, scale: Scale, size: int, decays: tuple[float, ...], rates: tuple | None
) -> Trained:
    """Train each configuration on each fold, with early stopping."""
    settings = Settings(
        decays, rates, size, scale.epochs, hidden=scale.hidden, check_every=scale.check_every
    )
    return train(folds, settings)


def fixed(best: Trained) -> Settings:
    """The chosen settings, with the best number of epochs."""
    return replace(best.settings, epochs=int(best.epochs[0]), check_every=0)


def choose(folds: Data, tried: list[Trained], scale: Scale) -> tuple[Trained, dict]:
    """The configuration with the lowest RMSE of the mean over draws, averaged over folds."""
    errors = [mc_errors(folds, each, scale.choice_draws) for each in tried]
    index = min(range(len(tried)), key=lambda i: float(errors[i].min()))
    best = tried[index].only(int(errors[index].argmin()), len(folds.seeds))
    settings = best.settings
    return best, {
        "lambda": settings.decays[0],
        "batch_size": settings.batch_size,
        "rate": settings.rates[0] if settings.rates else 0.0,
        "epochs": int(best.epochs[0]),
        "cv_rmse": float(errors[index].min()),
    }


def monte_carlo(
    folds: Data, best: Trained, data: Data, final: Trained, scale: Scale
) -> list[dict[str, float]]:
    """Scores of the network of each seed, with precisions fitted on the folds."""
    held = [predicted(folds, sampler(folds, best, i, scale.draws), i) for i in range(FOLDS)]
    taus = precisions(held, [targets(folds, index) for index in range(FOLDS)], scale.precisions)
    runs = []
    for index in range(scale.seeds):
        predictive = predicted(data, sampler(data, final, index, scale.draws), index)
        plain = predicted(data, mcbn.Deterministic(module(data, final, index)), index)
        observed = targets(data, index)
        runs.append(scored(predictive, taus, observed) | {"rmse_plain": rmse(plain, observed)})
    return runs


def sampler(
    data: Data, trained: Trained, net: int, draws: int
) -> mcbn.MCBatchNorm | mcbn.MCDropout:
    """The `mcbn` sampler of one network."""
    model, seed = module(data, trained, net), data.seeds[net]
    if trained.settings.rates:
        return mcbn.MCDropout(model, draws=draws, seed=seed)
    size = min(trained.settings.batch_size, data.targets.shape[1])
    batches = mcbn.minibatches(data.inputs[net].T, batch_size=size, draws=draws, seed=seed)
    return mcbn.MCBatchNorm(model, mcbn.collect(model, batches, progress=False))


def ensemble(data: Data, trained: Trained, members: Sequence[int]) -> GaussianPredictive:
    """Held-out predictions of an ensemble of networks on one set."""
    models = [module(data, trained, net) for net in members]
    return predicted(data, mcbn.DeepEnsemble(models), members[0])


def predicted(data: Data, sampled: Callable, index: int) -> GaussianPredictive:
    """Held-out predictions of one set in original units; the precision is set later."""
    outputs = (each[:, 0] for each in sampled.passes(data.held_inputs[index].T))
    predictive = mcbn.Gaussian(precision=1.0).summarize(outputs)
    return predictive.in_units(float(data.means[index]), float(data.scales[index]))


if __name__ == "__main__":
    names = [word for word in sys.argv[1:] if word in {*FULL, "gal"}]
    sys.argv = [word for word in sys.argv if word not in names]
    main(asked("uci"), names)
