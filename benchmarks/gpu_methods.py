"""What is timed on a GPU: ways to run T draws, in precisions and layouts, and their checks."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from cases import Case, quick_bank, random
from contenders import consume, plain
from torch import Tensor, nn

import mcbn

# Examples and draws of a check.
CHECKED = 4


@dataclass(frozen=True)
class Method:
    """A way to run the network T times.

    Attributes:
        way: "plain" forwards, an engine of mcbn, "graph", the loop as a CUDA graph, or "compiled",
            the loop under `torch.compile`; the last two are not part of mcbn.
        precision: "float32" without TF32, "TF32", or "bfloat16", which is autocast in engines, by
            `precision=`, and weights that are converted once in the others.
        channels_last: the layout of the weights and the inputs.
    """

    way: str
    precision: str = "float32"
    channels_last: bool = False

    @property
    def name(self) -> str:
        """Key of the method in the results."""
        return ", ".join([self.way, self.precision, *["channels last"] * self.channels_last])


PLAIN = Method("plain")
# In the order in which they are measured, and left out where time is short.
METHODS = (
    Method("loop"), Method("batched"), Method("folded"), Method("auto"), Method("graph"),
    *(Method("plain", precision, last) for last in (False, True)
      for precision in ("float32", "TF32", "bfloat16") if last or precision != "float32"),
    *(Method(way, "bfloat16", True) for way in ("loop", "batched", "folded", "auto", "graph")),
    *(Method(way, "TF32") for way in ("loop", "batched", "auto", "graph")),
)  # fmt: skip
# Half a minute each to compile, so they come last.
COMPILED = (Method("compiled"), Method("compiled", "bfloat16", True))


# Loops that are not mcbn's: they show what launching and fusing kernels gives.
LOOPS = ("graph", "compiled")


@contextmanager
def tf32(on: bool) -> Iterator[None]:
    """Allow or forbid TF32 in products and convolutions for the block."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = on
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


def in_bfloat16(model: nn.Module) -> nn.Module:
    """A copy in bfloat16 whose batch norm, and so its statistics, stay in float32."""
    twin = copy.deepcopy(model)
    for module in twin.modules():
        if not isinstance(module, nn.modules.batchnorm._BatchNorm):
            for name, weight in module.named_parameters(recurse=False):
                setattr(module, name, nn.Parameter(weight.detach().bfloat16()))
    return twin


@dataclass(frozen=True)
class Subject:
    """A network in evaluation mode with a bank and inputs, all on the device."""

    model: nn.Module
    bank: mcbn.Bank
    inputs: Tensor

    @classmethod
    def of(cls, case: Case, model: nn.Module, device: torch.device) -> "Subject":
        """With T draws for N random examples."""
        return cls(model, quick_bank(model, case, device), random(case, case.examples, device))

    def first(self, draws: int, examples: int | None = None) -> "Subject":
        """The first draws and examples of it."""
        return replace(self, bank=self.bank.first(draws), inputs=self.inputs[:examples])

    def on(self, device: str) -> "Subject":
        """A copy on another device."""
        statistics = {name: rows.to(device) for name, rows in self.bank.statistics.items()}
        model = copy.deepcopy(self.model).to(device)
        return Subject(model, replace(self.bank, statistics=statistics), self.inputs.to(device))

    def prepared(self, method: Method) -> "Subject":
        """A copy in the precision and the layout of a method."""
        half = method.precision == "bfloat16" and method.way in ("plain", *LOOPS)
        model = in_bfloat16(self.model) if half else self.model
        inputs = self.inputs.bfloat16() if half else self.inputs
        if method.channels_last and inputs.ndim == 4:
            model = copy.deepcopy(model).to(memory_format=torch.channels_last)
            inputs = inputs.to(memory_format=torch.channels_last)
        bank = self.bank if model is self.model else replace(self.bank, weights="")
        return Subject(model, bank, inputs)


def runner(subject: Subject, method: Method) -> Callable[[], None]:
    """A function that runs all draws by a method and drops them."""
    own = subject.prepared(method)
    if method.way == "plain":
        run = lambda: plain(own.model, own.inputs, len(own.bank))  # noqa: E731
    else:
        draws = passes(own, method)
        run = lambda: consume(draws())  # noqa: E731

    def timed() -> None:
        with tf32(method.precision == "TF32"):
            run()

    return timed


def passes(subject: Subject, method: Method) -> Callable[[], Iterator[Tensor]]:
    """A function that runs the draws of a prepared network by an engine, or by another loop."""
    if method.way in LOOPS:
        return overwritten(subject, captured if method.way == "graph" else compiled)
    options: dict[str, Any] = {"engine": method.way}
    if method.precision == "bfloat16":
        options["precision"] = "bfloat16"
    sampler = mcbn.MCBatchNorm(subject.model, subject.bank, **options)
    return lambda: iter(sampler.passes(subject.inputs))


def overwritten(
    subject: Subject, made: Callable[[nn.Module, Tensor], Callable[[], Tensor]]
) -> Callable[[], Iterator[Tensor]]:
    """The loop over a pass that is made once, with its statistics overwritten before each draw."""
    twin = copy.deepcopy(subject.model)
    names = list(subject.bank.statistics)
    buffers = [twin.get_buffer(name) for name in names]
    rows = [
        [subject.bank.statistics[name][draw] for name in names] for draw in range(len(subject.bank))
    ]
    call = made(twin, subject.inputs)

    def draws() -> Iterator[Tensor]:
        with torch.no_grad():
            for row in rows:
                torch._foreach_copy_(buffers, row)
                yield call()

    return draws


@torch.no_grad()
def captured(model: nn.Module, inputs: Tensor) -> Callable[[], Tensor]:
    """The network as a CUDA graph on the same memory; elsewhere than on CUDA it is called."""
    if inputs.device.type != "cuda":
        return lambda: model(inputs)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):  # so that libraries choose their algorithms outside the graph
            model(inputs)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = model(inputs)

    def replay() -> Tensor:
        graph.replay()
        return output

    return replay


def compiled(model: nn.Module, inputs: Tensor) -> Callable[[], Tensor]:
    """The network under `torch.compile`."""
    call = torch.compile(model)
    return lambda: call(inputs)


def outputs(subject: Subject, method: Method) -> Tensor:
    """The draws of a method, in float32 on the processor."""
    own = subject.prepared(method)
    with tf32(method.precision == "TF32"):
        return torch.stack([each.float().cpu() for each in passes(own, method)()])


def checks(subject: Subject) -> dict[str, Any]:
    """Largest differences of some draws for some examples, relative to the largest output.

    Of engines and of the graph from the loop; of the loop in other precisions, and of the loop on
    the processor, from that in float32; and whether the loop repeats its bits.
    """
    few = subject.first(CHECKED, CHECKED)
    loop = outputs(few, Method("loop"))
    scale = float(loop.abs().max())
    found: dict[str, Any] = {"repeats": torch.equal(loop, outputs(few, Method("loop")))}
    others = [
        *(Method(way) for way in ("batched", "folded", "auto", "graph")),
        Method("loop", "TF32"), Method("loop", "bfloat16", True),
    ]  # fmt: skip
    found |= {each.name: float((outputs(few, each) - loop).abs().max()) / scale for each in others}
    here = outputs(few.on("cpu"), Method("loop"))
    return found | {"processor": float((here - loop).abs().max()) / scale}
