"""Listener at a Unix socket: for peers that speak ttrpc, and by a relay for those that speak gRPC."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import resource
import socket
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Final

from snakepit_otel.common.byte_charge import ByteCharge
from snakepit_otel.common.printable import printable
from snakepit_otel.rpc.addresses import bind_locally
from snakepit_otel.rpc.services import Handler
from snakepit_otel.rpc.transports.base import Listener
from snakepit_otel.rpc.transports.local import frames
from snakepit_otel.rpc.transports.local.link import Link
from snakepit_otel.rpc.transports.local.relay import Relay
from snakepit_otel.rpc.transports.local.served_call import ServedMethod
from snakepit_otel.rpc.transports.local.serving import ServedLink
from snakepit_otel.rpc.transports.local.sockets import is_own_caller

_log = logging.getLogger("snakepit_otel.rpc")
_QUEUE: Final = 1024  # connections that wait to be accepted
_HTTP2: Final = b"P"  # of `PRI * HTTP/2.0`; the first byte of ttrpc is always 0
_PAUSE_S: Final = 0.1  # without descriptors for further connections


class LocalListener:
    """See `Listener`. `listen_over_grpc` makes a listener at another address, for peers that speak gRPC."""

    def __init__(
        self,
        address: str,
        *,
        max_message_bytes: int,
        trusted: bool,
        replace: bool,
        unread_timeout: float,
        new_charge: Callable[[], ByteCharge] | None,
        listen_over_grpc: Callable[[str], Listener] | None,
        on_fault: Callable[[str], None],
    ) -> None:
        self._address = address
        self._path = Path(address.removeprefix("unix:"))
        self._max_message_bytes = max_message_bytes
        self._trusted = trusted
        self._replace = replace
        self._unread_timeout = unread_timeout
        self._new_charge = new_charge
        self._on_fault = on_fault
        self._methods: dict[bytes, ServedMethod] = {}
        self._relay = Relay(listen_over_grpc, unread_timeout) if listen_over_grpc is not None else None
        self._sock: socket.socket | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._links: set[ServedLink] = set()
        self._unserved: set[Link] = set()
        self._is_idle = asyncio.Event()
        self._is_idle.set()
        self._is_stopping = False
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        # Three quarters of the descriptors at most are connections.
        self._max_links = max(16, soft * 3 // 4) if soft > 0 else 65_536

    def add(self, handlers: Iterable[Handler]) -> None:
        """See `Listener`."""
        handlers = list(handlers)
        for handler in handlers:
            self._methods[frames.names_of(handler.method.name)] = ServedMethod(handler, self._max_message_bytes)
        if self._relay is not None:
            self._relay.add(handlers)

    def bind(self) -> str:
        """See `Listener`."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            bind_locally(self._path, partial(_bind, sock), replace=self._replace)
        except BaseException:
            sock.close()
            raise
        self._sock = sock
        return self._address

    async def start(self) -> None:
        """See `Listener`."""
        self._loop = asyncio.get_running_loop()
        self._accept_from_now_on()

    async def stop(self, grace: float | None) -> None:
        """See `Listener`."""
        self._is_stopping = True
        if self._sock is not None and self._loop is not None:
            self._loop.remove_reader(self._sock.fileno())
            # Those who have connected already are refused in words.
            self._accept()
            self._sock.close()
            self._sock = None
        for served in list(self._links):
            served.leave()
        stopping_relay = None if self._relay is None else asyncio.ensure_future(self._relay.stop(grace))
        if grace:
            try:
                async with asyncio.timeout(grace):
                    while any(served.calls for served in self._links):
                        self._is_idle.clear()
                        await self._is_idle.wait()
            except TimeoutError:
                pass
        calls = [call for served in self._links for call in served.calls.values()]
        for call in calls:
            call.cancel()
        if tasks := [call.task for call in calls if call.task is not None]:
            # They answer that the server has stopped.
            await asyncio.wait(tasks, timeout=_PAUSE_S)
        for served in list(self._links):
            await served.link.flushed()
            served.link.close("the server has stopped")
        for link in list(self._unserved):
            link.close("the server has stopped")
        if stopping_relay is not None:
            await stopping_relay

    def _accept_from_now_on(self) -> None:
        if self._sock is not None and self._loop is not None:
            # Nothing that runs for a connection belongs to whoever has started the listener.
            contextvars.Context().run(self._loop.add_reader, self._sock.fileno(), self._accept)

    def _accept(self) -> None:
        """Take the connections that wait."""
        while self._sock is not None:
            try:
                sock, _ = self._sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._pause(str(error.strerror))
                return
            try:
                sock.setblocking(False)
                if not is_own_caller(sock):
                    # The socket's mode lets nobody else in; a descriptor may have been given away.
                    sock.close()
                    continue
            except OSError:
                sock.close()
                continue
            if len(self._links) + len(self._unserved) >= self._max_links:
                sock.close()
                continue
            self._serve(sock)

    def _pause(self, why: str) -> None:
        assert self._loop is not None
        assert self._sock is not None
        _log.error("no further connections are taken for a moment: %s", printable(why))
        self._loop.remove_reader(self._sock.fileno())
        self._loop.call_later(_PAUSE_S, self._accept_from_now_on)

    def _serve(self, sock: socket.socket) -> None:
        assert self._loop is not None
        relay, loop = self._relay, self._loop

        def on_first(data: bytes) -> bool:
            self._unserved.discard(link)
            if relay is None or data[:1] != _HTTP2:
                self._links.add(served)
                if self._is_stopping:
                    served.leave()
                return False
            link.detach()
            relay.pass_on(sock, data)
            return True

        link = Link(
            sock,
            loop,
            stops_reading=True,
            unread_timeout=self._unread_timeout,
            on_first=on_first,
            on_fault=self._on_fault,
        )
        served = ServedLink(
            link,
            loop,
            self._methods,
            max_message_bytes=self._max_message_bytes,
            trusted=self._trusted,
            new_charge=self._new_charge,
            on_end=self._on_end,
        )
        self._unserved.add(link)
        link.start(served)

    def _on_end(self, served: ServedLink) -> None:
        if served.link.lost is not None:
            self._links.discard(served)
            self._unserved.discard(served.link)
        self._is_idle.set()


def _bind(sock: socket.socket, path: str) -> None:
    sock.bind(path)
    sock.listen(_QUEUE)
