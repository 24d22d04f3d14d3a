"""The rows: one small network, wrapped in every way that users wrap one."""

import copy
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from case import Case, normal
from torch import Tensor, distributed, nn
from torch.ao import quantization
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.fx.experimental import optimization
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import parametrizations, prune
from torch.optim.swa_utils import AveragedModel
from torch.utils.checkpoint import checkpoint
from torchvision.models import quantization as quantized
from torchvision.ops import FrozenBatchNorm2d

IMAGES = normal(8, 3, 12, 12)


def net(norm: Callable[[int], nn.Module] = nn.BatchNorm2d) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False), norm(8), nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, groups=4), norm(8), nn.ReLU(), nn.Dropout2d(0.2),
        nn.MaxPool2d(4), nn.Flatten(1), nn.Linear(72, 16), nn.BatchNorm1d(16), nn.ReLU(),
        nn.Linear(16, 5),
    )  # fmt: skip


def rows() -> Iterator[Case]:
    for family, cases in WRAPPED.items():
        for name, (build, options) in cases.items():
            yield Case("torch", family, name, build, **{"inputs": IMAGES, **options})


class Calls(nn.Module):
    """A network of named modules whose forward is a function."""

    def __init__(self, call: Callable[..., Tensor], **modules: nn.Module) -> None:
        super().__init__()
        self.call = call
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, x: Tensor) -> Tensor:
        return self.call(self, x)


def _compiled(backend: str, *, used: bool = False) -> nn.Module:
    network = torch.compile(net(), backend=backend)
    return _used(network) if used else network


def _compiled_inside() -> nn.Module:
    return _used(nn.Sequential(torch.compile(net(), backend="eager"), nn.Linear(5, 5)))


def _compiled_in_place(*, used: bool) -> nn.Module:
    network = net()
    network.compile(backend="eager")
    return _used(network) if used else network


def _used(network: nn.Module) -> nn.Module:
    """The network after a forward pass in both modes, with all that it compiles or caches."""
    images = torch.randn(8, 3, 12, 12)
    with torch.no_grad():
        network.train()(images)
        network.eval()(images)
    return network


def _group() -> None:
    if not distributed.is_initialized():
        distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)


def _parallel(network: nn.Module) -> nn.Module:
    _group()
    return DistributedDataParallel(network)


def _sharded() -> nn.Module:
    _group()
    mesh = distributed.device_mesh.init_device_mesh("cpu", (1,))
    return fully_shard(net(), mesh=mesh)


def _gathered(network: nn.Module) -> nn.Module:
    twin = net()
    twin.load_state_dict({
        name: tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        for name, tensor in network.state_dict().items()
    })  # fmt: skip
    return twin


def _exported(*, examples: Any = None) -> nn.Module:
    arguments = (torch.randn(8, 3, 12, 12),)
    program = torch.export.export(net().eval(), arguments, dynamic_shapes=({0: examples},))
    return program.module()


def _twin_of_exported(network: nn.Module) -> nn.Module:
    twin = net()
    twin.load_state_dict(network.state_dict())
    return twin


def _autocast(self: Any, x: Tensor) -> Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return self.inner(x)


def _checkpointed(self: Any, x: Tensor) -> Tensor:
    return checkpoint(self.inner, x, use_reentrant=False)


def _keyword(self: Any, x: Tensor) -> Tensor:
    return self.norm(input=self.mix(x)).mean((2, 3))


def _tied() -> nn.Module:
    first, second = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
    second.weight = first.weight
    return nn.Sequential(first, nn.BatchNorm2d(3), nn.ReLU(), second, nn.BatchNorm2d(3),
                         nn.Flatten(1), nn.Linear(432, 3))  # fmt: skip


def _shared() -> nn.Module:
    norm = nn.BatchNorm2d(3)
    return nn.Sequential(nn.Conv2d(3, 3, 3), norm, nn.ReLU(), nn.Conv2d(3, 3, 3), norm)


def _hooked() -> nn.Module:
    network = net()
    network[1].register_forward_hook(lambda _module, _args, answer: answer * 2)
    network[4].register_forward_pre_hook(lambda _module, args: (args[0] + 1,))
    return network


def _pruned() -> nn.Module:
    network = net()
    prune.l1_unstructured(network[0], "weight", amount=0.3)
    return network


def _parametrized() -> nn.Module:
    network = net()
    parametrizations.weight_norm(network[0])
    return network


def _prepared() -> nn.Module:
    network = quantized.resnet18(weights=None, quantize=False).train()
    network.fuse_model(is_qat=True)
    network.qconfig = quantization.get_default_qat_qconfig("x86")
    return quantization.prepare_qat(network)


def _scripted_inside() -> nn.Module:
    return nn.Sequential(torch.jit.script(net()), nn.Linear(5, 3))


def _lazy(*, used: bool) -> nn.Module:
    network = nn.Sequential(nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d(), nn.Flatten(1),
                         nn.LazyLinear(3))  # fmt: skip
    return _used(network) if used else network


def _synced() -> nn.Module:
    _group()
    return nn.SyncBatchNorm.convert_sync_batchnorm(net())


# Eight times the rounding of bfloat16.
HALF = {"tolerance": 2.0**-5}
SCRIPTED = {"refused": "TorchScript"}
WITHOUT_NORM = {"refused": "with batch-norm layers"}
WRAPPED: dict[str, dict[str, tuple[Callable[[], Any], dict[str, Any]]]] = {
    "plain": {
        "as built": (net, {}),
        "a deep copy": (lambda: copy.deepcopy(net()), {}),
        "weights frozen by requires_grad_(False)": (lambda: net().requires_grad_(False), {}),
        "channels_last": (lambda: net().to(memory_format=torch.channels_last), {}),
        "float64": (lambda: net().double(), {"inputs": normal(8, 3, 12, 12, dtype=torch.float64)}),
        "AveragedModel (SWA, EMA)": (lambda: AveragedModel(net()), {}),
        "gradient checkpointing": (lambda: Calls(_checkpointed, inner=net()), {}),
    },
    "compiled": {
        **{
            f"torch.compile, {backend}": (
                partial(_compiled, backend), {"inside": lambda m: m._orig_mod})
            for backend in ("eager", "aot_eager", "inductor")
        },
        "torch.compile, run before": (
            partial(_compiled, "eager", used=True), {"inside": lambda m: m._orig_mod}),
        "model.compile()": (partial(_compiled_in_place, used=False), {}),
        "model.compile(), run before": (partial(_compiled_in_place, used=True), {}),
        "a compiled part, run before": (_compiled_inside, {}),
        "torch.export program": (
            partial(_exported, examples=torch.export.Dim("batch", min=2, max=64)),
            {"observed": _twin_of_exported,
             "note": "collect from the network that was exported; the names are the same"}),
        "torch.export program, of 8 examples": (
            _exported,
            {"observed": _twin_of_exported,
             "note": "collect from the network that was exported; the names are the same"}),
        "torch.export program, collected from": (_exported, {"refused": "exported"}),
        "torch.jit.script": (lambda: torch.jit.script(net()), SCRIPTED),
        "torch.jit.trace": (
            lambda: torch.jit.trace(net().eval(), torch.randn(4, 3, 12, 12)), SCRIPTED),
        "a scripted part": (_scripted_inside, SCRIPTED),
    },
    "parallel": {
        "DataParallel": (
            lambda: nn.DataParallel(net()), {"inside": lambda m: m.module}),
        "DistributedDataParallel": (
            lambda: _parallel(net()), {"inside": lambda m: m.module}),
        "DistributedDataParallel of torch.compile": (
            lambda: _parallel(_compiled("eager")),
            {"inside": lambda m: m.module._orig_mod}),
        "fully_shard (FSDP2), one process": (_sharded, {"inside": _gathered}),
        "SyncBatchNorm, converted": (_synced, {}),
    },
    "precision": {
        "bfloat16 weights": (
            lambda: net().bfloat16(),
            {**HALF, "inputs": normal(8, 3, 12, 12, dtype=torch.bfloat16)}),
        "float16 weights": (
            lambda: net().half(), {**HALF, "inputs": normal(8, 3, 12, 12, dtype=torch.float16)}),
        "autocast to bfloat16": (lambda: Calls(_autocast, inner=net()), HALF),
    },
    "weights": {
        "weights tied between layers": (_tied, {}),
        "weight_norm (parametrised)": (_parametrized, {}),
        "pruned": (_pruned, {}),
        "hooks of the user's own": (_hooked, {}),
        "activations given by keyword": (
            lambda: Calls(_keyword, mix=nn.Conv2d(3, 8, 3), norm=nn.BatchNorm2d(8)), {}),
    },
    "layers": {
        "FrozenBatchNorm2d": (lambda: net(FrozenBatchNorm2d), {}),
        "lazy layers, used once": (partial(_lazy, used=True), {}),
        "lazy layers, never used": (partial(_lazy, used=False), {"refused": "lazy layer"}),
        "a batch-norm layer called twice": (_shared, {"refused": "called again"}),
        "track_running_stats=False": (
            lambda: net(partial(nn.BatchNorm2d, track_running_stats=False)),
            {"refused": "track_running_stats=False"}),
        "instance norm alone": (
            lambda: nn.Sequential(nn.InstanceNorm2d(3, track_running_stats=True)), WITHOUT_NORM),
        "group norm alone": (lambda: nn.Sequential(nn.GroupNorm(1, 3)), WITHOUT_NORM),
    },
    "fused and quantised": {
        "fused by torch.fx": (lambda: optimization.fuse(net().eval()), WITHOUT_NORM),
        "prepared for quantisation-aware training": (_prepared, {"refused": "quantisation"}),
        "quantised": (
            lambda: quantized.resnet18(weights=None, quantize=True),
            {"refused": "quantisation", "inputs": normal(2, 3, 64, 64)}),
    },
}  # fmt: skip
