"""Connections that split bytes into frames and collect what is to be written, in every way that asyncio allows.

Readers: asyncio's `Protocol`; its `BufferedProtocol`, into a buffer that is used again; and a socket of our own under
`add_reader`, with `recv`, with `recvmsg` (which descriptors take) or with `recv_into`. Writers: each frame at once;
all frames of a turn of the loop together; or those that a read caused at its end, others at once while only one call is
in flight, which saves it a turn, else by turn.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections import deque
from collections.abc import Callable
from typing import Any

from benchmarks.framings.framing import Framing

READ_SIZE = 256 << 10
# Room for a few descriptors beside a frame.
_ANCILLARY = socket.CMSG_SPACE(4 * 8)
_MOST_PARTS = 1000
EACH, BY_TURN, ADAPTIVE = "each", "by turn", "adaptive"
OnFrame = Callable[[int, int, int, bytes], None]


class Link:
    """One connection: `on_frame(stream, kind, flags, body)` for each frame, and `send` for others."""

    def __init__(self, framing: Framing, loop: asyncio.AbstractEventLoop, writer: str) -> None:
        self.on_frame: OnFrame
        self._unpack, self._head_size = framing.head.unpack_from, framing.head.size
        self._loop = loop
        self._at_once = {EACH: 1 << 30, BY_TURN: 0, ADAPTIVE: 1}[writer]
        self._adaptive = writer == ADAPTIVE
        self._reading = False
        # How many calls are in flight; who makes or answers them counts.
        self.in_flight = 0
        self._pending: list[bytes] = []
        self._parts: list[bytes] = []
        self._have = self._need = 0

    def send(self, frame: tuple[bytes, bytes]) -> None:
        """Write a frame, or collect it with others."""
        if not self._pending and not self._reading:
            if self.in_flight <= self._at_once:
                self._write(list(frame))
                return
            self._loop.call_soon(self._flush)
        self._pending += frame

    def _flush(self) -> None:
        pending, self._pending = self._pending, []
        if pending:
            self._write(pending)

    def _write(self, parts: list[bytes]) -> None:
        raise NotImplementedError

    def _received(self, data: bytes) -> None:
        if self._need:
            # Pieces of a large frame are joined once, when it is complete.
            self._parts.append(data)
            self._have += len(data)
            if self._have < self._need:
                return
            data = b"".join(self._parts)
            self._parts.clear()
            self._have = self._need = 0
        # What was pending before has its call_soon.
        self._reading = self._adaptive and not self._pending
        position, end, size = 0, len(data), self._head_size
        while end - position >= size:
            length, stream, kind, flags = self._unpack(data, position)
            body = position + size
            stop = body + length
            if stop > end:
                self._need = stop - position
                break
            self.on_frame(stream, kind, flags, data[body:stop])
            position = stop
        if position < end:
            rest = data[position:]
            self._parts.append(rest)
            self._have = len(rest)
            self._need = self._need or size
        if self._reading:
            self._reading = False
            self._flush()


class ProtocolLink(Link, asyncio.Protocol):
    """A connection by `asyncio.Protocol`."""

    _transport: asyncio.Transport

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received(data)

    def _write(self, parts: list[bytes]) -> None:
        self._transport.write(b"".join(parts))


class BufferedLink(Link, asyncio.BufferedProtocol):
    """A connection by `asyncio.BufferedProtocol`."""

    _transport: asyncio.Transport

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._buffer = memoryview(bytearray(READ_SIZE))

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._received(bytes(self._buffer[:nbytes]))

    _write = ProtocolLink._write


class SocketLink(Link):
    """A connection by a socket under `add_reader`; subclasses read from it."""

    def __init__(
        self, framing: Framing, loop: asyncio.AbstractEventLoop, writer: str, connected: socket.socket
    ) -> None:
        super().__init__(framing, loop, writer)
        self._socket = connected
        self._unsent: deque[memoryview] = deque()
        connected.setblocking(False)
        loop.add_reader(connected, self._on_readable)

    def _read(self) -> bytes:
        raise NotImplementedError

    def _on_readable(self) -> None:
        try:
            data = self._read()
        except BlockingIOError:
            return
        if data:
            self._received(data)
        else:
            self._loop.remove_reader(self._socket)
            self._socket.close()

    def _write(self, parts: list[bytes]) -> None:
        if self._unsent:
            self._unsent.extend(map(memoryview, parts))
            return
        data = b"".join(parts)
        try:
            sent = self._socket.send(data)
        except BlockingIOError:
            sent = 0
        if sent < len(data):
            self._unsent.append(memoryview(data)[sent:])
            self._loop.add_writer(self._socket, self._on_writable)

    def _on_writable(self) -> None:
        unsent = self._unsent
        try:
            sent = self._socket.sendmsg(list(itertools.islice(unsent, _MOST_PARTS)))
        except BlockingIOError:
            return
        while unsent and sent >= len(unsent[0]):
            sent -= len(unsent.popleft())
        if unsent:
            unsent[0] = unsent[0][sent:]
        else:
            self._loop.remove_writer(self._socket)


class RecvLink(SocketLink):
    def _read(self) -> bytes:
        return self._socket.recv(READ_SIZE)


class RecvmsgLink(SocketLink):
    def _read(self) -> bytes:
        data, _ancillary, _flags, _address = self._socket.recvmsg(READ_SIZE, _ANCILLARY)
        return data


class RecvIntoLink(SocketLink):
    """Reads into a buffer that is used again, and what is missing of a large frame right into its place."""

    _buffer = memoryview(bytearray(READ_SIZE))
    _target: memoryview | None = None

    def _read(self) -> bytes:
        count = self._socket.recv_into(self._buffer)
        return bytes(self._buffer[:count])

    def _on_readable(self) -> None:
        if self._target is None:
            super()._on_readable()
            if self._need > READ_SIZE:
                self._target = memoryview(bytearray(self._need))
                self._target[: self._have] = b"".join(self._parts)
                self._parts.clear()
            return
        self._have += self._socket.recv_into(self._target[self._have :])
        if self._have == self._need:
            frame, self._target = self._target.toreadonly(), None
            self._have = self._need = 0
            _length, stream, kind, flags = self._unpack(frame)
            self.on_frame(stream, kind, flags, frame[self._head_size :])


class SendmsgLink(RecvmsgLink):
    """Reads as `RecvmsgLink`, and hands the parts over without joining them."""

    def _write(self, parts: list[bytes]) -> None:
        if self._unsent or len(parts) > _MOST_PARTS:
            super()._write(parts)
            return
        self._unsent.extend(map(memoryview, parts))
        self._on_writable()
        if self._unsent:
            self._loop.add_writer(self._socket, self._on_writable)


PROTOCOLS: dict[str, type[ProtocolLink] | type[BufferedLink]] = {
    "Protocol": ProtocolLink,
    "BufferedProtocol": BufferedLink,
}
SOCKETS: dict[str, type[SocketLink]] = {
    "recv": RecvLink,
    "recvmsg": RecvmsgLink,
    "recv_into": RecvIntoLink,
    "recvmsg, sendmsg": SendmsgLink,
}
READERS = (*PROTOCOLS, *SOCKETS)


async def listen(path: str, framing: Framing, reader: str, writer: str, on_link: Callable[[Link], None]) -> Any:
    """Accept connections at a path, for as long as what is returned lives."""
    loop = asyncio.get_running_loop()
    if protocol := PROTOCOLS.get(reader):

        def accepted() -> Link:
            link = protocol(framing, loop, writer)
            on_link(link)
            return link

        return await loop.create_unix_server(accepted, path)
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(path)
    listening.listen()
    listening.setblocking(False)
    loop.add_reader(listening, lambda: on_link(SOCKETS[reader](framing, loop, writer, listening.accept()[0])))
    return listening


async def connect(path: str, framing: Framing, reader: str, writer: str) -> Link:
    """Return a connection to a path."""
    loop = asyncio.get_running_loop()
    if protocol := PROTOCOLS.get(reader):
        _, link = await loop.create_unix_connection(lambda: protocol(framing, loop, writer), path)
        return link
    connected = socket.socket(socket.AF_UNIX)
    connected.connect(path)
    return SOCKETS[reader](framing, loop, writer, connected)
