"""Pictures of choices: the curve over batch sizes and its best one, and layers beside all."""

import math

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mcbn.drawing.figures import INK, SERIES
from mcbn.drawing.plotted import Plotted
from mcbn.study.choice import BatchSizeChoice
from mcbn.study.layer_choice import LayerChoice

CRITERIA = {"log_score": "Held-out NLL (nats)", "elbo": "Minus ELBO per example (nats)"}


def draw_choice(choice: BatchSizeChoice, ax: Axes | None = None) -> Axes:
    """Draw the criterion against the batch size, of rescaled and of collected draws.

    The line is the curve of rescaled draws with its intervals over examples; the points are draws
    really collected, each beside as many rescaled ones, with the interval of their difference. The
    dashed line is the best size, and the shaded range its interval.

    Args:
        choice: of `choose_batch_size`.
        ax: where to draw; a new figure if it is left out.

    Returns:
        The axes, whose `figure` can be shown or saved.
    """
    if ax is None:
        ax = Figure(figsize=(5.5, 3.6), layout="constrained").subplots()
    sizes = choice.batch_sizes.tolist()
    low, high = (min(max(end, sizes[0]), sizes[-1]) for end in choice.interval)
    ax.axvspan(low, high, color="0.5", alpha=0.15, linewidth=0, label="interval of the best size")
    ax.axvline(choice.best, color=INK, linewidth=1, dashes=(4, 3), label="best size")
    ax.plot(sizes, choice.values.tolist(), color=SERIES[0], label="rescaled draws")
    ax.fill_between(
        sizes,
        choice.low.tolist(),
        choice.high.tolist(),
        color=SERIES[0],
        alpha=0.2,
        linewidth=0,
        label="their interval over examples",
    )
    if (found := choice.confirmation) is not None:
        rescaled = [value - gap for value, gap in zip(found.values, found.gaps, strict=True)]
        errors = [
            [gap - end for gap, end in zip(found.gaps, found.low, strict=True)],
            [end - gap for gap, end in zip(found.gaps, found.high, strict=True)],
        ]
        ax.plot(found.batch_sizes, rescaled, "o", color=SERIES[0], fillstyle="none",
                label=f"{found.draws} rescaled draws")  # fmt: skip
        ax.errorbar(found.batch_sizes, found.values, yerr=errors, fmt="s", color=SERIES[1],
                    label=f"{found.draws} collected draws")  # fmt: skip
    ax.set_xscale("log", base=2)
    # The ends of the search may be a rounding error inside a power of two.
    low, high = math.log2(sizes[0]) - 1e-6, math.log2(sizes[-1]) + 1e-6
    powers = range(math.ceil(low), math.floor(high) + 1)
    ax.set_xticks([2**power for power in powers], labels=[f"{2**power:g}" for power in powers])
    ax.set(xlabel="Batch size M", ylabel=CRITERIA[choice.criterion])
    ax.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=1)
    return ax


def choice_table(choice: BatchSizeChoice) -> tuple[Plotted, ...]:
    """The numbers that `draw_choice` draws."""
    y = CRITERIA[choice.criterion]
    curve: dict[str, list[float]] = {
        "M": choice.batch_sizes.tolist(), y: choice.values.tolist(),
        "low": choice.low.tolist(), "high": choice.high.tolist(),
    }  # fmt: skip
    tables = [Plotted("rescaled draws", curve, ("M", y))]
    if (found := choice.confirmation) is not None:
        ends = {
            side: [value - gap + end for value, gap, end in
                   zip(found.values, found.gaps, reached, strict=True)]
            for side, reached in (("low", found.low), ("high", found.high))
        }  # fmt: skip
        sizes = [float(size) for size in found.batch_sizes]
        collected: dict[str, list[float]] = {"M": sizes, y: list(found.values), **ends}
        tables.append(Plotted(f"{found.draws} collected draws", collected, ("M", y), 1))
    return tuple(tables)


def draw_layer_choice(choice: LayerChoice, ax: Axes) -> Axes:
    """Draw what each candidate's NLL is minus that of all layers, and the cross-fitted one's.

    The intervals of the candidates hold at once; the best candidate is at the top.
    """
    others = sorted(choice.candidates[1:], key=lambda candidate: -candidate.value)
    low, high = choice.gain_interval
    names = ["chosen, cross-fitted", *(candidate.name for candidate in others)]
    gaps = [choice.gain, *(candidate.difference for candidate in others)]
    ends = [(low, high), *(candidate.difference_interval for candidate in others)]
    errors = [
        [max(gap - low, 0.0) for gap, (low, _) in zip(gaps, ends, strict=True)],
        [max(high - gap, 0.0) for gap, (_, high) in zip(gaps, ends, strict=True)],
    ]
    ax.axvline(0, color=INK, linewidth=1, dashes=(4, 3), label="all layers")
    drawn = ((slice(1), SERIES[1], names[0]), (slice(1, None), SERIES[0], "candidates"))
    for rows, color, label in drawn:
        ax.errorbar(gaps[rows], range(len(names))[rows], xerr=[side[rows] for side in errors],
                    fmt="o", color=color, label=label)  # fmt: skip
    ax.set_yticks(range(len(names)), labels=names)
    ax.set(xlabel="Held-out NLL minus that of all layers (nats)")
    return ax
