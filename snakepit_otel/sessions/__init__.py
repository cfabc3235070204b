"""The authority's memory: sessions, their state, their limits and their end."""

from typing import TYPE_CHECKING

from snakepit_otel.common.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from snakepit_otel.sessions._attribution import Creator, Origin
    from snakepit_otel.sessions._session import Session
    from snakepit_otel.sessions._settings import SessionSettings
    from snakepit_otel.sessions._store import SessionStore, Versioned
    from snakepit_otel.sessions.backends.base import Backend, Overflow, Stats
    from snakepit_otel.sessions.backends.memory import MemoryBackend

__all__ = [
    "Backend",
    "Creator",
    "MemoryBackend",
    "Origin",
    "Overflow",
    "Session",
    "SessionSettings",
    "SessionStore",
    "Stats",
    "Versioned",
]

# Loaded when used: workers keep no sessions, and take no more of this than how state is written down.
__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "Backend": "backends.base",
        "Creator": "_attribution",
        "MemoryBackend": "backends.memory",
        "Origin": "_attribution",
        "Overflow": "backends.base",
        "Session": "_session",
        "SessionSettings": "_settings",
        "SessionStore": "_store",
        "Stats": "backends.base",
        "Versioned": "_store",
    },
)
