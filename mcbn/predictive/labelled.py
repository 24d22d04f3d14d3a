"""Predictions of labelled data, with the targets of the same pass."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from mcbn.network.inputs import Inputs, Select, select_inputs
from mcbn.network.loaders import Data
from mcbn.network.targets import Targets, as_targets, joined_targets, read_targets, require_targets
from mcbn.predictive.categorical import CategoricalPredictive
from mcbn.predictive.predict import predict, predict_batches
from mcbn.samplers.sampler import Sampler


@dataclass(frozen=True, eq=False)
class TargetReader:
    """Picks the inputs out of each batch, as `select=` does, and keeps the targets beside them.

    Attributes:
        select: picks the inputs; None for the default rule.
        read: the targets of the batches so far.
    """

    select: Select | None = None
    read: list[Tensor] = field(default_factory=list)

    def __call__(self, batch: Any) -> Inputs:
        """The inputs of a batch."""
        self.read.append(read_targets(batch))
        return select_inputs(batch, self.select)

    @property
    def targets(self) -> Tensor:
        """The targets of all batches, in their order."""
        return joined_targets(self.read)

    def take(self, count: int) -> Tensor:
        """The next targets, which are then forgotten: batches may be put together anew.

        Raises:
            ValueError: there are no more.
        """
        if not self.read:
            raise ValueError("expected a target for each prediction, got fewer; give one of each")
        found = self.read[0] if len(self.read) == 1 else self.targets
        self.read[:] = [found[count:]] if len(found) > count else []
        return found[:count]


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
    require_targets(data, targets)
    reader = TargetReader(select) if targets is None else None
    predictive = predict(
        sampler, data, likelihood, batch_size=batch_size, select=reader or select, progress=progress
    )
    return predictive, as_targets(targets) if reader is None else reader.targets


def labelled_parts(
    sampler: Sampler,
    data: Data,
    targets: Targets | None,
    likelihood: Any = "categorical",
    *,
    select: Select | None = None,
) -> Iterator[tuple[Any, Tensor]]:
    """Yield the predictive of one batch after another, with the targets of its examples.

    The arguments and errors are those of `predict_labelled`.
    """
    require_targets(data, targets)
    known = [] if targets is None else [as_targets(targets)]
    reader = TargetReader(select, known)
    chosen = reader if targets is None else select
    for part in predict_batches(sampler, data, likelihood, select=chosen):
        yield part, reader.take(len(part))
    if reader.read:
        raise ValueError(
            f"expected a target for each prediction, got {len(reader.targets)} more; give one of "
            "each example"
        )


def labelled_positions(
    predictive: CategoricalPredictive, targets: Tensor, ignore_index: int | None
) -> tuple[CategoricalPredictive, Tensor, Tensor | None]:
    """The predictions and targets of the examples or positions that are labelled.

    Args:
        predictive: of all examples.
        targets: class indices of all of them.
        ignore_index: the class of those that are not labelled; None if all are.

    Returns:
        Both as they are where all are labelled, and None; else both with one row per labelled
        position, and the example of each.

    Raises:
        ValueError: no position is labelled.
    """
    if ignore_index is None or len(predictive) != len(targets):
        return predictive, targets, None
    known = targets != ignore_index
    if bool(known.all()):
        return predictive, targets, None
    if not bool(known.any()):
        raise ValueError(
            f"expected labelled positions, got the index {ignore_index} of those that are not for "
            "all of them; check ignore_index"
        )
    chosen = known.to(predictive.log_probabilities.device)

    def rows(values: Tensor) -> Tensor:
        return values.movedim(1, -1)[chosen]

    return (
        replace(
            predictive,
            log_probabilities=rows(predictive.log_probabilities),
            expected_entropy=predictive.expected_entropy[chosen],
            variance=rows(predictive.variance),
            variation_ratio=predictive.variation_ratio[chosen],
            draws=None,
            energy=_chosen(predictive.energy, chosen),
            max_logit=_chosen(predictive.max_logit, chosen),
        ),
        targets[known],
        known.nonzero()[:, 0],
    )


def _chosen(values: Tensor | None, chosen: Tensor) -> Tensor | None:
    return None if values is None else values[chosen]
