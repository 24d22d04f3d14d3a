"""The suite itself: it reaches no other machine, and depends on no order."""

import socket

import pytest
import torch


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
