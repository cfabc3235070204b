"""Checks that a server loses no sessions, before any are kept in it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from redis import exceptions
from redis.asyncio.connection import AbstractConnection

from snakepit_otel.sessions.backends.redis._server import packed_command

_LEAST_VERSION = (7, 0)
_WAITAOF_VERSION = (7, 2)


@dataclass(frozen=True)
class Finding:
    """What was found at a server: a reason to refuse it, or a warning."""

    text: str
    is_refusal: bool


@dataclass(frozen=True)
class ServerInfo:
    """The parts of `INFO` that the checks use; empty where the user may not ask."""

    values: Mapping[str, str]

    @property
    def version(self) -> tuple[int, ...]:
        """The version of the protocol's commands, which Valkey has besides its own."""
        return tuple(int(part) for part in re.findall(r"\d+", self.values.get("redis_version", ""))[:2])

    @property
    def has_waitaof(self) -> bool:
        """Whether it can confirm that a disk has a write."""
        return self.version >= _WAITAOF_VERSION


async def read_info(connection: AbstractConnection) -> ServerInfo:
    """Connect, and return what the server says of itself; nothing where that is not permitted."""
    try:
        await connection.connect()  # type: ignore[no-untyped-call]
        await connection.send_packed_command([packed_command((b"INFO",))], check_health=False)
        text = await connection.read_response(disable_decoding=True)
    except (exceptions.NoPermissionError, exceptions.ResponseError):
        return ServerInfo({})
    finally:
        await connection.disconnect(nowait=True)
    lines = text.decode(errors="replace").splitlines()
    return ServerInfo(dict(line.split(":", 1) for line in lines if ":" in line))


def findings_of(info: ServerInfo, durability: str) -> Sequence[Finding]:
    """Return what is wrong with a server, if anything."""
    values = info.values
    if not values:
        return [
            Finding(
                "its user may not use INFO, so it is not known whether the server evicts keys, is a replica or has a "
                "version below 7.0; permit +info, or check that yourself",
                False,
            )
        ]
    found = []
    if info.version < _LEAST_VERSION:
        found.append(Finding(f"its version is {values.get('redis_version')}; 7.0 or later is needed", True))
    if (policy := values.get("maxmemory_policy", "noeviction")) != "noeviction":
        found.append(
            Finding(
                f"its maxmemory-policy is {policy}, by which it would evict sessions that nobody has ended; set "
                "maxmemory-policy noeviction",
                True,
            )
        )
    if values.get("role", "master") != "master":
        found.append(Finding("it is a replica, which takes no writes; name the master, or use redis+sentinel://", True))
    if durability == "fsync" and values.get("aof_enabled") != "1":
        found.append(Finding('durability is "fsync", and it has no append-only file; set appendonly yes', True))
    if durability == "fsync" and not info.has_waitaof:
        found.append(
            Finding(
                "its version has no WAITAOF (7.2), so that writes of up to a second may be lost with the machine's "
                "power unless it has appendfsync always",
                False,
            )
        )
    # One that is still copying is counted by WAIT before it has anything.
    if durability == "replica" and not any("state=online" in value for value in values.values()):
        found.append(Finding('durability is "replica", and no replica of it is online', True))
    if durability == "memory" and values.get("aof_enabled") == "0":
        found.append(Finding("it has no append-only file, so that sessions since its last snapshot end with it", False))
    return found
