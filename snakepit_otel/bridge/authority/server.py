"""Servers of the authority: for its workers and callers on Unix sockets, and for callers on TCP."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Self

from snakepit_otel.bridge.authority.admin_service import AdminService
from snakepit_otel.bridge.authority.dispatcher import Dispatcher
from snakepit_otel.bridge.authority.lease_service import LeaseService
from snakepit_otel.bridge.authority.listener import CallerListener
from snakepit_otel.bridge.authority.memory import AuthorityMemory
from snakepit_otel.bridge.authority.predecessor import Offer, Predecessor
from snakepit_otel.bridge.authority.service import AuthorityService, authority_limits
from snakepit_otel.bridge.authority.settings import ServerSettings
from snakepit_otel.bridge.authority.socket_watcher import WatchedSocket
from snakepit_otel.bridge.wire.authority_services import ADMIN, LEASES
from snakepit_otel.bridge.wire.buffer_service import BufferService
from snakepit_otel.bridge.wire.method_guards import guarded
from snakepit_otel.bridge.wire.services import BRIDGE, BUFFERS
from snakepit_otel.bridge.wire.status import ListenerStatus
from snakepit_otel.common.printable import MAX_MESSAGE_CHARACTERS, printable
from snakepit_otel.errors import HandOverRefused
from snakepit_otel.rpc.addresses import is_wide, only_known_callers, split
from snakepit_otel.sessions import SessionStore
from snakepit_otel.system.listening_sockets import connections_wait, send_callers_to_successor, share_port
from snakepit_otel.system.socket_files import SocketFile

_log = logging.getLogger("snakepit_otel.authority")
_LAST_ANSWERS_S = 0.5  # for callers to read the answers of the last requests
# Whoever removes the socket of callers may be about to start another authority there.
_PATIENCE_FOR_A_SUCCESSOR_S = 15.0
_ACCEPT_S = 1.0  # for connections that wait to be accepted
_ACCEPT_INTERVAL_S = 0.005
_ARRIVED_S = 0.1


class AuthorityServer:
    """Serves a dispatcher and its sessions at several addresses; an async context manager, which stops them all.

    `max_message_bytes` is the limit of the largest message of any pool.
    """

    def __init__(
        self,
        settings: ServerSettings,
        dispatcher: Dispatcher,
        sessions: SessionStore,
        admin: AdminService,
        *,
        max_message_bytes: int,
    ) -> None:
        self._settings = settings
        self._dispatcher = dispatcher
        self._sessions = sessions
        self._admin = admin
        self._max_message_bytes = max_message_bytes
        self._listening = AsyncExitStack()
        self._callers: list[CallerListener] = []
        self._ports: list[int] = []  # on TCP
        self._transports: dict[str, str] = {}  # by address
        self._leaving: list[asyncio.Future[None]] = []
        self.callers_socket: WatchedSocket | None = None  # if that is not the workers' own
        self.socket = ""  # the address of callers, `unix:PATH`
        self.address: str | None = None  # that on TCP, `HOST:PORT`

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._listening.aclose()
        if self._leaving:
            await asyncio.wait(self._leaving)

    async def listen_for_workers(self, path: Callable[[], Path], on_listening: Callable[[Path], None]) -> WatchedSocket:
        """Listen for workers, and for callers where these have no socket of their own.

        `path` returns where, each time that the socket is made, and `on_listening` is called with it then.
        """

        async def listen() -> SocketFile:
            made = await self._listen_locally(path())
            if self._settings.socket is None:
                self.socket = f"unix:{made.path}"
            on_listening(made.path)
            return made

        return WatchedSocket(await listen(), listen)

    def listeners(self) -> tuple[ListenerStatus, ...]:
        """Return where this server listens, for workers and callers, and by which transport."""
        return tuple(ListenerStatus(address=address, transport=name) for address, name in self._transports.items())

    async def listen_for_callers(self, memory: AuthorityMemory) -> None:
        """Listen at the socket of callers, if they have one of their own, and on TCP, as the settings say."""
        if self._settings.socket is not None:
            memory.serve_callers(self._settings.socket)
            await self._listen_at_socket(self._settings.socket, memory)
        if self._settings.listen is not None:
            self.address = await self.listen(self._settings.listen)

    async def take_over(self, predecessor: Predecessor, memory: AuthorityMemory) -> Offer:
        """Listen at the same addresses in place of another server, and have that one stop.

        Raises `HandOverRefused` if it keeps them, and `ConfigurationError` for one that cannot be used; it goes on
        serving then.
        """
        assert self._settings.socket is not None
        offer = await predecessor.offer()
        if self._settings.listen is not None:
            address = _same_port(self._settings.listen, offer.listen)
            self.address = await self.listen(address, replace=address == offer.listen)
        # The step that cannot fail any more, and is not taken back, is the last.
        await self._listen_at_socket(self._settings.socket, memory, replace=True)
        try:
            await predecessor.stop()
        except HandOverRefused as error:
            # It has ended meanwhile, or does not answer.
            _log.warning("%s; this server listens at its addresses", printable(error, MAX_MESSAGE_CHARACTERS))
        self.share_ports(shared=False)
        memory.serve_callers(self._settings.socket, replace=True)
        return offer

    async def _listen_at_socket(self, path: Path, memory: AuthorityMemory, *, replace: bool = False) -> None:
        async def listen_again() -> SocketFile:
            made = await self._listen_locally(path, for_callers=True)
            memory.follow_callers(path)
            return made

        made = await self._listen_locally(path, for_callers=True, replace=replace)
        self.socket = f"unix:{path}"
        self.callers_socket = WatchedSocket(made, listen_again, delay=_PATIENCE_FOR_A_SUCCESSOR_S)

    async def _listen_locally(self, path: Path, *, for_callers: bool = False, replace: bool = False) -> SocketFile:
        await self.listen(f"unix:{path}", admin=True, for_callers=for_callers, replace=replace)
        made = SocketFile.of(path)
        self._listening.callback(made.remove)
        return made

    def share_ports(self, *, shared: bool) -> None:
        """Let another process of this user listen on the same ports, or let it no more."""
        for port in self._ports:
            share_port(port, shared=shared)

    async def leave(self, grace: float) -> None:
        """Have callers connect to another server, which listens at these addresses by now.

        Their requests here have `grace` seconds to end.
        """
        if self.callers_socket is not None:
            self.callers_socket.abandon()
        for port in self._ports:
            send_callers_to_successor(port)
        deadline = time.monotonic() + _ACCEPT_S
        while connections_wait() and time.monotonic() < deadline:
            await asyncio.sleep(_ACCEPT_INTERVAL_S)
        self._leaving = [asyncio.ensure_future(listener.stop(grace)) for listener in self._callers]
        # For the requests that came just before; those that come now are refused.
        await asyncio.wait(self._leaving, timeout=_ARRIVED_S)

    async def listen(
        self, address: str, *, admin: bool = False, for_callers: bool = True, replace: bool = False
    ) -> str:
        """Listen at one address, with the `admin` service or without, and return the address to call by.

        With `replace`, another server may listen there, and is to leave soon.
        Raises `ConfigurationError` for an address that cannot be used.
        """
        dispatcher, largest = self._dispatcher, self._max_message_bytes
        tls = self._settings.tls.files() if self._settings.tls else None
        trusted = self._settings.trust_trace_context
        if trusted is None or admin:
            # Workers of the pool call on the Unix socket, and are a part of every trace.
            trusted = only_known_callers(address, tls)
        listener = CallerListener(
            address,
            self._settings.limits,
            dispatcher.budget,
            max_message_bytes=largest,
            tls=tls,
            insecure=self._settings.insecure,
            trusted=trusted,
            replace=replace,
            local_transport=self._settings.local_transport,
        )
        limits = authority_limits(largest, self._sessions.settings.max_session_bytes)
        buffers = BufferService(dispatcher.buffer_store, largest, new_charge=dispatcher.budget.for_references)
        leases = LeaseService(self._sessions, trusted=trusted, budget=dispatcher.budget, lasting=dispatcher.lasting)
        bridge = AuthorityService(dispatcher, dispatcher.fencing_tokens)
        for methods, service in ((BRIDGE, bridge), (BUFFERS, buffers), (LEASES, leases)):
            listener.server.add(guarded(methods, service, limits))
        if admin:
            listener.server.add(guarded(ADMIN, self._admin, limits))
        bound = await listener.start()
        self._transports[bound] = listener.transport
        if not only_known_callers(bound, tls):
            _log_unknown_callers(bound, encrypted=tls is not None)
        if for_callers:
            self._callers.append(listener)
            if not address.startswith("unix:"):
                self._ports.append(split(bound)[1])
        # By then requests have had their time, and are answered.
        self._listening.push_async_callback(listener.stop, _LAST_ANSWERS_S)
        self._listening.callback(leases.close)
        return bound


def _same_port(address: str, offered: str) -> str:
    """Return an address with the port of the offered one, if any free port would do and the hosts are the same."""
    host, port = split(address)
    return offered if port == 0 and offered and split(offered)[0] == host else address


def _log_unknown_callers(address: str, *, encrypted: bool) -> None:
    if is_wide(address):
        _log.warning(
            "%s is open to anybody who reaches it, from other machines, too: they may run tools and use any session "
            "whose id they know%s (insecure)",
            printable(address),
            printable("" if encrypted else ", and what is sent can be read on the way"),
        )
    else:
        _log.info(
            "%s is open to anybody on this machine, whatever user they are; the Unix socket is open to this user alone",
            printable(address),
        )
