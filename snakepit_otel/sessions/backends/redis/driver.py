"""Calls of scripts at a Redis or Valkey: within a time limit, and made again once if the reply was lost."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Sequence
from typing import Any, Protocol

from redis import exceptions
from redis.crc import key_slot

from snakepit_otel.common.printable import printable, printable_error
from snakepit_otel.errors import ConfigurationError, SessionStoreUnavailable
from snakepit_otel.sessions.backends._client_counters import ClientCounters
from snakepit_otel.sessions.backends.redis._address import Address, Kind, parse_url
from snakepit_otel.sessions.backends.redis._checks import Finding, findings_of, read_info
from snakepit_otel.sessions.backends.redis._failures import CallFailed, Moved, NotDone, ReplyLost
from snakepit_otel.sessions.backends.redis._options import RedisOptions
from snakepit_otel.sessions.backends.redis._scripts import Script
from snakepit_otel.sessions.backends.redis._server import Argument, Call, Server, packed_command
from snakepit_otel.sessions.backends.redis._topology import Cluster, Connector, Single, Topology

_log = logging.getLogger("snakepit_otel.sessions")
_LEAST_TO_OPEN_S = 5.0
_ALL_ATTEMPTS = 0.95  # of the time limit; the rest is for the answer to the caller
_FIRST_ATTEMPT = 0.6  # of the time limit, so that there is time for a second one
_CONFIRMATION = 0.25  # of the time limit, for replicas or disks to confirm
_PAUSE_S = 0.05  # before a call is made again, at most; drawn from nothing to that


class Driver(Protocol):
    """Calls scripts; `client` has its counters."""

    client: ClientCounters
    findings: Sequence[Finding]

    async def open(self) -> None:
        """Connect, and check the servers. Raises `ConfigurationError`, `SessionStoreUnavailable`."""

    async def run(self, script: Script, keys: Sequence[bytes], args: Sequence[Argument]) -> Any:
        """Call a script once, or again with the same arguments if the reply was lost, and return its reply.

        Keys are in one slot. A caller that is cancelled leaves the call to its end. Raises
        `SessionStoreUnavailable` at the time limit, and for what the server refuses.
        """

    async def close(self) -> None:
        """Close all connections."""


def create_driver(options: RedisOptions) -> RedisDriver:
    """Return the driver for the options' URL, not open yet. Raises `ConfigurationError`."""
    return RedisDriver(options)


class RedisDriver:
    """Driver on the connections of redis-py; see `Driver`."""

    def __init__(self, options: RedisOptions) -> None:
        self.address: Address = parse_url(options.url)
        self.client = ClientCounters(connections_used=0, connections_limit=options.connections)
        self.findings: Sequence[Finding] = ()
        self._options = options
        self._confirm = b""
        self._topology: Topology = self._make_topology()
        self._slots: dict[bytes, int] = {}

    async def open(self) -> None:
        """Connect, and check the servers; see `Driver`."""
        durability = self._options.durability
        try:
            async with asyncio.timeout(max(_LEAST_TO_OPEN_S, self._options.timeout)):
                await self._topology.open()
                masters = self._topology.masters()
                infos = [await read_info(await master.connect()) for master in masters]
        except TimeoutError:
            raise self._unavailable("did not answer in time") from None
        except (exceptions.AuthenticationError, exceptions.AuthorizationError) as error:
            raise ConfigurationError(
                f"session_store.username, session_store.password_file: the session store at {self.address} refuses "
                f"them: {printable(error, 200)}"
            ) from None
        except (exceptions.RedisError, OSError) as error:
            raise self._unavailable(f"cannot be reached: {printable_error(error)}") from None
        self.findings = [finding for info in infos for finding in findings_of(info, durability)]
        if refusals := [finding.text for finding in self.findings if finding.is_refusal]:
            raise ConfigurationError(
                f"session_store.url: the server at {self.address} would lose sessions: {'; '.join(refusals)}"
            )
        for finding in self.findings:
            _log.warning("the session store at %s: %s", printable(self.address), printable(finding.text))
        patience = int(self._options.timeout * _CONFIRMATION * 1000)
        if durability == "replica":
            self._confirm = packed_command((b"WAIT", 1, patience))
        elif durability == "fsync" and all(info.has_waitaof for info in infos):
            self._confirm = packed_command((b"WAITAOF", 1, 0, patience))
        for master in masters:
            master.confirm = self._confirm

    async def run(self, script: Script, keys: Sequence[bytes], args: Sequence[Argument]) -> Any:
        """Call a script; see `Driver`."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        deadline = started + self._options.timeout * _ALL_ATTEMPTS
        limit = started + self._options.timeout * _FIRST_ATTEMPT
        slot = self._slot(keys[0])
        moved: Moved | None = None
        is_repeated = False
        while True:
            at = self._topology
            server = at.server(slot) if moved is None else at.server_at(moved.host, moved.port)
            if server is None:
                reply: Any = NotDone("no server of the cluster has the slot")
            else:
                reply = await server.call(Call(script, keys, args, for_this_call=moved is not None), limit)
            if not isinstance(reply, CallFailed):
                return reply
            if isinstance(reply, ReplyLost):
                if is_repeated:
                    raise self._unavailable(f"{reply.text}, twice")
                is_repeated = True
                self.client.retries += 1
            elif not isinstance(reply, NotDone):
                raise self._unavailable(reply.text)
            moved = reply if isinstance(reply, Moved) and reply.for_this_call else None
            if moved is None:
                await self._topology.on_failed(slot, reply)
            if not isinstance(reply, Moved):
                await asyncio.sleep(random.uniform(0, _PAUSE_S))  # noqa: S311
            limit = deadline
            is_gone = isinstance(reply, NotDone) and server is not None and server.is_gone
            if loop.time() >= deadline or is_gone:
                raise self._unavailable(reply.text)

    async def close(self) -> None:
        """Close all connections; the driver can be opened again."""
        await self._topology.close()
        for server in self._topology.servers():
            await server.close()
        self._topology = self._make_topology()

    def _slot(self, key: bytes) -> int:
        # There are as many keys as shards and kinds of keys.
        slot = self._slots.get(key)
        if slot is None:
            slot = self._slots[key] = key_slot(key)
        return slot

    def _make_topology(self) -> Topology:
        connector = Connector(self.address, self._options)
        kind = Cluster if self.address.kind is Kind.CLUSTER else Single
        return kind(self.address, connector, self._make_server)

    def _make_server(self, name: str, connect: Any) -> Server:
        options = self._options
        return Server(
            name,
            connect,
            limit=options.connections,
            timeout=options.timeout,
            counters=self.client,
            confirm=self._confirm,
            is_confirmed=_is_confirmed,
        )

    def _unavailable(self, reason: str) -> SessionStoreUnavailable:
        return SessionStoreUnavailable(f"the session store at {self.address}: {reason}")


def _is_confirmed(reply: Any) -> bool:
    return bool(reply[0] if isinstance(reply, list) else reply)
