"""Relay of connections whose peers speak gRPC to a gRPC server of this process."""

from __future__ import annotations

import asyncio
import os
import socket
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from snakepit_otel.rpc.services import Handler
from snakepit_otel.rpc.transports.base import Listener

_READ_BYTES: Final = 64 << 10


class Relay:
    """Passes bytes on, both ways; the server is started with the first connection.

    `listen` makes the server's listener at an address. Its socket has no name that others could find: the directory
    is removed once the server is bound, and the socket is reached by a descriptor.
    """

    def __init__(self, listen: Callable[[str], Listener]) -> None:
        self._listen = listen
        self._handlers: list[Handler] = []
        self._listener: Listener | None = None
        self._starting: asyncio.Task[int] | None = None
        self._descriptor = -1
        self._running: set[asyncio.Task[None]] = set()

    def add(self, handlers: list[Handler]) -> None:
        """Serve these, too."""
        self._handlers += handlers

    def pass_on(self, sock: socket.socket, first: bytes) -> None:
        """Relay a connection, of which `first` has been read."""
        task = asyncio.get_running_loop().create_task(self._relay(sock, first))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def stop(self, grace: float | None) -> None:
        """Stop the server, and end what is relayed after it."""
        if self._starting is not None:
            with suppress(Exception):
                await self._starting
        if self._listener is not None:
            await self._listener.stop(grace)
        for task in list(self._running):
            task.cancel()
        if self._running:
            await asyncio.wait(list(self._running))
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    async def _start(self) -> int:
        with tempfile.TemporaryDirectory(prefix="snakepit-") as directory:
            path = Path(directory) / "s"
            listener = self._listen(f"unix:{path}")
            listener.add(self._handlers)
            listener.bind()
            self._descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
        self._listener = listener
        await listener.start()
        return self._descriptor

    async def _relay(self, sock: socket.socket, first: bytes) -> None:
        loop = asyncio.get_running_loop()
        with sock, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as inner:
            inner.setblocking(False)
            if self._starting is None:
                self._starting = loop.create_task(self._start())
            await asyncio.shield(self._starting)
            try:
                await loop.sock_connect(inner, f"/proc/self/fd/{self._descriptor}")
                await loop.sock_sendall(inner, first)
            except OSError:
                return
            both = [
                loop.create_task(_pump(sock, inner)),
                loop.create_task(_pump(inner, sock)),
            ]
            try:
                await asyncio.wait(both)
            finally:
                for one in both:
                    one.cancel()
                await asyncio.wait(both)


async def _pump(source: socket.socket, target: socket.socket) -> None:
    """Pass bytes on until the source ends."""
    loop = asyncio.get_running_loop()
    with suppress(OSError):
        while data := await loop.sock_recv(source, _READ_BYTES):
            await loop.sock_sendall(target, data)
    # The other way may go on.
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)
