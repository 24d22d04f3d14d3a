"""The package can be imported without what only POSIX has, and without torchvision."""

import subprocess
import sys

import pytest
from source import MODULES, module_name

pytestmark = pytest.mark.unchecked

# What Python has on Linux and macOS and not on Windows. It goes once the libraries are there: they
# look for themselves.
IMPORT_ALL = """
import importlib, os, signal, sys
import jsonargparse, matplotlib.pyplot, torch, torch.func, scipy.stats, sklearn, multiprocessing
import concurrent.futures.process, tqdm
for module, names in {
    os: ["fork", "getuid", "register_at_fork", "sched_getaffinity"],
    signal: ["SIGHUP", "SIGKILL", "pthread_sigmask"],
}.items():
    for name in names:
        delattr(module, name)
sys.modules |= {"fcntl": None, "resource": None}
for name in sys.argv[1:]:
    importlib.import_module(name)
import mcbn
for name in mcbn.__all__:
    getattr(mcbn, name)
"""


def test_every_module_can_be_imported_without_fork_and_signal_masks():
    names = ["mcbn." + module_name(path).replace("/", ".") for path in MODULES]
    names = [name.removesuffix(".__init__") for name in names if name != "mcbn.__main__"]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", IMPORT_ALL, *names], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_no_module_needs_torchvision_to_be_imported():
    """The environment of `make demo` does not have it."""
    block = "import sys; sys.modules |= {'torchvision': None, 'triton': None}; "
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", block + "import mcbn.cli.demo, mcbn.tasks.readers"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
