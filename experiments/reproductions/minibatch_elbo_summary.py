"""Means and intervals over seeds of the parts of the experiment on mini-batches and the ELBO."""

import statistics
from typing import Any

from mcbn.study.results import point
from mcbn.study.slopes import log_log_slope

SCORES = ("objective", "divergence", "log score", "spread", "steps until near", "last gain")
ASYMPTOTIC = 16  # smallest M of the slope
FIXED_RATE = 0.1  # dropout rate of the comparison with a fixed one
Part = dict[str, Any]


def summary(parts: dict[str, Part], settings: dict[str, Any]) -> dict[str, Any]:
    """The result of each data set, and of all."""
    sets: dict[str, Part] = {}
    for name, part in parts.items():
        sets[name] = {
            "optimum": optimum(part),
            "bias": bias(part["bias"], settings),
        }
        if "trained" in part:
            sets[name]["trained"] = trained(part["trained"])
        if "dropout plain" in part:
            sets[name]["dropout"] = dropout(part, settings["dropout rates"])
    slopes = [slope for each in sets.values() for slope in each["bias"]["slopes"]]
    return {"sets": sets, "slope of the bias": interval(slopes),
            "over sets": over_sets(parts)}  # fmt: skip


def over_sets(parts: dict[str, Part]) -> dict[str, Any]:
    """Best objective minus the plain one: means over data sets for each seed."""
    answer: dict[str, Any] = {}
    for form in ("absorbed", "batch norm"):
        rows = [minus(part[form], part["plain"], "objective")
                for part in parts.values() if form in part]  # fmt: skip
        if not rows:
            continue
        answer[form] = {
            "difference": interval([statistics.fmean(row) for row in zip(*rows, strict=True)]),
            "above plain": sum(value > 0 for row in rows for value in row),
            "networks": sum(len(row) for row in rows),
        }
    return answer


def optimum(part: Part) -> dict[str, Any]:
    """Values of each form, and differences from the plain one."""
    answer: dict[str, Any] = {}
    known = [form for form in ("plain", "absorbed", "batch norm") if form in part]
    for form in known:
        answer[form] = {score: interval(part[form][score]) for score in SCORES}
        answer[form]["largest error"] = max(part[form]["error"])
        answer[form]["steps"] = part[form]["steps"]
        answer[form]["largest difference of the searches"] = max(part[form]["apart"])
        answer[form]["seeds"] = part[form]["objective"]
        answer[form]["best rate"] = part[form]["best rate"]
    for form in known[1:]:
        answer[f"{form} minus plain"] = {
            score: interval(minus(part[form], part["plain"], score))
            for score in ("objective", "divergence", "log score", "spread")
        }
    return answer


def bias(part: Part, settings: dict[str, Any]) -> dict[str, Any]:
    """The difference at each M, its slope, and the coefficient of 1/M."""
    sizes, count = settings["batch_sizes"], settings["N"]
    factors = [(count - size) / (count - 1) for size in sizes]
    corrected = [[gap / factor for gap, factor in zip(row, factors, strict=True)]
                 for row in part["gap"]]  # fmt: skip
    first = next(place for place, size in enumerate(sizes) if size >= ASYMPTOTIC)
    lines = [[-gap for gap in row] for row in corrected if all(gap < 0 for gap in row)]
    ends = [(tuple(sizes[i : i + 2]), slice(i, i + 2)) for i in range(len(sizes) - 1)]
    tails = [log_log_slope(tuple(sizes[first:]), tuple(line[first:])) for line in lines]
    return {
        "gap": [interval(list(column)) for column in zip(*part["gap"], strict=True)],
        "largest error": [max(column) for column in zip(*part["error"], strict=True)],
        "coefficient": [interval([size * row[place] for row in corrected])
                        for place, size in enumerate(sizes)],
        "below 0 at every M": len(lines),
        "slopes": tails,
        "slope": interval(tails),
        "slope from the smallest M": interval(
            [log_log_slope(tuple(sizes), tuple(line)) for line in lines]
        ),
        "slope by step": [interval([log_log_slope(pair, tuple(line[step])) for line in lines])
                          for pair, step in ends],
    }  # fmt: skip


def trained(rows: list[Part]) -> list[dict[str, Any]]:
    """What training with mini-batches costs; the last row is that with all statistics."""
    whole = rows[-1]
    answer = []
    for row in rows:
        lost = minus(whole, row, "whole")
        excess = [a - b for a, b in zip(row["objective"], row["whole"], strict=True)]
        over = [a - b for a, b in zip(row["objective"], whole["whole"], strict=True)]
        answer.append({
            "M": row["M"], "lost": interval(lost), "excess": interval(excess),
            "above the best with all": interval(over),
            "seeds above": sum(value > 0 for value in over),
            "log score minus that with all": interval(minus(row, whole, "log score")),
            "log score": interval(row["log score"]), "spread": interval(row["spread"]),
            "spread ratio": interval([a / b for a, b in
                                      zip(row["spread"], whole["spread"], strict=True)]),
            "largest error": max(row["error"]), "last gain": interval(row["last gain"]),
        })  # fmt: skip
    return answer


def dropout(part: Part, rates: list[float]) -> dict[str, Any]:
    """Batch norm against plain at a fixed rate, and at the best rate of each seed."""
    answer: dict[str, Any] = {}
    chosen: dict[str, dict[str, Part]] = {}
    fixed = list(rates).index(FIXED_RATE)
    for form in ("plain", "batch norm"):
        rows = part[f"dropout {form}"]["rows"]
        seeds = range(len(rows[0]["objective"]))
        top = [max(range(len(rows)), key=lambda i: rows[i]["objective"][seed]) for seed in seeds]
        keys = ("objective", "log score", "spread", "last gain")
        best = {key: [rows[top[seed]][key][seed] for seed in seeds] for key in keys}
        chosen[form] = {"fixed": {key: rows[fixed][key] for key in keys}, "learned": best}
        answer[form] = {
            kind: {key: interval(each[key]) for key in keys} for kind, each in chosen[form].items()
        }
        answer[form]["chosen rates"] = [rates[i] for i in top]
        answer[form]["by rate"] = [interval(row["objective"]) for row in rows]
    answer["batch norm minus plain"] = {
        kind: {key: interval(minus(chosen["batch norm"][kind], chosen["plain"][kind], key))
               for key in ("objective", "log score", "spread")}
        for kind in ("fixed", "learned")
    }  # fmt: skip
    return answer


def minus(one: Part, other: Part, key: str) -> list[float]:
    """Differences seed by seed."""
    return [a - b for a, b in zip(one[key], other[key], strict=True)]


def interval(values: list[float]) -> list[float]:
    """Mean and 95% Student-t interval; without width for fewer than two values, 0 for none."""
    if len(values) < 2:
        return [*values, *values, *values] or [0.0, 0.0, 0.0]
    estimate = point(values)
    return [estimate.mean, estimate.low, estimate.high]
