"""Bayesian uncertainty for trained networks with batch normalisation.

The names of the package are listed in `__init__.pyi`. Each is imported when it is first used, so
that a command that needs no network does not wait for torch.
"""

import random
from typing import Any

import lazy_loader

_imported, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # A package that some of ours import draws from Python's stream, which is the user's.
    state = random.getstate()
    try:
        return _imported(name)
    finally:
        random.setstate(state)
