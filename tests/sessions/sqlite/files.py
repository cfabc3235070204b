"""Backends over a file of a test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from snakepit_otel.sessions import Limits, Session
from snakepit_otel.sessions.backends.base import NewSession
from snakepit_otel.sessions.backends.sqlite import SqliteBackend


@asynccontextmanager
async def opened(path: Path, limits: Limits | None = None, **options: Any) -> AsyncIterator[SqliteBackend]:
    """Open a backend, and close it at the end; a loaded machine has time."""
    backend = SqliteBackend(limits, path, **{"timeout": 30.0, **options})
    await backend.open()
    try:
        yield backend
    finally:
        await backend.close()


async def created(backend: SqliteBackend, session_id: str, ttl: float = 60.0, **fields: Any) -> Session:
    """Create a session and return it."""
    return (await backend.create(NewSession(session_id, ttl, fields.pop("metadata", {}), **fields))).session
