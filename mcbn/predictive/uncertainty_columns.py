"""What a file of columns tells of the draws: entropies, variation ratio and number of draws."""

import torch
from torch import Tensor

from mcbn.io.tables import numbers
from mcbn.predictive.targets import Columns
from mcbn.validation import PROBABILITY_TOLERANCE, SUM_TOLERANCE

ENTROPY_TOLERANCE = 0.05  # nats, or relative where the entropy is larger


def expected_entropy(columns: Columns, total: Tensor, path: object) -> Tensor:
    """From its column or that of mutual information; without either it is all of the entropy.

    Raises:
        ValueError: it is not between 0 and the entropy, or the columns contradict each other.
    """
    cases = tuple(total.shape)
    given = {name: _values(columns, name, cases, path)
             for name in ("entropy", "expected_entropy", "mutual_information")
             if name in columns}  # fmt: skip
    parts = {name: values for name, values in given.items() if name != "entropy"}
    if not parts:
        return total
    information = parts.get("mutual_information", torch.zeros_like(total))
    expected = parts.get("expected_entropy", total - information)
    wrong = (expected < -PROBABILITY_TOLERANCE) | (expected > total + SUM_TOLERANCE)
    if bool(wrong.any()):
        raise ValueError(
            f"expected an expected entropy from 0 to the entropy, in nats, in {path}, got "
            f"{float(expected[wrong][0]):g} where the entropy is {float(total[wrong][0]):g} in row "
            f"{int(wrong.nonzero()[0][0]) + 1}; leave the column out if it means something else"
        )
    wholes = {"entropy": given.get("entropy", total)}
    if len(parts) == 2:
        wholes["expected_entropy + mutual_information"] = expected + information
    for name, whole in wholes.items():
        # Rounding of the probabilities changes the entropy computed from them as well.
        wrong = (whole - total).abs() > ENTROPY_TOLERANCE * total.clamp_min(1)
        if bool(wrong.any()):
            raise ValueError(
                f"expected the entropy of the probabilities, in nats, from {name} in {path}, got "
                f"{float(whole[wrong][0]):g} where it is {float(total[wrong][0]):g} in row "
                f"{int(wrong.nonzero()[0][0]) + 1}; multiply bits by 0.6931, or leave the columns "
                "of uncertainty out"
            )
    return expected


def variation_ratio(columns: Columns, cases: tuple[int, ...], classes: int, path: object) -> Tensor:
    """From its column; without it NaN.

    Raises:
        ValueError: a value is no share of draws that differ from most.
    """
    if "variation_ratio" not in columns:
        return torch.full(cases, torch.nan, dtype=torch.float64)
    ratio = _values(columns, "variation_ratio", cases, path)
    wrong = (ratio < 0) | (ratio > 1 - 1 / classes + SUM_TOLERANCE)
    if bool(wrong.any()):
        raise ValueError(
            f"expected a variation ratio from 0 to {1 - 1 / classes:g} of {classes} classes in "
            f"{path}, got {float(ratio[wrong][0]):g} in row {int(wrong.nonzero()[0][0]) + 1}; "
            "leave the column out if it means something else"
        )
    return ratio


def draw_count(columns: Columns, path: object) -> int:
    """How many draws were averaged; 0 if it is not known.

    Raises:
        ValueError: it is no whole number, or differs between rows.
    """
    if "draws" not in columns:
        return 0
    values = numbers(columns["draws"], "draws", path)
    count = float(values.flat[0])
    if not (count.is_integer() and 1 <= count < 2**31) or bool((values != count).any()):
        raise ValueError(
            f"expected one whole number of draws in column 'draws' of {path}, got "
            f"{sorted(set(values.ravel().tolist()))[:3]}; rename it if it means something else"
        )
    return int(count)


def _values(columns: Columns, name: str, cases: tuple[int, ...], path: object) -> Tensor:
    values = torch.from_numpy(numbers(columns[name], name, path))
    if values.shape != cases:
        raise ValueError(
            f"expected {name!r} of shape {cases} in {path}, got {tuple(values.shape)}; give one "
            "value per prediction"
        )
    return values
