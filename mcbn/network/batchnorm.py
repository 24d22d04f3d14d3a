"""The batch-norm layers of a network: which there are, what their batch statistics are."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import Module, SyncBatchNorm
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.parameter import is_lazy

from mcbn import validation
from mcbn.network.isolation import model_lock

MEAN, VARIANCE = "running_mean", "running_var"
HALF_PRECISION = (torch.float16, torch.bfloat16)
# Forwards that normalise, scale and shift, and do nothing else in eval mode.
PLAIN_FORWARDS = (_BatchNorm.forward, SyncBatchNorm.forward)
# Modules that hold a network and answer as it does, by class name: the name they hold it under.
WRAPPERS = {
    "OptimizedModule": "_orig_mod",
    "DataParallel": "module",
    "DistributedDataParallel": "module",
}


def unwrapped(model: Module) -> Module:
    """The network inside `torch.compile` and data parallelism; a plain network is its own.

    Statistics have the names of the network inside, so a bank fits it however it is held.

    Raises:
        TypeError: `model` is no module.
    """
    validation.require_type(model, Module, "a torch.nn.Module", "give the network itself")
    while (place := WRAPPERS.get(type(model).__name__)) is not None:
        inner = getattr(model, place, None)
        if not isinstance(inner, Module):
            break
        model = inner
    return model


def batch_norm_layers(model: Module) -> dict[str, Module]:
    """Every layer that owns batch statistics, by name, in the order of the network.

    A layer counts if it has the buffers `running_mean` and `running_var` and is no instance norm,
    so subclasses and look-alikes (timm, frozen batch norm) count with the rest.

    Raises:
        TypeError: `model` is no module, or a compiled script whose layers cannot be seen.
        ValueError: there is no such layer, or one cannot be given statistics; says why.
    """
    validation.require_type(model, Module, "a torch.nn.Module", "give the network itself")
    if isinstance(model, torch.jit.ScriptModule):
        raise TypeError(
            "expected an eager network, got a TorchScript module, whose layers cannot be observed; "
            "give the network it was scripted from"
        )
    layers = {}
    for name, module in model.named_modules():
        if reason := incompatibility(name, module):
            raise ValueError(reason)
        if owns_statistics(module):
            layers[name] = module
    if not layers:
        raise ValueError(
            f"expected a network with batch-norm layers, got {type(model).__name__} with none; "
            "if they were fused away (fuse_modules, .fuse(), freeze, export), give the network "
            "from before that"
        )
    return layers


def owns_statistics(module: Module) -> bool:
    """Whether a layer keeps a mean and a variance over mini-batches."""
    buffers = dict(module.named_buffers(recurse=False))
    return MEAN in buffers and VARIANCE in buffers and not isinstance(module, _InstanceNorm)


def incompatibility(name: str, module: Module) -> str | None:
    """Why this batch norm cannot be given statistics; None if it can, or is no batch norm."""
    kind = type(module)
    ours = owns_statistics(module)
    if ours and isinstance(module, torch.jit.ScriptModule):
        return (
            f"expected eager layers, got the TorchScript layer {name!r}, which cannot be "
            "observed; give the network it was scripted from"
        )
    if kind.__module__.startswith("torch.ao.nn") and ("intrinsic" in kind.__module__ or ours):
        return (
            f"expected plain batch norm, got the fused or quantisation-aware layer {name!r} "
            f"({kind.__name__}); give the network from before fusion or quantisation"
        )
    if isinstance(module, _BatchNorm) and not ours:
        return (
            f"expected running statistics in {name!r} ({kind.__name__}), got "
            "track_running_stats=False: its output depends on the other test examples in the "
            "batch; build the layer with track_running_stats=True, the weights carry over"
        )
    if ours and is_lazy(module.get_buffer(MEAN)):
        return (
            f"expected materialised layers, got the lazy layer {name!r} ({kind.__name__}); "
            "run one batch through the network first"
        )
    return None


def require_observable(layers: Mapping[str, Module]) -> None:
    """Check that every layer is called in a pass, so that its activations are seen.

    Raises:
        ValueError: an exported program keeps a layer's buffers alone; names the layer.
    """
    for name, layer in layers.items():
        if type(layer).forward is Module.forward:
            raise ValueError(
                f"expected layers that can be called, got {name!r} of an exported program, which "
                "keeps its buffers alone; collect from the network that was exported: the bank "
                "fits its program too"
            )


def frozen_layers(layers: dict[str, Module]) -> list[str]:
    """Names of the layers that never used batch statistics in training, by their class's name."""
    return [name for name, layer in layers.items() if "Frozen" in type(layer).__name__]


def is_plain(layer: Module) -> bool:
    """Whether the layer does what PyTorch's batch norm does and nothing else."""
    return type(layer).forward in PLAIN_FORWARDS and "forward" not in layer.__dict__


def batch_statistics(
    activations: Float[Tensor, "batch channels *positions"],
) -> tuple[Float[Tensor, " channels"], Float[Tensor, " channels"]]:
    """Mean and biased variance of each channel, over all other axes; in float32 or better."""
    if activations.dtype in HALF_PRECISION:
        activations = activations.float()
    return batch_normalized(activations)[1:]


def batch_normalized(
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
            f"expected at least 2 values a channel in a mini-batch, got {count}, which have no "
            "variance; use a larger batch_size"
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
    with model_lock(model):  # else another thread's draw may be in their place
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
        # A copy: an array on the weights themselves would forbid them to change their size, which
        # sharded ones do.
        flat = parameter.detach().cpu().contiguous().reshape(-1).clone()
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()
