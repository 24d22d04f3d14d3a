"""Digests of the source that a user's network was built from: their file and all it imports."""

import ast
import hashlib
import site
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from weakref import WeakKeyDictionary

# Of modules that this process imported: a later edit does not change what is loaded.
_loaded: "WeakKeyDictionary[ModuleType, str]" = WeakKeyDictionary()


def source_digests(name: str, modules: Iterable[str] = ()) -> dict[str, str]:
    """Return a digest of each of the user's own modules that a builder's network depends on.

    These are the builder's own and, from there, all that are imported, in functions too; packages
    that are installed are not among them. Call it after the network was built, so that they are
    loaded. Comments, docstrings, layout and an `if __name__ == "__main__"` do not count, nor does
    the folder.

    Args:
        name: module:function or file.py:function, which was imported.
        modules: names of further modules, such as those of the layers' classes.
    """
    source = name.rpartition(":")[0]
    digests, waiting = {}, [source, *modules]
    if source.endswith(".py"):
        tree = _parsed(Path(source))
        waiting = [*_imports(tree, ""), *modules]
        digests[Path(source).name] = _digest_of_tree(tree)
    seen = set()
    while waiting:
        module = sys.modules.get(waiting.pop())
        path = _own_file(module)
        if module is None or path is None or module in seen:
            continue
        seen.add(module)
        tree = _parsed(path)
        waiting += _imports(tree, module.__package__ or "")
        digests[module.__name__] = _loaded.setdefault(module, _digest_of_tree(tree))
    return dict(sorted(digests.items()))


def _own_file(module: ModuleType | None) -> Path | None:
    """The file of a module that is neither of this package nor of Python nor installed."""
    path = getattr(module, "__file__", None)
    if module is None or path is None or module.__name__.partition(".")[0] == "mcbn":
        return None
    kinds = ("stdlib", "platstdlib", "purelib", "platlib")
    installed = {sysconfig.get_path(kind) for kind in kinds} | {site.getusersitepackages()}
    own = not any(Path(path).resolve().is_relative_to(Path(each).resolve()) for each in installed)
    return Path(path) if own and Path(path).is_file() else None


def _parsed(path: Path) -> ast.Module:
    """The syntax tree of a file; one that is compiled is a single constant."""
    content = path.read_bytes()
    if path.suffix == ".py":
        return ast.parse(content)
    return ast.Module([ast.Assign([ast.Name("content")], ast.Constant(content))], [])


def _digest_of_tree(tree: ast.Module) -> str:
    """A digest without docstrings, and without what runs only when the file is run as a script."""
    tree.body = [node for node in tree.body if not _is_script(node)]
    for node in ast.walk(tree):
        documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        if isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    # From the text, not from a dump of the tree, which differs between versions of Python.
    text = ast.unparse(ast.fix_missing_locations(tree))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _is_script(node: ast.stmt) -> bool:
    tests = ("__name__ == '__main__'", "'__main__' == __name__")
    return isinstance(node, ast.If) and ast.unparse(node.test) in tests and not node.orelse


def _imports(tree: ast.Module, package: str) -> Iterator[str]:
    """Names of the modules that a file imports, and of the packages that they are in."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1]
            start = ".".join([*(parents if node.level else []), *filter(None, [node.module])])
            # What is imported from a package may be a module of it.
            names = [start, *(f"{start}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in names:
            parts = name.split(".")
            yield from (".".join(parts[:end]) for end in range(1, len(parts) + 1))
