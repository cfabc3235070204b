"""Servers of the authority: for its workers and callers on Unix sockets, and for callers on TCP."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Self

from snakepit_otel.bridge.authority.admin_service import AdminService
from snakepit_otel.bridge.authority.dispatcher import Dispatcher
from snakepit_otel.bridge.authority.lease_service import LeaseService
from snakepit_otel.bridge.authority.listener import CallerListener
from snakepit_otel.bridge.authority.service import AuthorityService, authority_limits
from snakepit_otel.bridge.authority.settings import ServerSettings
from snakepit_otel.bridge.authority.socket_watcher import WatchedSocket
from snakepit_otel.bridge.proto.snakepit_admin_pb2_grpc import add_AdminServiceServicer_to_server
from snakepit_otel.bridge.proto.snakepit_bridge_pb2_grpc import add_BridgeServiceServicer_to_server
from snakepit_otel.bridge.proto.snakepit_buffers_pb2_grpc import add_BufferServiceServicer_to_server
from snakepit_otel.bridge.proto.snakepit_leases_pb2_grpc import add_LeaseServiceServicer_to_server
from snakepit_otel.bridge.wire.buffer_service import BufferService
from snakepit_otel.bridge.wire.method_guards import GuardedServer
from snakepit_otel.common.printable import printable
from snakepit_otel.rpc.addresses import is_wide, only_known_callers
from snakepit_otel.sessions import SessionStore
from snakepit_otel.system.socket_files import SocketFile

_log = logging.getLogger("snakepit_otel.authority")
_LAST_ANSWERS_S = 0.5  # for callers to read the answers of the last requests
# Whoever removes the socket of callers may be about to start another authority there.
_PATIENCE_FOR_A_SUCCESSOR_S = 15.0


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
        self.socket = ""  # the address of callers, `unix:PATH`

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._listening.aclose()

    async def listen_locally(
        self, workers_socket: Callable[[], Path], on_callers_socket: Callable[[Path], None]
    ) -> list[WatchedSocket]:
        """Listen for workers and, where callers have a socket of their own, for callers.

        `workers_socket` returns the path for workers, each time that the socket is made; `on_callers_socket` is called
        with the path for callers.
        """

        async def listen(path: Path) -> SocketFile:
            await self.listen(f"unix:{path}", admin=True)
            made = SocketFile.of(path)
            self._listening.callback(made.remove)
            return made

        def publish(made: SocketFile) -> None:
            self.socket = f"unix:{made.path}"
            on_callers_socket(made.path)

        async def listen_for_workers() -> SocketFile:
            made = await listen(workers_socket())
            if self._settings.socket is None:
                publish(made)
            return made

        async def listen_for_callers() -> SocketFile:
            made = await listen(Path(self._settings.socket or ""))
            publish(made)
            return made

        sockets = [WatchedSocket(await listen_for_workers(), listen_for_workers)]
        if self._settings.socket is not None:
            callers = await listen_for_callers()
            sockets.append(WatchedSocket(callers, listen_for_callers, delay=_PATIENCE_FOR_A_SUCCESSOR_S))
        return sockets

    async def listen(self, address: str, *, admin: bool = False) -> str:
        """Listen at one address, with the `admin` service or without, and return the address to call by.

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
        )
        guarded = GuardedServer(listener.server, authority_limits(largest, self._sessions.settings.max_session_bytes))
        add_BridgeServiceServicer_to_server(AuthorityService(dispatcher, dispatcher.fencing_tokens), guarded)
        buffers = BufferService(dispatcher.buffer_store, largest, new_charge=dispatcher.budget.for_references)
        add_BufferServiceServicer_to_server(buffers, guarded)
        leases = LeaseService(self._sessions, trusted=trusted, budget=dispatcher.budget, lasting=dispatcher.lasting)
        add_LeaseServiceServicer_to_server(leases, guarded)
        if admin:
            add_AdminServiceServicer_to_server(self._admin, guarded)
        bound = await listener.start()
        if not only_known_callers(bound, tls):
            _log_unknown_callers(bound, encrypted=tls is not None)
        # By then requests have had their time, and are answered.
        self._listening.push_async_callback(listener.stop, _LAST_ANSWERS_S)
        self._listening.callback(leases.close)
        return bound


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
