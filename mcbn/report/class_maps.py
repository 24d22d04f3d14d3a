"""Maps of a segmentation: truth, prediction, uncertainties and errors of every pixel."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import matplotlib
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from mcbn.drawing.heat import Pixels, heat
from mcbn.predictive.bernoulli import UNKNOWN, BernoulliPredictive
from mcbn.predictive.categorical import CategoricalPredictive
from mcbn.predictive.joining import example_of
from mcbn.predictive.predictions import Predictions

VOID, RIGHT, WRONG = (128, 128, 128), (235, 235, 235), (200, 30, 40)
BRIGHT = 0.99  # the share of positions below the mutual information that is shown brightest
FEW_COLORS, MANY_COLORS = "tab20", "hsv"


@dataclass(frozen=True, eq=False)
class ClassMaps:
    """Makes the maps of predictions of classes with two axes of positions.

    Attributes:
        given: the distribution over classes.
        targets: their class indices, if they are known.
        names: of the classes.
        ignore_index: the class of what is not labelled.
    """

    given: CategoricalPredictive
    targets: Tensor | None
    names: tuple[str, ...]
    ignore_index: int | None
    unit = "nats"

    @classmethod
    def of(cls, predictions: Predictions) -> "ClassMaps | None":
        """Those of some predictions; None if they are no pictures of classes, or of one label."""
        given = predictions.predictive
        if isinstance(given, BernoulliPredictive):
            if given.log_odds.ndim != 4 or given.log_odds.shape[1] != 1:
                return None
            predictions = _of_classes(predictions, given)
            given = predictions.predictive
        if not isinstance(given, CategoricalPredictive) or given.log_probabilities.ndim != 4:
            return None
        numbers = map(str, range(given.log_probabilities.shape[1]))
        names = predictions.classes or tuple(numbers)
        return cls(given, predictions.targets, names, predictions.ignore_index)

    @property
    def uncertainty(self) -> Float[Tensor, " examples"]:
        """The mean over labelled pixels of mutual information, or of the entropy of one draw."""
        return torch.stack([self._uncertainty_of(place) for place in range(len(self.given))])

    def _uncertainty_of(self, index: int) -> Tensor:
        # One after the other: of all at once an entropy would take as much memory again.
        one = example_of(self.given, index)
        values = (one.mutual_information if one.draw_count > 1 else one.entropy)[0]
        if self.targets is None or self.ignore_index is None:
            return values.mean()
        known = self.targets[index] != self.ignore_index
        return values[known].mean() if bool(known.any()) else values.new_zeros(())

    @property
    def colors(self) -> dict[str, str]:
        """The colour of each class, as CSS."""
        colors = ["rgb({}, {}, {})".format(*color) for color in class_colors(len(self.names))]
        return dict(zip(self.names, colors, strict=True))

    @cached_property
    def tops(self) -> dict[str, float]:
        """The entropy of equal chances, and what most pixels have less of mutual information."""
        tops = {"Entropy": math.log(self.given.log_probabilities.shape[1])}
        if self.given.draw_count > 1:
            each = (example_of(self.given, k).mutual_information for k in range(len(self.given)))
            tops["Mutual information"] = max(float(one.quantile(BRIGHT)) for one in each)
        return tops

    def maps_of(self, index: int) -> Iterator[tuple[str, Pixels]]:
        """Yield the name and the pixels of each map of an example."""
        one, targets = example_of(self.given, index), self.targets
        palette = class_colors(self.given.log_probabilities.shape[1])
        guess = one.log_probabilities[0].argmax(0).cpu().numpy()
        if targets is not None:
            truth = targets[index].cpu().numpy()
            void = truth == (-1 if self.ignore_index is None else self.ignore_index)
            colors = palette[np.where(void, 0, truth)]
            yield "Truth", np.where(void[..., None], VOID, colors).astype("u1")
        yield "Prediction", palette[guess]
        uncertainties = {"Entropy": one.entropy, "Mutual information": one.mutual_information}
        for name, values in uncertainties.items():
            if name in self.tops:
                yield name, heat(values[0].cpu().numpy(), self.tops[name])
        if targets is not None:
            wrong = np.where((guess != truth)[..., None], WRONG, RIGHT)
            yield "Error", np.where(void[..., None], VOID, wrong).astype("u1")


def class_colors(count: int) -> UInt8[np.ndarray, "classes 3"]:
    """A colour for each class."""
    name = FEW_COLORS if count <= matplotlib.colormaps[FEW_COLORS].N else MANY_COLORS
    colormap = matplotlib.colormaps[name]
    places = np.arange(count) if name == FEW_COLORS else np.arange(count) / count
    colors: np.ndarray = (255 * colormap(places)[:, :3]).round().astype("u1")
    return colors


def _of_classes(predictions: Predictions, given: BernoulliPredictive) -> Predictions:
    """Predictions of one label at each position as those of two classes, absent and present."""
    targets = predictions.targets
    if targets is not None:
        targets = given.aligned(targets, ignore_index=predictions.ignore_index)[:, 0]
    states = given.as_classes
    alone = CategoricalPredictive(
        states.log_probabilities[:, :, 0], states.expected_entropy[:, 0], states.variance[:, :, 0],
        states.variation_ratio[:, 0], states.draw_count,
    )  # fmt: skip
    name = predictions.classes[0] if predictions.classes else "present"
    return replace(
        predictions, predictive=alone, targets=targets, classes=(f"not {name}", name),
        ignore_index=UNKNOWN,
    )  # fmt: skip
