"""Interleaved wall times, and the floors of this machine."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from cases import Case
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

# Sizes of square matrix products; the arithmetic rate is that of the fastest.
MATRICES = (256, 512, 1024, 2048)
FLOOR_CALLS, FLOOR_SECONDS = 5, 0.3  # minimum calls and seconds per rate
PRODUCTS = (nn.Linear, nn.modules.conv._ConvNd)


def interleaved(
    contenders: dict[str, Callable[[], Any]], rounds: int, title: str
) -> dict[str, list[float]]:
    """Seconds of each method in each round; a round times all of them once, in turn."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in tqdm(range(rounds), desc=title, unit="round", leave=False):
        for name, run in contenders.items():
            times[name].append(seconds(run))
    return times


def seconds(run: Callable[[], Any]) -> float:
    """Wall time of one call, including work on the GPU."""
    settle()
    start = time.perf_counter()
    run()
    settle()
    return time.perf_counter() - start


def settle() -> None:
    """Wait for the GPU, if it is in use."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def paired(times: list[float], base: list[float]) -> float:
    """The median over rounds of the ratio within a round."""
    return statistics.median(one / other for one, other in zip(times, base, strict=True))


@dataclass(frozen=True)
class Work:
    """What the products of some passes do at least.

    Attributes:
        operations: multiplications and additions.
        bytes: read and written, if each product reads its input and weights once and writes its
            output once; nothing else is counted.
        largest: bytes of the largest product.
    """

    operations: int
    bytes: int
    largest: int


def work(model: nn.Module, inputs: Tensor, draws: int) -> Work:
    """The work of T draws; that before the first batch norm is the same for all and counts once."""
    shared: list[tuple[int, int]] = []
    sizes: list[int] = []

    def note(module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
        weights = sum(weight.numel() for weight in module.parameters())
        sizes.append((given[0].numel() + weights + output.numel()) * output.element_size())

    def mark(*_: object) -> None:
        shared.append((counter.get_total_flops(), sum(sizes)))

    first = next(m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm))
    hooks = [m.register_forward_hook(note) for m in model.modules() if isinstance(m, PRODUCTS)]
    hooks.append(first.register_forward_pre_hook(mark))
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        model(inputs)
    for hook in hooks:
        hook.remove()
    totals = counter.get_total_flops(), sum(sizes)
    operations, moved = (
        once + draws * (total - once) for once, total in zip(shared[0], totals, strict=True)
    )
    return Work(operations, moved, max(sizes))


def floors(case: Case, model: nn.Module, inputs: Tensor, base: float) -> dict[str, Any]:
    """Times at the machine's best rates, as ratios to T plain forward passes, and the rates."""
    found = work(model, inputs, case.draws)
    needed = {"float32": found.operations, "bfloat16": found.operations, "bytes": found.bytes}
    rates = {
        "float32": arithmetic(inputs.device),
        "bfloat16": arithmetic(inputs.device, torch.bfloat16),
        "bytes": copying(found.largest, inputs.device),
    }
    ratios = {name: needed[name] / rate / base for name, rate in rates.items()}
    return {**ratios, "rates": {name: rate / 1e9 for name, rate in rates.items()}}


def best(run: Callable[[], Any]) -> float:
    """The shortest time of several calls, after a warm-up call."""
    seconds(run)
    times: list[float] = []
    while len(times) < FLOOR_CALLS or sum(times) < FLOOR_SECONDS:
        times.append(seconds(run))
    return min(times)


def arithmetic(device: torch.device, kind: torch.dtype = torch.float32) -> float:
    """Operations per second of the fastest matrix product."""
    rates = []
    for size in MATRICES:
        matrix = torch.randn(size, size, device=device).to(kind)
        result = torch.empty_like(matrix)
        rates.append(2 * size**3 / best(lambda: torch.mm(matrix, matrix, out=result)))  # noqa: B023
    return max(rates)


def copying(size: int, device: torch.device) -> float:
    """Bytes per second, read and written, of a copy as large as the network's largest product."""
    # Written once, since reading untouched memory costs nothing.
    source = torch.ones(max(1, size // 8), device=device)
    target = torch.empty_like(source)
    repeats = max(1, 2**18 // len(source))

    def run() -> None:
        for _ in range(repeats):
            target.copy_(source)

    return 2 * source.nbytes * repeats / best(run)
