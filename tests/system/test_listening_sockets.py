"""Listening sockets that are shared for a moment, and that send their callers to another one."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from snakepit_otel.system.listening_sockets import connections_wait, send_callers_to_successor, share_port


def listener(port: int = 0, *, shared: bool = False) -> socket.socket:
    """Listen on loopback, as gRPC does."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, shared)
    try:
        made.bind(("127.0.0.1", port))
        made.listen()
    except OSError:
        made.close()
        raise
    made.setblocking(False)
    return made


def accepted(listening: socket.socket) -> int:
    """Accept what waits; return how many connections that were."""
    number = 0
    while True:
        try:
            listening.accept()[0].close()
        except BlockingIOError:
            return number
        number += 1


@pytest.fixture
def first() -> Iterator[socket.socket]:
    """A listener that shares its port with nobody."""
    with listener() as made:
        yield made


def test_a_port_is_shared_for_a_while(first: socket.socket) -> None:
    """Another listener is refused, then admitted; one that does not ask to share is refused at all times."""
    port = first.getsockname()[1]
    with pytest.raises(OSError, match="in use"):
        listener(port, shared=True)
    share_port(port, shared=True)
    # Whoever does not want to share is refused all the same.
    with pytest.raises(OSError, match="in use"):
        listener(port)
    with listener(port, shared=True):
        pass
    share_port(port, shared=False)
    with pytest.raises(OSError, match="in use"):
        listener(port)


def test_all_callers_go_to_the_successor(first: socket.socket) -> None:
    """New connections are the second listener's, also once the first is closed; those that wait stay the first's."""
    port = first.getsockname()[1]
    with socket.create_connection(("127.0.0.1", port)):
        assert connections_wait()
        share_port(port, shared=True)
        with listener(port, shared=True) as second:
            send_callers_to_successor(port)
            for _ in range(20):
                socket.create_connection(("127.0.0.1", port)).close()
            assert (accepted(first), accepted(second)) == (1, 20)
            assert not connections_wait()
            first.close()
            socket.create_connection(("127.0.0.1", port)).close()
            assert accepted(second) == 1
