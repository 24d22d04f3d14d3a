"""The source of the package as trees of syntax, for laws that every module must keep."""

import ast
from pathlib import Path

import mcbn

PACKAGE = Path(mcbn.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))


def module_name(path):
    """The module that a file of the package holds, below the package: "io/atomic"."""
    return path.relative_to(PACKAGE).with_suffix("").as_posix()


def dotted(node):
    """The name that is called: "torch.load"."""
    return ast.unparse(node.func)


def keyword(node, name):
    """The value of a keyword of a call as it is written; None if it is not given."""
    return next((ast.unparse(each.value) for each in node.keywords if each.arg == name), None)
