"""Maps of real values of pixels: truth, prediction, its spreads and its error."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from jaxtyping import Float
from torch import Tensor

from mcbn.predictive.gaussian import GaussianPredictive, Moments
from mcbn.predictive.predictions import Predictions
from mcbn.report.heat import Pixels, heat

BRIGHT = 0.99  # the share of pixels below what is shown brightest


@dataclass(frozen=True, eq=False)
class RealMaps:
    """Makes the maps of one real value of every pixel.

    Attributes:
        mean: the predictions, axes (examples, height, width).
        spreads: standard deviations by name, whole and epistemic, if it is known.
        targets: the true values, if they are known.
        unit: of the values.
    """

    mean: Float[Tensor, "examples height width"]
    spreads: dict[str, Float[Tensor, "examples height width"]]
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
            {name: part.sqrt().reshape(pixels) for name, part in parts.items()},
            None if targets is None else targets.reshape(pixels),
            predictions.unit,
        )

    @property
    def uncertainty(self) -> Float[Tensor, " examples"]:
        """The mean epistemic standard deviation of each example, or the whole of one draw."""
        return list(self.spreads.values())[-1].flatten(1).mean(1)

    @property
    def colors(self) -> dict[str, str]:
        """None: values have no names."""
        return {}

    @cached_property
    def tops(self) -> dict[str, float]:
        """What most pixels have less of."""
        values = dict(self.spreads)
        if self.targets is not None:
            values["Error"] = (self.mean - self.targets).abs()
        # Example by example: a quantile of very many numbers is refused.
        return {
            name: max(float(one.flatten().quantile(BRIGHT)) for one in each)
            for name, each in values.items()
        }

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
        for name, each in self.spreads.items():
            yield name, heat(each[index].cpu().numpy(), self.tops[name])
        if self.targets is not None:
            error = (self.mean[index] - self.targets[index]).abs()
            yield "Error", heat(error.double().cpu().numpy(), self.tops["Error"])
