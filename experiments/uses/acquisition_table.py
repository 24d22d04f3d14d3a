"""The tables of the page on active learning, printed after a run."""

from typing import Any

from experiments.uses.acquisition_figure import NAMES, TITLES

PLANNED = {
    "mnist: mcbn minus random": "MNIST, accuracy: MCBN minus random (primary)",
    "mnist: mcbn minus dropout": "MNIST, accuracy: MCBN minus dropout",
    "kin8nm: mcbn minus random": "kin8nm, RMSE: MCBN minus random",
    "kin8nm: mcbn minus dropout": "kin8nm, RMSE: MCBN minus dropout",
}


def tables(result: dict[str, Any]) -> str:
    """All tables as Markdown."""
    parts = [planned(result["planned"])]
    parts += [methods(name, result["data"][name]) for name in TITLES]
    parts += [pairs(result["differences"]), rank_correlations(result["rank correlation"])]
    return "\n\n".join(parts)


def planned(found: dict[str, Any]) -> str:
    """The planned comparisons."""
    rows = [
        [label, cell(found[key]["difference"], 4), f"{found[key]['p']:.3f}",
         f"{found[key]['adjusted']:.3f}"]
        for key, label in PLANNED.items()
    ]  # fmt: skip
    return table(["area under the curve", "difference", "p", "Holm"], rows)


def methods(name: str, data: dict[str, Any]) -> str:
    """A row for each method on one data set."""
    score = "accuracy" if name == "mnist" else "RMSE"
    head = [TITLES[name], f"area ({score})", "minus random", "labels to 0.75",
            "not reached", "last", "last, statistics of the pool", "near-duplicates"]  # fmt: skip
    rows = []
    for method, row in data.items():
        gap = cell(row["area minus random"], 4) if method != "random" else "-"
        rows.append([
            NAMES[method], cell(row["area"], 3), gap, cell(row["labels needed"], 0),
            str(row["not reached"]), cell(row["curve"][-1], 3),
            cell(row["with statistics of the pool"], 3), f"{row['near-duplicates'][0]:.3f}",
        ])  # fmt: skip
        if name == "mnist":
            rows[-1] += [f"{row['classes'][0]:.2f}", f"{row['class entropy'][0]:.3f}"]
    return table(head + (["classes of 10", "class entropy"] if name == "mnist" else []), rows)


def pairs(found: dict[str, Any]) -> str:
    """The exploratory differences."""
    rows = [
        [" minus ".join(NAMES[each] for each in key.split(" minus ")),
         *(cell(found[name][key], 4) for name in TITLES)]
        for key in next(iter(found.values()))
    ]  # fmt: skip
    return table(["area", *(TITLES[name] for name in TITLES)], rows)


def rank_correlations(found: dict[str, Any]) -> str:
    """Spearman's correlations of scores and losses, at the first, a middle and the last round."""
    heads = [f"{TITLES[name]}, {count} labels" for name in TITLES for count in found["labels"]]
    rows = [
        [NAMES[method], *(cell(each, 2) for name in TITLES for each in found[name][method])]
        for method in found["mnist"]
    ]
    return table(["score", *heads], rows)


def cell(ends: list[float], digits: int) -> str:
    """A mean with its interval."""
    mean, low, high = (f"{value:.{digits}f}" for value in ends)
    return f"{mean} [{low}, {high}]"


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return (
        "\n".join(f"| {' | '.join(line)} |" for line in lines)
        .replace("| --- ", "|---")
        .replace("--- |", "---|")
    )
