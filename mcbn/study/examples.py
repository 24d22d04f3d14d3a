"""Examples that something is chosen by, held in memory with their targets."""

from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mcbn.network.inputs import Inputs, as_rows, concatenate, select_inputs
from mcbn.network.isolation import random_streams
from mcbn.network.loaders import ordered_loader
from mcbn.network.targets import Targets, as_targets, require_targets
from mcbn.predictive.labelled import TargetReader


def gathered_examples(inputs: Any, targets: Targets | None) -> tuple[Inputs, Tensor]:
    """The inputs and targets of all examples.

    Raises:
        TypeError: there are no targets.
    """
    require_targets(inputs, targets)
    if not isinstance(inputs, (DataLoader, Dataset)):
        return as_rows(inputs), as_targets(targets)
    reader = TargetReader() if targets is None else None
    with random_streams(0, "choose"):  # from which a loader takes a seed
        gathered = [(reader or select_inputs)(batch) for batch in ordered_loader(inputs, None)]
    return concatenate(gathered), as_targets(targets) if reader is None else reader.targets
