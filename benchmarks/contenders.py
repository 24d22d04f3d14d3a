"""Methods that are timed: the engines, another library, and MC Dropout."""

import copy
import importlib
from collections.abc import Callable, Iterable
from typing import Any

import torch
from cases import Case, random
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import mcbn

ENGINES = ("auto", "loop", "folded", "batched")
ROUNDED = "auto, bfloat16"
# T plain forwards as a user would speed them up by hand: what draws cannot be expected to beat
# where all of the time goes into convolutions.
LAYOUT, ROUNDED_LAYOUT = "plain, channels last", "plain, channels last, bfloat16"
OTHER, DROPOUT, OWN_DROPOUT = "torch-uncertainty", "MC Dropout loop", "mcbn.MCDropout"
ROUNDED_DROPOUT = "mcbn.MCDropout, bfloat16"


def builders(
    case: Case, model: nn.Module, bank: mcbn.Bank, inputs: Tensor
) -> dict[str, Callable[[], Callable[[], None]]]:
    """For each method a function that prepares it and returns the function to be timed."""

    def engine(name: Any) -> Callable[[], None]:
        sampler = mcbn.MCBatchNorm(model, bank, engine=name)
        return lambda: consume(sampler.passes(inputs))

    def own_dropout(precision: Any) -> Callable[[], None]:
        sampler = mcbn.MCDropout(model, draws=case.draws, precision=precision)
        return lambda: consume(sampler.passes(inputs))

    def rounded() -> Callable[[], None]:
        sampler = mcbn.MCBatchNorm(model, bank, precision="bfloat16")
        return lambda: consume(sampler.passes(inputs))

    by_engine = {name: (lambda name=name: engine(name)) for name in ENGINES}
    return by_engine | {
        ROUNDED: rounded,
        LAYOUT: lambda: laid_out(model, inputs, case.draws, rounded=False),
        ROUNDED_LAYOUT: lambda: laid_out(model, inputs, case.draws, rounded=True),
        OTHER: lambda: other_library(case, model, inputs),
        DROPOUT: lambda: dropout_loop(case, model, inputs),
        OWN_DROPOUT: lambda: own_dropout("float32"),
        ROUNDED_DROPOUT: lambda: own_dropout("bfloat16"),
    }


def plain(model: nn.Module, inputs: Tensor, draws: int) -> None:
    """Run T plain forward passes."""
    with torch.no_grad():
        for _ in range(draws):
            model(inputs)


def laid_out(model: nn.Module, inputs: Tensor, draws: int, *, rounded: bool) -> Callable[[], None]:
    """T plain forwards with images channels last, in float32 or under autocast."""
    if inputs.ndim == 4:
        inputs = inputs.to(memory_format=torch.channels_last)
    device = inputs.device.type

    def run() -> None:
        with torch.autocast(device, torch.bfloat16, enabled=rounded):
            plain(model, inputs, draws)

    return run


def consume(rows: Iterable[Tensor]) -> None:
    """Compute all draws without keeping them."""
    for _ in rows:
        pass


def other_library(case: Case, model: nn.Module, inputs: Tensor) -> Callable[[], None]:
    """`MCBatchNorm` of torch-uncertainty, fitted on random examples."""
    try:
        module = importlib.import_module("torch_uncertainty.post_processing.mc_batch_norm")
    except ImportError as error:
        raise ImportError(f"not installed ({error})") from None
    other = module.MCBatchNorm
    other.mc_batch_norm_layers = []  # shared by all instances, so it would keep earlier networks
    device = inputs.device
    sampler = other(model, num_estimators=case.draws, mc_batch_size=case.size, device=device)
    examples = random(case, case.size, torch.device("cpu")).repeat(
        case.draws, *[1] * len(case.shape)
    )
    labels = torch.zeros(len(examples), dtype=torch.long)
    sampler.fit(DataLoader(TensorDataset(examples, labels), drop_last=True))

    def run() -> None:
        with torch.no_grad():
            sampler(inputs)

    return run


def dropout_loop(case: Case, model: nn.Module, inputs: Tensor) -> Callable[[], None]:
    """T plain forward passes with the dropout modules in train mode."""
    twin = copy.deepcopy(model).eval()
    layers = [layer for layer in twin.modules() if isinstance(layer, nn.modules.dropout._DropoutNd)]
    if not layers:
        raise ValueError("no dropout")
    for layer in layers:
        layer.train()
    return lambda: plain(twin, inputs, case.draws)
