"""Progress bars on a terminal: one look for every long piece of work."""

from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

DELAY_SECONDS = 0.5  # work that is done sooner shows no bar


def progress_bar(
    steps: Iterable[Any] | None = None,
    *,
    label: str,
    unit: str,
    total: int | None = None,
    shown: bool = True,
) -> Any:
    """Wrap `steps` in a bar that shows on a terminal only, and goes when the work is done.

    Args:
        steps: what is iterated over; without it, call `update` on the answer.
        label: what is being done, in a word.
        unit: what is counted.
        total: how many there will be, if that is not the length of `steps`.
        shown: False for no bar at all.
    """
    # tqdm reads None as "disabled where there is no terminal".
    hidden = None if shown else True
    return tqdm(
        steps,
        desc=label,
        total=total,
        unit=unit,
        delay=DELAY_SECONDS,
        leave=False,
        disable=hidden,
    )
