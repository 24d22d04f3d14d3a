"""The built package: what is in it, and that it works where nothing else of the project is.

`make integration` and `make -C tools wheel` build it, install it in an environment of its own and
run these tests; without that only the tests of the source run.
"""

import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

import mcbn

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DIST, PYTHON = (os.environ.get(f"MCBN_{name}") for name in ("DIST", "INSTALLED"))
built = pytest.mark.skipif(DIST is None or PYTHON is None, reason="run by make integration")

USE = """
import torch
from torch import nn
import mcbn
x = torch.randn(64, 4)
network = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))
network(x)
bank = mcbn.collect(network, mcbn.minibatches(x, batch_size=16, draws=8))
sampler = mcbn.MCBatchNorm(network, bank)
predictive = mcbn.predict(sampler, x)
comparison = mcbn.compare({"MCBN": sampler}, x, torch.arange(64) % 3, resamples=20)
mcbn.Report.from_comparison(comparison).write("report")
print(predictive.probabilities.shape, mcbn.__version__, mcbn.__file__)
"""
TYPED = """
import torch
import mcbn
bank = mcbn.Bank.load("bank.safetensors")
predictive = mcbn.predict(mcbn.MCBatchNorm(torch.nn.Linear(1, 1), bank), torch.zeros(1))
reveal_type(predictive.mutual_information)
bank.no_such_name
"""


def source():
    """The files of the package in the source tree."""
    return {
        str(path.relative_to(ROOT))
        for path in (ROOT / "mcbn").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def wheel(folder=DIST):
    """The wheel's content by name."""
    (path,) = Path(folder).glob("*.whl")
    with zipfile.ZipFile(path) as file:
        return {name: file.read(name) for name in file.namelist()}


def installed(*arguments, folder):
    """Run the interpreter of the fresh environment, far from the source."""
    return subprocess.run(
        [PYTHON, *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
    )


def test_the_package_says_that_it_has_types():
    assert "mcbn/py.typed" in source()
    assert "Typing :: Typed" in PROJECT["classifiers"]


@built
def test_the_wheel_holds_the_package_and_nothing_else():
    packed = {name for name in wheel() if ".dist-info/" not in name}
    assert packed == source()
    assert {"mcbn/py.typed", "mcbn/__init__.pyi"} <= packed
    templates = {Path(name).suffix for name in packed if name.startswith("mcbn/report/templates/")}
    assert templates == {".html", ".css", ".js"}


@built
def test_the_wheel_offers_extras_for_users_and_no_development_packages():
    (metadata,) = (text.decode() for name, text in wheel().items() if name.endswith("METADATA"))
    extras = set(re.findall(r"^Provides-Extra: (.*)$", metadata, flags=re.MULTILINE))
    assert extras == set(PROJECT["optional-dependencies"])
    assert "Requires-Dist: pytest" not in metadata


@built
def test_the_source_archive_holds_what_builds_and_tests_the_package():
    (path,) = Path(DIST).glob("*.tar.gz")
    root = path.name.removesuffix(".tar.gz")
    with tarfile.open(path) as file:
        names = {str(Path(name).relative_to(root)) for name in file.getnames()}
    assert source() <= names
    needed = {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff"}
    assert needed <= names
    assert {"Makefile", "tools/Makefile", "tools/locks/dev.lock", "tests/conftest.py",
            "docs/method.md"} <= names  # fmt: skip
    assert not {name for name in names if name.startswith((".", "dist", "demo"))} - {".gitignore"}
    assert not {name for name in names if "__pycache__" in name or "results/parts" in name}


@built
def test_the_source_archive_builds_the_same_wheel():
    # The wheel in the folder was built from the archive; the other one from the tree.
    assert wheel(Path(DIST) / "tree") == wheel()


@built
def test_no_text_of_the_package_names_this_machine():
    for name, content in wheel().items():
        assert str(ROOT).encode() not in content, name


@built
def test_prediction_and_report_run_where_only_the_wheel_is_installed(tmp_path):
    done = installed("-W", "ignore", "-c", USE, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    shape, version, place = done.stdout.rsplit(maxsplit=2)
    assert (shape, version) == ("torch.Size([64, 3])", mcbn.__version__)
    assert str(ROOT / "mcbn") not in place
    page = (tmp_path / "report" / "report.html").read_text()
    assert "<svg" in page
    assert all(part in page for part in ("<style>", "<script>"))


@built
def test_the_command_is_installed(tmp_path):
    command = Path(PYTHON).with_name("mcbn")
    done = subprocess.run([command, "--version"], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, f"mcbn {mcbn.__version__}\n")
    done = subprocess.run([command, "predict", "--help"], capture_output=True, text=True)
    assert "--bank" in done.stdout


@built
def test_a_users_script_sees_the_types(tmp_path):
    (tmp_path / "script.py").write_text(TYPED)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--python-executable", PYTHON,
         "--cache-dir", str(tmp_path / "cache"), "script.py"],
        capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    assert any("Tensor" in line and "Revealed type" in line for line in lines), done.stdout
    errors = [line for line in lines if ": error:" in line]
    assert len(errors) == 1, done.stdout
    assert '"Bank" has no attribute "no_such_name"' in errors[0]
