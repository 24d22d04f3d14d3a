"""The contract on imports holds, and finds an import that breaks it.

Each test lints a copy of the package under the project's own contract.
"""

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from source import PACKAGE

pytestmark = pytest.mark.unchecked

PROJECT = PACKAGE.parent / "pyproject.toml"
LAYERS = tomllib.loads(PROJECT.read_text())["tool"]["importlinter"]["contracts"][0]["layers"]
# From the top to the bottom; the packages of one layer may not import each other either.
PACKAGES = [name for layer in LAYERS for name in layer.split(" | ")]


@pytest.fixture
def package(tmp_path):
    """A copy of the package, without what the interpreter has compiled."""
    shutil.copytree(PACKAGE, tmp_path / "mcbn", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "mcbn"


def lint(package):
    """Lint a copy of the package; the exit status and what was printed."""
    command = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run(
        [command, "--no-cache", "--config", PROJECT],
        capture_output=True,
        text=True,
        cwd=package.parent,
    )
    return done.returncode, done.stdout + done.stderr


def plant(package, folder, line):
    """Add a module of one line to a folder of the copy."""
    (package / folder / "planted.py").write_text(f"{line}\n", "utf-8")


def test_every_package_is_in_the_contract_and_every_arrow_points_down(package):
    status, printed = lint(package)
    assert status == 0, printed
    assert "1 kept, 0 broken" in printed


@pytest.mark.parametrize(
    ("importer", "imported"),
    [
        ("io", "network"),
        ("bank", "tasks"),
        ("samplers", "predictive"),
        ("evaluation", "report"),
        ("uncertainty", "evaluation"),
        ("predictive", "uncertainty"),
        ("recalibration", "deployment"),
        ("study", "cli"),
    ],
)
@pytest.mark.parametrize("line", ["from mcbn import {}", "def late():\n    import mcbn.{}"])
def test_an_import_that_runs_upwards_or_sideways_is_found(package, importer, imported, line):
    plant(package, importer, line.format(imported))
    status, printed = lint(package)
    assert status == 1
    assert f"mcbn.{importer} is not allowed to import mcbn.{imported}" in printed


def test_an_import_that_runs_downwards_is_allowed(package):
    plant(package, "cli", "from mcbn import validation")
    status, printed = lint(package)
    assert status == 0, printed


def test_a_package_that_is_not_in_the_contract_is_found(package):
    (package / "helpers").mkdir()
    (package / "helpers" / "__init__.py").touch()
    status, printed = lint(package)
    assert status == 1
    assert "helpers" in printed


def test_the_contract_names_the_packages_that_there_are():
    there = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()}
    assert {*PACKAGES} == there | {"validation"}
