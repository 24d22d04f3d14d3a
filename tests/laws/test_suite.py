"""The suite itself: it reaches no other machine, and holds what the page of guarantees says."""

import re
import socket
from pathlib import Path

import pytest
import torch

TESTS = Path(__file__).parents[1]
GUARANTEES = TESTS.parent / "docs" / "guarantees.md"


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
