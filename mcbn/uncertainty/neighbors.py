"""How far the features of an example are from those of the nearest training examples."""

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Float64
from torch import Tensor
from torch.nn import Linear, Module

from mcbn import validation
from mcbn.inspection.layers import class_name
from mcbn.io.display import Display, Displayed
from mcbn.network.inputs import Select
from mcbn.network.loaders import Data
from mcbn.predictive.predict import predict
from mcbn.samplers.features import Features
from mcbn.uncertainty.rows import RowsOf

BLOCK = 2**22  # numbers in float64 that are held at once, three or four times


@dataclass(frozen=True, eq=False, repr=False)
class NearestNeighbors(Displayed):
    r"""Distance of an example's features to the k-th nearest features of the training examples.

    With features $z$ of length one, the training features in the order of their distance,

    $r_{k}(z) = \Vert z - z_{(k)} \Vert$

    from 0 to 2; higher is less like the training data. A training example is among its own
    neighbours, at distance 0 but for rounding: score examples that were not used for training.
    Features are of the plain network in eval mode. A map of features is averaged over its
    positions, so that a dense network too has one number per example. Features that are all 0
    have no direction and stay 0. Neighbours at the same distance count one by one.

    Make one by `NearestNeighbors.fit`.

    Attributes:
        features: what makes the features of inputs.
        training: features of the training examples.
        k: which neighbour the distance is to.
        normalized: whether features are divided by their length.
        select: picks the network's inputs out of a batch where the default rule does not apply.
        batch_size: examples per pass.
        name: in tables and files.

    Reference:
        Sun, Ming, Zhu and Li 2022, "Out-of-Distribution Detection with Deep Nearest Neighbors",
        section 3; k = 50 is theirs for CIFAR-10, to be raised with the number of training examples
        (they take 1,000 for all of ImageNet).
    """

    features: Features
    training: Float[Tensor, "training channels"]
    k: int = 50
    normalized: bool = True
    select: Select | None = field(default=None, kw_only=True)
    batch_size: int | None = field(default=None, kw_only=True)
    name: str = field(default="knn", kw_only=True)

    def __post_init__(self) -> None:
        validation.integer(self.k, "k")
        if not 1 <= self.k <= len(self.training):
            raise ValueError(
                f"expected k from 1 to the number of training examples, {len(self.training)}, got "
                f"{self.k}; give more examples, or choose a smaller k"
            )

    @classmethod
    def fit(
        cls,
        model: Module,
        training_data: Data,
        *,
        k: int = 50,
        layer: str | None = None,
        normalized: bool = True,
        select: Select | None = None,
        batch_size: int | None = None,
        name: str = "knn",
        progress: bool = True,
    ) -> "NearestNeighbors":
        """Keep the features of training examples; some thousands are often enough.

        Args:
            model: the trained network.
            training_data: inputs as a tensor, a data set, or a loader in fixed order, as for
                prediction, without random augmentation; targets are ignored.
            k: which neighbour the distance is to.
            layer: whose inputs the features are; by default those of the last dense or
                convolutional layer.
            normalized: divide features by their length, as published.
            select: picks the network's inputs out of a batch where the default rule does not apply.
            batch_size: examples per pass; by default the loader's own, else 256.
            name: in tables and files.
            progress: show a progress bar, on a terminal only.

        Raises:
            TypeError: the model is not a module, or data of another kind.
            ValueError: fewer than k examples, no such layer, or features that are not finite.
        """
        features = Features(model, layer=layer)
        read = partial(vectors, features, normalized=normalized)
        rows = predict(features, training_data, RowsOf(read), batch_size=batch_size, select=select,
                       progress=progress)  # fmt: skip
        return cls(
            features, rows.values, k, normalized, select=select, batch_size=batch_size, name=name
        )

    def __call__(self, data: Data, /) -> Float64[Tensor, " batch"]:
        """The distance of each example, in the order of the data.

        Args:
            data: inputs as `fit` takes them.

        Raises:
            TypeError: data of another kind.
            ValueError: no data, or features that are not finite or of another size.
        """
        rows = predict(
            self.features, data, RowsOf(self._distances), batch_size=self.batch_size,
            select=self.select, progress=False,
        )  # fmt: skip
        return rows.values.cpu()

    def display(self) -> Display:
        """What it is made of, in one line."""
        count, channels = self.training.shape
        unit = "normalised " if self.normalized else ""
        return Display(
            f"Nearest neighbours: number {self.k} of {count:,} training examples by {channels} "
            f"{unit}features of {class_name(self.features.model)}, inputs of {self.features.layer}"
        )

    def _distances(self, outputs: Tensor) -> Tensor:
        queries = vectors(self.features, outputs, normalized=self.normalized)
        if queries.shape[1] != self.training.shape[1]:
            raise ValueError(
                f"expected {self.training.shape[1]} features as of the training examples, got "
                f"{queries.shape[1]}; give inputs of the same shape"
            )
        return kth_distance(queries, self.training.to(queries.device), self.k)


def vectors(
    features: Features, outputs: Float[Tensor, "batch *axes"], *, normalized: bool
) -> Float[Tensor, "batch channels"]:
    """One vector per example: the mean over positions, divided by its length where asked for.

    Args:
        features: what they are made by: the channels of a dense layer's inputs are the last axis,
            those of other layers the second.
        outputs: of `features`.
        normalized: whether each is divided by its length.

    Raises:
        ValueError: values that are not finite, or one axis alone.
    """
    values = validation.finite(outputs, "the features").double()
    if values.ndim < 2:
        raise ValueError(
            f"expected features with axes (batch, channels, ...), got shape {tuple(outputs.shape)};"
            " give layer=, a name in model.named_modules()"
        )
    layer = features.model.get_submodule(str(features.layer))
    places = range(1, values.ndim - 1) if isinstance(layer, Linear) else range(2, values.ndim)
    values = values.mean(tuple(places)) if places else values
    if normalized:
        values = torch.nn.functional.normalize(values, dim=1)
    # Training examples are stored so: both sides are rounded alike.
    return values.to(torch.promote_types(outputs.dtype, torch.float32))


def kth_distance(
    queries: Float[Tensor, "batch channels"], training: Float[Tensor, "training channels"], k: int
) -> Float64[Tensor, " batch"]:
    """Return the Euclidean distance of each query to its k-th nearest row, by exact search.

    Rows are ranked by products in blocks, so that memory does not grow with either number of them;
    the distance itself is then that of the differences, which does not lose its digits near 0.

    Args:
        queries: what is searched for.
        training: the rows that are searched.
        k: from 1 to the number of rows.
    """
    channels = max(1, queries.shape[1])
    per_block = max(1, min(len(training), BLOCK // channels))
    per_query = max(1, BLOCK // max(channels, per_block + 2 * k))
    blocks: Any = torch.split(queries, per_query)
    return torch.cat([_kth_of_block(block.double(), training, k, per_block) for block in blocks])


def _kth_of_block(
    queries: Float64[Tensor, "batch channels"],
    training: Float[Tensor, "training channels"],
    k: int,
    per_block: int,
) -> Float64[Tensor, " batch"]:
    nearest = queries.new_empty((len(queries), 0))
    rows = torch.empty_like(nearest, dtype=torch.long)
    for start in range(0, len(training), per_block):
        block = training[start : start + per_block].double()
        # The squared distance but for the query's own part, which all rows share.
        squares = torch.addmm(block.square().sum(1)[None], queries, block.T, alpha=-2)
        found, places = squares.topk(min(k, len(block)), largest=False)
        nearest, rows = torch.cat([nearest, found], 1), torch.cat([rows, places + start], 1)
        nearest, best = nearest.topk(min(k, nearest.shape[1]), largest=False)
        rows = rows.gather(1, best)
    distance: Tensor = (queries - training[rows[:, k - 1]].double()).square().sum(1).sqrt()
    return distance
