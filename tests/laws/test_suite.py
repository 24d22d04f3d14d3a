"""The suite itself: it reaches no other machine, and holds what the page of guarantees says."""

import ast
import re
import socket
from pathlib import Path

import pytest
import torch
from source import MODULES

TESTS = Path(__file__).parents[1]
GUARANTEES = TESTS.parent / "docs" / "guarantees.md"
DEPENDENCIES = TESTS.parent / "docs" / "dependencies.md"


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1", "example.org", b"example.org"])
def test_another_machine_is_refused(host):
    with pytest.raises(ConnectionRefusedError, match="no network"):
        socket.create_connection((host, 80), timeout=1)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_this_machine_is_reached(host):
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection((host, server.getsockname()[1]), timeout=5).close()


def test_data_that_would_be_downloaded_are_refused():
    with pytest.raises(OSError, match="no network"):
        torch.hub.download_url_to_file("https://example.org/weights.pt", "weights.pt")


def test_every_guarantee_names_a_test_that_is_there():
    named = re.findall(r"`([\w/]+)::(\w+)`", GUARANTEES.read_text("utf-8"))
    assert len(named) >= 30
    missing = [
        f"{module}::{name}"
        for module, name in named
        if f"def {name}(" not in (TESTS / f"{module}.py").read_text("utf-8")
    ]
    assert not missing, f"expected tests that are there, got {missing}"


def private_names_of_torch(tree):
    """Names that begin with an underscore: imported from torch, or attributes of every module."""
    of_modules = {name for name in vars(torch.nn.Module()) if name.startswith("_")}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "torch":
            names = [*node.module.split("."), *(alias.name for alias in node.names)]
            yield from (name for name in names if name.startswith("_"))
        elif isinstance(node, ast.Attribute):
            below_torch = ast.unparse(node.value).split(".")[0] == "torch"
            private = node.attr.startswith("_") and not node.attr.startswith("__")
            if node.attr in of_modules or (below_torch and private):
                yield node.attr


def test_every_private_name_of_pytorch_is_listed_with_what_breaks():
    used = {
        name
        for path in MODULES
        for name in private_names_of_torch(ast.parse(path.read_text(encoding="utf-8")))
    }
    section = DEPENDENCIES.read_text("utf-8").partition("## Private names of PyTorch")[2]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == used
