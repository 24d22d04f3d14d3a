"""Speed of T draws by each engine, against T plain forwards, and of building a bank.

Run: python benchmarks/engines.py [--quick] [NETWORK ...]    (about 25 minutes on 2 cores)

Writes results.json beside this file, and the tables of docs/performance.md. Networks that are not
named keep their figures. --quick tries all with few draws and two rounds, and writes nothing.
"""

import copy
import importlib
import importlib.util
import json
import logging
import os
import platform
import statistics
import sys
import time
import types
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import resnet18, resnet50
from tqdm import tqdm

import mcbn
from mcbn import networks
from mcbn.durable import write_whole

RESULTS = Path(__file__).parent / "results.json"
PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
BEGIN, END = "<!-- tables: begin -->", "<!-- tables: end -->"
ROUNDS, QUICK_ROUNDS, QUICK_DRAWS = 7, 2, 2
ENGINES = ("auto", "loop", "folded", "batched", "compiled")
OTHER, DROPOUT, OWN_DROPOUT = "torch-uncertainty", "MC Dropout loop", "mcbn.MCDropout"
OTHER_BAR = 0.9  # of the other library's time, for every network
CHOOSING_BAR = 2.0  # forwards
CHOOSING_DRAWS = 8
# Sizes of the square matrix products that the arithmetic rate is the best of.
MATRICES = (256, 512, 1024, 2048)
FLOOR_CALLS, FLOOR_SECONDS = 5, 0.3  # that each rate is measured for, at least
PRODUCTS = (nn.Linear, nn.modules.conv._ConvNd)


@dataclass(frozen=True)
class Case:
    """T draws of N examples through a network, with a bank of mini-batches of M."""

    network: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    examples: int
    draws: int
    size: int
    bar: float | None = None

    @property
    def name(self) -> str:
        """What the figures are filed under."""
        return f"{self.network}, N = {self.examples:,}, T = {self.draws}, M = {self.size}"


def vgg() -> nn.Module:
    """Return three pairs of 3x3 convolutions with batch norm, a global average and a head."""
    layers: list[nn.Module] = []
    channels = 1
    for index, width in enumerate((32, 32, 64, 64, 128, 128)):
        layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)]
        layers += [nn.ReLU(), *([nn.MaxPool2d(2)] if index in (1, 3) else [])]
        channels = width
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.1), nn.Linear(channels, 10)
    )


def dense() -> nn.Module:
    """Return the network of 13-50-50-1."""
    return networks.mlp(13, 1, width=50, depth=2)


def small_resnet() -> nn.Module:
    """Return a ResNet-18 of ten classes."""
    return resnet18(num_classes=10)


IMAGE = (3, 32, 32)
CASES = (
    Case("MLP 13-50-50-1", dense, (13,), 100, 500, 128, bar=0.2),
    Case("MLP 13-50-50-1", dense, (13,), 10_000, 500, 128, bar=0.6),
    Case("VGG-like, 28x28", vgg, (1, 28, 28), 64, 16, 32, bar=0.52),
    Case("ResNet-18, 32x32", small_resnet, IMAGE, 1, 32, 32, bar=0.42),
    Case("ResNet-18, 32x32", small_resnet, IMAGE, 8, 32, 32, bar=0.65),
    Case("ResNet-18, 32x32", small_resnet, IMAGE, 64, 16, 32, bar=0.80),
    Case("ResNet-50, 224x224", resnet50, (3, 224, 224), 4, 8, 8),
    Case("U-Net, 180x240", lambda: networks.unet(3, 11), (3, 180, 240), 2, 8, 4),
)
BANKS = (
    Case("bank of MLP 13-50-50-1", dense, (13,), 10_000, 500, 128, bar=0.3),
    Case("bank of ResNet-18, 32x32", small_resnet, IMAGE, 1_000, 8, 32, bar=1.05),
)


def main() -> None:
    """Measure what was asked for on each device there is, and keep the rest of the figures."""
    logging.getLogger("mcbn").setLevel(logging.DEBUG)
    quick = "--quick" in sys.argv
    asked = [word for word in sys.argv[1:] if word != "--quick"]
    found = json.loads(RESULTS.read_text()) if RESULTS.is_file() and not quick else {}
    found.setdefault("gpu", "not measured")
    cases = [c for c in (*CASES, *BANKS) if not asked or any(word in c.name for word in asked)]
    for place, device in places():
        kept = found[place]["cases"] if isinstance(found.get(place), dict) else {}
        found[place] = {"machine": machine(device), "cases": kept}
        for case in tqdm(cases, desc=place, unit="network"):
            measure = bank_figures if case in BANKS else figures
            rounds = QUICK_ROUNDS if quick else ROUNDS
            seen = replace(case, draws=QUICK_DRAWS) if quick else case
            kept[case.name] = measure(seen, device, rounds)
            if not quick:
                write_whole(RESULTS, (json.dumps(found, indent=1) + "\n").encode())
    written = tables(found)
    if quick:
        tqdm.write(written)
        return
    before, _, rest = PAGE.read_text().partition(BEGIN)
    page = f"{before}{BEGIN}\n\n{written}\n{END}{rest.partition(END)[2]}"
    write_whole(PAGE, page.encode())


def places() -> list[tuple[str, torch.device]]:
    """The processor, and the GPU where there is one."""
    gpu = [("gpu", torch.device("cuda"))] if torch.cuda.is_available() else []
    return [("cpu", torch.device("cpu")), *gpu]


def machine(device: torch.device) -> dict[str, object]:
    """What the figures hold for."""
    gpu = device.type == "cuda"
    return {
        "name": torch.cuda.get_device_name(device) if gpu else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def figures(case: Case, device: torch.device, rounds: int) -> dict[str, Any]:
    """Ratios of every contender to T plain forwards, the floors, and what choosing costs."""
    model = made(case, device)
    bank = quick_bank(model, case, device)
    inputs = random(case, case.examples, device)
    contenders = {"plain": lambda: plain(model, inputs, case.draws)}
    reasons: dict[str, Any] = {}
    for name, build in builders(case, model, bank, inputs).items():
        with Heard() as heard:
            try:
                run = build()
                run()  # whatever is done once is done here
                contenders[name] = run
            except Exception as error:  # an engine or a library may fail in any way
                reasons[name] = f"not available: {error}".splitlines()[0]
        if heard.lines and name in contenders:
            reasons[name] = {"gave up": heard.lines}
    times = interleaved(contenders, rounds, case.name)
    found: dict[str, Any] = {
        "draws": case.draws,
        "plain_seconds": statistics.median(times["plain"]),
        "ratios": {name: paired(times[name], times["plain"]) for name in times if name != "plain"},
        "notes": reasons,
        "floor": floors(case, model, inputs, statistics.median(times["plain"])),
        "choosing": choosing(case, model, bank, inputs, rounds),
    }
    if OTHER in times:
        found["auto_to_other"] = paired(times["auto"], times[OTHER])
    return found


class Heard(logging.Handler):
    """Collects what the package says at debug level: an engine that gives way says so there."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the first line of a message."""
        self.lines.append(record.getMessage().splitlines()[0][:200])

    def __enter__(self) -> "Heard":
        logging.getLogger("mcbn").addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger("mcbn").removeHandler(self)


def made(case: Case, device: torch.device) -> nn.Module:
    """The network with the weights of a fixed seed and running statistics of random examples."""
    torch.manual_seed(0)
    model = case.build().to(device).train()
    with torch.no_grad():
        for seed in range(8):
            model(random(case, max(4, min(case.size, 8)), device, seed))
    return model.eval()


def random(case: Case, count: int, device: torch.device, seed: int = 0) -> Tensor:
    """Random examples that a network takes."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, *case.shape, generator=generator).to(device)


def quick_bank(model: nn.Module, case: Case, device: torch.device) -> mcbn.Bank:
    """A bank of T draws: two collected ones, repeated with a little noise."""
    batches = [random(case, case.size, device, seed) for seed in (1, 2)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mcbn.InconsistentBankWarning)
        bank = mcbn.collect(model, batches, progress=False)
    generator = torch.Generator().manual_seed(0)
    rows = {}
    for name, drawn in bank.statistics.items():
        tiled = drawn[torch.arange(case.draws, device=device) % 2]
        noise = 1 + 0.01 * torch.randn(tiled.shape, generator=generator).to(device)
        rows[name] = tiled * noise
    return replace(bank, statistics=rows)


def plain(model: nn.Module, inputs: Tensor, draws: int) -> None:
    """T forwards and nothing else."""
    with torch.no_grad():
        for _ in range(draws):
            model(inputs)


def consume(rows: Iterable[Tensor]) -> None:
    """Take all draws, keep none."""
    for _ in rows:
        pass


def builders(
    case: Case, model: nn.Module, bank: mcbn.Bank, inputs: Tensor
) -> dict[str, Callable[[], Callable[[], None]]]:
    """For each contender a function that prepares it and returns what is timed."""

    def engine(name: Any) -> Callable[[], None]:
        sampler = mcbn.MCBatchNorm(model, bank, engine=name)
        return lambda: consume(sampler.passes(inputs))

    def own_dropout() -> Callable[[], None]:
        sampler = mcbn.MCDropout(model, draws=case.draws)
        return lambda: consume(sampler.passes(inputs))

    found = {name: (lambda name=name: engine(name)) for name in ENGINES}
    return found | {
        OTHER: lambda: other_library(case, model, inputs),
        DROPOUT: lambda: dropout_loop(case, model, inputs),
        OWN_DROPOUT: own_dropout,
    }


def other_library(case: Case, model: nn.Module, inputs: Tensor) -> Callable[[], None]:
    """MCBatchNorm of torch-uncertainty, fitted on random examples."""
    try:
        other = imported()
    except ImportError as error:
        raise ImportError(f"not installed ({error})") from None
    other.mc_batch_norm_layers = []  # shared by all instances, so an earlier network would stay
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


def imported() -> Any:
    """The other library's class; its dependency goes by another name on some machines."""
    if "lightning" not in sys.modules and importlib.util.find_spec("lightning") is None:
        package = types.ModuleType("lightning")
        package.__path__ = []
        for part, name in (("pytorch", "pytorch_lightning"), ("fabric", "lightning_fabric")):
            sys.modules[f"lightning.{part}"] = importlib.import_module(name)
            setattr(package, part, sys.modules[f"lightning.{part}"])
        sys.modules["lightning"] = package
    return importlib.import_module("torch_uncertainty.post_processing.mc_batch_norm").MCBatchNorm


def dropout_loop(case: Case, model: nn.Module, inputs: Tensor) -> Callable[[], None]:
    """T plain forwards with the dropout modules in train mode."""
    twin = copy.deepcopy(model).eval()
    layers = [layer for layer in twin.modules() if isinstance(layer, nn.modules.dropout._DropoutNd)]
    if not layers:
        raise ValueError("no dropout")
    for layer in layers:
        layer.train()
    return lambda: plain(twin, inputs, case.draws)


def interleaved(
    contenders: dict[str, Callable[[], Any]], rounds: int, title: str
) -> dict[str, list[float]]:
    """Seconds of each contender in each round; a round times all of them once, in turn."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in tqdm(range(rounds), desc=title, unit="round", leave=False):
        for name, run in contenders.items():
            times[name].append(seconds(run))
    return times


def seconds(run: Callable[[], Any]) -> float:
    """Wall time of one call, the GPU's work included."""
    settle()
    start = time.perf_counter()
    run()
    settle()
    return time.perf_counter() - start


def settle() -> None:
    """Wait for the GPU, if it was used."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def paired(times: list[float], base: list[float]) -> float:
    """The median over rounds of the ratio within a round."""
    return statistics.median(one / other for one, other in zip(times, base, strict=True))


def choosing(
    case: Case, model: nn.Module, bank: mcbn.Bank, inputs: Tensor, rounds: int
) -> dict[str, Any]:
    """Forwards that the first call of a network takes over a later one: paid once, then kept.

    A few draws only, since the choice does not depend on how many there are.
    """
    bank, extra = bank.first(min(CHOOSING_DRAWS, case.draws)), []
    for _ in range(rounds):
        fresh = copy.deepcopy(model)
        plain(fresh, inputs, 1)
        one = seconds(lambda: plain(fresh, inputs, 1))  # noqa: B023
        sampler = mcbn.MCBatchNorm(fresh, bank)
        first, later = (seconds(lambda: consume(sampler.passes(inputs))) for _ in range(2))  # noqa: B023
        extra.append((first - later) / one)
    return {"forwards": statistics.median(extra), "each": extra}


def floors(case: Case, model: nn.Module, inputs: Tensor, base: float) -> dict[str, float]:
    """What the machine's best rates would allow, as ratios to the T plain forwards.

    What comes before the first batch norm is the same for all draws and counts once. Each product
    reads its input and weights once and writes its output once; all else counts nothing.
    """
    shared: list[tuple[int, int]] = []
    sizes: list[int] = []

    def note(_: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
        sizes.append((given[0].numel() + output.numel()) * output.element_size())

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
    work = [once + case.draws * (total - once) for once, total in
            zip(shared[0], (counter.get_total_flops(), sum(sizes)), strict=True)]  # fmt: skip
    rate, bandwidth = arithmetic(inputs.device), copying(max(sizes), inputs.device)
    return {
        "gflops": rate / 1e9,
        "gigabytes_per_second": bandwidth / 1e9,
        "arithmetic": work[0] / rate / base,
        "bytes": work[1] / bandwidth / base,
    }


def best(run: Callable[[], Any]) -> float:
    """The shortest of as many calls as fit in a moment, after a first one."""
    seconds(run)
    times: list[float] = []
    while len(times) < FLOOR_CALLS or sum(times) < FLOOR_SECONDS:
        times.append(seconds(run))
    return min(times)


def arithmetic(device: torch.device) -> float:
    """Operations a second of the fastest matrix product."""
    rates = []
    for size in MATRICES:
        matrix = torch.randn(size, size, device=device)
        result = torch.empty_like(matrix)
        rates.append(2 * size**3 / best(lambda: torch.mm(matrix, matrix, out=result)))  # noqa: B023
    return max(rates)


def copying(size: int, device: torch.device) -> float:
    """Bytes a second, read and written, of a copy as large as a network's widest product."""
    # Written to, since memory that nobody has touched yet is free to read.
    source = torch.ones(max(1, size // 8), device=device)
    target = torch.empty_like(source)
    repeats = max(1, 2**18 // len(source))

    def run() -> None:
        for _ in range(repeats):
            target.copy_(source)

    return 2 * source.nbytes * repeats / best(run)


def bank_figures(case: Case, device: torch.device, rounds: int) -> dict[str, Any]:
    """Ratios of building a bank to T train-mode forwards of the same mini-batches."""
    model = made(case, device)
    data = random(case, case.examples, device)
    drawn = mcbn.minibatches(data, batch_size=case.size, draws=case.draws)
    ready = list(drawn)

    def collect(batches: Iterable[Tensor]) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", mcbn.InconsistentBankWarning)
            mcbn.collect(model, batches, progress=False)

    twin = copy.deepcopy(model).train()
    for layer in twin.modules():
        if isinstance(layer, nn.modules.dropout._DropoutNd):
            layer.eval()

    def trained(batches: Iterable[Tensor]) -> None:
        with torch.no_grad():
            for batch in batches:
                twin(batch)

    contenders: dict[str, Callable[[], Any]] = {
        "plain": lambda: trained(ready),
        "collect": lambda: collect(ready),
        "drawing and forwards": lambda: trained(drawn),
        "drawing and collect": lambda: collect(drawn),
    }
    for run in contenders.values():
        run()
    times = interleaved(contenders, rounds, case.name)
    return {
        "draws": case.draws,
        "plain_seconds": statistics.median(times["plain"]),
        "ratios": {name: paired(times[name], times["plain"]) for name in times if name != "plain"},
        "drawn": paired(times["drawing and collect"], times["drawing and forwards"]),
    }


def tables(found: dict[str, Any]) -> str:
    """The page's tables, one set for each device."""
    parts = []
    for place, title in (("cpu", "Processor"), ("gpu", "GPU")):
        parts.append(f"## {title}\n")
        if not isinstance(found.get(place), dict):
            parts.append("not measured\n")
            continue
        about, cases = found[place]["machine"], found[place]["cases"]
        parts.append(
            f"{about['name']}, {about['cores']} cores, {about['threads']} threads, "
            f"PyTorch {about['torch']}.\n"
        )
        runs = {case: cases[case.name] for case in CASES if case.name in cases}
        banks = {case: cases[case.name] for case in BANKS if case.name in cases}
        parts += [engine_table(runs), floor_table(runs), bank_table(banks)]
    return "\n".join(parts)


def engine_table(runs: dict[Case, Any]) -> str:
    """Time over T plain forwards, by engine."""
    names = (*ENGINES, OTHER, DROPOUT, OWN_DROPOUT)
    rows = []
    for case, entry in runs.items():
        cells = [cell(entry, name) for name in names]
        rows.append([case.name, *cells, judged(entry["ratios"].get("auto"), case.bar)])
    return table(["ratio to T plain forwards", *names, "bar for auto"], rows)


def cell(entry: dict[str, Any], name: str) -> str:
    """One ratio, or why there is none."""
    if name in entry["ratios"]:
        return f"{entry['ratios'][name]:.2f}"
    reason = entry["notes"].get(name, "")
    return next((word for word in ("not installed", "no dropout") if word in reason), "-")


def floor_table(runs: dict[Case, Any]) -> str:
    """The floors, the other library and what choosing costs."""
    rows = []
    for case, entry in runs.items():
        floor = entry["floor"]
        rows.append([
            case.name, f"{1e3 * entry['plain_seconds'] / entry['draws']:.3g} ms",
            f"{floor['arithmetic']:.2g}", f"{floor['bytes']:.2g}",
            f"{floor['gflops']:.0f}", f"{floor['gigabytes_per_second']:.0f}",
            judged(entry.get("auto_to_other"), OTHER_BAR),
            judged(entry["choosing"]["forwards"], CHOOSING_BAR),
        ])  # fmt: skip
    heads = ["floors and choosing", "one forward", "arithmetic floor", "bytes floor", "GFLOP/s",
             "GB/s", f"auto to {OTHER}", "choosing, in forwards"]  # fmt: skip
    return table(heads, rows)


def bank_table(banks: dict[Case, Any]) -> str:
    """Building a bank, from mini-batches at hand and from a data set."""
    rows = [
        [case.name, judged(entry["ratios"]["collect"], case.bar), f"{entry['drawn']:.2f}"]
        for case, entry in banks.items()
    ]
    heads = ["building a bank", "to T train-mode forwards", "both drawing their mini-batches"]
    return table(heads, rows)


def judged(value: float | None, bar: float | None) -> str:
    """A figure, its bar and whether it is met."""
    if value is None:
        return "-"
    if bar is None:
        return "no bar"
    return f"{value:.2f}, bar {bar:.2f}: {'met' if value <= bar else 'not met'}"


def table(heads: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    main()
