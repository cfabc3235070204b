"""Local listener with a service that ends its calls as they ask, and frames written by hand."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from snakepit_otel import rpc
from snakepit_otel.bridge.wire.services import BRIDGE, BUFFERS
from snakepit_otel.rpc.services import handlers_of
from snakepit_otel.rpc.transports.local import LocalTransport, faults, frames
from snakepit_otel.rpc.transports.local.frames import HEADER
from tests.rpc.test_transports import SERVICES, Service


@pytest.fixture
def address(short_path: Path) -> str:
    """An address."""
    return f"unix:{short_path}/s"


@pytest.fixture
async def service() -> Service:
    """The service."""
    return Service()


@pytest.fixture
async def listener(address: str, service: Service) -> AsyncIterator[rpc.Listener]:
    """A listener that serves it."""
    listener = serve(address, service)
    await listener.start()
    yield listener
    await listener.stop(None)


@pytest.fixture
async def connection(address: str, listener: rpc.Listener) -> AsyncIterator[rpc.Connection]:
    """A connection to it."""
    connection = LocalTransport().connect(address, SERVICES)
    yield connection
    await connection.close()


@pytest.fixture(autouse=True)
def fresh_log() -> None:
    """Have faults logged whatever was logged before."""
    faults.reset()


def serve(address: str, service: Any, **more: Any) -> rpc.Listener:
    """Return a bound listener for a service."""
    listener = LocalTransport().listen(address, trusted=True, **more)
    listener.add(handlers_of(BRIDGE, service))
    listener.add(handlers_of(BUFFERS, service))
    listener.bind()
    return listener


def frame(kind: int, stream: int, flags: int = 0, body: bytes = b"") -> bytes:
    """Return a frame."""
    return HEADER.pack(len(body), stream, kind, flags) + body


HELLO = frame(frames.HELLO, 0, 0, frames.hello_body())


class RawPeer:
    """A peer that sends whatever bytes it likes."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._data = b""

    @classmethod
    async def to(cls, address: str) -> RawPeer:
        """Connect to a listener."""
        sock = socket.socket(socket.AF_UNIX)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, address.removeprefix("unix:"))
        return cls(sock)

    async def send(self, *data: bytes) -> None:
        """Send bytes."""
        await asyncio.get_running_loop().sock_sendall(self._sock, b"".join(data))

    async def frame(self) -> tuple[int, int, int, bytes]:
        """Return the next frame: type, stream, flags, body. Raises `EOFError` at the end."""
        while len(self._data) < HEADER.size or len(self._data) < HEADER.size + HEADER.unpack_from(self._data)[0]:
            try:
                data = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(self._sock, 1 << 16), 10)
            except ConnectionResetError:
                data = b""
            if not data:
                raise EOFError
            self._data += data
        size, stream, kind, flags = HEADER.unpack_from(self._data)
        body = self._data[HEADER.size : HEADER.size + size]
        self._data = self._data[HEADER.size + size :]
        return kind, stream, flags, body

    async def rest(self) -> list[tuple[int, int, int, bytes]]:
        """Return the frames up to the end."""
        found = []
        try:
            while True:
                found.append(await self.frame())
        except EOFError:
            return found

    def close(self) -> None:
        """Leave."""
        self._sock.close()


@pytest.fixture
async def raw_peer(address: str, listener: rpc.Listener) -> AsyncIterator[RawPeer]:
    """A peer that is connected to the listener, and has sent nothing yet."""
    peer = await RawPeer.to(address)
    yield peer
    peer.close()


class RawServer:
    """A server whose answers a test writes by hand; `peers` has each that connects, greeted."""

    def __init__(self, address: str) -> None:
        self._sock = socket.socket(socket.AF_UNIX)
        self._sock.setblocking(False)
        self._sock.bind(address.removeprefix("unix:"))
        Path(address.removeprefix("unix:")).chmod(0o600)
        self._sock.listen(8)
        self._peers: list[RawPeer] = []

    async def accept(self) -> RawPeer:
        """Take a connection, and exchange hellos; those that only look who listens are left out."""
        while True:
            sock, _ = await asyncio.wait_for(asyncio.get_running_loop().sock_accept(self._sock), 10)
            sock.setblocking(False)
            peer = RawPeer(sock)
            self._peers.append(peer)
            with suppress(EOFError):
                assert (await peer.frame())[0] == frames.HELLO
                await peer.send(HELLO)
                return peer

    def close(self) -> None:
        """Listen no more."""
        self._sock.close()
        for peer in self._peers:
            peer.close()


@pytest.fixture
async def raw_server(address: str) -> AsyncIterator[RawServer]:
    """A server whose answers a test writes."""
    server = RawServer(address)
    yield server
    server.close()
