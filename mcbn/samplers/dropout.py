"""MC dropout as a sampler: dropout stays on at inference, with masks that belong to a draw."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from jaxtyping import Shaped
from torch import Tensor
from torch.nn import Module

from mcbn.inspection.layers import class_name
from mcbn.io.display import Display, Displayed
from mcbn.network.batchnorm import require_finite_weights, unwrapped
from mcbn.network.conduct import supervised
from mcbn.network.dropout import DrawnMasks, Masks, dropout_layers, dropout_masks
from mcbn.network.inputs import Inputs
from mcbn.network.insertion import Place, Site, inserted_masks, insertion_sites
from mcbn.network.known_conducts import Conduct
from mcbn.samplers.loop import FirstDraw, answers, checked_inputs
from mcbn.samplers.masked_passes import masked_passes
from mcbn.samplers.outputs import Output, stacked, tensor_output, told_if_equal
from mcbn.samplers.precision import ChosenPrecision, Precision, PrecisionChoice
from mcbn.samplers.sampler import require_draw


@dataclass(frozen=True, eq=False, repr=False)
class MCDropout(Displayed):
    """Monte Carlo dropout: dropout stays on, batch norm keeps its running statistics.

    A draw is one set of masks, shared by all inputs as a draw of the weights is. A mask depends on
    (seed, draw, layer) alone, so an input's outputs do not depend on what it is batched with.

    Into a network that was trained without dropout it is put by `insert`, with hooks that are there
    during a pass alone. Channel maps, activations of 4 axes or more, lose whole channels, since
    neighbours in a map have nearly the same values. Others lose single values, and so do those of a
    module whose first layer is dense or a layer norm, since their channels are last. The rate was
    not trained, so compare a few of them on held-out data.

    Args:
        model: the trained network, with dropout as modules; each keeps its trained rate.
        draws: T, the number of passes.
        seed: chooses the masks.
        output: picks the output tensor where the network returns something else.
        insert: rate of the dropout to put in, between 0 and 1; None to use the network's own.
        at: where it is put in. "classifier": before the last dense or convolutional layer in the
            order of `named_modules`, which the display of the sampler names. "blocks": after each
            block, the outermost modules of several layers whose class is there at least twice. Or
            names of modules, before which it goes.
        precision: of the passes. "float32" is that of the network; "bfloat16" is autocast, at about
            half of the time on processors with units for it; "auto" measures at the first call, on
            some of its inputs, what rounding does, and takes bfloat16 where that is at most a
            quarter of the Monte Carlo error and it takes less time. `precision_choice` says why.

    Raises:
        TypeError: the model is not a module, or a module named by `at` gets no real tensor.
        ValueError: no dropout layer with a positive rate and no `insert`, or both; a rate that is
            not between 0 and 1; no such place; or a weight is not finite.

    Reference:
        Gal and Ghahramani 2016, "Dropout as a Bayesian Approximation", equation 6. Put in after
        training: Ledda, Fumera and Roli 2023, "Dropout injection at test time for post hoc
        uncertainty quantification in neural networks". Whole channels: Tompson et al. 2015,
        "Efficient object localization using convolutional networks".
    """

    model: Module
    draws: int = field(default=64, kw_only=True)
    seed: int = field(default=0, kw_only=True)
    output: Output | None = field(default=None, kw_only=True)
    insert: float | None = field(default=None, kw_only=True)
    at: Place = field(default="classifier", kw_only=True)
    precision: Precision = field(default="float32", kw_only=True)
    _precision: ChosenPrecision = field(init=False)

    def __post_init__(self) -> None:
        if self.draws < 1:
            raise ValueError(f"expected at least 1 draw, got {self.draws}; give draws=64 or so")
        object.__setattr__(self, "model", unwrapped(self.model))
        if self.insert is None and self.at != "classifier":
            raise ValueError(
                f"expected at= with the rate of a dropout to put in, got at={self.at!r} alone; "
                "give insert=0.1 as well"
            )
        if self.insert is None:
            dropout_layers(self.model)
        elif not 0 < self.insert < 1:
            raise ValueError(
                f"expected insert, a dropout rate, between 0 and 1, got {self.insert}; give 0.1"
            )
        self._sites()
        require_finite_weights(self.model)
        chosen = ChosenPrecision(self.precision, (self.model,), len(self))
        object.__setattr__(self, "_precision", chosen)

    def __len__(self) -> int:
        return self.draws

    @property
    def precision_choice(self) -> PrecisionChoice | None:
        """The precision of the passes, and why; None before the first call with "auto"."""
        return self._precision.choice

    def display(self) -> Display:
        """What it is made of, in one line."""
        return Display(
            f"MCDropout of {class_name(self.model)}: T = {self.draws}, seed {self.seed}"
            f"{self._inserted()}{self._precision}"
        )

    def passes(self, inputs: Inputs) -> Iterator[Tensor]:
        """Yield the outputs for all inputs, one draw at a time."""
        run = self._precision.run(self._passes, inputs)
        return told_if_equal(run, "no dropout layer of the network has an effect on its outputs")

    def draw(self, index: int, inputs: Inputs) -> Tensor:
        """The outputs for all inputs under the masks of draw `index`."""
        require_draw(index, self.draws)
        alone = partial(self._passes, only=index)
        return next(self._precision.run(alone, inputs, by=self._passes))

    def __call__(self, inputs: Inputs) -> Shaped[Tensor, "draws batch *rest"]:
        """All draws stacked."""
        return stacked(self.passes(inputs), inputs)

    def _passes(self, inputs: Inputs, *, only: int | None = None) -> Iterator[Tensor]:
        inputs = checked_inputs(self.model, inputs)

        def first(given: Inputs) -> Tensor:
            with self._dropping(DrawnMasks(self.seed, only or 0)):
                return FirstDraw(self.model, {}, self.output)(given)

        def outputs(conduct: Conduct) -> Iterator[Tensor]:
            one = partial(self._raw, conduct)
            if only is not None:
                return iter([tensor_output(one(inputs, only), self.output)])
            together = masked_passes(
                self.model, inputs, conduct, self._dropping, one,
                seed=self.seed, key=self._inserted(),
            )  # fmt: skip
            if together is None:
                raws = (one(inputs, draw) for draw in range(self.draws))
                return (tensor_output(raw, self.output) for raw in raws)
            return together.outputs(
                self.model, self._dropping, inputs, self.output, seed=self.seed, draws=self.draws
            )

        return supervised(self.model, inputs, first, outputs)

    def _raw(self, conduct: Conduct, inputs: Inputs, draw: int) -> Any:
        """What the network returns under the masks of a draw, by a pass of its own."""
        with self._dropping(DrawnMasks(self.seed, draw)):
            (raw,) = answers(self.model, [{}], inputs, conduct, first=draw)
            return raw

    def _dropping(self, masks: Masks) -> AbstractContextManager[None]:
        """The network with dropout by these masks."""
        if self.insert is None:
            return dropout_masks(self.model, masks)
        return inserted_masks(self.model, self._sites(), self.insert, masks)

    def _sites(self) -> tuple[Site, ...]:
        """Where dropout is put in; nowhere by default."""
        return () if self.insert is None else insertion_sites(self.model, self.at)

    def _inserted(self) -> str:
        """Which dropout was put in, in words."""
        sites = self._sites()
        if not sites:
            return ""
        named = ", ".join(f"{'after' if site.after else 'before'} {site.name}" for site in sites)
        return f", dropout {self.insert} put in {named}"
