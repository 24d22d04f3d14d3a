import ipaddress
import sys

import numpy as np
import pytest
import torch

torch.set_num_threads(1)


def refuse_the_network(event, arguments):
    """Let no test reach another machine: an audit hook, so that no library gets round it."""
    if event == "socket.connect" and isinstance(arguments[1], tuple):  # a path is a local socket
        host = arguments[1][0]
    elif event == "socket.getaddrinfo":
        host = arguments[0]
    else:
        return
    if not here(host):
        raise ConnectionRefusedError(f"expected no network in the tests, got {event} to {host}")


def here(host):
    """Whether this machine alone is meant: its loopback, or any of its own addresses."""
    name = (host.decode() if isinstance(host, bytes) else host) or "localhost"
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return name == "localhost"
    return address.is_loopback or address.is_unspecified


sys.addaudithook(refuse_the_network)


def global_state():
    """Everything of the process that a call must leave as it was.

    Python's own stream is left out: the type checker of the tests draws from it. A test of
    isolation looks at it in a process of its own.
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
def untouched_process():
    """No test, and so no call of ours in it, moves a global stream or setting."""
    before = global_state()
    yield
    assert global_state() == before, "a global random stream or setting was moved"
