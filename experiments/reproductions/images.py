"""MCBN on CIFAR-10: draws, batch size, mini-batches, temperature, shift and parametric posteriors.

Run: python -m experiments.reproductions.images [--fast]
(about 20 minutes on 2 cores; data root in MCBN_DATA)
"""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

import mcbn
from experiments.record import Record, asked
from experiments.reproductions import images_figure
from experiments.reproductions.images_case import RIGHT, SEED, WRONG, Case, Scale, elsewhere, load
from experiments.reproductions.images_scores import (
    SCORES,
    against_plain,
    averaged,
    gap,
    mean_and_error,
    mean_interval,
    part,
    row,
    scored,
    temperature,
    tempered,
)
from mcbn import CategoricalPredictive as Predictive
from mcbn.evaluation.scores import negative_log_likelihood
from mcbn.study.slopes import log_log_slope

MAX_DRAWS = 64  # draws in the comparison of batch sizes
CURVES = (32, 128)  # M of the curves against T; the first is used for mini-batches and posteriors
METHODS = (8, 32, 128)  # M for temperature scaling and OOD images
MOVED = {
    "means moved": "mean",
    "variances moved": "var",
    "both moved": "",
}  # statistics moved to the unaugmented ones
PASSED = ("unaugmented", "mean border", "means moved", "variances moved")  # also scored with noise
PAPER = {
    "source": "Teye, Azizpour and Smith 2018, CIFAR-10, ResNet-32; and a re-implementation",
    "draws": [1, 2, 4, 8, 16, 32, 64, 128],
    "nll": [0.36, 0.32, 0.30, 0.29, 0.29, 0.28, 0.28, 0.28],
    "nll of running statistics": 0.32,
    "re-implementation": [0.37, 0.33, 0.30, 0.29, 0.28, 0.27, 0.27, 0.27],
    "re-implementation, running statistics": 0.33,
}
FULL = Scale(1000, {8: 64, 16: 64, 32: 128, 64: 64, 128: 128, 256: 32, 512: 32, 1024: 32},
             32, 500, 300, 300)  # fmt: skip
FAST = Scale(20, {8: 2, 32: 4, 128: 2}, 2, 8, 8, 3)


def main(record: Record) -> None:
    """Measure, write and draw."""
    torch.set_num_threads(1)
    case = load(record, FAST if record.fast else FULL)
    plain = mcbn.predict(mcbn.Deterministic(case.network), case.inputs)
    result = {
        "paper": PAPER | paper_gains(),
        "settings": {"images": case.scale.images, "seed": SEED, "few": case.scale.few},
        "plain": row(case.scored(plain)),
        "curve": {size: curve(case, plain, size) for size in CURVES},
        "sizes": sizes(case, plain),
        "mini_batches": mini_batches(case),
        "temperature": temperatures(case, plain),
        "elsewhere": detected(case, plain),
        "parametric": parametric(case),
    }
    images_figure.draw(record, record.write(result))
    case.forget()


def paper_gains() -> dict[str, list[float]]:
    """NLL minus that of running statistics, at each T of the paper's curves."""
    return {
        f"{name}, minus running statistics": [
            round(value - PAPER[base], 2) for value in PAPER[name]
        ]
        for name, base in (
            ("nll", "nll of running statistics"),
            ("re-implementation", "re-implementation, running statistics"),
        )
    }


def curve(case: Case, plain: Predictive, size: int) -> list[dict[str, Any]]:
    """Scores against T: means over disjoint sets of T draws, with standard errors."""
    draws, rows = case.passes(f"{size}", case.bank(size)), []
    base = negative_log_likelihood(plain.log_probabilities, case.targets)
    for count in (2**power for power in range(len(draws).bit_length())):
        predictives = [averaged(each) for each in draws.split(count)]
        values = [scored(each, case.targets, resamples=0, seed=SEED) for each in predictives]
        losses = [
            negative_log_likelihood(each.log_probabilities, case.targets) for each in predictives
        ]
        gaps = torch.stack(losses).mean(0) - base
        rows.append(
            {"draws": count, "sets": len(predictives)}
            | {name: mean_and_error([each[name].value for each in values]) for name in SCORES}
            | {"nll minus plain": mean_interval(gaps, resamples=case.scale.resamples, seed=SEED)}
        )
    last = rows[-1]["nll minus plain"][0]
    return [each | {"percent of the last gain": 100 * each["nll minus plain"][0] / last}
            for each in rows]  # fmt: skip


def sizes(case: Case, plain: Predictive) -> dict[str, Any]:
    """Scores at each inference batch size, and paired differences of the NLL between them."""
    base, evaluations, rows = case.scored(plain), {}, {}
    for size in case.scale.draws:
        bank = case.bank(size)
        predictive = averaged(case.passes(f"{size}", bank)[:MAX_DRAWS])
        evaluations[size] = case.scored(predictive)
        rows[size] = row(evaluations[size]) | {
            "draws": predictive.draw_count,
            "mutual information": float(predictive.mutual_information.mean()),
            "consistency": mcbn.consistency(bank).excess,
            **{f"{name} minus plain": gap(evaluations[size], base, name) for name in SCORES},
        }
    every = tuple(rows)
    information = tuple(each["mutual information"] for each in rows.values())
    return {
        "rows": rows,
        "nll minus that of the next M": {
            a: gap(evaluations[a], evaluations[b]) for a, b in pairwise(every)
        },
        "nll minus that of the first M": {
            a: gap(evaluations[a], evaluations[every[0]]) for a in every[1:]
        },
        "slope of mutual information": log_log_slope(every, information),
    }


def mini_batches(case: Case) -> dict[str, Any]:
    """Effect of differently prepared mini-batches, and the statistics that cause it."""
    size, few = CURVES[0], case.scale.few
    banks = {RIGHT: case.bank(size).first(2 * few)}
    banks |= {source: case.bank(size, source) for source in WRONG}
    right, bare = banks[RIGHT], banks["unaugmented"]
    banks |= {name: moved(right, bare, ending) for name, ending in MOVED.items()}
    base = case.scored(averaged(case.passes(f"{size}", right)[:few]))
    rows = {}
    for name, bank in banks.items():
        quiet = mcbn.predict(mcbn.MCBatchNorm(case.network, centered(bank)), case.inputs)
        rows[name] = {
            "consistency": mcbn.consistency(bank).excess,
            "without noise": row(case.scored(quiet)),
        }
        if name in (RIGHT, *PASSED):
            passes = case.passes(f"{size}" if name == RIGHT else name, bank.first(few))[:few]
            evaluation = case.scored(averaged(passes))
            rows[name] |= row(evaluation)
            rows[name] |= {
                f"{s} minus {RIGHT}": gap(evaluation, base, s) for s in ("accuracy", "nll")
            }
    return {"rows": rows, "layers": layers(case, right, bare), "stages": stages(case, bare)}


def centered(bank: mcbn.Bank) -> mcbn.Bank:
    """A bank with the population statistics as its only draw, hence without noise."""
    return replace(bank, statistics={k: v[None].float() for k, v in bank.pooled().items()})


def moved(bank: mcbn.Bank, other: mcbn.Bank, ending: str) -> mcbn.Bank:
    """The bank with the centre of the statistics with this name ending moved to that of another."""
    here, there = bank.coordinates(), other.coordinates()
    return bank.with_coordinates({
        name: rows + (there[name].mean(0) - rows.mean(0)) * name.endswith(ending)
        for name, rows in here.items()
    })  # fmt: skip


def layers(case: Case, right: mcbn.Bank, bare: mcbn.Bank) -> list[dict[str, Any]]:
    """Distance of each layer's statistics from the correct ones, and scores if only they change."""
    here, there, rows = right.coordinates(), bare.coordinates(), []
    for name in (key.removesuffix(".running_mean") for key in here if key.endswith("mean")):
        mean, variance = f"{name}.running_mean", f"{name}.running_var"
        shift = (there[mean].mean(0) - here[mean].mean(0)) / bare.trained[variance].sqrt()
        change = there[variance].mean(0) - here[variance].mean(0)
        rows.append({
            "layer": name,
            "shift of means": float(shift.square().mean().sqrt()),
            "median variance ratio": float(change.exp().median()),
            **alone(case, bare, [name]),
        })  # fmt: skip
    return rows


def stages(case: Case, bare: mcbn.Bank) -> dict[str, Any]:
    """Scores with the centres of one stage's layers replaced and all others as trained."""
    names = [key.removesuffix(".running_mean") for key in bare.trained if key.endswith("mean")]
    groups = ("bn1", "layer1", "layer2", "layer3")
    return {
        group: alone(case, bare, [name for name in names if name.split(".")[0] == group])
        for group in groups
    }


def alone(case: Case, bare: mcbn.Bank, names: list[str]) -> dict[str, float]:
    """Accuracy and NLL with only the centres of these layers replaced."""
    sampler = mcbn.MCBatchNorm(case.network, centered(bare), layers=names)
    predictive = mcbn.predict(sampler, case.inputs)
    evaluation = scored(predictive, case.targets, resamples=0, seed=SEED)
    return {name: evaluation[name].value for name in ("accuracy", "nll")}


def temperatures(case: Case, plain: Predictive) -> dict[str, Any]:
    """Scores before and after temperature scaling, fitted on the other half of the images."""
    predictives = {"plain": plain} | {
        f"MCBN {size}": averaged(case.passes(f"{size}", case.bank(size))) for size in METHODS
    }
    fits = {name: scaled(each, case.targets) for name, each in predictives.items()}
    before = {name: case.scored(each) for name, each in predictives.items()}
    after = {name: case.scored(each) for name, (each, _) in fits.items()}
    return {
        name: {
            "draws": each.draw_count,
            "temperatures": fits[name][1],
            "before": row(before[name]),
            "after": row(after[name]),
            "nll, after minus before": gap(after[name], before[name]),
            "nll minus plain, before": gap(before[name], before["plain"]),
            "nll minus plain, after": gap(after[name], after["plain"]),
            "nll before, minus plain after": gap(before[name], after["plain"]),
            "ece minus plain, after": gap(after[name], after["plain"], "ece"),
        }
        for name, each in predictives.items()
    }


def scaled(predictive: Predictive, targets: Tensor) -> tuple[Predictive, list[float]]:
    """Temperature scaling of each half of the images, fitted on the other half."""
    half = len(targets) // 2
    halves = (slice(0, half), slice(half, None))
    fitted = [temperature(part(predictive, each), targets[each]) for each in reversed(halves)]
    logs = [tempered(part(predictive, each), by).log_probabilities
            for each, by in zip(halves, fitted, strict=True)]  # fmt: skip
    return replace(predictive, log_probabilities=torch.cat(logs)), fitted


def detected(case: Case, plain: Predictive) -> dict[str, Any]:
    """AUROC of each uncertainty measure for OOD images, compared with the plain network."""
    sets, few = elsewhere(case), case.scale.few
    every, ends = torch.cat(list(sets.values())), [len(images) for images in sets.values()]
    quiet = mcbn.predict(mcbn.Deterministic(case.network), every, keep_draws=True).draws
    away = {"plain": [averaged(each) for each in quiet.split(ends, 1)]}
    home = {"plain": plain}
    for size in METHODS:
        bank = case.bank(size)
        draws = case.passes(f"elsewhere {size}", bank.first(few), every)
        away[f"MCBN {size}"] = [averaged(each) for each in draws.split(ends, 1)]
        home[f"MCBN {size}"] = averaged(case.passes(f"{size}", bank)[:few])
    rows: dict[str, Any] = {}
    for index, kind in enumerate(sets):
        # Shifted images are compared with the same images before the shift.
        inside = slice(0, ends[index] if kind == "JPEG" else None)
        pairs = {name: (part(home[name], inside), away[name][index]) for name in home}
        rows[kind] = against_plain(pairs, resamples=case.scale.resamples, seed=SEED)
    return rows | {
        "scores of JPEG": shifted(
            case, home, {name: predictives[0] for name, predictives in away.items()}
        )
    }


def shifted(
    case: Case, home: dict[str, Predictive], away: dict[str, Predictive]
) -> dict[str, dict[str, Any]]:
    """Scores of the shifted images, also with a temperature fitted on other, clean images."""
    count = case.scale.shifted
    clean, targets = slice(count, None), case.targets[count:]
    by = {name: temperature(part(predictive, clean), targets) for name, predictive in home.items()}
    before = {name: case.scored(predictive) for name, predictive in away.items()}
    after = {name: case.scored(tempered(predictive, by[name])) for name, predictive in away.items()}
    return {
        name: {
            "temperature": by[name],
            "before": row(before[name]),
            "after": row(after[name]),
            "nll minus plain, before": gap(before[name], before["plain"]),
            "nll minus plain, after": gap(after[name], after["plain"]),
        }
        for name in away
    }


def parametric(case: Case) -> dict[str, Any]:
    """Draws of fitted posteriors compared with as many draws of the bank."""
    size = CURVES[0]
    bank = case.bank(size)
    count = min(MAX_DRAWS, len(bank))
    predictives = {"bank": averaged(case.passes(f"{size}", bank)[:count])}
    for name, kind in (("joint", mcbn.JointPosterior), ("factorised", mcbn.FactorizedPosterior)):
        drawn = kind.from_bank(bank).sample(count, seed=SEED)
        predictives[name] = averaged(case.passes(name, drawn))
    scored = {name: case.scored(each) for name, each in predictives.items()}
    whole = predictives["bank"].mutual_information.mean()
    return {
        name: row(scored[name])
        | {
            "draws": count,
            "mutual information": float(each.mutual_information.mean()),
            "share of mutual information": float(each.mutual_information.mean() / whole),
            "nll minus bank": gap(scored[name], scored["bank"]),
        }
        for name, each in predictives.items()
    }


if __name__ == "__main__":
    main(asked("images"))
