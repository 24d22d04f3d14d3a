"""Training of small networks: repeatable bit for bit, without touching global random streams."""

import math
from collections.abc import Callable, Iterator
from typing import Literal, get_args

import torch
from jaxtyping import Int
from torch import Tensor, nn
from torch.nn import functional

from mcbn.io.progress import progress_bar
from mcbn.network.isolation import random_streams
from mcbn.tasks.examples import Examples, LabeledData
from mcbn.validation import finite, labels, require_same_shape, tensor

Loss = Literal["cross_entropy", "mse"]

# `torch.nn.functional.cross_entropy` skips this label, so that unlabelled positions can be marked.
IGNORED = -100


def build(builder: Callable[[], nn.Module], *, seed: int) -> nn.Module:
    """Return `builder()` with weights that depend on `seed` alone.

    Args:
        builder: makes the network, for example `lambda: mcbn.networks.mlp(8, 1)`.
        seed: of the initial weights; the global random streams stay as they were.
    """
    with random_streams(seed, "weights"):
        return builder()


def train(
    model: nn.Module,
    data: Examples,
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float = 1e-2,
    weight_decay: float = 1e-4,
    seed: int = 0,
    loss: Loss = "cross_entropy",
    progress: bool = False,
) -> nn.Module:
    """Train `model` in place by AdamW with a one-cycle learning rate; return it in eval mode.

    Equal seeds give equal weights, bit for bit on a CPU with as many threads. Every batch has
    exactly `batch_size` examples; those left over at the end of an epoch are skipped, other ones in
    each epoch.

    Args:
        model: any network; all its layers are put in training mode.
        data: inputs, each a tensor, with class indices (-100 where unlabelled) or real targets.
        epochs: passes over the data.
        batch_size: examples per batch, which is what batch norm sees.
        learning_rate: its largest value, reached after 30% of the steps.
        weight_decay: decoupled, multiplied by the learning rate.
        seed: of the order and the dropout masks; the global random streams stay as they were.
        loss: mean cross-entropy of logits, or mean squared error.
        progress: show a bar, if standard error is a terminal.

    Raises:
        TypeError: class indices are not integers.
        ValueError: an argument does not fit, or the loss or the weights become NaN or infinite.
    """
    _check_numbers(data, epochs, batch_size, learning_rate, weight_decay)
    schedule = _schedule(model, epochs * (len(data) // batch_size), learning_rate, weight_decay)
    orders = _orders(len(data), epochs, batch_size, seed)
    try:
        with random_streams(seed, "training"):
            _check_fit(model, data, loss)
            model.train()
            epochs_bar = progress_bar(
                orders, label="training", unit="epoch", total=epochs, shown=progress
            )
            for order in epochs_bar:
                _train_epoch(model, data, order, loss, schedule)
    finally:
        model.eval()
    return model


def _schedule(
    model: nn.Module, steps: int, learning_rate: float, weight_decay: float
) -> torch.optim.lr_scheduler.OneCycleLR:
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=weight_decay)
    return torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps)


def _orders(
    count: int, epochs: int, batch_size: int, seed: int
) -> Iterator[Int[Tensor, "steps batch"]]:
    generator = torch.Generator().manual_seed(seed)
    whole = count // batch_size * batch_size
    for _ in range(epochs):
        yield torch.randperm(count, generator=generator)[:whole].view(-1, batch_size)


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def _train_epoch(
    model: nn.Module,
    data: Examples,
    order: Int[Tensor, "steps batch"],
    loss: Loss,
    schedule: torch.optim.lr_scheduler.OneCycleLR,
) -> None:
    device = _device(model)
    total = torch.zeros((), device=device)
    for batch in order:
        schedule.optimizer.zero_grad()
        inputs, targets = data.batch(batch)
        outputs = model(tensor(inputs, "inputs").to(device))
        error = _mean_loss(outputs, targets.to(device), loss)
        error.backward()  # type: ignore[no-untyped-call]
        schedule.optimizer.step()
        schedule.step()
        total = total + error.detach()
    # The loss is computed before a step, so the last step shows in the weights only.
    state = [value for value in model.state_dict().values() if value.is_floating_point()]
    if not all(bool(torch.isfinite(value).all()) for value in [total, *state]):
        raise ValueError(
            f"expected a finite loss and finite weights, got NaN or infinity in epoch "
            f"{schedule.last_epoch // len(order)}; lower learning_rate"
        )


def _mean_loss(outputs: Tensor, targets: Tensor, loss: Loss) -> Tensor:
    if loss == "mse":
        return functional.mse_loss(outputs, targets)
    return functional.cross_entropy(outputs, targets.long(), ignore_index=IGNORED)


def _check_numbers(
    data: Examples, epochs: int, batch_size: int, learning_rate: float, weight_decay: float
) -> None:
    if epochs < 1:
        raise ValueError(f"expected at least 1 epoch, got {epochs}; give a positive number")
    if not 1 <= batch_size <= len(data):
        raise ValueError(
            f"expected batch_size from 1 to the {len(data)} examples, got {batch_size}; "
            "lower it or give more data"
        )
    if not 0 < learning_rate < math.inf:
        raise ValueError(
            f"expected a positive learning_rate, got {learning_rate}; 0.01 suits most small nets"
        )
    if not 0 <= weight_decay < math.inf:
        raise ValueError(
            f"expected weight_decay of at least 0, got {weight_decay}; 0 switches it off"
        )
    if isinstance(data, LabeledData):
        finite(data.inputs, "data.inputs")


def _check_fit(model: nn.Module, data: Examples, loss: str) -> None:
    if loss not in get_args(Loss):
        raise ValueError(f"expected loss to be one of {get_args(Loss)}, got {loss!r}; choose one")
    inputs, targets = data.batch(torch.tensor([0]))
    # Evaluation mode: one example is enough, and the running statistics stay as they are.
    with torch.no_grad():
        outputs = model.eval()(tensor(inputs, "inputs").to(_device(model)))
    every = data.targets if isinstance(data, LabeledData) else targets
    if loss == "mse":
        finite(every, "data.targets")
        require_same_shape(outputs, targets, ("model outputs", "data.targets"))
        return
    known = every[every != IGNORED]
    labels(known, outputs.shape[1], tuple(known.shape))
    positions = (outputs.shape[0], *outputs.shape[2:])
    if tuple(targets.shape) != positions:
        raise ValueError(
            f"expected data.targets of shape {positions} for one example, got "
            f"{tuple(targets.shape)}; give one class index per prediction"
        )
