"""Predictions of labelled data, with the targets of the same pass."""

from dataclasses import replace
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mcbn.network.inputs import Inputs, Select, select_inputs
from mcbn.network.loaders import Data
from mcbn.network.targets import Targets, as_targets, joined_targets, select_targets
from mcbn.predictive.categorical import CategoricalPredictive
from mcbn.predictive.predict import predict
from mcbn.samplers.sampler import Sampler


def predict_labelled(
    sampler: Sampler,
    data: Data,
    targets: Targets | None,
    likelihood: Any = "categorical",
    *,
    batch_size: int | None = None,
    select: Select | None = None,
    progress: bool = True,
) -> tuple[Any, Tensor]:
    """The predictive of `predict`, and the targets of its examples.

    Args:
        sampler: see `predict`.
        data: see `predict`; where `targets` are None, a data set or loader that has them.
        targets: of the examples; None to take those in the data, batch by batch as they are read,
            so that they are of the inputs that were predicted.
        likelihood: see `predict`.
        batch_size: see `predict`.
        select: see `predict`.
        progress: see `predict`.

    Raises:
        TypeError: there are no targets, or an argument is of another type.
    """
    if targets is None and not isinstance(data, (Dataset, DataLoader)):
        raise TypeError(
            f"expected targets beside a {type(data).__name__} of inputs, got none; give targets=, "
            "or a data set or loader that has both"
        )
    read: list[Tensor] = []

    def select_both(batch: Any) -> Inputs:
        if targets is None:
            # A copy, since a worker's memory would be held with it.
            read.append(select_targets(batch).detach().cpu().clone())
        return select_inputs(batch, select)

    predictive = predict(
        sampler, data, likelihood, batch_size=batch_size, select=select_both, progress=progress
    )
    known = joined_targets(read) if targets is None else as_targets(targets)
    return predictive, known


def labelled_positions(
    predictive: CategoricalPredictive, targets: Tensor, ignore_index: int | None
) -> tuple[CategoricalPredictive, Tensor]:
    """The predictions and targets of the examples or positions that are labelled.

    Args:
        predictive: of all examples.
        targets: class indices of all of them.
        ignore_index: the class of those that are not labelled; None if all are.

    Returns:
        Both as they are where all are labelled, else with one row per labelled position.
    """
    if ignore_index is None or len(predictive) != len(targets):
        return predictive, targets
    known = targets != ignore_index
    if bool(known.all()):
        return predictive, targets
    chosen = known.to(predictive.log_probabilities.device)

    def rows(values: Tensor) -> Tensor:
        return values.movedim(1, -1)[chosen]

    return replace(
        predictive,
        log_probabilities=rows(predictive.log_probabilities),
        expected_entropy=predictive.expected_entropy[chosen],
        variance=rows(predictive.variance),
        variation_ratio=predictive.variation_ratio[chosen],
        draws=None,
    ), targets[known]
