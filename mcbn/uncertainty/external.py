"""Detectors of other libraries, such as pytorch-ood, as scores of inputs."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor
from torch.nn import Module

from mcbn import validation
from mcbn.inspection.layers import class_name
from mcbn.io.display import Display, Displayed
from mcbn.network.inputs import Inputs, Select, count
from mcbn.network.isolation import eval_mode, restored
from mcbn.network.loaders import Data
from mcbn.predictive.predict import predict
from mcbn.samplers.features import Features
from mcbn.samplers.loop import checked_inputs
from mcbn.uncertainty.neighbors import vectors
from mcbn.uncertainty.rows import RowsOf


@dataclass(frozen=True, eq=False, repr=False)
class ExternalDetector(Displayed):
    """A detector of another library, once it is fitted, as a score of inputs.

    It is any object with a method `predict(inputs)` that answers with one number per example (and
    position), higher where it is more likely out of distribution: that is the convention of
    pytorch-ood. Networks among its attributes are in eval mode during the call, and are left as
    they were. With `model` the features of that network, one vector per example, are given to its
    `predict_features(features)` instead.

    Args:
        detector: of the other library.
        model: the trained network whose features it is given; by default it takes inputs.
        layer: whose inputs the features are; see `NearestNeighbors.fit`.
        select: picks the network's inputs out of a batch where the default rule does not apply.
        batch_size: examples per call; by default the loader's own, else 256.
        name: in tables and files; by default that of its class.

    Raises:
        TypeError: the detector has no such method.

    Reference:
        Kirchheim, Filax and Ortmeier 2022, "PyTorch-OOD: A Library for Out-of-Distribution
        Detection based on PyTorch".
    """

    detector: Any
    model: Module | None = field(default=None, kw_only=True)
    layer: str | None = field(default=None, kw_only=True)
    select: Select | None = field(default=None, kw_only=True)
    batch_size: int | None = field(default=None, kw_only=True)
    name: str = field(default="", kw_only=True)

    def __post_init__(self) -> None:
        if not callable(getattr(self.detector, self._method, None)):
            raise TypeError(
                f"expected a detector with the method {self._method}, got "
                f"{type(self.detector).__name__}; give a fitted detector, and model= only where it "
                "takes features"
            )
        object.__setattr__(self, "name", self.name or type(self.detector).__name__)

    @property
    def _method(self) -> str:
        return "predict" if self.model is None else "predict_features"

    def __call__(self, data: Data, /) -> Float64[Tensor, "batch *positions"]:
        """The detector's number for each example, in the order of the data.

        Args:
            data: inputs as a tensor, a data set, or a loader in fixed order; targets are ignored.

        Raises:
            TypeError: the detector answers with something else than a tensor.
            ValueError: no data, or not one finite number per example.
        """
        options: Any = {"batch_size": self.batch_size, "select": self.select, "progress": False}
        if self.model is None:
            return predict(_Asked(self.detector), data, RowsOf(self._checked), **options).values
        features = Features(self.model, layer=self.layer)

        def answers(outputs: Tensor) -> Tensor:
            given = vectors(features, outputs, normalized=False)
            return self._checked(_answer(self.detector, "predict_features", given))

        return predict(features, data, RowsOf(answers), **options).values

    def display(self) -> Display:
        """What it is made of, in one line."""
        of = "" if self.model is None else f" by the features of {class_name(self.model)}"
        return Display(f"External detector: {self.name}{of}")

    def _checked(self, numbers: Tensor) -> Tensor:
        return validation.finite(numbers, f"the score {self.name!r}").detach().double().cpu()


@dataclass(frozen=True, eq=False)
class _Asked:
    """A detector as a sampler of one draw: its answers to inputs."""

    detector: Any

    def __len__(self) -> int:
        return 1

    def passes(self, inputs: Inputs) -> Iterator[Tensor]:
        """Yield the detector's answer, once."""
        networks = _networks(self.detector)
        yield _answer(
            self.detector, "predict", checked_inputs(networks[0], inputs) if networks else inputs
        )

    def __call__(self, inputs: Inputs) -> Tensor:
        """The detector's answer with an axis of one draw."""
        return torch.stack(list(self.passes(inputs)))


def _answer(detector: Any, method: str, given: Any) -> Tensor:
    """What a detector answers, with gradients at hand, which some of them need."""
    with ExitStack() as stack:
        for network in _networks(detector):
            stack.enter_context(_as_found(network))
        stack.enter_context(torch.enable_grad())
        answer = getattr(detector, method)(given)
    validation.require_type(
        answer, Tensor, f"a tensor from {method} of {type(detector).__name__}",
        "wrap the detector in an object whose method answers with one",
    )  # fmt: skip
    rows: Tensor = answer.detach()
    if rows.ndim == 0 or len(rows) != count(given):
        raise ValueError(
            f"expected one number per example from {method} of {type(detector).__name__}, got "
            f"shape {tuple(rows.shape)} for {count(given)} examples; let it keep the examples apart"
        )
    # Some detectors keep the axis of what they reduced.
    return rows.squeeze(1) if rows.ndim == 2 and rows.shape[1] == 1 else rows


@contextmanager
def _as_found(network: Module) -> Iterator[None]:
    """Hold a network in eval mode, and give it back its state and its gradients."""
    gradients = [(parameter, parameter.grad) for parameter in network.parameters()]
    for parameter, _ in gradients:
        parameter.grad = None
    try:
        with restored(network), eval_mode(network):
            yield
    finally:
        for parameter, gradient in gradients:
            parameter.grad = gradient


def _networks(detector: Any) -> list[Module]:
    """The networks among the attributes of a detector, and those whose methods it keeps."""
    kept = list(vars(detector).values()) if hasattr(detector, "__dict__") else []
    owners = [getattr(value, "__self__", value) for value in kept]
    found = {id(each): each for each in owners if isinstance(each, Module)}
    return list(found.values())
