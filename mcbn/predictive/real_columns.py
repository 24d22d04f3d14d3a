"""Means and spreads of real values in a file of columns: of one output or several."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from mcbn.io.tables import numbers, shortened
from mcbn.predictive.gaussian import Moments
from mcbn.predictive.labels import by_number, is_whole
from mcbn.predictive.targets import Columns

SPREADS = ("sd", "std", "variance", "var", "sigma")
VARIANCES = ("variance", "var")
PARTS = ("epistemic", "aleatoric")
# Beyond these the square of a standard deviation, or its inverse, leaves the range of float64.
MIN_SPREAD, MAX_SPREAD = 1e-150, 1e150
TOLERANCE = 0.02  # relative, by which rounded standard deviations may contradict each other


def find_outputs(columns: Columns, path: object) -> list[str]:
    """What is behind "mean_" in the columns of each output; [""] of one output, [] without any.

    Raises:
        ValueError: a mean without a spread or the reverse, or one mean beside those of several
            outputs.
    """
    several = _behind("mean", columns)
    spread = [each for form in _forms() for each in _behind(form, columns)]
    if "mean" in columns:
        both = [each for each in several if each in spread]
        if both:
            raise ValueError(
                f"expected one mean, or one for each of several outputs, in {path}, got 'mean' and "
                f"{shortened(f'mean_{each}' for each in both)}; rename those that are not meant"
            )
        if not spread or has_spread(columns, [""]):
            return [""]
        several = [""]
    for each in several + spread:
        if several and (each in several) != (each in spread):
            got = _name("mean", each) if each in several else f"a spread of {each}"
            raise ValueError(
                f"expected as many columns of means as of their spread in {path}, got {got!r:.80} "
                "alone; give mean_<k> and sd_<k> for each output, and rename other columns"
            )
    return sorted(several, key=by_number) if all(map(is_whole, several)) else several


def has_spread(columns: Columns, outputs: Sequence[str]) -> bool:
    """Whether there is a spread beside the mean of each output."""
    return bool(outputs) and all(
        any(_name(form, each) in columns for form in _forms()) for each in outputs
    )


def moment_columns(columns: Columns, outputs: Sequence[str]) -> list[str]:
    """The columns of means and spreads of some outputs."""
    names = {_name(stem, each) for stem in ("mean", *_forms()) for each in outputs}
    return [name for name in columns if name in names]


def read_moments(
    columns: Columns, outputs: Sequence[str], path: object, draw_count: int
) -> Moments:
    """The moments of outputs.

    Raises:
        ValueError: a column is missing, a value is no number, a spread is not positive, or parts
            contradict the whole.
    """
    mean = _of_outputs(columns, "mean", outputs, path)
    variances = {form: _variance(columns, form, outputs, mean.shape, path) for form in _forms()
                 if any(_name(form, each) in columns for each in outputs)}  # fmt: skip
    parts = {form.partition("_")[0]: variances.pop(form) for form in list(variances)
             if form not in SPREADS}  # fmt: skip
    if not variances and len(parts) < len(PARTS):
        raise ValueError(
            f"expected a column {' or '.join(SPREADS[:3])} beside the mean in {path}, got "
            f"{shortened(sorted(columns))}; add the spread of the forecast"
        )
    if len(parts) == len(PARTS):
        variances["epistemic and aleatoric parts"] = sum(parts.values(), np.zeros(()))
    form, variance = next(iter(variances.items()))
    for other, values in variances.items():
        _require_equal(variance, values, (form, other), path)
    epistemic = parts.get("epistemic")
    if epistemic is None and "aleatoric" in parts:
        _require_within(parts["aleatoric"], variance, "aleatoric", path)
        epistemic = variance - parts["aleatoric"]
    if epistemic is not None:
        _require_within(epistemic, variance, "epistemic", path)
        epistemic = np.clip(epistemic, 0, variance)
    known = None if epistemic is None else torch.from_numpy(epistemic)
    return Moments(torch.from_numpy(mean), torch.from_numpy(variance), known, draw_count)


def read_targets(
    columns: Columns,
    names: Mapping[str, str],
    outputs: Sequence[str],
    shape: tuple[int, ...],
    path: object,
) -> np.ndarray | None:
    """The targets of all outputs, from columns by what tells them apart; None without any.

    Raises:
        ValueError: there are others than the outputs, or one is no number.
    """
    if not names:
        return None
    if len(names) > 1 and (odd := sorted(set(names) ^ set(outputs))):
        raise ValueError(
            f"expected as many columns of targets as of the mean in {path}, got no mean, or no "
            f"target, of {shortened(odd)}; give one per output, and rename other columns"
        )
    order = list(outputs) if len(names) > 1 else list(names)
    values = [numbers(columns[names[each]], names[each], path) for each in order]
    targets = values[0] if len(values) == 1 else np.stack(values, axis=1)
    if targets.size == np.prod(shape) and targets.shape[0] == shape[0]:
        targets = targets.reshape(shape)  # one output may have an axis of its own
    if targets.shape != shape:
        raise ValueError(
            f"expected as many columns {next(iter(names.values()))!r} as of the mean in {path}, "
            f"got shapes {targets.shape} and {shape}; give one per output"
        )
    return targets


def _forms() -> tuple[str, ...]:
    """What columns of spreads begin with: those of the whole, then those of its parts."""
    return SPREADS + tuple(f"{part}_{form}" for part in PARTS for form in SPREADS)


def _name(stem: str, output: str) -> str:
    return f"{stem}_{output}" if output else stem


def _behind(stem: str, columns: Columns) -> list[str]:
    return [name.removeprefix(f"{stem}_") for name in columns if name.startswith(f"{stem}_")]


def _of_outputs(columns: Columns, stem: str, outputs: Sequence[str], path: object) -> np.ndarray:
    """Numbers of one column, or of those of several outputs with an axis for them."""
    names = [_name(stem, each) for each in outputs]
    missing = [name for name in names if name not in columns]
    values = [numbers(columns[name], name, path) for name in names if name not in missing]
    if missing or len({each.shape for each in values}) > 1:
        raise ValueError(
            f"expected as many columns {stem!r} as of the mean in {path}, got no "
            f"{shortened(missing or names)}; give one per output, of one value per example"
        )
    return values[0] if list(outputs) == [""] else np.stack(values, axis=1)


def _variance(
    columns: Columns, form: str, outputs: Sequence[str], shape: tuple[int, ...], path: object
) -> np.ndarray:
    """A whole variance, or a part of one, from the columns of its form."""
    values = _of_outputs(columns, form, outputs, path)
    if values.shape != shape:
        raise ValueError(
            f"expected as many columns {form!r} as of the mean in {path}, got shapes "
            f"{values.shape} and {shape}; give one per output"
        )
    least = MIN_SPREAD if form in SPREADS else 0.0
    bad = np.argwhere((values < least) | (values > MAX_SPREAD))
    if len(bad):
        first = tuple(bad[0])
        above = "above 0," if least else "of at least 0,"
        raise ValueError(
            f"expected {form!r} {above} from {least:g} to {MAX_SPREAD:g}, in {path}, got "
            f"{values[first]:g} in row {first[0] + 1}; a forecast without spread has no density, "
            "so leave such rows out or give them a positive spread"
        )
    return values if form.endswith(VARIANCES) else np.square(values)


def _require_equal(
    one: np.ndarray, other: np.ndarray, forms: tuple[str, str], path: object
) -> None:
    """Check that two forms of the whole variance agree but for rounding."""
    first, second = np.sqrt(one), np.sqrt(other)
    bad = np.argwhere(np.abs(first - second) > TOLERANCE * np.maximum(first, second))
    if len(bad):
        row = tuple(bad[0])
        raise ValueError(
            f"expected the same standard deviation from {forms[0]!r} and from {forms[1]!r} in "
            f"{path}, got {first[row]:g} and {second[row]:g} in row {row[0] + 1}; leave the wrong "
            "column out"
        )


def _require_within(part: np.ndarray, whole: np.ndarray, name: str, path: object) -> None:
    """Check that a part of the variance is not above the whole but for rounding."""
    bad = np.argwhere(np.sqrt(part) > (1 + TOLERANCE) * np.sqrt(whole))
    if len(bad):
        row = tuple(bad[0])
        raise ValueError(
            f"expected an {name} standard deviation that is at most the whole one in {path}, got "
            f"{np.sqrt(part[row]):g} of {np.sqrt(whole[row]):g} in row {row[0] + 1}; leave the "
            f"{name} column out, or give the whole spread as sd"
        )
