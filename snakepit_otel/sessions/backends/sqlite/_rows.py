"""Rows of sessions, and what is made of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import orjson

from snakepit_otel.sessions._attribution import Creator, Origin
from snakepit_otel.sessions._session import Session
from snakepit_otel.sessions.backends.base import Ended, EndReason

_COLUMNS = (
    "incarnation",
    "id",
    "ttl",
    "began",
    "accessed",
    "expires",
    "created_at",
    "version",
    "memory",
    "weight",
    "keys",
    "extras",
    "token",
    "write_token",
    "owner",
    "worker",
    "creator",
    "trace",
    "tool",
    "metadata",
)
ROWS = " ".join(("SELECT", ", ".join(_COLUMNS), "FROM session "))
ENDED_ROWS = (
    "SELECT incarnation, id, ttl, began, accessed, memory, weight, keys, extras, creator, trace, tool FROM session "
)
SMALL_METADATA = 1_000  # bytes, up to which it is in the session's row

_NO_METADATA: Mapping[str, str] = MappingProxyType({})


class Row(NamedTuple):
    """A session as the file has it."""

    incarnation: int
    id: str
    ttl: float
    began: float
    accessed: float
    expires: float
    created_at: float
    version: int
    memory: int
    weight: int
    keys: int
    extras: int
    token: int
    write_token: int
    owner: str | None
    worker: str | bytes | None
    creator: str | None
    trace: str | None
    tool: str | bytes | None
    metadata: bytes | None


class EndedRow(NamedTuple):
    """The part of a session's row that its end takes."""

    incarnation: int
    id: str
    ttl: float
    began: float
    accessed: float
    memory: int
    weight: int
    keys: int
    extras: int
    creator: str | None
    trace: str | None
    tool: str | bytes | None


def session_of(row: Row, accessed: float, now: float, metadata: bytes | None, worker: str | None) -> Session:
    """Return the session of a row, with what may be newer than the row."""
    return Session(
        row.id,
        row.ttl,
        row.created_at,
        row.created_at + accessed - row.began,
        _NO_METADATA if metadata is None else MappingProxyType(orjson.loads(metadata)),
        row.owner,
        text_of(row.worker) if worker is None else worker,
        row.version,
        row.memory,
        origin_of(row.creator, row.trace, row.tool),
        row.incarnation,
        max(0.0, now - accessed),
    )


def ended_of(row: EndedRow, reason: EndReason, now: float) -> Ended:
    """Return the end of a session; one whose TTL has passed ended then, not when it was noticed."""
    end = row.accessed + row.ttl if reason is EndReason.TTL else now
    return Ended(row.id, reason, end - row.began, origin_of(row.creator, row.trace, row.tool), row.incarnation)


def ended_row(row: Row, accessed: float) -> EndedRow:
    """Return what the end of a session takes of its row."""
    return EndedRow(
        row.incarnation,
        row.id,
        row.ttl,
        row.began,
        accessed,
        row.memory,
        row.weight,
        row.keys,
        row.extras,
        row.creator,
        row.trace,
        row.tool,
    )


def origin_of(creator: str | None, trace: str | None, tool: str | bytes | None) -> Origin | None:
    """Return an origin as it was stored."""
    if creator is None and trace is None and tool is None:
        return None
    return Origin(None if creator is None else Creator(*json.loads(creator)), trace, text_of(tool))


def origin_columns(origin: Origin | None) -> tuple[str | None, str | None, str | bytes | None]:
    """Return the columns of an origin: creator, trace and tool."""
    if origin is None:
        return None, None, None
    # With escapes: call sites may have half characters, which SQLite does not take.
    creator = None if origin.creator is None else json.dumps(origin.creator)
    return creator, origin.trace, storable(origin.tool)


def storable(text: str | None) -> str | bytes | None:
    """Return text as SQLite takes it, half characters included."""
    return text if text is None or text.isascii() else text.encode("utf-8", "surrogatepass")


def text_of(stored: str | bytes | None) -> str | None:
    """Return text that `storable` has made storable."""
    return stored.decode("utf-8", "surrogatepass") if isinstance(stored, bytes) else stored


def packed(ended: Sequence[Ended]) -> str:
    """Return ended sessions as JSON."""
    return json.dumps(ended)


def unpacked(text: str) -> list[Ended]:
    """Return the ended sessions of `packed`."""

    def one(session_id: str, reason: str, lifetime: float, origin: Any, incarnation: int) -> Ended:
        if origin is not None:
            creator, trace, tool = origin
            origin = Origin(None if creator is None else Creator(*creator), trace, tool)
        return Ended(session_id, EndReason(reason), lifetime, origin, incarnation)

    return [one(*fields) for fields in json.loads(text)]
