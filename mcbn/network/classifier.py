"""The last weights of a network, and the activations that go into them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn import Linear, Module

from mcbn.network.isolation import in_this_thread, model_lock

CONVOLUTIONS = (
    nn.Conv1d, nn.Conv2d, nn.Conv3d,
    nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d,
)  # fmt: skip


def last_layer(model: Module) -> tuple[str, Module] | None:
    """The last dense or convolutional layer in the order of `named_modules`, with its name."""
    layers = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, (Linear, *CONVOLUTIONS))
    ]
    return layers[-1] if layers else None


@contextmanager
def arguments_of(module: Module, model: Module) -> Iterator[list[Any]]:
    """A list of the first arguments of a module, one per call of it in the last pass of a network.

    Passes in other threads are not seen.
    """
    arguments: list[Any] = []

    def begin(*_args: Any) -> None:
        arguments.clear()

    def note(_module: Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        value = args[0] if args else next(iter(kwargs.values()), None)
        # A later layer may write into it.
        arguments.append(value.clone() if isinstance(value, Tensor) else value)

    # Locked, so that no other thread finds the hooks where it looks at the network.
    with (
        model_lock(model),
        model.register_forward_pre_hook(in_this_thread(begin)),
        module.register_forward_pre_hook(in_this_thread(note), with_kwargs=True),
    ):
        yield arguments


def only_argument(given: list[Any], name: str) -> Tensor:
    """What a layer was given in the only call of it in a pass.

    Raises:
        ValueError: it was called not once.
        TypeError: it was given no tensor.
    """
    if len(given) != 1:
        raise ValueError(
            f"expected a layer that is called once in a pass, got {len(given)} calls of {name!r}; "
            "give layer=, a name in model.named_modules()"
        )
    if not isinstance(given[0], Tensor):
        raise TypeError(
            f"expected a layer that is given a tensor, got {type(given[0]).__name__} at {name!r}; "
            "give layer=, a name in model.named_modules()"
        )
    return given[0]
