"""Networks for the tests: one for each kind of batch norm that a user may have."""

import copy
import importlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from timm.layers import BatchNormAct2d, FrozenBatchNormAct2d
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d


@dataclass(frozen=True)
class Case:
    """A network, and the shape of one example of its inputs."""

    build: Callable[[], nn.Module]
    shape: tuple[int, ...]


def randomized(model: nn.Module, seed: int = 0) -> nn.Module:
    """Set random weights, affine parameters and running statistics, so that none is 0 or 1."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            if not tensor.is_floating_point():
                continue
            values = torch.randn(tensor.shape, generator=generator)
            if name.endswith("running_var"):
                values = values.abs() + 0.5
            fan_in = max(tensor[0].numel(), 1) if tensor.ndim > 1 else 1
            tensor.copy_(values / fan_in**0.5)
    return model


def without_seed(build: Callable[[], nn.Module]) -> nn.Module:
    """Build a network, always with the same weights, without moving the global random stream."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build()


class Act(BatchNormAct2d):
    def __init__(self, channels: int) -> None:
        super().__init__(channels, act_layer=nn.SiLU)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
        self.mix = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.second(self.mix(torch.relu(self.first(x))))) + x


class TwoPlaces(nn.Module):
    """One batch-norm module registered under two names; called once."""

    def __init__(self) -> None:
        super().__init__()
        self.here = nn.BatchNorm1d(4)
        self.there = nn.Sequential(self.here, nn.Linear(4, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.there(x)


def dense(norm: nn.Module) -> nn.Module:
    return nn.Sequential(
        nn.Linear(4, 6), norm, nn.ReLU(), nn.Dropout(0.3), nn.Linear(6, 6), nn.BatchNorm1d(6),
        nn.Linear(6, 3),
    )  # fmt: skip


CASES = {
    "1d of 2-D": Case(lambda: dense(nn.BatchNorm1d(6)), (4,)),
    "1d of 3-D": Case(
        lambda: nn.Sequential(nn.Conv1d(2, 5, 3), nn.BatchNorm1d(5), nn.ReLU(), nn.Flatten(1),
                              nn.Linear(30, 3)), (2, 8)),
    "2d": Case(Residual, (3, 6, 5)),
    "3d": Case(lambda: nn.Sequential(nn.Conv3d(2, 4, 2), nn.BatchNorm3d(4), nn.Flatten(1),
                                     nn.Linear(4 * 2 * 3 * 2, 3)), (2, 3, 4, 3)),
    "sync": Case(lambda: nn.Sequential(nn.Linear(4, 5), nn.SyncBatchNorm(5), nn.Linear(5, 3)),
                 (4,)),
    "affine=False": Case(lambda: dense(nn.BatchNorm1d(6, affine=False)), (4,)),
    "momentum=None": Case(lambda: dense(nn.BatchNorm1d(6, momentum=None)), (4,)),
    "eps": Case(lambda: dense(nn.BatchNorm1d(6, eps=0.3)), (4,)),
    "timm BatchNormAct2d": Case(
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), Act(4), nn.Flatten(1), nn.Linear(4 * 9, 3)),
        (3, 5, 5)),
    "two places": Case(TwoPlaces, (4,)),
    "is batch norm": Case(lambda: nn.BatchNorm1d(4), (4,)),
}  # fmt: skip


def make_network(name: str, dtype: torch.dtype = torch.float64) -> nn.Module:
    """The network of a case with random weights, in eval mode."""
    return randomized(without_seed(CASES[name].build)).to(dtype).eval()


def examples(name: str, count: int, dtype: torch.dtype = torch.float64, seed: int = 1) -> Tensor:
    """Random examples for the network of a case, with neither zero mean nor unit variance."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn((count, *CASES[name].shape), generator=generator, dtype=torch.float64)
    return (2.0 * drawn + 0.7).to(dtype)


def train_mode_output(model: nn.Module, batch: Tensor) -> Tensor:
    """The output of PyTorch's own train mode, with dropout off, from a copy of the network."""
    twin = copy.deepcopy(model).train()
    for module in twin.modules():
        if "Drop" in type(module).__name__:
            module.eval()
    with torch.no_grad():
        return twin(batch)


class Frozen(nn.Module):
    """A convolution and a frozen batch norm of another library."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.mix, self.norm = nn.Conv2d(3, 4, 3), norm

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.mix(x))

    @classmethod
    def pair(cls, library: str) -> tuple[nn.Module, nn.Module]:
        """The frozen network, and the same one with PyTorch's batch norm."""
        if library == "transformers":
            detr = importlib.import_module("transformers.models.detr.modeling_detr")
            kind = detr.DetrFrozenBatchNorm2d
        else:
            kind = {"torchvision": FrozenBatchNorm2d, "timm": FrozenBatchNormAct2d}[library]
        options = {"act_layer": nn.Identity} if library == "timm" else {}
        frozen = randomized(without_seed(lambda: cls(kind(4, **options)))).eval()
        twin = without_seed(lambda: cls(nn.BatchNorm2d(4)))
        twin.load_state_dict(frozen.state_dict(), strict=False)
        return frozen, twin.eval()


class Jittered(torch.utils.data.Dataset):
    """A data set with a random transform that draws from all global streams."""

    def __init__(self, data):
        self.data = data

    def __len__(self):
        return len(self.data)

    def __getitem__(self, index):
        noise = torch.rand(()) + np.random.rand()  # noqa: NPY002
        return self.data[index] + noise, index
