"""The traffic of connections, as the kernel counts it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from snakepit_otel.system.tcp_connections import Connections, Traffic, address_of
from tests.waiting import until


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """Close what a test opens."""
    with ExitStack() as opened:
        yield opened


def connected(stack: ExitStack, host: str = "127.0.0.1") -> tuple[Connections, socket.socket, socket.socket, str]:
    """Return the connections to a port, both ends of one of them, and the name that gRPC would have for it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = stack.enter_context(socket.create_server((host, 0), family=family))
    theirs = stack.enter_context(socket.create_connection(listener.getsockname()[:2]))
    ours = stack.enter_context(listener.accept()[0])
    connections = Connections()
    connections.port = listener.getsockname()[1]
    own_port = theirs.getsockname()[1]
    name = f"ipv6:%5B{host}%5D:{own_port}" if ":" in host else f"ipv4:{host}:{own_port}"
    return connections, ours, theirs, name


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_traffic_of_a_connection(stack: ExitStack, host: str) -> None:
    """What was received counts before it is read, and what was sent once it was acknowledged."""
    try:
        connections, ours, theirs, name = connected(stack, host)
    except OSError as error:
        pytest.skip(f"no {host} here: {error}")
    assert connections.traffic(name) is None
    connections.find([name])
    theirs.sendall(bytes(1_234))
    ours.sendall(bytes(77))
    await until(lambda: connections.traffic(name) == Traffic(acknowledged=77, received=1_234))


def test_a_connection_that_has_ended_is_not_found(stack: ExitStack) -> None:
    """A descriptor that is another's by now is not taken for a connection."""
    connections, ours, _, name = connected(stack)
    connections.find([name])
    descriptor = ours.fileno()
    ours.close()
    other = stack.enter_context(socket.socket())
    assert other.fileno() == descriptor
    assert connections.traffic(name) is None
    connections.close(name)
    connections.find([name])
    assert connections.traffic(name) is None


def test_connections_to_other_ports_are_not_ours(stack: ExitStack) -> None:
    """What this process has connected itself is left alone."""
    connections, _, _, name = connected(stack)
    connections.port += 1
    connections.find([name])
    connections.close(name)
    assert connections.traffic(name) is None


def test_a_connection_is_closed(stack: ExitStack) -> None:
    """Its other end sees the end, though gRPC has the descriptor."""
    connections, ours, theirs, name = connected(stack)
    connections.close(name)
    assert theirs.recv(1) == b""
    assert ours.fileno() != -1


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("ipv4:10.0.0.1:50051", ("10.0.0.1", 50_051)),
        ("ipv6:%5B::1%5D:1", ("::1", 1)),
        ("ipv6:[::ffff:10.0.0.1]:1", ("10.0.0.1", 1)),
        ("ipv6:%5Bfe80::1%25eth0%5D:1", ("fe80::1%eth0", 1)),
        ("unix:", ("", 0)),
        ("nonsense", ("", 0)),
    ],
    ids=["v4", "v6", "v4-in-v6", "scope", "unix", "nonsense"],
)
def test_addresses_of_peers(name: str, address: tuple[str, int]) -> None:
    """gRPC's names for peers are taken apart as they come."""
    assert address_of(name) == address
