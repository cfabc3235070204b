"""Relay of connections whose peers speak gRPC to a gRPC server of this process."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from snakepit_otel.common.printable import printable_error
from snakepit_otel.errors import ConfigurationError
from snakepit_otel.rpc.services import Handler
from snakepit_otel.rpc.transports.base import Listener

_READ_BYTES: Final = 64 << 10
_LAST_ANSWERS_S: Final = 0.5
_log = logging.getLogger("snakepit_otel.rpc")


class Relay:
    """Passes bytes on, both ways; the server is started with the first connection.

    `listen` makes the server's listener at an address. Its socket has no name that others could find: the directory
    is removed once the server is bound, and the socket is reached by a descriptor. A peer may take nothing of what
    waits for it for `unread_timeout` seconds.
    """

    def __init__(self, listen: Callable[[str], Listener], unread_timeout: float = 60.0) -> None:
        self._listen = listen
        self._unread_timeout = unread_timeout
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
        if self._running:
            # The server has closed its connections; its last answers are on the way to the peers.
            await asyncio.wait(list(self._running), timeout=_LAST_ANSWERS_S)
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
            try:
                await self._started()
                await loop.sock_connect(inner, f"/proc/self/fd/{self._descriptor}")
                await loop.sock_sendall(inner, first)
            except (OSError, ConfigurationError) as error:
                _log.error("a peer that speaks gRPC cannot be served: %s", printable_error(error))
                return
            requests = loop.create_task(_pump(sock, inner, None))
            try:
                # Once the server has closed its side, nobody reads what else the peer sends.
                await _pump(inner, sock, self._unread_timeout)
            finally:
                requests.cancel()
                await asyncio.wait([requests])

    async def _started(self) -> None:
        starting = self._starting
        if starting is None or (starting.done() and (starting.cancelled() or starting.exception() is not None)):
            starting = self._starting = asyncio.get_running_loop().create_task(self._start())
        await asyncio.shield(starting)


async def _pump(source: socket.socket, target: socket.socket, unread_timeout: float | None) -> None:
    """Pass bytes on until the source ends, or the target takes none for so many seconds."""
    loop = asyncio.get_running_loop()
    with suppress(OSError):
        while data := await loop.sock_recv(source, _READ_BYTES):
            async with asyncio.timeout(unread_timeout):
                await loop.sock_sendall(target, data)
    # The other way may go on.
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)
