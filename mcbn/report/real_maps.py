"""Maps of real values of pixels: truth, prediction, its spreads and its error."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from mcbn.drawing.heat import Pixels, heat
from mcbn.predictive.gaussian import GaussianPredictive, Moments
from mcbn.predictive.predictions import Predictions

BRIGHT = 0.99  # the share of pixels below what is shown brightest


@dataclass(frozen=True, eq=False)
class RealMaps:
    """Makes the maps of one real value of every pixel.

    Attributes:
        mean: the predictions, axes (examples, height, width).
        variances: by the name of their square root, whole and epistemic, if it is known.
        targets: the true values, if they are known.
        unit: of the values.
    """

    mean: Float[Tensor, "examples height width"]
    variances: dict[str, Float[Tensor, "examples height width"]]
    targets: Float[Tensor, "examples height width"] | None
    unit: str

    @classmethod
    def of(cls, predictions: Predictions) -> "RealMaps | None":
        """Those of some predictions; None if they are no pictures of one value a pixel."""
        given = predictions.predictive
        if not isinstance(given, (GaussianPredictive, Moments)):
            return None
        shape = given.mean.shape
        if len(shape) not in (3, 4) or (len(shape) == 4 and shape[1] != 1):
            return None
        pixels = (shape[0], *shape[-2:])
        parts = {"Standard deviation": given.variance}
        if given.draw_count > 1 and given.epistemic_variance is not None:
            parts["Epistemic sd"] = given.epistemic_variance
        targets = predictions.targets
        return cls(
            given.mean.reshape(pixels),
            {name: part.reshape(pixels) for name, part in parts.items()},
            None if targets is None else targets.reshape(pixels),
            predictions.unit,
        )

    @property
    def uncertainty(self) -> Float[Tensor, " examples"]:
        """The mean epistemic standard deviation of each example, or the whole of one draw."""
        return torch.stack([each.sqrt().mean() for each in list(self.variances.values())[-1]])

    @property
    def colors(self) -> dict[str, str]:
        """None: values have no names."""
        return {}

    @cached_property
    def tops(self) -> dict[str, float]:
        """What most pixels have less of."""
        # Example by example: a quantile of very many numbers is refused.
        tops: dict[str, float] = {}
        for index in range(len(self.mean)):
            for name, each in self._spreads_of(index).items():
                top = float(each.flatten().quantile(BRIGHT))
                tops[name] = max(top, tops.get(name, top))
        return tops

    def _spreads_of(self, index: int) -> dict[str, Float[Tensor, "height width"]]:
        """The standard deviations of an example by name, and its error where it is known."""
        spreads = {name: each[index].sqrt() for name, each in self.variances.items()}
        if self.targets is not None:
            spreads["Error"] = (self.mean[index] - self.targets[index]).abs()
        return spreads

    @cached_property
    def _range(self) -> tuple[float, float]:
        """The values that are shown darkest and brightest in truth and prediction."""
        shown = self.mean if self.targets is None else self.targets
        low, high = (float(end) for end in shown.aminmax())
        return low, high

    def maps_of(self, index: int) -> Iterator[tuple[str, Pixels]]:
        """Yield the name and the pixels of each map of an example."""
        low, high = self._range
        values = {"Truth": self.targets, "Prediction": self.mean}
        for name, each in values.items():
            if each is not None:
                yield name, heat(each[index].double().cpu().numpy(), high, low=low)
        for name, each in self._spreads_of(index).items():
            yield name, heat(each.double().cpu().numpy(), self.tops[name])
