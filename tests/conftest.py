"""For all tests: one thread, no network, and the same global state after each test as before."""

import ipaddress
import sys

import numpy as np
import pytest
import torch

torch.set_num_threads(1)


def refuse_other_machines(event, arguments):
    """Refuse connections to other machines, in an audit hook, which no library can bypass."""
    if event == "socket.connect" and isinstance(arguments[1], tuple):  # a path is a local socket
        host = arguments[1][0]
    elif event == "socket.getaddrinfo":
        host = arguments[0]
    else:
        return
    if not is_this_machine(host):
        raise ConnectionRefusedError(f"expected no network in the tests, got {event} to {host}")


def is_this_machine(host):
    """Whether `host` is the loopback or stands for all addresses of this machine."""
    name = (host.decode() if isinstance(host, bytes) else host) or "localhost"
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return name == "localhost"
    return address.is_loopback or address.is_unspecified


sys.addaudithook(refuse_other_machines)


def global_state():
    """The random streams and settings of the process that a test must leave as they were.

    Python's own stream is left out, since libraries that serve clusters and browsers draw from it;
    that mcbn leaves it alone is asked in tests/laws.
    """
    return (
        torch.get_rng_state().tolist(),
        [part if isinstance(part, (str, int, float)) else part.tolist()
         for part in np.random.get_state()],  # noqa: NPY002
        torch.get_default_dtype(),
        torch.is_grad_enabled(),
        torch.get_num_threads(),
    )  # fmt: skip


@pytest.fixture(autouse=True)
def unchanged_global_state():
    """Fail a test that moves a global random stream or setting."""
    before = global_state()
    yield
    assert global_state() == before, "a global random stream or setting was moved"
