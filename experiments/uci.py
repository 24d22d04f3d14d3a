"""Teye et al.'s evaluation on UCI regression sets: MCBN against MC Dropout, and Gal's baseline.

Run: python experiments/uci.py [--fast] [SET ...]    (about 7 hours on 2 cores; data root in
MCBN_DATA). Sets that are named, or `gal`, are added to those measured before.
"""

import json
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import product

import torch
from nets import Settings, Trained, mc_errors, module, train
from record import Record, asked
from uci_data import FOLDS, Data, both, fold_parts, original, stacked, targets
from uci_gal import gal
from uci_table import agreement, draw, precisions, published, rmse, scored, summary

import mcbn
from mcbn.predictive.gaussian import GaussianPredictive
from mcbn.tasks.datasets import Task, uci

DROPOUT_BATCH = 32
ENSEMBLE_FOLDS = 2  # that the ensemble's precision is fitted on


@dataclass(frozen=True)
class Scale:
    """How much is computed of one set; the paper's grid where nothing else is said.

    Attributes:
        decays: lambda tried.
        batch_sizes: tried for batch norm; none is above the examples that there are.
        rates: of dropout tried.
        epochs: at most.
        check_every: epochs between two looks at the held-out fold.
        splits: of 80/20.
        seeds: trainings of each split.
        choice_draws: T of the choice of lambda, batch size and rate.
        draws: T of everything else.
        precisions: range of tau, the paper's.
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
    """Measure the sets, each kept once it is complete, and draw those that there are."""
    warnings.simplefilter("ignore", mcbn.InconsistentBankWarning)
    torch.set_num_threads(1)
    scales = FAST if record.fast else FULL
    for name in names or [*scales, "gal"]:
        # Parts have a name of their own: writing the result forgets those of its name.
        parts = replace(record, name=f"uci_{name}")
        if name == "gal":
            found = gal(parts, *(GAL_FAST if record.fast else GAL_FULL))
        else:
            found = measured(parts, name, scales[name])
        path = record.folder / f"{record.name}.json"
        result = json.loads(path.read_text()) if path.is_file() else {"sets": {}, "gal": {}}
        if name == "gal":
            result["gal"] = found
        else:
            result["sets"][name] = found
        result["paper"] = published()
        result["agreement"] = agreement(result)
        draw(record, record.write(result))
        for part in (record.folder / "parts").glob(f"uci_{name}-*.json"):
            part.unlink()


def measured(parts: Record, name: str, scale: Scale) -> dict:
    """Every method on every split of a set."""
    makers = {"bn": batch_norm, "dropout": dropout}
    found: dict[str, list[dict]] = {method: [] for method in makers}
    for split, (method, make) in product(range(scale.splits), makers.items()):
        task = uci(name, split=split, protocol="teye")
        run = partial(make, task, split, scale)
        found[method].append(parts.part(f"{split}-{method}", run))
    splits = {
        method: [split["runs"][method] for split in each]
        for each in found.values()
        for method in each[0]["runs"]
    }
    return {
        "scale": asdict(scale),
        "chosen": {method: [each["chosen"] for each in found[method]] for method in found},
        "scores": summary(splits),
        "runs": splits,
    }


def batch_norm(task: Task, split: int, scale: Scale) -> dict:
    """MCBN, and the ensemble of the same nets, on one split."""
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
    # As many nets on each fold as the ensemble has: its own precision needs its own errors.
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
    """MC Dropout on one split."""
    folds = folds_of(task, split)
    decays, rates = zip(*product(scale.decays, scale.rates), strict=True)
    best, chosen = choose(folds, [searched(folds, scale, DROPOUT_BATCH, decays, rates)], scale)
    data = repeated(task, scale)
    runs = monte_carlo(folds, best, data, train(data, fixed(best)), scale)
    return {"chosen": chosen, "runs": {"MCDO": runs}}


def different(sizes: Sequence[int], count: int) -> list[int]:
    """The sizes below the number of examples, and one of those that take all of them."""
    return [size for size in sizes if size < count] + [size for size in sizes if size >= count][:1]


def folds_of(task: Task, split: int) -> Data:
    """The folds as one stack."""
    return stacked(fold_parts(task), [100 * split + fold for fold in range(FOLDS)])


def repeated(task: Task, scale: Scale) -> Data:
    """The 80 % and the test set, once for each seed."""
    return stacked(
        [(both(task), original(task, task.test))] * scale.seeds, range(1, scale.seeds + 1)
    )


def searched(
    folds: Data, scale: Scale, size: int, decays: tuple[float, ...], rates: tuple | None
) -> Trained:
    """Nets of each configuration on each fold, stopped early."""
    settings = Settings(
        decays, rates, size, scale.epochs, hidden=scale.hidden, check_every=scale.check_every
    )
    return train(folds, settings)


def fixed(best: Trained) -> Settings:
    """The chosen settings, for as many epochs as were best."""
    return replace(best.settings, epochs=int(best.epochs[0]), check_every=0)


def choose(folds: Data, tried: list[Trained], scale: Scale) -> tuple[Trained, dict]:
    """The configuration of least RMSE of the mean over draws, averaged over folds."""
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
    """Scores of each seed's net, with precisions fitted on the folds."""
    held = [predicted(folds, sampler(folds, best, i, scale.draws), i) for i in range(FOLDS)]
    taus = precisions(held, [targets(folds, index) for index in range(FOLDS)], scale.precisions)
    runs = []
    for index in range(scale.seeds):
        found = predicted(data, sampler(data, final, index, scale.draws), index)
        plain = predicted(data, mcbn.Deterministic(module(data, final, index)), index)
        observed = targets(data, index)
        runs.append(scored(found, taus, observed) | {"rmse_plain": rmse(plain, observed)})
    return runs


def sampler(
    data: Data, trained: Trained, net: int, draws: int
) -> mcbn.MCBatchNorm | mcbn.MCDropout:
    """The library's sampler of one net."""
    model, seed = module(data, trained, net), data.seeds[net]
    if trained.settings.rates:
        return mcbn.MCDropout(model, draws=draws, seed=seed)
    size = min(trained.settings.batch_size, data.targets.shape[1])
    batches = mcbn.minibatches(data.inputs[net].T, batch_size=size, draws=draws, seed=seed)
    return mcbn.MCBatchNorm(model, mcbn.collect(model, batches, progress=False))


def ensemble(data: Data, trained: Trained, members: Sequence[int]) -> GaussianPredictive:
    """Held-out predictions of several nets on one set."""
    models = [module(data, trained, net) for net in members]
    return predicted(data, mcbn.DeepEnsemble(models), members[0])


def predicted(data: Data, sampled: Callable, index: int) -> GaussianPredictive:
    """Held-out predictions of one set in original units; the precision is still to be set."""
    outputs = (each[:, 0] for each in sampled.passes(data.held_inputs[index].T))
    found = mcbn.Gaussian(precision=1.0).summarize(outputs)
    return found.in_units(float(data.means[index]), float(data.scales[index]))


if __name__ == "__main__":
    names = [word for word in sys.argv[1:] if word in {*FULL, "gal"}]
    sys.argv = [word for word in sys.argv if word not in names]
    main(asked("uci"), names)
