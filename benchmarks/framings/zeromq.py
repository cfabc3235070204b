"""The same calls over ZeroMQ: a DEALER and a ROUTER, each message a head of the smallest framing and a payload.

Once with pyzmq's own integration into asyncio, once with its file descriptor under `add_reader`, which is edge
triggered, so that everything is read until nothing is left.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable
from typing import Any

from benchmarks.framings.calls import FrameCaller, FrameServer
from benchmarks.framings.framing import Framing
from benchmarks.framings.links import EACH, Link

INTEGRATIONS = ("asyncio", "poller")


class _ZeroLink(Link):
    """A socket of ZeroMQ as a connection; `identity` is that of a ROUTER's peer."""

    def __init__(self, socket: ZeroSocket, framing: Framing, identity: list[bytes]) -> None:
        super().__init__(framing, asyncio.get_running_loop(), EACH)
        self._zero, self._identity = socket, identity

    def _write(self, parts: list[bytes]) -> None:
        self._zero.send([*self._identity, *parts])

    def on_parts(self, lead: bytes, payload: bytes) -> None:
        """Pass a message on as a frame."""
        _length, stream, kind, flags = self._unpack(lead)
        # What is packed behind the head belongs to the body.
        self.on_frame(stream, kind, flags, lead[self._head_size :] + payload)


class ZeroSocket:
    """A socket of ZeroMQ that calls `on_message` with the parts of each message."""

    def __init__(self, integration: str, kind: str, on_message: Callable[[list[bytes]], None]) -> None:
        zmq = importlib.import_module("zmq")
        self._zmq, self._on_message = zmq, on_message
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        if integration == "asyncio":
            context = importlib.import_module("zmq.asyncio").Context.instance()
        else:
            context = zmq.Context.instance()
        self.socket = context.socket(getattr(zmq, kind))
        self.socket.linger = 0
        self.socket.sndhwm = self.socket.rcvhwm = 0
        self._integrated = integration == "asyncio"

    def start(self) -> None:
        """Begin to read."""
        if self._integrated:
            self._task = self._loop.create_task(self._receive())
        else:
            self._loop.add_reader(self.socket.FD, self._on_readable)
            self._loop.call_soon(self._on_readable)

    async def _receive(self) -> None:
        while True:
            self._on_message(await self.socket.recv_multipart())

    def _on_readable(self) -> None:
        while True:
            try:
                message = self.socket.recv_multipart(self._zmq.NOBLOCK)
            except self._zmq.Again:
                return
            self._on_message(message)

    def send(self, parts: list[bytes]) -> Any:
        """Send the parts of a message."""
        if self._integrated:
            return self.socket.send_multipart(parts)
        self.socket.send_multipart(parts, self._zmq.NOBLOCK)
        # To send may have read the signal that a message has come, which the edge then does not show again.
        if self.socket.EVENTS & self._zmq.POLLIN:
            self._loop.call_soon(self._on_readable)
        return None


def connect(path: str, framing: Framing, integration: str) -> FrameCaller:
    """Return a caller over a DEALER that is connected to a path."""

    def on_message(parts: list[bytes]) -> None:
        link.on_parts(*parts)

    zero = ZeroSocket(integration, "DEALER", on_message)
    link = _ZeroLink(zero, framing, [])
    caller = FrameCaller(link, framing)
    zero.socket.connect(f"ipc://{path}")
    zero.start()
    return caller


def listen(path: str, framing: Framing, integration: str) -> None:
    """Answer at a path, for as long as the process lives."""
    links: dict[bytes, _ZeroLink] = {}
    servers: list[FrameServer] = []

    def on_message(parts: list[bytes]) -> None:
        identity, lead, payload = parts
        link = links.get(identity)
        if link is None:
            link = links[identity] = _ZeroLink(zero, framing, [identity])
            servers.append(FrameServer(link, framing))
        link.on_parts(lead, payload)

    zero = ZeroSocket(integration, "ROUTER", on_message)
    zero.socket.bind(f"ipc://{path}")
    zero.start()
