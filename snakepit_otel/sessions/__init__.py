"""Sessions of an authority: their store, state, limits and ends, over any session backend."""

from typing import TYPE_CHECKING

from snakepit_otel.common.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from snakepit_otel.sessions._attribution import Creator, Origin
    from snakepit_otel.sessions._grouping import GroupBy, SessionGroup
    from snakepit_otel.sessions._quota import Limits, Overflow
    from snakepit_otel.sessions._session import Session
    from snakepit_otel.sessions._settings import SessionSettings
    from snakepit_otel.sessions._state import Versioned
    from snakepit_otel.sessions._store import SessionStore
    from snakepit_otel.sessions.backends.base import SessionBackend, Stats
    from snakepit_otel.sessions.backends.memory import MemoryBackend

__all__ = [
    "Creator",
    "GroupBy",
    "Limits",
    "MemoryBackend",
    "Origin",
    "Overflow",
    "Session",
    "SessionBackend",
    "SessionGroup",
    "SessionSettings",
    "SessionStore",
    "Stats",
    "Versioned",
]

# Loaded when used: workers keep no sessions, and need the encoding of state only.
__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "Creator": "_attribution",
        "GroupBy": "_grouping",
        "Limits": "_quota",
        "MemoryBackend": "backends.memory",
        "Origin": "_attribution",
        "Overflow": "_quota",
        "Session": "_session",
        "SessionBackend": "backends.base",
        "SessionGroup": "_grouping",
        "SessionSettings": "_settings",
        "SessionStore": "_store",
        "Stats": "backends.base",
        "Versioned": "_state",
    },
)
