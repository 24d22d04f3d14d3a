"""Everything that a call must leave as it was: of the process, and of a model."""

import locale
import logging
import math
import os
import random
import signal
import sys
import threading
import warnings

import matplotlib as mpl
import numpy as np
import torch
from matplotlib import pyplot as plt
from torch.nn import Module


def process() -> dict:
    """Settings and streams by name, in a form that can be compared."""
    kind, keys, *rest = np.random.get_state()  # noqa: NPY002
    return {
        "torch stream": torch.get_rng_state().tolist(),
        "numpy stream": (kind, keys.tolist(), *rest),
        "python stream": random.getstate(),
        **torch_settings(),
        "filters": (id(warnings.filters), list(warnings.filters), warnings.showwarning),
        "signals": [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)],
        "mask": signal.pthread_sigmask(signal.SIG_BLOCK, ()),
        "matplotlib": (dict(mpl.rcParams), mpl.get_backend(), plt.get_fignums()),
        "environment": dict(os.environ),
        "places": (os.getcwd(), list(sys.path), locale.setlocale(locale.LC_ALL)),
        "logging": [
            (name, each.level, list(each.handlers), each.propagate, each.disabled)
            for name, each in (("", logging.root), ("mcbn", logging.getLogger("mcbn")))
        ],
        "hooks": (sys.excepthook, threading.excepthook, sys.stdout, sys.stderr),
        "threads": threading.active_count(),
    }


def torch_settings() -> dict:
    backends = torch.backends
    return {
        "type": torch.get_default_dtype(),
        "device": torch.get_default_device(),
        "counts": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "gradients": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "autocast": [
            (torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind))
            for kind in ("cpu", "cuda")
        ],
        "cache": torch.is_autocast_cache_enabled(),
        "deterministic": (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
            torch.utils.deterministic.fill_uninitialized_memory,
        ),
        "backends": (
            backends.cudnn.enabled, backends.cudnn.benchmark, backends.cudnn.deterministic,
            backends.cudnn.allow_tf32, backends.cuda.matmul.allow_tf32, backends.mkldnn.enabled,
            torch.get_float32_matmul_precision(), torch.get_flush_denormal()
            if hasattr(torch, "get_flush_denormal") else None,
        ),
        "modes": torch._C._len_torch_function_stack(),
        "transforms": torch._C._functorch.get_dynamic_layer_stack_depth(),
        "patches": (Module.__call__, Module.__getattr__, Module.__setattr__, dict(vars(math))),
        "module hooks": len(torch.nn.modules.module._global_forward_hooks),
    }  # fmt: skip


def model(found: Module) -> dict:
    """Values, tensors, modes, hooks and attributes of every module, by name."""
    return {
        "values": {name: bits(value) for name, value in found.state_dict().items()},
        "tensors": [(name, id(t), t.requires_grad, id(t.grad), t._version)
                    for name, t in (*found.named_parameters(), *found.named_buffers())],
        "modes": [(name, module.training) for name, module in found.named_modules()],
        "attributes": [(name, sorted(vars(module))) for name, module in found.named_modules()],
        "hooks": [
            (name, key, list(map(id, hooks.values())))
            for name, module in found.named_modules()
            for key, hooks in vars(module).items()
            if "hooks" in key and hasattr(hooks, "values")
        ],
    }  # fmt: skip


def bits(tensor) -> bytes:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def moved(before: dict, after: dict) -> list[str]:
    """Names of what is not as it was."""
    return [name for name in before if before[name] != after[name]]
