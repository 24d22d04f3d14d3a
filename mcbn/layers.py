"""The batch-norm layers of a network: which there are, what their batch statistics are."""

import hashlib
from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import Module, SyncBatchNorm
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.parameter import is_lazy

from mcbn import validation

MEAN, VARIANCE = "running_mean", "running_var"
HALF = (torch.float16, torch.bfloat16)
# Forwards that normalise, scale and shift, and do nothing else in eval mode.
PLAIN = (_BatchNorm.forward, SyncBatchNorm.forward)


def batch_norm_layers(model: Module) -> dict[str, Module]:
    """Every layer that owns batch statistics, by name, in the order of the network.

    A layer counts if it has the buffers `running_mean` and `running_var` and is no instance norm,
    so subclasses and look-alikes (timm, frozen batch norm) count with the rest.

    Raises:
        TypeError: `model` is no module, or a compiled script whose layers cannot be seen.
        ValueError: there is no such layer, or one cannot be given statistics; says why.
    """
    if not isinstance(model, Module):
        raise TypeError(
            f"expected a torch.nn.Module, got {type(model).__name__}; give the network itself"
        )
    if isinstance(model, torch.jit.ScriptModule):
        raise TypeError(
            "expected an eager network, got a TorchScript module, whose layers cannot be observed; "
            "give the network it was scripted from"
        )
    layers = {}
    for name, module in model.named_modules():
        _refuse_unusable(name, module)
        if _owns_statistics(module):
            layers[name] = module
    if not layers:
        raise ValueError(
            f"expected a network with batch-norm layers, got {type(model).__name__} with none; "
            "if they were fused away (fuse_modules, .fuse(), freeze, export), give the network "
            "from before that"
        )
    return layers


def _owns_statistics(module: Module) -> bool:
    buffers = module._buffers
    return (
        buffers.get(MEAN) is not None
        and buffers.get(VARIANCE) is not None
        and not isinstance(module, _InstanceNorm)
    )


def _refuse_unusable(name: str, module: Module) -> None:
    kind = type(module)
    if kind.__module__.startswith("torch.ao.nn") and "intrinsic" in kind.__module__:
        raise ValueError(
            f"expected plain batch norm, got the fused or quantisation-aware layer {name!r} "
            f"({kind.__name__}); give the network from before fusion or quantisation"
        )
    if isinstance(module, _BatchNorm) and not _owns_statistics(module):
        raise ValueError(
            f"expected running statistics in {name!r} ({kind.__name__}), got "
            "track_running_stats=False: its output depends on the other test examples in the "
            "batch; build the layer with track_running_stats=True, the weights carry over"
        )
    if _owns_statistics(module) and is_lazy(module.get_buffer(MEAN)):
        raise ValueError(
            f"expected materialised layers, got the lazy layer {name!r} ({kind.__name__}); "
            "run one batch through the network first"
        )


def frozen_layers(layers: dict[str, Module]) -> list[str]:
    """Names of the layers that never used batch statistics in training, by their class's name."""
    return [name for name, layer in layers.items() if "Frozen" in type(layer).__name__]


def is_plain(layer: Module) -> bool:
    """Whether the layer does what PyTorch's batch norm does and nothing else."""
    return type(layer).forward in PLAIN and "forward" not in layer.__dict__


def batch_statistics(
    activations: Float[Tensor, "batch channels *positions"],
) -> tuple[Float[Tensor, " channels"], Float[Tensor, " channels"]]:
    """Mean and biased variance of each channel, over all other axes; in float32 or better."""
    if activations.dtype in HALF:
        activations = activations.float()
    return batch_normalised(activations)[1:]


def batch_normalised(
    activations: Float[Tensor, "batch channels *positions"],
    weight: Float[Tensor, " channels"] | None = None,
    bias: Float[Tensor, " channels"] | None = None,
    eps: float = 1e-5,
) -> tuple[
    Float[Tensor, "batch channels *positions"],
    Float[Tensor, " channels"],
    Float[Tensor, " channels"],
]:
    """What train mode answers, and the mean and the biased variance that it normalises by.

    The variance divides by n, as the layer does in train mode; the running variance of PyTorch
    divides by n - 1.

    Raises:
        ValueError: one value a channel, whose variance is zero whatever the data.
    """
    channels = activations.shape[1]
    count = activations.numel() // channels
    if count < 2:
        raise ValueError(
            "expected at least 2 values a channel in a mini-batch, got 1, whose variance is zero; "
            "use a larger batch_size"
        )
    mean, variance = activations.new_zeros(2, channels).unbind()
    # Train mode's own kernel: faster than var_mean on a CPU and rounds as the network does.
    answer = torch.nn.functional.batch_norm(
        activations, mean, variance, weight, bias, training=True, momentum=1.0, eps=eps
    )
    return answer, mean, variance * ((count - 1) / count)


def require_finite_weights(model: Module) -> None:
    """Check that every parameter and buffer is finite.

    Raises:
        ValueError: names the tensor, the count and the first place.
    """
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_floating_point() and not is_lazy(tensor) and tensor.numel():
            validation.finite(tensor.detach(), f"the network's {name}")


def statistics_names(layers: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Buffer names of mean and variance of each layer, as `functional_call` takes them."""
    prefix = {name: f"{name}." if name else "" for name in layers}
    return {name: (prefix[name] + MEAN, prefix[name] + VARIANCE) for name in layers}


def chosen_layers(layers: Iterable[str], choice: int | Sequence[str] | None) -> list[str]:
    """Names of the layers of a choice: all, the last so many, or those named.

    Raises:
        ValueError: there are fewer layers, or none of that name.
    """
    names = list(layers)
    if choice is None:
        return names
    if isinstance(choice, int):
        if not 1 <= choice <= len(names):
            raise ValueError(
                f"expected from 1 to {len(names)} last layers, got {choice}; leave layers out to "
                "draw the statistics of all"
            )
        return names[-choice:]
    wanted = [choice] if isinstance(choice, str) else list(choice)
    unknown = [name for name in wanted if name not in names]
    if unknown or not wanted:
        raise ValueError(
            f"expected batch-norm layers among {names}, got {unknown or 'none'}; name some of "
            "these, or give a number for the last so many"
        )
    return [name for name in names if name in wanted]


def fingerprint(model: Module) -> str:
    """A digest of the weights that the statistics belong to, the same on every device."""
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        digest.update(f"{name} {tuple(parameter.shape)} {parameter.dtype}\n".encode())
        flat = parameter.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()
