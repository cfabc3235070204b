"""Sessions, and the checks of their ids, TTLs, owners and metadata."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from snakepit_otel.errors import InvalidSession
from snakepit_otel.sessions._attribution import Origin

MAX_ID_BYTES = 256
MAX_OWNER = 200  # characters
MAX_METADATA_ENTRIES = 1_000
MAX_TTL = 10 * 366 * 86_400.0  # seconds: ten years, which catches a wrong unit

_SURROGATE = re.compile(r"[\ud800-\udfff]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029]")
_NO_METADATA: Mapping[str, str] = MappingProxyType({})


class Session(NamedTuple):
    """A snapshot of a session.

    `ttl` is in seconds and slides from the last access. `created_at` and `last_accessed` are seconds since the epoch,
    on the clock of the backend, which also computes `idle`, the seconds since the last access.
    `version` is that of its last write, 0 if its state was never written. `memory_bytes` counts id, metadata and
    state. `incarnation` tells sessions apart that have had the same id.
    """

    id: str
    ttl: float
    created_at: float
    last_accessed: float
    metadata: Mapping[str, str] = MappingProxyType({})
    owner: str | None = None
    last_worker_id: str | None = None
    version: int = 0
    memory_bytes: int = 0
    origin: Origin | None = None
    incarnation: int = 0
    idle: float = 0.0

    @property
    def age(self) -> float:
        """Seconds since its creation."""
        return max(0.0, self.last_accessed - self.created_at) + self.idle


def checked_id(session_id: Any) -> str:
    """Return the id, or raise `InvalidSession` with the reason.

    Ids are non-empty text of at most 256 bytes in UTF-8 without control characters.
    """
    if session_id.__class__ is str and 0 < len(session_id) <= MAX_ID_BYTES // 4 and session_id.isprintable():
        return session_id
    if not isinstance(session_id, str):
        raise InvalidSession(f"a session id is text, not {type(session_id).__name__}")
    if not session_id:
        raise InvalidSession("a session id must not be empty")
    if len(session_id) > MAX_ID_BYTES:
        # Checked before anything iterates over it.
        size = len(session_id) if session_id.isascii() else len(session_id.encode(errors="replace"))
        raise InvalidSession(f"session id {session_id[:32]!r}… has {size} bytes; at most {MAX_ID_BYTES} are allowed")
    if not session_id.isprintable() and _CONTROL.search(session_id):
        raise InvalidSession(f"session id {session_id[:64]!r} contains a control character")
    # No character takes more than four bytes, so only long ids need encoding.
    if len(session_id) > MAX_ID_BYTES // 4 and len(session_id.encode()) > MAX_ID_BYTES:
        raise InvalidSession(
            f"session id {session_id[:32]!r}… has {len(session_id.encode())} bytes; at most {MAX_ID_BYTES} are allowed"
        )
    return session_id


def is_id(session_id: Any) -> bool:
    try:
        checked_id(session_id)
    except InvalidSession:
        return False
    return True


def checked_ttl(ttl: Any, name: str = "ttl", longest: float = MAX_TTL) -> float:
    """Return the TTL in seconds as a float, or raise `InvalidSession` naming the setting; `longest` is `max_ttl`."""
    if isinstance(ttl, bool) or not isinstance(ttl, (int, float)):
        raise InvalidSession(f"{name} is a number of seconds, not {type(ttl).__name__} {ttl!r}")
    if not 0 < ttl <= MAX_TTL:  # also false for NaN
        shown = (
            "not a number" if isinstance(ttl, float) and math.isnan(ttl) else f"{ttl:g}" if abs(ttl) < 1e300 else "huge"
        )
        raise InvalidSession(f"{name} is {shown}; it must be above 0 and at most {MAX_TTL:.0f} seconds (ten years)")
    if ttl > longest:
        raise InvalidSession(f"{name} is {ttl:g}; session_store.max_ttl allows at most {longest:g} seconds")
    return float(ttl)


def checked_owner(owner: Any) -> str | None:
    """Return the owner, or raise `InvalidSession` if it is no text of at most 200 characters."""
    if owner is None:
        return None
    if not isinstance(owner, str):
        raise InvalidSession(f"a session's owner is text, not {type(owner).__name__}")
    if len(owner) > MAX_OWNER:
        raise InvalidSession(f"a session's owner has at most {MAX_OWNER} characters; this one has {len(owner)}")
    if _SURROGATE.search(owner):
        raise InvalidSession(f"a session's owner, {owner[:64]!r}, contains a lone surrogate")
    return owner


def checked_metadata(metadata: Any) -> Mapping[str, str]:
    """Return a read-only copy of the metadata, or raise `InvalidSession` if it is not text by text."""
    if metadata is None:
        return _NO_METADATA
    if not isinstance(metadata, Mapping):
        raise InvalidSession(f"session metadata is a mapping of text to text, not {type(metadata).__name__}")
    if len(metadata) > MAX_METADATA_ENTRIES:
        raise InvalidSession(
            f"session metadata has {len(metadata)} entries; at most {MAX_METADATA_ENTRIES} are allowed"
        )
    for key, value in metadata.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise InvalidSession(f"session metadata is text by text; {key!r:.100}: {value!r:.100} is not")
        if _SURROGATE.search(key) or _SURROGATE.search(value):
            raise InvalidSession(f"session metadata {key[:64]!r}: {value[:64]!r} contains a lone surrogate")
    return MappingProxyType(dict(metadata)) if metadata else _NO_METADATA
