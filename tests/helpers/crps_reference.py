"""scoringrules in numpy: importing it compiles its numba kernels, 6 s of every process."""

import importlib
import sys


def without_numba(name):
    """Import a module that does without numba where that is not installed."""
    hidden = sys.modules.setdefault("numba", None) is None  # to import it raises ImportError
    try:
        return importlib.import_module(name)
    finally:
        if hidden:
            del sys.modules["numba"]


scoringrules = without_numba("scoringrules")
