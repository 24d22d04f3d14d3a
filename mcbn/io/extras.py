"""Optional dependencies: packages that only some features need."""

import importlib
from typing import Any


def optional(package: str, *, extra: str) -> Any:
    """Import a package that one of the extras of mcbn installs.

    Raises:
        ImportError: it is not installed; the message says how to install it.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ImportError(
            f"expected the package {package}, got {error}; install it with "
            f"pip install 'mcbn[{extra}]'"
        ) from error
