"""Digests of a user's source: equal for what means the same, other for every edit of what runs."""

import importlib
import sys
from pathlib import Path

import pytest

from mcbn.network.sources import source_digests

NET = '''"""Networks."""
import helper
WIDTH = 16
def build():
    """Build one."""
    from package.inner import make
    return make(WIDTH)
if __name__ == "__main__":
    print(build())
'''
FILES = {
    "net.py": NET,
    "helper.py": "ACTIVATION = 'relu'\n",
    "package/__init__.py": "",
    "package/inner.py": "from . import constants\ndef make(width):\n    return width\n",
    "package/constants.py": "RATE = 0.1\n",
}
NAMES = {"net.py", "helper", "package", "package.inner", "package.constants"}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def digests(folder: Path) -> dict[str, str]:
    """The digests in a fresh process, as far as modules of the folder go."""
    for name in [*sys.modules]:
        if name.partition(".")[0] in ("helper", "package"):
            del sys.modules[name]
    importlib.invalidate_caches()
    for name in ("helper", "package.inner"):
        importlib.import_module(name)
    return source_digests(f"{folder / 'net.py'}:build")


def test_all_that_is_imported_from_the_user_s_folder_is_digested(folder):
    assert set(digests(folder)) == NAMES


@pytest.mark.parametrize(
    ("file", "old", "new", "changed"),
    [
        ("net.py", "WIDTH = 16", "WIDTH = 17", {"net.py"}),
        ("net.py", "make(WIDTH)", "make(WIDTH + 1)", {"net.py"}),
        ("helper.py", "'relu'", "'tanh'", {"helper"}),
        ("package/inner.py", "return width", "return width * 2", {"package.inner"}),
        ("package/constants.py", "0.1", "0.25", {"package.constants"}),
        ("package/__init__.py", "", "LEVEL = 3\n", {"package"}),
        ("net.py", "WIDTH = 16", "WIDTH  =  16  # units\n\n", set()),
        ("net.py", "Build one.", "Build a network.", set()),
        ("net.py", '"""Networks."""', "", set()),
        ("net.py", "print(build())", "print(build)", set()),
    ],
)
def test_an_edit_shows_where_it_is_and_a_comment_does_not(folder, file, old, new, changed):
    before = digests(folder)
    text = (folder / file).read_text()
    assert old in text
    (folder / file).write_text(text.replace(old, new, 1) if old else new)
    after = digests(folder)
    assert {name for name in NAMES if before[name] != after[name]} == changed


def test_the_place_does_not_count(folder, tmp_path_factory):
    other = tmp_path_factory.mktemp("other") / "net.py"
    other.write_text(NET)
    assert source_digests(f"{other}:build")["net.py"] == digests(folder)["net.py"]


def test_a_module_that_is_loaded_stays_what_it_was_loaded_as(folder):
    before = digests(folder)
    (folder / "helper.py").write_text("ACTIVATION = 'tanh'\n")
    assert source_digests(f"{folder / 'net.py'}:build") == before


def test_packages_that_are_installed_are_not_the_user_s(tmp_path):
    path = tmp_path / "net.py"
    path.write_text("import torch, os, mcbn, numpy.linalg\nfrom mcbn.tasks import networks\n")
    assert set(source_digests(f"{path}:build")) == {"net.py"}
