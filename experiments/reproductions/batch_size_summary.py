"""Summary over networks of several N and seeds: means, slopes, paired differences."""

import statistics
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

import mcbn
from experiments.intervals import interval
from mcbn.evaluation.bootstrap import percentile_interval, replicates
from mcbn.study.results import point
from mcbn.study.slopes import log_log_slope

LEVEL = 0.95
SPREADS = ("epistemic_sd", "logit_sd", "mutual_information")
RIVALS = ("MC Dropout", "ensemble", "plain", "chosen")

Row = dict[str, Any]
Runs = list[dict[str, Any]]  # of one N, by seed
Score = Callable[[dict[str, mcbn.CategoricalPredictive], Tensor], Row]


def summary(parts: Mapping[int, Runs], targets: Tensor, score: Score, resamples: int) -> Row:
    """Summarise the measurements of all networks.

    Args:
        parts: for each N, the measurements of every network.
        targets: targets of the test images.
        score: computes the scores of the ensemble.
        resamples: bootstrap resamples of the test images.
    """
    ensembles = {size: ensembles_of(runs, targets, score) for size, runs in parts.items()}
    networks, over_m = {}, {}
    for size, runs in parts.items():
        over_m[size] = slopes_over_m(runs, size)
        whole, left_out = ensembles[size]
        methods = over_seeds([run["rows"] for run in runs]) | {
            "ensemble": {
                key: jackknife(whole[key], [row[key] for row in left_out])
                for key in whole
                if key != "losses"
            }
        }
        networks[str(size)] = {
            "epochs": runs[0]["epochs"],
            "methods": methods,
            "spread of the statistics": over_seeds([{"": run["statistics"]} for run in runs])[""],
            "slopes over M": pooled([over_m[size]]),
            "plain confidence less accuracy": interval([gap(run, targets) for run in runs]),
            "smallest to largest M": changes(runs),
            "choice": choices(runs),
            "dropout": [run["dropout"] for run in runs],
            "NLL differences": nll_differences(runs, whole, resamples),
        }
    return {
        "networks": networks,
        "slopes over M": pooled(list(over_m.values())),
        "slopes over N": slopes_over_n(parts, ensembles),
    }


def by_training_size(runs: Mapping[int, Runs], size: int) -> dict[str, Row]:
    """MCBN and the plain network by the batch size of training, at one N."""
    return {
        str(batch_size): {
            "epochs": each[0]["epochs"],
            "methods": over_seeds([
                {name: row for name, row in run["rows"].items()
                 if name.isdigit() or name == "plain"}
                for run in each
            ]),
            "slopes over M": pooled([slopes_over_m(each, size)]),
            "smallest to largest M": changes(each),
        }
        for batch_size, each in runs.items()
    }  # fmt: skip


def jackknife(whole: float, left_out: list[float]) -> list[float]:
    """A value of an ensemble with its jackknife interval, from leaving out one member at a time."""
    count = len(left_out)
    estimate = point([count * whole - (count - 1) * value for value in left_out])
    half = (estimate.high - estimate.low) / 2
    return [whole, whole - half, whole + half]


def over_seeds(rows: list[Mapping[str, Row]]) -> dict[str, dict[str, list[float]]]:
    """Mean and interval over seeds of every value of every method."""
    return {
        method: {
            key: interval([row[method][key] for row in rows])
            for key in rows[0][method]
            if key != "losses"
        }
        for method in rows[0]
    }


def ensembles_of(runs: Runs, targets: Tensor, score: Score) -> tuple[Row, list[Row]]:
    """Scores of the deep ensemble of all seeds, and of those without one of its members."""

    def scored(members: Runs) -> Row:
        predictives = {}
        for name in runs[0]["logits"]:
            logits = (torch.tensor(member["logits"][name]) for member in members)
            predictives[name] = mcbn.Categorical().summarize(logits, keep_draws=True)
        return score(predictives, targets)

    return scored(runs), [scored([*runs[:i], *runs[i + 1 :]]) for i in range(len(runs))]


def gap(run: Row, targets: Tensor) -> float:
    """Mean confidence - accuracy of the plain network on the test images."""
    confidence, prediction = torch.tensor(run["logits"]["test"]).softmax(1).max(1)
    return float(confidence.mean() - (prediction == targets).double().mean())


def batch_sizes(run: Row) -> tuple[int, ...]:
    """Batch sizes M at which a network was measured."""
    return tuple(sorted(int(size) for size in run["statistics"]))


def factor(size: int, batch_size: int, key: str) -> float:
    """Finite-population factor of a spread under drawing without replacement, to first order."""
    variance = (size - batch_size) / (size - 1)
    return variance if key.startswith("mutual_information") else variance**0.5


def spread(run: Row, method: str, key: str) -> float:
    """A spread of the outputs or of the statistics."""
    return run["statistics"][method] if key == "statistics" else run["rows"][method][key]


def spread_keys(run: Row) -> list[str]:
    """Names of all spreads."""
    row = run["rows"][str(min(batch_sizes(run)))]
    return [key for key in row if key.split(" ")[0] in SPREADS]


def slopes_over_m(runs: Runs, size: int) -> dict[str, list[list[float]]]:
    """For each spread and seed the log-log slope over M, as drawn and without the factor."""
    sizes = batch_sizes(runs[0])
    slopes_by_key: dict[str, list[list[float]]] = {}
    for key in ["statistics", *spread_keys(runs[0])]:
        for run in runs:
            drawn = [spread(run, str(each), key) for each in sizes]
            freed = [value / factor(size, each, key)
                     for each, value in zip(sizes, drawn, strict=True)]  # fmt: skip
            slopes = [log_log_slope(sizes, tuple(values)) for values in (drawn, freed)]
            slopes_by_key.setdefault(key, []).append(slopes)
    return slopes_by_key


def pooled(slopes: list[dict[str, list[list[float]]]]) -> dict[str, dict[str, list[float]]]:
    """Intervals over seeds; several N are averaged within each seed first."""
    intervals: dict[str, dict[str, list[float]]] = {}
    for key in slopes[0]:
        for place, name in enumerate(("as drawn", "without the finite-population factor")):
            by_seed = zip(*([pair[place] for pair in each[key]] for each in slopes), strict=True)
            means = [statistics.fmean(values) for values in by_seed]
            intervals.setdefault(key, {})[name] = interval(means)
    return intervals


def slopes_over_n(parts: Mapping[int, Runs], ensembles: Mapping[int, Any]) -> Row:
    """Log-log slopes over N: MCBN at each M common to all N, MC Dropout, the ensemble."""
    sizes = tuple(parts)
    seeds = range(len(parts[sizes[0]]))
    shared = set(batch_sizes(parts[sizes[0]][0]))
    shared = shared.intersection(*(batch_sizes(runs[0]) for runs in parts.values()))
    keys = spread_keys(parts[sizes[0]][0])
    slopes: Row = {}
    for each in sorted(shared):
        slopes[f"MCBN {each}"] = {
            key: interval([
                log_log_slope(sizes, tuple(
                    spread(runs[seed], str(each), key) / factor(size, each, key)
                    for size, runs in parts.items()
                ))
                for seed in seeds
            ])
            for key in ["statistics", *keys]
        }  # fmt: skip
    slopes["MC Dropout"] = {
        key: interval([
            log_log_slope(sizes, tuple(runs[seed]["rows"]["MC Dropout"][key]
                                       for runs in parts.values()))
            for seed in seeds
        ])
        for key in keys
    }  # fmt: skip
    slopes["ensemble"] = {
        key: jackknife(
            log_log_slope(sizes, tuple(whole[key] for whole, _ in ensembles.values())),
            [log_log_slope(sizes, tuple(rows[seed][key] for _, rows in ensembles.values()))
             for seed in seeds],
        )
        for key in keys
    }  # fmt: skip
    return slopes


def changes(runs: Runs) -> Row:
    """Change of MCBN from its smallest to its largest M: paired differences, ratios of spreads."""
    first, last = (str(end(batch_sizes(runs[0]))) for end in (min, max))
    pairs = [(run["rows"][first], run["rows"][last]) for run in runs]
    ratios = spread_keys(runs[0])
    differences = [key for key in pairs[0][0] if key not in ratios and key != "losses"]
    return {
        "from, to": [int(first), int(last)],
        "difference": {
            key: interval([after[key] - before[key] for before, after in pairs])
            for key in differences
        },
        "falls by": {
            key: statistics.geometric_mean([before[key] / after[key] for before, after in pairs])
            for key in ratios
        },
    }


def choices(runs: Runs) -> Row:
    """The M chosen on held-out images for each seed."""
    chosen = [run["choice"] for run in runs]
    names = ("best", "interval", "flat", "at_bound", "value")
    middle = statistics.geometric_mean([each["best"] for each in chosen])
    return {"geometric mean": middle} | {name: [each[name] for each in chosen] for name in names}


def nll_differences(runs: Runs, ensemble: Row, resamples: int) -> dict[str, list[float]]:
    """NLL of MCBN at each M minus each other method: means over seeds, bootstrap over images."""
    losses = {
        method: torch.tensor([run["rows"][method]["losses"] for run in runs]).double().mean(0)
        for method in runs[0]["rows"]
    } | {"ensemble": torch.tensor(ensemble["losses"]).double()}
    columns = {
        f"{method} minus {rival}": losses[method] - losses[rival]
        for method in losses if method == "chosen" or method.isdigit()
        for rival in RIVALS if rival != method
    }  # fmt: skip
    columns["MC Dropout minus plain"] = losses["MC Dropout"] - losses["plain"]
    columns["ensemble minus MC Dropout"] = losses["ensemble"] - losses["MC Dropout"]

    def means(rows: Mapping[str, Tensor]) -> dict[str, float]:
        return {name: float(values.mean()) for name, values in rows.items()}

    drawn = replicates([columns], means, resamples=resamples, seed=0, progress=False)
    return {
        name: [value, *percentile_interval(drawn[name], LEVEL)]
        for name, value in means(columns).items()
    }
