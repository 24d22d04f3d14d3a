"""Does batch norm move the optimum of the ELBO? And how does the best batch size grow with N?

Run: python -m experiments.reproductions.elbo [--fast]
(about 5 minutes on 2 cores; data root in MCBN_DATA)
"""

import warnings
from dataclasses import dataclass
from functools import partial
from typing import Any, get_args

import matplotlib
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

import mcbn
from experiments.intervals import interval
from experiments.record import STYLE, Record, asked
from experiments.reproductions import elbo_growth
from experiments.reproductions import elbo_model as exact
from experiments.reproductions.elbo_growth import UNIT
from mcbn.drawing import figures
from mcbn.study.slopes import log_log_slope

MEASURES = {"objective": -1.0, "mean of q": -1.0, "ELBO lost": -2.0}  # expected slopes
CLAIM = {
    "source": "Mukhoti, Dokania and Torr 2020, abstract; no figure of its experiments is known",
    "optimum": "batch norm does not affect the optimum of the ELBO",
    "growth": "as the data grow without limit, so must the batch size",
}


@dataclass(frozen=True)
class Scale:
    """Size of the experiment.

    Attributes:
        examples: N of the exact models; a multiple of every M.
        data_sets: number of data sets of the exact models.
        batch_sizes: M of the mini-batch objective.
        permutations: permutations of the data that are divided into mini-batches.
        starts: random starts of the dropout model per data set.
        growth: size of the experiment with trained networks.
    """

    examples: int
    data_sets: int
    batch_sizes: tuple[int, ...]
    permutations: int
    starts: int
    growth: elbo_growth.Scale


GROWTH = elbo_growth.Scale((256, 512, 1024, 2048, 4096, 8192), seeds=5, steps=1536, draws=128)
FULL = Scale(1024, 5, (8, 16, 32, 64, 128), permutations=16, starts=12, growth=GROWTH)
TINY = elbo_growth.Scale((64, 128), seeds=2, steps=20, draws=8)
FAST = Scale(64, 2, (8, 16), permutations=1, starts=1, growth=TINY)


def main(record: Record) -> None:
    """Measure, write the result and draw the figure."""
    torch.set_num_threads(1)
    if record.fast:  # after a few steps the running statistics lag behind the weights
        warnings.simplefilter("ignore", mcbn.InconsistentBankWarning)
    scale = FAST if record.fast else FULL
    every, rows = range(scale.data_sets), []
    for seed in range(scale.growth.seeds):
        make = partial(elbo_growth.trained, scale.growth, seed)
        rows += record.part(f"trained-{seed}", make)
    result = {
        "paper": CLAIM,
        "mean_field": record.part("mean-field", partial(mean_field, scale)),
        "minibatch": minibatch(
            scale, [record.part(f"minibatch-{i}", partial(gaps, scale, i)) for i in every]
        ),
        "dropout": record.part("dropout", partial(dropout, scale)),
        "closed_form": elbo_growth.closed_form(),
        "trained": elbo_growth.growth(scale.growth, rows),
    }
    draw(record, record.write(result))


def mean_field(scale: Scale) -> dict[str, Any]:
    """Optima of the exact ELBO in both parametrisations, for each family of q."""
    results: dict[str, Any] = {}
    for family in get_args(exact.Family):
        gains, apart = [], []
        for index in range(scale.data_sets):
            data = exact.sample(scale.examples, index)
            (plain, low), (normed, high) = (
                optimum(data, exact.Form(batch_norm, family)) for batch_norm in (False, True)
            )
            gains.append(high - low)
            apart.append(distance(plain, normed))
        results[family] = {
            "ELBO, batch norm minus plain": interval(gains),
            "largest gap of the ELBO": max(map(abs, gains)),
            "largest gap of q": max(apart),
        }
    return results


def optimum(data: exact.Data, form: exact.Form) -> tuple[exact.Posterior, float]:
    """The best q by the exact ELBO with population statistics, and that ELBO."""

    def objective(free: Tensor) -> Tensor:
        return exact.population_elbo(exact.posterior(free, data, form), data)

    free, value = exact.maximize(objective, exact.start(data, form))
    return exact.posterior(free, data, form), value


def distance(one: exact.Posterior, other: exact.Posterior) -> float:
    """Largest absolute difference between two posteriors."""
    pairs = [(getattr(one, name), getattr(other, name)) for name in ("mean", "factor", "output")]
    return max(float((a - b).abs().max()) for a, b in pairs)


def gaps(scale: Scale, index: int) -> dict[str, Any]:
    """Differences of the optimum with mini-batch statistics, at each M, on one data set."""
    data, form = exact.sample(scale.examples, index), exact.Form(batch_norm=True)
    best, value = optimum(data, form)
    rows: dict[str, list[float]] = {name: [] for name in MEASURES}
    for size in scale.batch_sizes:
        batches = exact.cut(scale.examples, size, scale.permutations, index)

        objective = partial(over_batches, data, form, batches)
        free, top = exact.maximize(objective, exact.start(data, form))
        moved = exact.posterior(free, data, form)
        lost = value - float(exact.population_elbo(moved, data))
        rows["objective"].append((value - top) / scale.examples)
        rows["mean of q"].append(float((moved.mean - best.mean).norm()))
        rows["ELBO lost"].append(lost / scale.examples)
    whole = exact.minibatch_elbo(best, data, torch.arange(scale.examples)[None])
    return {"rows": rows, "at M = N": abs(float(whole) - value)}


def over_batches(data: exact.Data, form: exact.Form, batches: Tensor, free: Tensor) -> Tensor:
    """The mini-batch objective as a function of the free parameters."""
    return exact.minibatch_elbo(exact.posterior(free, data, form), data, batches)


def minibatch(scale: Scale, results: list[dict[str, Any]]) -> dict[str, Any]:
    """Differences against M with their slopes, also corrected for the finite-population factor."""
    count = scale.examples
    factors = [(count - size) / (count - 1) for size in scale.batch_sizes]
    answer: dict[str, Any] = {"batch_sizes": scale.batch_sizes}
    for name, expected in MEASURES.items():
        rows = [each["rows"][name] for each in results]
        corrected = [
            [gap / factor**-expected for gap, factor in zip(row, factors, strict=True)]
            for row in rows
        ]
        answer[name] = {
            "gap": [interval(list(column)) for column in zip(*rows, strict=True)],
            "slope": interval([log_log_slope(scale.batch_sizes, tuple(row)) for row in rows]),
            "corrected slope": interval(
                [log_log_slope(scale.batch_sizes, tuple(row)) for row in corrected]
            ),
            "expected slope": expected,
        }
    answer["largest gap at M = N"] = max(each["at M = N"] for each in results)
    return answer


def dropout(scale: Scale) -> dict[str, Any]:
    """Optima of the MC dropout objective by enumeration, plain and with batch norm."""
    forms = {"plain": (False, "effective"), "batch norm": (True, "effective"), "own": (True, "own")}
    same, gap, apart, lost, moved = 0, [], [], [], []
    for index in range(scale.data_sets):
        data = exact.sample(scale.examples // 4, 100 + index)
        best: dict[str, tuple[float, exact.Layer]] = {}
        values: dict[str, list[float]] = {}
        for name, (normed, penalized) in forms.items():
            value = partial(exact.dropout_objective, data=data, penalized=penalized)
            nets = [peak(data, value, seed, normed) for seed in range(scale.starts)]
            values[name] = [float(value(net)) for net in nets]
            best[name] = max(zip(values[name], nets, strict=True), key=lambda pair: pair[0])
        pairs = zip(values["plain"], values["batch norm"], strict=True)
        same += sum(abs(one - other) < 1e-6 for one, other in pairs)
        gap.append(abs(best["plain"][0] - best["batch norm"][0]))
        layers = {name: exact.canonical(net) for name, (_, net) in best.items()}
        apart.append(float((layers["plain"] - layers["batch norm"]).abs().max()))
        moved.append(float((layers["plain"] - layers["own"]).norm()))
        own = exact.dropout_objective(best["own"][1], data, penalized="effective")
        lost.append(best["plain"][0] - float(own))
    return {
        "masks": 2 ** (exact.FEATURES + exact.UNITS),
        "largest gap of the objective": max(gap),
        "largest gap of the parameters": max(apart),
        "starts": scale.starts * scale.data_sets,
        "starts with the same optimum": same,
        "own penalty: objective lost": interval(lost),
        "own penalty: parameters moved": interval(moved),
    }


def peak(data: exact.Data, value: Any, seed: int, batch_norm: bool) -> exact.Layer:
    """The layer found from one random start."""
    free, _ = exact.maximize(
        lambda free: value(exact.layer(free, data, batch_norm=batch_norm)),
        exact.dropout_start(data, seed, batch_norm=batch_norm),
    )
    return exact.layer(free, data, batch_norm=batch_norm)


def draw(record: Record, result: dict[str, Any]) -> None:
    """Draw the differences against M on the left and M* against N on the right."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9, 3.9), layout="constrained")
        left, right = figure.subplots(1, 2)
        draw_gaps(result["minibatch"], left)
        draw_growth(result, right)
        record.draw(figure)


def draw_gaps(result: dict[str, Any], ax: Axes) -> None:
    """Plot the effect of mini-batch statistics, with the expected slopes as dotted lines."""
    sizes = result["batch_sizes"]
    places = ((sizes[0], 2, -24), (sizes[len(sizes) // 2], 6, 6), (sizes[1], 6, 5))
    labels = ("objective (nats)", "mean of q", "population ELBO lost (nats)")
    for style, (name, label) in enumerate(zip(MEASURES, labels, strict=True)):
        curve = curve_of(label, sizes, result[name]["gap"], style)
        figures.draw_curves([curve], ax)
        line = [curve.y[0] * (size / sizes[0]) ** MEASURES[name] for size in sizes]
        ax.plot(sizes, line, color=figures.color(style), linestyle=":", linewidth=1)
        x, right, up = places[style]
        ax.annotate(label, (x, curve.y[sizes.index(x)]), xytext=(right, up),
                    textcoords="offset points", color=figures.color(style))  # fmt: skip
    ax.set(yscale="log", title="Mini-batch statistics: gap to population statistics")
    figures.doubling_axis(sizes, ax, label="Batch size M of the statistics")
    ax.set_ylabel("Gap an example; dotted: slopes -1, -1, -2")


def draw_growth(result: dict[str, Any], ax: Axes) -> None:
    """Plot the formula of one unit and the optima of the trained networks."""
    trained = result["trained"]
    sizes = trained["N"]
    labels = {"trained": "trained on N", "told": "largest net, told N"}
    curves = [curve_of(name, sizes, trained[kind]["best"], style)
              for style, (kind, name) in enumerate(labels.items())]  # fmt: skip
    figures.draw_curves(curves, ax)
    offset = UNIT["sigma2"] / UNIT["s"] ** 2
    formula = [count * UNIT["tau"] * UNIT["gamma"] ** 2 + offset for count in sizes]
    ax.plot(sizes, formula, color=figures.color(2), linewidth=1.4)
    ends = [(curve.name, curve.y, curve.style) for curve in curves]
    ends.append(("one unit, formula", tuple(formula), 2))
    places = ((0, 0, 26), (1, 6, -14), (1, 12, -8))
    for (name, y, style), (index, right, up) in zip(ends, places, strict=True):
        ax.annotate(
            name,
            (sizes[index], y[index]),
            xytext=(right, up),
            textcoords="offset points",
            va="center",
            color=figures.color(style),
        )
    ax.set(yscale="log", ylabel="Best batch size M* by the ELBO", title="Best batch size against N")
    figures.doubling_axis(sizes, ax, label="Training examples N")


def curve_of(name: str, x: list[int], rows: list[list[float]], style: int) -> figures.Curve:
    """A curve with its band, from means and interval ends."""
    y, low, high = zip(*rows, strict=True)
    return figures.Curve(name, tuple(x), y, low, high, style)


if __name__ == "__main__":
    main(asked("elbo"))
