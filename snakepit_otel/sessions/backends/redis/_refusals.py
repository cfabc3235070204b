"""Errors of calls that a script refused, from its reply."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from snakepit_otel.errors import (
    InvalidSession,
    OwnerQuotaExceeded,
    SessionError,
    SessionQuotaExceeded,
    SessionStoreFull,
    StateConflict,
    StateRefused,
)
from snakepit_otel.sessions._quota import Limits
from snakepit_otel.sessions.backends.base import NewSession
from snakepit_otel.sessions.backends.redis._layout import share
from snakepit_otel.sessions.backends.redis._replies import MORE


def create_error(
    words: Sequence[bytes], new: NewSession, memory: int, limits: Limits, shard: int, shards: int
) -> SessionError:
    """Return the reason why a session was not created; `memory` is the size of its id and metadata in bytes."""
    if words[0] == b"budget":
        return InvalidSession(
            f"session {new.id!r} would hold {memory} bytes of metadata; max_session_bytes is {limits.max_session_bytes}"
        )
    if words[0] == b"full":
        return _full(words, limits, shard, shards)
    if words[0] == b"owner":
        return OwnerQuotaExceeded(limits.max_sessions_per_owner, new.owner or "")
    return SessionQuotaExceeded(share(limits.max_sessions, shard, shards))


def write_error(
    words: Sequence[bytes], session_id: str, keys: Iterable[str], limits: Limits, shard: int, shards: int
) -> SessionError:
    """Return the reason why state was not written, for lack of space."""
    if words[0] == b"full":
        return _full(words, limits, shard, shards)
    if words[0] == b"keys":
        return StateRefused(
            f"session {session_id!r} would have {int(words[MORE])} keys; at most {limits.max_session_keys} are allowed"
        )
    return StateRefused(
        f"writing {', '.join(sorted(keys))[:200]} would take session {session_id!r} to {int(words[MORE])} bytes; "
        f"max_session_bytes is {limits.max_session_bytes}"
    )


def conflict(
    words: Sequence[bytes], session_id: str, if_version: int | None, if_versions: Mapping[str, int]
) -> StateConflict:
    """Return the conflict with another write."""
    current, place = int(words[MORE]), int(words[MORE + 1])
    if place < 0:
        return StateConflict(session_id, "the state", if_version or 0, current)
    key = list(if_versions)[place]
    return StateConflict(session_id, f"state[{key!r}]", if_versions[key], current)


def _full(words: Sequence[bytes], limits: Limits, shard: int, shards: int) -> SessionStoreFull:
    return SessionStoreFull(int(words[MORE]), int(share(limits.max_total_bytes, shard, shards)))
