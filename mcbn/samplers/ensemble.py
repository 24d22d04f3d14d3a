"""Deep ensembles as a sampler: one pass through each of several networks."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from jaxtyping import Shaped
from torch import Tensor
from torch.nn import Module, ModuleList

from mcbn import validation
from mcbn.inspection.layers import class_name
from mcbn.io.display import Display, Displayed
from mcbn.network.batchnorm import require_finite_weights, unwrapped
from mcbn.network.inputs import Inputs
from mcbn.samplers.loop import passes
from mcbn.samplers.outputs import Output, stacked
from mcbn.samplers.precision import ChosenPrecision, Precision, PrecisionChoice
from mcbn.samplers.sampler import require_draw


@dataclass(frozen=True, eq=False, repr=False)
class DeepEnsemble(Displayed):
    """A deep ensemble: one pass through each of several networks, running statistics throughout.

    Args:
        models: networks trained from different seeds.
        output: picks the output tensor where the networks return something else.
        precision: of the passes. "float32" is that of the network; "bfloat16" is autocast, at about
            half of the time on processors with units for it; "auto" measures at the first call, on
            some of its inputs, what rounding does, and takes bfloat16 where that is at most a
            quarter of the Monte Carlo error and it takes less time. `precision_choice` says why.

    Raises:
        TypeError: a member is not a module.
        ValueError: there is no network, or a weight is not finite.

    Reference:
        Lakshminarayanan, Pritzel and Blundell 2017, "Simple and Scalable Predictive Uncertainty
        Estimation using Deep Ensembles", section 2.4.
    """

    models: Sequence[Module]
    output: Output | None = field(default=None, kw_only=True)
    precision: Precision = field(default="float32", kw_only=True)
    _precision: ChosenPrecision = field(init=False)

    def __post_init__(self) -> None:
        # A Sequential is one network, though it has a length.
        several = (list, tuple, ModuleList)
        validation.require_type(self.models, several, "a list of networks", "put them in one")
        if len(self.models) == 0:
            raise ValueError("expected at least one network, got none; train a few and list them")
        object.__setattr__(self, "models", tuple(unwrapped(model) for model in self.models))
        for model in self.models:
            require_finite_weights(model)
        chosen = ChosenPrecision(self.precision, tuple(self.models), len(self))
        object.__setattr__(self, "_precision", chosen)

    def __len__(self) -> int:
        return len(self.models)

    @property
    def precision_choice(self) -> PrecisionChoice | None:
        """The precision of the passes, and why; None before the first call with "auto"."""
        return self._precision.choice

    def display(self) -> Display:
        """What it is made of, in one line."""
        return Display(
            f"DeepEnsemble of {len(self)} networks: "
            f"{', '.join(dict.fromkeys(map(class_name, self.models)))}{self._precision}"
        )

    def passes(self, inputs: Inputs) -> Iterator[Tensor]:
        """Yield the outputs for all inputs, one draw at a time."""
        return self._precision.run(self._passes, inputs)

    def draw(self, index: int, inputs: Inputs) -> Tensor:
        """The outputs of network `index` for all inputs."""
        require_draw(index, len(self))
        alone = partial(self._passes, only=index)
        return next(self._precision.run(alone, inputs, by=self._passes))

    def __call__(self, inputs: Inputs) -> Shaped[Tensor, "draws batch *rest"]:
        """All draws stacked."""
        return stacked(self.passes(inputs), inputs)

    def _passes(self, inputs: Inputs, *, only: int | None = None) -> Iterator[Tensor]:
        for model in self.models if only is None else [self.models[only]]:
            yield from passes(model, [{}], inputs, output=self.output)
