"""The package can be imported where the system lacks what only POSIX has."""

import subprocess
import sys

from source import MODULES, module_name

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
