"""What of the process a call may change meanwhile: its state as it is now, and putting it back."""

import math
import random
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import _pop_mode

# Tracing puts its own functions in the place of these for a while.
MATH = dict(vars(math))


@dataclass(frozen=True, eq=False)
class Filters:
    """The warning filters of the process, and how warnings are shown."""

    filters: Any
    shown: Any

    @classmethod
    def now(cls) -> "Filters":
        """As they are at present."""
        return cls(warnings.filters, warnings.showwarning)

    def put_back(self) -> None:
        """Make the process as it was."""
        warnings.showwarning = self.shown
        if warnings.filters is not self.filters:
            warnings.filters = self.filters
            warnings._filters_mutated()  # type: ignore[attr-defined]


@dataclass(frozen=True, eq=False)
class Streams:
    """The states of the global random streams on the processor."""

    torch: Tensor
    numpy: Any
    python: Any

    @classmethod
    def now(cls) -> "Streams":
        """As they are at present."""
        state = np.random.get_state()  # noqa: NPY002
        return cls(torch.get_rng_state(), state, random.getstate())

    def put_back(self) -> None:
        """Make the process as it was."""
        torch.set_rng_state(self.torch)
        np.random.set_state(self.numpy)  # noqa: NPY002
        random.setstate(self.python)


@dataclass(frozen=True, eq=False)
class Settings:
    """What PyTorch's own managers switch in a thread, or patch in the process."""

    gradients: bool
    modes: int
    transforms: int

    @classmethod
    def now(cls) -> "Settings":
        """As they are at present."""
        return cls(
            torch.is_grad_enabled(),
            torch._C._len_torch_function_stack(),
            torch._C._functorch.get_dynamic_layer_stack_depth(),
        )

    def put_back(self) -> None:
        """Make the process as it was."""
        torch._C._functorch.pop_dynamic_layer_stack_and_undo_to_depth(self.transforms)
        while torch._C._len_torch_function_stack() > self.modes:
            _pop_mode()  # type: ignore[no-untyped-call]
        torch._C._set_grad_enabled(self.gradients)
        vars(math).update(MATH)
