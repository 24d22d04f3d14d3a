"""Does mutual information rank images otherwise than expected entropy does?

Run: python -m experiments.comparisons.mutual_information [--fast]
(about 2 minutes on 1 core, after the draws of `baselines`; MCBN_DATA)

To first order the mutual information of an image is half the variance of its logits over draws,
weighted by p (1 - p): docs/method.md, "What mutual information ranks". The entropy is a function of
p alone. So both rank images alike where that variance differs little from image to image, beside
how much p (1 - p) does. Planned, per network with t-intervals over networks, CIFAR-10 and MNIST
apart, clean images and those of no class together with them, T = 16:

1. (primary) Spearman's correlation of mutual information with expected entropy: MCBN (M = 32)
   minus dropout, and, of MNIST, minus an ensemble of five.
2. The correlation by M, and by T for MCBN.
3. Spread over images of the log of p (1 - p) and of the log of the variance, which say why.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import matplotlib
import torch
from jaxtyping import Float, Float64
from matplotlib.figure import Figure
from scipy.stats import spearmanr
from torch import Tensor

from experiments.comparisons.baselines import cases, tiny_cases
from experiments.comparisons.baselines_cases import Case
from experiments.comparisons.baselines_draws import Draws, Scale, draws_of
from experiments.comparisons.baselines_scores import COMPARED, PASSES, predicted
from experiments.intervals import interval
from experiments.record import RESULTS, STYLE, Record, asked
from mcbn.drawing.figures import SERIES

LEAST = 1e-12  # of what a logarithm is taken of


def main(record: Record) -> None:
    """Measure each network, and write."""
    torch.set_num_threads(1)
    kinds = tiny_cases() if record.fast else cases()
    scale = Scale(64, COMPARED, RESULTS / "draws")
    if record.fast:
        scale = Scale(4, 2, record.folder / "draws")
    networks = {
        kind: {
            name: record.part(name, partial(measured, name, case, scale))
            for name, case in named.items()
        }
        for kind, named in kinds.items()
    }
    rows = {kind: list(named.values()) for kind, named in networks.items()}
    result = {
        "draws": scale.few, "networks": networks,
        "over_networks": {kind: over(each) for kind, each in rows.items()},
        "planned": {kind: planned(each) for kind, each in rows.items()},
    }  # fmt: skip
    record.write(result)
    record.draw(drawn_figure(result))


def measured(name: str, case: Callable[[], Case], scale: Scale) -> dict[str, Any]:
    """Correlations and spreads of one network, by method."""
    made = case()
    found: dict[str, Any] = {}
    for method, draws in draws_of(name, made, scale).items():
        if method == "plain":
            continue
        parts = ("clean", *made.outside)
        few = min(len(draws[part]) for part in parts)
        found[method] = {
            "clean": described(draws["clean"][:few]),
            "with no class": described(torch.cat([draws[part][:few] for part in parts], 1)),
            "by draws": by_draws(draws),
        }
    return found


def by_draws(draws: Draws) -> dict[str, float]:
    """The correlation on clean images by T."""
    clean = draws["clean"]
    return {str(count): correlation(clean[:count]) for count in PASSES[1:] if count <= len(clean)}


def correlation(draws: Float[Tensor, "draws batch classes"]) -> float:
    """Spearman's correlation of mutual information with expected entropy."""
    summary = predicted(draws, count=len(draws))
    return float(spearmanr(summary.mutual_information, summary.expected_entropy).statistic)


def described(draws: Float[Tensor, "draws batch classes"]) -> dict[str, float]:
    """The correlation, and the parts that mutual information has to first order."""
    curvature, variance = first_order(draws.double())
    summary = predicted(draws, count=len(draws))
    product = curvature * variance / 2
    logs = [value.clamp(min=LEAST).log() for value in (curvature, variance)]
    return {
        "correlation": correlation(draws),
        "correlation with first order": float(
            spearmanr(summary.mutual_information, product).statistic
        ),
        "spread of log p(1 - p)": float(logs[0].std()),
        "spread of log variance": float(logs[1].std()),
        "variance with entropy": float(spearmanr(variance, summary.entropy).statistic),
    }


def first_order(
    draws: Float64[Tensor, "draws batch classes"],
) -> tuple[Float64[Tensor, " batch"], Float64[Tensor, " batch"]]:
    """The weight sum_c p_c (1 - p_c) of an image, and the variance of its logits so weighted.

    Their product is the trace of the covariance of the logits with diag(p) - p p^T.
    """
    middle = draws.mean(0)
    p = middle.softmax(1)
    deviations = draws - middle
    # Logits are known but for a constant: p^T d is the one that the trace leaves out.
    deviations = deviations - (deviations * p).sum(2, keepdim=True)
    trace = (deviations.square() * p).sum(2).mean(0)
    weight = (p * (1 - p)).sum(1)
    return weight, trace / weight.clamp(min=LEAST)


def over(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over networks with their intervals."""
    return {
        method: {
            part: {key: interval([row[method][part][key] for row in rows]) for key in keys}
            for part, keys in parts.items()
        }
        for method, parts in rows[0].items()
    }


def planned(rows: list[dict[str, Any]]) -> dict[str, list[float]]:
    """MCBN minus the others, on clean images and with those of no class."""
    others = [name for name in ("dropout", "ensemble") if name in rows[0]]

    def value(row: Mapping[str, Any], method: str, part: str) -> float:
        return float(row[method][part]["correlation"])

    return {
        f"MCBN, M = 32 - {other}, {part}": interval(
            [value(row, "MCBN, M = 32", part) - value(row, other, part) for row in rows]
        )
        for other in others
        for part in ("clean", "with no class")
    }


def drawn_figure(result: dict[str, Any]) -> Figure:
    """The correlation of each method, and the two spreads that explain it."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9, 3.6), layout="constrained")
        panels = figure.subplots(1, 2, sharey=True)
        methods = max((list(each) for each in result["over_networks"].values()), key=len)
        for number, (kind, found) in enumerate(result["over_networks"].items()):
            rows = [method for method in methods if method in found]
            places = [methods.index(method) + 0.25 * number for method in rows]
            for axes, key in zip(panels, ("correlation", "spread of log variance"), strict=True):
                for place, method in zip(places, rows, strict=True):
                    mean, low, high = found[method]["with no class"][key]
                    axes.plot([low, high], [place, place], color=SERIES[number], linewidth=1.5)
                    axes.plot(mean, place, "o", color=SERIES[number], markersize=4,
                              label=kind if method == rows[0] else None)  # fmt: skip
            spread = found[rows[0]]["with no class"]["spread of log p(1 - p)"][0]
            panels[1].axvline(spread, color=SERIES[number], linewidth=0.8, dashes=(4, 3))
        panels[0].set_yticks(range(len(methods)), methods)
        panels[0].invert_yaxis()
        panels[0].set(title="Correlation with expected entropy", xlim=(None, 1.02))
        panels[1].set_title("Spread of the log variance")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2,
                      frameon=False)  # fmt: skip
    return figure


if __name__ == "__main__":
    main(asked("mutual_information"))
