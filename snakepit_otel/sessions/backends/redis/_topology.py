"""Arrangements of servers: which one is moved for a slot, and where it is now."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from redis import exceptions
from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff

from snakepit_otel.sessions.backends.redis._address import Address, Kind
from snakepit_otel.sessions.backends.redis._failures import CallFailed, Moved
from snakepit_otel.sessions.backends.redis._options import RedisOptions
from snakepit_otel.sessions.backends.redis._server import Server, packed_command

_LOOK_S = 1.0  # between two looks at which server is the master
_REFRESH_S = 0.1  # between two looks at a cluster's slots

MakeServer = Callable[[str, Callable[[], Awaitable[AbstractConnection]]], Server]


class Connector:
    """Makes connections with the credentials and certificates of the options."""

    def __init__(self, address: Address, options: RedisOptions) -> None:
        self._password_file = options.password_file
        self._common: dict[str, Any] = {
            "db": address.database,
            "username": options.username or address.username,
            "password": options.password or address.password,
            "socket_timeout": options.timeout,
            "socket_connect_timeout": options.timeout,
            # It would repeat a command whose reply was lost, and so run scripts twice.
            "retry": Retry(NoBackoff(), 0),
            "protocol": 2,
            "driver_info": None,
        }
        self._kind: type[Connection] = Connection
        if address.tls:
            self._kind = SSLConnection
            self._common |= {
                "ssl_ca_certs": options.ca,
                "ssl_certfile": options.certificate,
                "ssl_keyfile": options.key,
            }

    def connection(self, host: str, port: int) -> AbstractConnection:
        """Return a connection to a server, not connected yet. Raises `OSError` if there is no password to read."""
        secret = {}
        if self._password_file is not None:
            # Read anew each time, so that a new password needs no restart.
            secret["password"] = Path(self._password_file).read_text(encoding="utf-8").strip()
        return self._kind(host=host, port=port, **(self._common | secret))

    def sentinel(self, address: Address) -> Sentinel:
        """Return a client of Sentinels, which have the same certificates and no credentials."""
        common = {key: value for key, value in self._common.items() if key not in ("db", "username", "password")}
        if address.tls:
            common["ssl"] = True
        return Sentinel([*address.hosts], sentinel_kwargs=common)  # type: ignore[no-untyped-call]


class Topology(Protocol):
    """Finds servers."""

    async def open(self) -> None:
        """Find the servers. Raises a `redis` error, or `OSError`."""

    async def close(self) -> None:
        """Close what `open` opened, but no servers."""

    def server(self, slot: int) -> Server | None:
        """Return the server of a slot, None if no server is known to have it."""

    def server_at(self, host: str, port: int) -> Server:
        """Return the server at an address."""

    async def on_failed(self, slot: int, failure: CallFailed) -> None:
        """Look for the servers anew after a call that failed."""

    def masters(self) -> Sequence[Server]:
        """Return all masters, once open."""

    def servers(self) -> Sequence[Server]:
        """Return all servers that are or were in use."""


class Single:
    """One server, of which the address is known, or is what Sentinels have for it."""

    def __init__(self, address: Address, connector: Connector, make_server: MakeServer) -> None:
        self._address = address
        self._connector = connector
        self._server = make_server(str(address), self._connection)
        self._sentinel = connector.sentinel(address) if address.kind is Kind.SENTINEL else None
        self._master: tuple[str, int] | None = None
        self._watching: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Find the master."""
        if self._sentinel is not None:
            self._master = await self._find_master(self._sentinel)
            self._watching = asyncio.get_running_loop().create_task(self._watch(self._sentinel))

    async def close(self) -> None:
        """Look no more for the master."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait([self._watching])
        for sentinel in self._sentinel.sentinels if self._sentinel is not None else ():
            await sentinel.aclose()

    def server(self, slot: int) -> Server:
        """Return the only server."""
        return self._server

    def server_at(self, host: str, port: int) -> Server:
        """Return the only server."""
        return self._server

    async def on_failed(self, slot: int, failure: CallFailed) -> None:
        """Do nothing: each new connection asks for the address."""

    def masters(self) -> Sequence[Server]:
        """Return the only server."""
        return (self._server,)

    servers = masters

    async def _connection(self) -> AbstractConnection:
        if self._sentinel is None:
            return self._connector.connection(*self._address.hosts[0])
        self._master = await self._find_master(self._sentinel)
        return self._connector.connection(*self._master)

    async def _find_master(self, sentinel: Sentinel) -> tuple[str, int]:
        host, port = await sentinel.discover_master(self._address.master)
        return str(host), int(port)

    async def _watch(self, sentinel: Sentinel) -> None:
        """Drop connections to a master that was replaced, which may go on to answer for a while."""
        while True:
            await asyncio.sleep(_LOOK_S)
            with suppress(exceptions.RedisError, OSError, TimeoutError):
                master = await self._find_master(sentinel)
                if master != self._master:
                    self._master = master
                    self._server.drop()


class Cluster:
    """The masters of a cluster, by slot."""

    def __init__(self, address: Address, connector: Connector, make_server: MakeServer) -> None:
        self._seeds = [*address.hosts]
        self._connector = connector
        self._make_server = make_server
        self._servers: dict[tuple[str, int], Server] = {}
        self._slots: dict[int, tuple[str, int]] = {}
        self._ranges: list[tuple[int, int, tuple[str, int]]] = []
        self._refreshing: asyncio.Task[None] | None = None
        self._refreshed = -math.inf

    async def open(self) -> None:
        """Ask for the slots of all masters."""
        await self._refresh()

    async def close(self) -> None:
        """End a refresh that is under way."""
        if self._refreshing is not None:
            self._refreshing.cancel()
            await asyncio.wait([self._refreshing])

    def server(self, slot: int) -> Server | None:
        """Return the master of a slot, None if no server is known to have it."""
        address = self._slots.get(slot)
        if address is None:
            address = next((at for first, last, at in self._ranges if first <= slot <= last), None)
            if address is None:
                return None
            self._slots[slot] = address
        return self.server_at(*address)

    def server_at(self, host: str, port: int) -> Server:
        """Return the server at an address."""
        server = self._servers.get((host, port))
        if server is None:

            async def connect() -> AbstractConnection:
                return self._connector.connection(host, port)

            server = self._servers[host, port] = self._make_server(f"{host}:{port}", connect)
        return server

    def masters(self) -> Sequence[Server]:
        """Return the masters of all slots."""
        return [self.server_at(*at) for at in dict.fromkeys(at for *_, at in self._ranges)]

    def servers(self) -> Sequence[Server]:
        """Return those that are or were used."""
        return [*self._servers.values()]

    async def on_failed(self, slot: int, failure: CallFailed) -> None:
        """Take the new master of a slot from the failure, or ask for all slots."""
        if isinstance(failure, Moved):
            if not failure.for_this_call:
                self._slots[slot] = (failure.host, failure.port)
            return
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.get_running_loop().create_task(self._refresh_quietly())
        await asyncio.shield(self._refreshing)

    async def _refresh_quietly(self) -> None:
        if time.monotonic() - self._refreshed < _REFRESH_S:
            return
        with suppress(exceptions.RedisError, OSError, TimeoutError):
            await self._refresh()

    async def _refresh(self) -> None:
        """Ask the first server that answers; those that were masters come before the configured ones."""
        error: Exception | None = None
        for host, port in [*dict.fromkeys((*(at for *_, at in self._ranges), *self._seeds))]:
            connection = self._connector.connection(host, port)
            try:
                await connection.connect()  # type: ignore[no-untyped-call]
                await connection.send_packed_command([packed_command((b"CLUSTER", b"SLOTS"))], check_health=False)
                ranges = await connection.read_response(disable_decoding=True)
            except (exceptions.RedisError, OSError, TimeoutError) as failure:
                error = failure
                continue
            finally:
                await connection.disconnect(nowait=True)
            self._ranges = [
                (first, last, (master[0].decode() or host, master[1])) for first, last, master, *_ in ranges
            ]
            self._slots.clear()
            self._refreshed = time.monotonic()
            return
        raise error or exceptions.ConnectionError("no server of the cluster is known")
