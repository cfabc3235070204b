"""The authority's memory: sessions, their state, their limits and their end."""

from typing import TYPE_CHECKING

from snakepit_otel import lazy

if TYPE_CHECKING:
    from snakepit_otel.sessions.backend import Backend, Overflow, Stats
    from snakepit_otel.sessions.memory import MemoryBackend
    from snakepit_otel.sessions.origin import Creator, Origin
    from snakepit_otel.sessions.session import Session
    from snakepit_otel.sessions.settings import SessionSettings
    from snakepit_otel.sessions.store import SessionStore, Versioned

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
__getattr__, __dir__ = lazy.exports(
    __name__,
    {
        "Backend": "backend",
        "Creator": "origin",
        "MemoryBackend": "memory",
        "Origin": "origin",
        "Overflow": "backend",
        "Session": "session",
        "SessionSettings": "settings",
        "SessionStore": "store",
        "Stats": "backend",
        "Versioned": "store",
    },
)
