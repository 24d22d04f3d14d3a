"""A network as a stranger writes it, what it is called with, and what is expected of each entry."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Generator, Tensor, nn

EXACT, REFUSED, WARNED = "exact", "refused", "warned"
# What there is no sense in asking of a network: a tensor of examples where it takes several.
ABSENT = "absent"
FEATURES, CLASSES = 6, 3


def rows(*shape: int, shift: float = 0.5) -> Callable[[Generator], Tensor]:
    """Makes one random example that is not centred."""
    return lambda generator: torch.randn(shape or (FEATURES,), generator=generator) + shift


def stacked(examples: list[Any]) -> Any:
    """A batch of examples that are alike: each tensor with a leading axis."""
    first = examples[0]
    if isinstance(first, Tensor):
        return torch.stack(examples)
    if isinstance(first, dict):
        return {key: stacked([each[key] for each in examples]) for key in first}
    return tuple(stacked(list(entries)) for entries in zip(*examples, strict=True))


def all_but_dropout(network: nn.Module) -> None:
    """Train mode without dropout: what a draw stands for."""
    network.train()
    for module in network.modules():
        if "Drop" in type(module).__name__:
            module.eval()


def batch_norm_alone(network: nn.Module) -> None:
    """Train mode of the batch norm alone, where a network does more in training."""
    network.eval()
    for module in network.modules():
        if "BatchNorm" in type(module).__name__:
            module.training = True


@dataclass(frozen=True, eq=False)
class Stranger:
    """A network and the answers that are expected.

    Attributes:
        name: of the network.
        build: makes it, with random weights.
        example: makes one example.
        collate: makes what the network is called with of a list of examples.
        output: picks the tensor that counts out of the answer.
        gaussian: whether the outputs are real values; else they are logits.
        expected: the verdict of each entry that is not exact, by its name or its family, the part
            before the first blank; several verdicts are joined by "or".
        words: what a refusal or a warning has to name, a regular expression.
        training: puts a copy in the train mode that a draw stands for.
        switch: changes plain attributes, after which the network is another one.
        whole: whether a batch must not be cut along its first axis.
        batch_size: M.
        tolerance: largest difference that rounding explains, relative to the largest output.
    """

    name: str
    build: Callable[[], nn.Module]
    example: Callable[[Generator], Any] = field(default_factory=rows)
    collate: Callable[[list[Any]], Any] = stacked
    output: Callable[[Any], Tensor] | None = None
    gaussian: bool = False
    expected: Mapping[str, str] = field(default_factory=dict)
    words: str = ""
    training: Callable[[nn.Module], None] = all_but_dropout
    switch: Callable[[nn.Module], None] | None = None
    whole: bool = False
    batch_size: int = 8
    tolerance: float = 1e-4

    def examples(self, count: int, seed: int) -> list[Any]:
        """The first `count` examples of an endless list."""
        generator = Generator().manual_seed(seed)
        return [self.example(generator) for _ in range(count)]

    def allowed(self, entry: str) -> set[str]:
        """The verdicts that are right for an entry."""
        if entry == "commands":  # they are both, one after the other
            one, other = self.allowed("collect minibatches"), self.allowed("predict tensor")
            return (one | other) - ({EXACT} - one & other)
        family = entry.split()[0]
        # One set of checks: what collect says is what inspect and the command line say.
        alike = {"inspect": "collect", "doctor": "collect", "augmented": "mcbn",
                 "inserted": "deterministic", "laplace": "deterministic",
                 "posterior": "deterministic"}  # fmt: skip
        same = alike.get(family, family)
        names = (entry, family, same, "all")
        said = next((self.expected[name] for name in names if name in self.expected), EXACT)
        # These ask more of a network than the others do; a file is held to what `predict` says.
        demanding = family in (
            "linearized", "augmented", "inserted", "laplace", "posterior", "export"
        )  # fmt: skip
        predicted = self.allowed("predict tensor") if family == "export" else set()
        return {*said.split(" or ")} | ({REFUSED} if demanding else set()) | predicted


# Outputs that are not one per example: a call says so, and what pairs them with examples refuses.
COUNTED = {"all": "refused", "collect": "exact or refused"} | dict.fromkeys(
    ("mcbn", "ensemble", "deterministic", "bank"), "warned or refused"
)


def network(forward: Callable[..., Any], /, **parts: Any) -> nn.Module:
    """A network of a class of its own, with that forward; parts are modules or plain attributes."""
    made = type(forward.__name__.strip("_<>").title(), (nn.Module,), {"forward": forward})()
    for name, part in parts.items():
        setattr(made, name, part)
    return made


def dense(norm: nn.Module | None = None, *last: nn.Module) -> nn.Sequential:
    """Two layers around one normalisation."""
    return nn.Sequential(
        nn.Linear(FEATURES, 8), norm or nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, CLASSES), *last
    )
