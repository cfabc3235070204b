"""The authority's memory: sessions, their state, their limits and their end."""

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
