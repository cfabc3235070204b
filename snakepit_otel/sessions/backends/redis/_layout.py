"""Layout of sessions in Redis: keys, shards, and the form of what is stored.

Keys of a shard, `{namespace:shard}:` and one of

* `stat`: hash of the store time, counters, limits, layout version, store name;
* `meta`: hash of records by id; `state`: hash of values by incarnation and key; `keyset`: their names in order;
* `gone`: incarnations that ended with many values, which sweeps remove, some at a time;
* `exp`, `lru`: ids by expiry, and by last access; `ids`: ids in order;
* `made`: ids by owner, creator and time; `due`: owners at their quota by the time when it may change;
* `replies`, `times`: replies that may be asked for again, and their times; `warn`: warnings that are pending.

They are in one slot, and no script touches any other.
"""

from __future__ import annotations

import json
import math
from base64 import urlsafe_b64encode
from hashlib import blake2b
from typing import Any
from zlib import crc32

import orjson

from snakepit_otel.sessions._attribution import Creator, Origin
from snakepit_otel.sessions._quota import Limits, Overflow
from snakepit_otel.sessions.backends.base import NewSession
from snakepit_otel.sessions.backends.redis._scripts import SCRIPTS, Script

LAYOUT = "1"
MICROSECONDS = 1_000_000
_NOBODY = b"-" * 16
_NOTHING = b"-" * 8


class Shard:
    """One shard's keys, by script."""

    def __init__(self, namespace: str, number: int) -> None:
        self.number = number
        prefix = f"{{{namespace}:{number}}}:"
        self._keys = {script: tuple(f"{prefix}{key}".encode() for key in script.keys) for script in SCRIPTS}

    def keys(self, script: Script) -> tuple[bytes, ...]:
        """Return the keys of a script."""
        return self._keys[script]


def shard_number(session_id: bytes, shards: int) -> int:
    """Return the shard of a session, which is the same for ever."""
    return crc32(session_id) % shards


def share(limit: float, shard: int, shards: int) -> float:
    """Return a shard's share of a limit of all; the shares sum up to it."""
    if math.isinf(limit):
        return limit
    return int(limit) // shards + (shard < int(limit) % shards)


def owner_group(owner: str | None) -> bytes:
    """Return 16 characters for an owner: long enough that nobody finds a second owner with the same."""
    return _NOBODY if owner is None else urlsafe_b64encode(blake2b(owner.encode(), digest_size=12).digest())


def group_of(new: NewSession) -> bytes:
    """Return 24 characters for a session's owner and creator."""
    origin = new.origin
    creator: Any = None
    if origin is not None:
        creator = origin.creator or origin.tool
    if creator is None:
        return owner_group(new.owner) + _NOTHING
    return owner_group(new.owner) + urlsafe_b64encode(blake2b(dumps(creator), digest_size=6).digest())


def body_of(new: NewSession) -> bytes:
    """Return what is stored of a session and never changes, as JSON on one line; empty where there is nothing."""
    origin = new.origin
    if origin is None and new.owner is None and not new.metadata:
        return b""
    if origin is None:
        return dumps((dict(new.metadata), new.owner))
    return dumps((dict(new.metadata), new.owner, origin.creator, origin.trace, origin.tool))


def origin_of(body: list[Any]) -> Origin | None:
    """Return the origin in the parsed body of a record."""
    if len(body) < 5:
        return None
    return Origin(Creator(*body[2]) if body[2] is not None else None, body[3], body[4])


def dumps(value: Any) -> bytes:
    """Return JSON without line ends and tabs, also of texts with half characters, which names of files may have."""
    try:
        return orjson.dumps(value, default=tuple)
    except TypeError:
        return json.dumps(value).encode()


def loads(value: bytes) -> Any:
    """Return the value of JSON that `dumps` made."""
    try:
        return orjson.loads(value)
    except ValueError:
        return json.loads(value)


def limit_arguments(limits: Limits, shard: int, shards: int) -> list[str]:
    """Return what a shard keeps of the limits."""
    return [
        _number(share(limits.max_sessions, shard, shards)),
        limits.overflow.value,
        _number(limits.max_session_bytes),
        _number(share(limits.max_total_bytes, shard, shards)),
        _number(limits.max_sessions_per_owner),
    ]


def limits_of(shards: list[list[bytes]]) -> Limits:
    """Return the limits of all shards from what each keeps, in the order of `limit_arguments`."""
    first = shards[0]
    return Limits(
        sum(_parsed(values[0]) for values in shards),
        Overflow(first[1].decode()),
        int(first[2]),
        int(sum(_parsed(values[3]) for values in shards)),
        _parsed(first[4]),
    )


def _number(value: float) -> str:
    return "inf" if math.isinf(value) else str(int(value))


def _parsed(value: bytes) -> float:
    return math.inf if value == b"inf" else int(value)
