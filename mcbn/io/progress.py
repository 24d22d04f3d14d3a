"""Progress bars, all in one style."""

from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

DELAY_SECONDS = 0.5  # shorter work shows no bar


def progress_bar(
    steps: Iterable[Any] | None = None,
    *,
    label: str,
    unit: str,
    total: int | None = None,
    shown: bool = True,
) -> Any:
    """Wrap `steps` in a progress bar, shown on a terminal only and removed at the end.

    Args:
        steps: what is iterated over; without it, call `update` on the bar.
        label: what is being done, in a word.
        unit: what is counted.
        total: number of steps, if that is not the length of `steps`.
        shown: False for no bar at all.
    """
    # tqdm takes None for "disabled where there is no terminal".
    disabled = None if shown else True
    return tqdm(
        steps,
        desc=label,
        total=total,
        unit=unit,
        delay=DELAY_SECONDS,
        leave=False,
        disable=disabled,
    )
