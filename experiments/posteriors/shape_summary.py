"""Means over data sets, with intervals, of what was measured on each of them."""

from typing import Any

from experiments.posteriors.shape_measures import interval

REFERENCES = ("batch norm", "plain")
BY_SIZE = ("MCBN, M = 8", "MCBN, M = 16", "MCBN, M = 32", "MCBN, M = 3N/4")
RIVALS = ("ensemble of 5", "last-layer Laplace", "MC Dropout", "plain ensemble of 5")
CORRELATIONS = ("pearson", "spearman")
BEST = "MCBN at its best M"

Row = dict[str, Any]


def summary(rows: list[Row], *, strict: bool) -> dict[str, Any]:
    """Everything over all data sets, over the one-dimensional ones and over tables.

    Args:
        rows: what was measured on each data set.
        strict: leave out references that did not converge.
    """
    for row in rows:
        for against in row["against"].values():
            against[BEST] = best(against)
        row["scores"][BEST] = row["scores"][best_name(row["against"]["batch norm"])]
    groups = {"all": rows, **by_group(rows)}
    return {
        "data sets": [
            {"name": row["name"], "noise sd": row["noise"], "diagnostics": row["diagnostics"]}
            for row in rows
        ],
        "groups": {
            name: group(members, strict=strict) for name, members in groups.items() if members
        },
        "rows": [{key: row[key] for key in row if key != "picture"} for row in rows],
        "picture": next(row["picture"] for row in rows if row["picture"]),
    }


def by_group(rows: list[Row]) -> dict[str, list[Row]]:
    """One-dimensional data sets and tables, and the first by N where it varies."""
    curves = [row for row in rows if "N =" in row["name"]]
    groups = {"one dimension": curves, "tables": [row for row in rows if row not in curves]}
    sizes = sorted({row["name"] for row in curves if row["name"].startswith("sine")})
    return groups | ({name: [r for r in curves if r["name"] == name] for name in sizes})


def best_name(against: dict[str, Any]) -> str:
    """The M whose MCBN is most correlated with the reference."""
    return max(BY_SIZE, key=lambda name: against[name]["pearson"])


def best(against: dict[str, Any]) -> dict[str, float]:
    """The measures of MCBN at that M; the largest of each correlation."""
    chosen = dict(against[best_name(against)])
    return chosen | {"spearman": max(against[name]["spearman"] for name in BY_SIZE)}


def group(rows: list[Row], *, strict: bool) -> dict[str, Any]:
    """Summary of some data sets."""
    found: dict[str, Any] = {"data sets": len(rows)}
    for reference in REFERENCES:
        used = [row for row in rows if row["diagnostics"][reference]["converged"] or not strict]
        found[reference] = {"data sets": len(used)} | (against_reference(used, reference))
    keys = rows[0]["M = 3N/4 against M = 8"]
    found["M = 3N/4 against M = 8"] = {
        key: interval([row["M = 3N/4 against M = 8"][key] for row in rows]) for key in keys
    }
    for part in ("scores", "gap over inside"):
        found[part] = {name: over(rows, part, name) for name in rows[0][part]}
    return found


def over(rows: list[Row], part: str, name: str) -> Any:
    """Intervals of the measures of one method; those that all of the data sets have."""
    values = [row[part][name] for row in rows]
    if not isinstance(values[0], dict):
        return interval(values)
    shared = [key for key in values[0] if all(key in value for value in values)]
    return {key: interval([value[key] for value in values]) for key in shared}


def against_reference(rows: list[Row], reference: str) -> dict[str, Any]:
    """Likeness of each method to a reference, and the planned differences."""
    if not rows:
        return {}
    every = [row["against"][reference] for row in rows]
    methods = {
        name: {key: interval([each[name][key] for each in every]) for key in every[0][name]}
        for name in every[0]
    }
    differences = {
        f"{BEST} minus {rival}": {
            key: interval([each[BEST][key] - each[rival][key] for each in every])
            for key in CORRELATIONS
        }
        for rival in RIVALS
    }
    return {"methods": methods, "differences": differences}
