"""Where rescaled banks are as real ones, by kind of network, and whether `Bank.doubts` says so.

Run: python -m experiments.choosing.rescaling_networks [NETWORK ...] [limit]
(about 20 minutes on one core for all; data root in MCBN_DATA)
"""

import json
import math
import sys
import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import matplotlib
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

import mcbn
from experiments.choosing.rescaling import FACTORS, LEVEL, RESAMPLES, evenly, mutual_information
from experiments.choosing.rescaling_cases import CASES, Trained, regression
from experiments.record import RESULTS, STYLE, rounded
from mcbn.bank.coordinates import partner, pooled, to_statistics
from mcbn.bank.rescaling import dead_in_some, ratio_of_scales
from mcbn.drawing import figures
from mcbn.io.tensors import write_whole
from mcbn.network.batchnorm import VARIANCE

TOLERANCE = 0.15  # of a ratio that counts as right
CLAIMED = (1 / 2, 4)  # M' over M between which rescaling is said to be right
METHODS = ("package", "old", "merge")
VERDICTS = ("right", "false alarm", "unclear", "doubted", "silent")  # from good to bad
SMALLEST_VARIANCE = 1e-12  # of the old rule, so that a dead channel has a logarithm
LIMITS = (None, 128, 256, 512, 2048)  # examples of the larger batch
LIMIT_SIZES = (16, 64, 128)  # M' of the banks at M = 32
LIMIT_SEEDS, LIMIT_BANKS, LIMIT_DRAWS, REAL_DRAWS = (1, 2, 3), 4, 64, 512
PRECISION = 20.0  # of the noise of standardised targets
RESULT = RESULTS / "rescaling_networks.json"
FIGURE = RESULT.with_suffix(".svg")


Measure = Callable[[Tensor, Tensor], Tensor]


def measured(case: Trained) -> dict:
    """Ratios of rescaled banks over real ones for each M', with what was said against them."""
    measure = epistemic_variance if case.outputs == "values" else mutual_information
    seeds = range(case.banks)
    origins = [case.bank(case.batch_size, seed=seed, limit=512) for seed in seeds]
    rows = []
    for index, factor in enumerate(FACTORS, start=1):
        size = round(case.batch_size * factor)
        if 2 <= size < len(case.examples):
            real = [case.bank(size, seed=100 * index + seed) for seed in seeds]
            row = compared(case, origins, real, measure)
            rows.append({"batch_size": size, "factor": factor, **row})
    return {
        "title": case.title,
        "measure": measure.__name__,
        "batch_size": case.batch_size,
        "population": len(case.examples),
        "draws": case.draws,
        "banks": case.banks,
        "limit_known": all(bool(origin.bias) for origin in origins),
        "rescaled": rows,
        "verdict": overall(row for row in rows if claimed(row)),
    }


def compared(
    case: Trained, origins: list[mcbn.Bank], real: list[mcbn.Bank], measure: Measure
) -> dict:
    """Ratios at one M', and what the banks have said against rescaling to it."""
    size = round(real[0].size)
    exact = estimates(case, real, measure)
    made = [rescaled_banks(origin, size) for origin in origins]
    others = [in_coordinates(origin, size) for origin in origins]
    row: dict = {"real": float(exact[0])}
    for name in made[0]:
        row[name] = interval(estimates(case, [banks[name] for banks in made], measure) / exact)
    row["coordinates"] = {"log": row["package"][0]}
    for name in COORDINATES:
        banks = [each[name] for each in others]
        row["coordinates"][name] = float((estimates(case, banks, measure) / exact)[0])
    doubts = [origin.doubts(size) for origin in origins]
    row["doubts"] = [reason(doubt) for doubt in doubts[0]]
    row["doubting"] = sum(bool(each) for each in doubts) / len(doubts)
    row["verdict"] = verdict(row["package"], doubted=row["doubting"] >= 0.5)
    return row


def estimates(case: Trained, banks: list[mcbn.Bank], measure: Measure) -> Tensor:
    """The measure averaged over banks: of all draws, and then of each resample of the draws."""
    generator = torch.Generator().manual_seed(0)
    values = []
    for bank in banks:
        chosen = torch.randint(len(bank), (RESAMPLES, len(bank)), generator=generator)
        counts = torch.stack([row.bincount(minlength=len(bank)) for row in chosen])
        predictions = case.predictions(bank)
        weights = torch.cat([evenly(predictions), counts.double() / len(bank)])
        values.append(measure(predictions, weights))
    return torch.stack(values).mean(0)


def interval(ratios: Tensor) -> list[float]:
    """The first of the ratios, with the interval of the others."""
    tails = torch.tensor([(1 - LEVEL) / 2, (1 + LEVEL) / 2], dtype=torch.float64)
    return [float(ratios[0]), *ratios[1:].quantile(tails).tolist()]


def rescaled_banks(origin: mcbn.Bank, size: int) -> dict[str, mcbn.Bank]:
    """The bank at another batch size: by the package, by the rule before it, and merged."""
    banks = {"package": origin.rescale(size, warn=False), "old": rescaled_before(origin, size)}
    if size > origin.size:
        banks["merge"] = origin.merge(round(size / origin.size))
    return banks


def rescaled_before(bank: mcbn.Bank, size: int) -> mcbn.Bank:
    """The rule of earlier versions: log v, toward all draws pooled, for an infinite population."""
    ratio = bank.size / size
    moved = {}
    limits = pooled(bank.statistics)
    for name, rows in bank.statistics.items():
        values, limit = (logarithm(name, each) for each in (rows, limits[name]))
        center = values.mean(0)
        shifted = limit + (center - limit) * ratio + (values - center) * math.sqrt(ratio)
        moved[name] = (shifted.exp() if name.endswith(VARIANCE) else shifted).to(rows.dtype)
    return replace(bank, statistics=moved, batch_size=size)


def logarithm(name: str, values: Tensor) -> Tensor:
    """A mean as it is, or the logarithm of a variance, in float64."""
    values = values.double()
    return values.clamp_min(SMALLEST_VARIANCE).log() if name.endswith(VARIANCE) else values


@dataclass(frozen=True)
class Coordinate:
    """A function of v + epsilon, its inverse, and whether the mean is multiplied by it."""

    forward: Callable[[Tensor], Tensor]
    backward: Callable[[Tensor], Tensor]
    shift: bool = False


COORDINATES = {
    "cube root": Coordinate(lambda v: v.pow(1 / 3), lambda b: b.pow(3)),
    "reciprocal root": Coordinate(lambda v: v.rsqrt(), lambda b: b.pow(-2)),
    "shift and scale": Coordinate(lambda v: v.rsqrt(), lambda b: b.pow(-2), shift=True),
}


def in_coordinates(bank: mcbn.Bank, size: int) -> dict[str, mcbn.Bank]:
    """The bank rescaled in other coordinates, toward the limit of the package.

    Channels that the package merges are merged here as well, so that only coordinates differ.
    """
    package = bank.rescale(size, warn=False).statistics
    dead = dead_in_some(bank.statistics, bank.epsilon) if size > bank.size else {}
    limits = limit(bank)
    banks = {}
    for title, coordinate in COORDINATES.items():
        moved = {}
        for name in (name for name in bank.statistics if name.endswith(VARIANCE)):
            pair = moved_pair(bank, limits, name, coordinate, size)
            for each, values in zip((partner(name), name), pair, strict=True):
                values = values.to(package[each].dtype)
                kept = dead.get(name, torch.zeros_like(values[0], dtype=torch.bool))
                moved[each] = torch.where(kept, package[each], values)
        banks[title] = replace(bank, statistics=moved, batch_size=size)
    return banks


def limit(bank: mcbn.Bank) -> dict[str, Tensor]:
    """Means and variances of an infinite batch, as the package takes them."""
    if not bank.bias:
        return bank.pooled()
    centers = {
        name: values.mean(0) - bank.bias[name] for name, values in bank.coordinates().items()
    }
    return to_statistics(centers, bank.epsilon)


def moved_pair(
    bank: mcbn.Bank, limits: dict[str, Tensor], name: str, coordinate: Coordinate, size: int
) -> tuple[Tensor, Tensor]:
    """Means and variances of one layer's draws, rescaled in a coordinate."""
    epsilon = bank.epsilon[name]
    factor = ratio_of_scales(bank.size, torch.tensor(size, dtype=torch.float64), bank.population)
    draws = to_pair(bank.statistics, name, coordinate, epsilon)
    ends = to_pair(limits, name, coordinate, epsilon)
    moved = []
    for values, end in zip(draws, ends, strict=True):
        center = values.mean(0)
        moved.append(end + (center - end) * factor + (values - center) * factor.sqrt())
    # What no variance has is not to be come to, as a negative root.
    bounds = coordinate.forward(torch.tensor([epsilon, 1e12], dtype=torch.float64))
    scale = moved[1].clamp(bounds.min(), bounds.max())
    mean = -moved[0] / scale if coordinate.shift else moved[0]
    return mean, (coordinate.backward(scale) - epsilon).clamp_min(0.0)


def to_pair(
    statistics: dict[str, Tensor], name: str, coordinate: Coordinate, epsilon: float
) -> tuple[Tensor, Tensor]:
    """The two coordinates of a layer."""
    mean, scale = (
        statistics[partner(name)].double(),
        coordinate.forward(statistics[name].double() + epsilon),
    )
    return (-mean * scale if coordinate.shift else mean), scale


def epistemic_variance(values: Tensor, weights: Tensor) -> Tensor:
    """Variance over draws, averaged over inputs; one value per weighting."""
    values, count = values.flatten(1), len(values)
    variance = weights @ values.square() - (weights @ values).square()
    return variance.clamp_min(0).mean(1) * count / (count - 1)


def reason(doubt: str) -> str:
    """What a doubt says, without the sizes before it and the advice after it."""
    return doubt.partition("collected there: ")[2].partition("; collect")[0] or doubt


def verdict(interval: list, *, doubted: bool) -> str:
    """Whether a ratio is right; if it is not, whether that was said.

    "unclear" is not right, but for its interval; "false alarm" is right, though doubted.
    """
    value, low, high = interval
    if abs(value - 1) <= TOLERANCE:
        return "false alarm" if doubted else "right"
    if doubted:
        return "doubted"
    return "silent" if low > 1 + TOLERANCE or high < 1 - TOLERANCE else "unclear"


def claimed(row: dict) -> bool:
    """Whether it was rescaled, and no farther than where rescaling is said to be right."""
    return CLAIMED[0] <= row["factor"] <= CLAIMED[1] and row["factor"] != 1


def overall(rows: Iterable[dict]) -> str:
    """The worst verdict."""
    return max((row["verdict"] for row in rows), key=VERDICTS.index)


def summary(networks: dict) -> dict:
    """By method and by coordinate: how many ratios are right, and how far off they are."""
    rows = [row for each in networks.values() for row in each.get("rescaled", ())]
    parts = {
        "claimed": [row for row in rows if claimed(row)],
        "below": [row for row in rows if row["factor"] == 1 / 2],
        "above": [row for row in rows if row["factor"] in (2, 4)],
        "beyond": [row for row in rows if not claimed(row) and row["factor"] != 1],
    }
    return {part: summarized(chosen) for part, chosen in parts.items() if chosen}


def summarized(rows: list[dict]) -> dict:
    """Agreement by method and by coordinate, and the number of rows of each verdict."""
    methods = {name: [row[name][0] for row in rows if name in row] for name in METHODS}
    names = ("log", *COORDINATES)
    coordinates = {name: [row["coordinates"][name] for row in rows] for name in names}
    return {
        "methods": {name: agreement(ratios) for name, ratios in methods.items()},
        "coordinates": {name: agreement(ratios) for name, ratios in coordinates.items()},
        "verdicts": {name: sum(row["verdict"] == name for row in rows) for name in VERDICTS},
    }


def agreement(ratios: list[float]) -> dict:
    """How many ratios are within the tolerance, and their root mean square logarithm."""
    if not ratios:
        return {"right": 0, "of": 0}
    logarithms = torch.tensor(ratios, dtype=torch.float64).clamp_min(1e-3).log()
    return {
        "right": sum(abs(each - 1) <= TOLERANCE for each in ratios),
        "of": len(ratios),
        "rms_log": float(logarithms.square().mean().sqrt()),
        "lowest": min(ratios),
        "highest": max(ratios),
    }


def limits_tried() -> dict:
    """NLL on concrete of rescaled banks minus real ones, by the size of the larger batch."""
    results: dict[str, dict] = {}
    for seed in LIMIT_SEEDS:
        case = regression("concrete", seed)
        real = {
            size: (nll(case, case.bank(size, seed=1, draws=REAL_DRAWS))
                   + nll(case, case.bank(size, seed=2, draws=REAL_DRAWS))) / 2
            for size in LIMIT_SIZES
        }  # fmt: skip
        differences = {}
        for examples in LIMITS:
            gaps = []
            for index in range(LIMIT_BANKS):
                bank = case.bank(32, seed=10 + index, draws=LIMIT_DRAWS, limit=examples)
                gaps.append([nll(case, bank.rescale(s, warn=False)) - real[s] for s in LIMIT_SIZES])
            columns = torch.tensor(gaps, dtype=torch.float64)
            differences[str(examples)] = {
                str(size): {"mean": float(column.mean()), "sd": float(column.std())}
                for size, column in zip(LIMIT_SIZES, columns.T, strict=True)
            }
        results[str(seed)] = {"real_nll": real, "differences": differences}
    return results


def nll(case: Trained, bank: mcbn.Bank) -> float:
    """NLL of a Gaussian mixture over draws, in nats, for standardised targets."""
    likelihood = mcbn.Gaussian(precision=PRECISION)
    sampler = mcbn.MCBatchNorm(case.network, bank)
    predictive = mcbn.predict(sampler, case.inputs, likelihood, progress=False)
    return -float(predictive.log_prob(case.targets).mean())


def main(names: Iterable[str]) -> None:
    """Measure the named networks, all by default; other results are kept."""
    warnings.simplefilter("ignore", mcbn.InconsistentBankWarning)
    torch.set_num_threads(1)
    results = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    networks = results.setdefault("networks", {})
    for name in names or [*CASES, "limit"]:
        start = time.perf_counter()
        if name == "limit":
            results["limit"] = limits_tried()
        else:
            networks[name] = tried(CASES[name])
            networks.update({each: networks.pop(each) for each in CASES if each in networks})
        results["summary"] = summary(networks)
        write_whole(RESULT, (json.dumps(rounded(results), indent=1) + "\n").encode())
        print(f"{name}: {time.perf_counter() - start:.0f} s", flush=True)
    draw(json.loads(RESULT.read_text()))


def tried(make: Callable[[], Trained]) -> dict:
    """Measure a network, or say that its package is missing."""
    try:
        case = make()
    except ImportError as error:
        return {"left_out": str(error)}
    result = measured(case)
    for row in result["rescaled"]:
        ratios = {name: [round(each, 2) for each in row[name]] for name in METHODS if name in row}
        print(result["title"], row["batch_size"], ratios, row["verdict"], flush=True)
    return result


def draw(results: dict) -> None:
    """Draw the ratios by network and M', before and after."""
    networks = [each for each in results["networks"].values() if "rescaled" in each]
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        height = 1.2 + 0.3 * len(networks)
        figure = Figure(figsize=(11, height), layout="constrained")
        panels = figure.subplots(1, 2, sharey=True)
        for ax, method, title in zip(panels, ("old", "package"), ("before", "after"), strict=True):
            draw_ratios(networks, method, ax)
            ax.set_title(f"Rescaled / real, {title}")
        panels[1].set_xlabel("Batch size rescaled to (in brackets: doubted)")
        panels[0].set_yticks(range(len(networks)), [each["title"] for each in networks])
        figure.savefig(FIGURE, metadata=dict.fromkeys(("Date", "Creator")))


def draw_ratios(networks: list[dict], method: str, ax: Axes) -> None:
    """Shade the ratios; those doubted are in brackets, those silently wrong are red and bold."""
    shades = torch.full((len(networks), len(FACTORS)), math.nan)
    for line, network in enumerate(networks):
        for row in network["rescaled"]:
            column, value = FACTORS.index(row["factor"]), row[method][0]
            shades[line, column] = math.log2(max(value, 1e-3))
            said = row["verdict"] if method == "package" else ""
            text = f"({value:.2f})" if said in ("doubted", "false alarm") else f"{value:.2f}"
            place = {"ha": "center", "va": "center"}
            if said == "silent":
                ax.text(column, line, text, **place, color=figures.SERIES[1], weight="bold")
            else:
                ax.text(column, line, text, **place, color=figures.INK)
    ax.imshow(shades, cmap="PuOr", vmin=-2, vmax=2, aspect="auto", alpha=0.6)
    names = {1: "M"} | {each: f"M/{round(1 / each)}" for each in FACTORS if each < 1}
    labels = [names.get(each, f"{each:g}M") for each in FACTORS]
    ax.set_xticks(range(len(FACTORS)), labels)
    ax.set_xlabel("Batch size rescaled to")


if __name__ == "__main__":
    main(sys.argv[1:])
