"""Packages that are needed for one thing only, and that a user may not have."""

import importlib
from typing import Any


def optional(package: str, *, extra: str) -> Any:
    """Import a package that comes with an extra of ours.

    Raises:
        ImportError: it is not installed; says how to get it.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ImportError(
            f"expected the package {package}, got {error}; install it with "
            f"pip install 'mcbn[{extra}]'"
        ) from error
