"""Batch-norm layers: finding them in a network, and computing their batch statistics."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import Module, SyncBatchNorm
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.parameter import is_lazy

from mcbn import validation
from mcbn.network.isolation import intercepted, model_lock

MEAN, VARIANCE = "running_mean", "running_var"  # buffers of a batch-norm layer
HALF_PRECISION = (torch.float16, torch.bfloat16)
# Forward methods that normalise, scale and shift in eval mode, and do nothing else.
PLAIN_FORWARDS = (_BatchNorm.forward, SyncBatchNorm.forward)
# Modules that wrap a network and return what it returns: class name, and the attribute it is in.
WRAPPERS = {
    "OptimizedModule": "_orig_mod",
    "DataParallel": "module",
    "DistributedDataParallel": "module",
}


def unwrapped(model: Module) -> Module:
    """The network inside `torch.compile` and data parallelism; any other network is returned as is.

    Statistics are named as in the inner network, so that a bank fits it with and without a wrapper.

    Raises:
        TypeError: `model` is not a module.
    """
    validation.require_type(model, Module, "a torch.nn.Module", "give the network itself")
    while (attribute := WRAPPERS.get(type(model).__name__)) is not None:
        inner = getattr(model, attribute, None)
        if not isinstance(inner, Module):
            break
        model = inner
    return model


def batch_norm_layers(model: Module) -> dict[str, Module]:
    """All batch-norm layers of a network, by name, in the order of `named_modules`.

    A layer counts if it has the buffers `running_mean` and `running_var` and is not an instance
    norm, so subclasses and classes of other libraries (timm, frozen batch norm) count too.

    Raises:
        TypeError: `model` is not a module, or is a TorchScript module, whose layers are hidden.
        ValueError: there is no such layer, or one is incompatible; says why.
    """
    validation.require_type(model, Module, "a torch.nn.Module", "give the network itself")
    if isinstance(model, torch.jit.ScriptModule):
        raise TypeError(
            "expected an eager network, got a TorchScript module, whose layers cannot be observed; "
            "give the network from before torch.jit.script or torch.jit.trace"
        )
    layers = {}
    for name, module in model.named_modules():
        if reason := incompatibility(name, module):
            raise ValueError(reason)
        if has_batch_statistics(module):
            layers[name] = module
    if not layers:
        raise ValueError(
            f"expected a network with batch-norm layers, got {type(model).__name__} with none; "
            "if they were fused away (fuse_modules, .fuse(), freeze, export), give the network "
            "from before fusion"
        )
    return layers


def has_batch_statistics(module: Module) -> bool:
    """Whether a layer keeps a running mean and variance over mini-batches."""
    buffers = dict(module.named_buffers(recurse=False))
    return MEAN in buffers and VARIANCE in buffers and not isinstance(module, _InstanceNorm)


def incompatibility(name: str, module: Module) -> str | None:
    """Why the statistics of this batch-norm layer cannot be drawn; None if they can.

    Also None for a layer that is not batch norm.
    """
    cls = type(module)
    has_statistics = has_batch_statistics(module)
    if has_statistics and isinstance(module, torch.jit.ScriptModule):
        return (
            f"expected eager layers, got the TorchScript layer {name!r}, which cannot be "
            "observed; give the network from before torch.jit.script or torch.jit.trace"
        )
    fused = cls.__module__.startswith("torch.ao.nn") and "intrinsic" in cls.__module__
    if fused or (cls.__module__.startswith("torch.ao.nn") and has_statistics):
        return (
            f"expected plain batch norm, got the fused or quantisation-aware layer {name!r} "
            f"({cls.__name__}); give the network from before fusion or quantisation"
        )
    if isinstance(module, _BatchNorm) and not has_statistics:
        return (
            f"expected running statistics in {name!r} ({cls.__name__}), got "
            "track_running_stats=False: its output depends on the other test examples in the "
            "batch; build it with track_running_stats=True and load the same weights, strict=False"
        )
    if has_statistics and is_lazy(module.get_buffer(MEAN)):
        return (
            f"expected materialised layers, got the lazy layer {name!r} ({cls.__name__}); "
            "run one batch through the network first"
        )
    return None


def require_observable(layers: Mapping[str, Module]) -> None:
    """Check that every layer can be called, so that its activations can be observed.

    Raises:
        ValueError: a layer of an exported program, which keeps only its buffers; names the layer.
    """
    for name, layer in layers.items():
        if type(layer).forward is Module.forward:
            raise ValueError(
                f"expected layers that can be called, got {name!r} of an exported program, which "
                "keeps only its buffers; collect from the network that was exported: its bank fits "
                "the program too"
            )


def frozen_layers(layers: dict[str, Module]) -> list[str]:
    """Names of the layers whose class name says that they were frozen in training."""
    return [name for name, layer in layers.items() if "Frozen" in type(layer).__name__]


def is_plain(layer: Module) -> bool:
    """Whether the layer's forward is that of PyTorch's batch norm."""
    return type(layer).forward in PLAIN_FORWARDS and "forward" not in layer.__dict__


@contextmanager
def intercepted_batch_norm(
    model: Module,
    layers: Mapping[str, Module],
    forward: Callable[..., Tensor],
    pre_hook: Callable[..., Any],
) -> Iterator[None]:
    """Hold `model` in eval mode while its batch-norm layers are looked into.

    A plain layer runs `forward(name, layer, input)` in its
    place. Any other layer keeps its own, after `pre_hook(name, layer, args, kwargs)`.
    """
    with model_lock(model):  # another thread may have replaced a layer's forward meanwhile
        forwards = {
            layer: partial(forward, name, layer)
            for name, layer in layers.items()
            if is_plain(layer)
        }
        pre_hooks = {
            layer: partial(pre_hook, name)
            for name, layer in layers.items()
            if layer not in forwards
        }
        with intercepted(model, forwards, pre_hooks):
            yield


def batch_statistics(
    activations: Float[Tensor, "batch channels *positions"],
) -> tuple[Float[Tensor, " channels"], Float[Tensor, " channels"]]:
    """Mean and biased variance of each channel over all other axes, in float32 or float64."""
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
    """The output of batch norm in train mode, and the mean and biased variance it normalises by.

    The variance divides by n, as the layer does in train mode; the running variance of PyTorch
    divides by n - 1.

    Raises:
        ValueError: there is one value per channel, whose variance is zero for any data.
    """
    channels = activations.shape[1]
    count = activations.numel() // channels
    if count < 2:
        raise ValueError(
            f"expected at least 2 values per channel in a mini-batch, got {count}, which have no "
            "variance; use a larger batch_size"
        )
    mean, variance = activations.new_zeros(2, channels).unbind()
    # The kernel of train mode is faster than var_mean on a CPU, and rounds as the network does.
    output = torch.nn.functional.batch_norm(
        activations, mean, variance, weight, bias, training=True, momentum=1.0, eps=eps
    )
    return output, mean, variance * ((count - 1) / count)


def epsilon_of(name: str, layer: Module) -> float:
    """The number that a batch-norm layer adds to the variance.

    Raises:
        ValueError: the layer has no attribute `eps` that is a number; names the layer.
    """
    epsilon = getattr(layer, "eps", None)
    if not isinstance(epsilon, (int, float)):
        raise ValueError(
            f"expected a batch-norm layer with a known epsilon, got {name!r} "
            f"({type(layer).__name__}) with eps {epsilon!r}; set the layer's attribute eps to the "
            "number that its forward adds to the variance"
        )
    return float(epsilon)


def require_finite_weights(model: Module) -> None:
    """Check that every parameter and buffer is finite.

    Raises:
        ValueError: some are not; names the tensor, their number and the first position.
    """
    with model_lock(model):  # else another thread's draw may be in the buffers
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            if tensor.is_floating_point() and not is_lazy(tensor) and tensor.numel():
                validation.finite(tensor.detach(), f"the network's {name}")


def statistics_names(layers: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Names of the mean and variance buffers of each layer, as `state_dict` has them."""
    prefix = {name: f"{name}." if name else "" for name in layers}
    return {name: (prefix[name] + MEAN, prefix[name] + VARIANCE) for name in layers}


def fingerprint(model: Module) -> str:
    """A SHA-256 digest of the network's parameters, the same on every device."""
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        digest.update(f"{name} {tuple(parameter.shape)} {parameter.dtype}\n".encode())
        # Copied: numpy's view of a parameter would keep its storage from being resized, which
        # sharded parameters need.
        flat = parameter.detach().cpu().contiguous().reshape(-1).clone()
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()
