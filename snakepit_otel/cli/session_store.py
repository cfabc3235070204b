"""The session store of the settings, in words, and by the commands that look at it without a server."""

from __future__ import annotations

from snakepit_otel.sessions import SessionSettings
from snakepit_otel.sessions._settings import MEMORY
from snakepit_otel.sessions._store_url import Durability, sqlite_path
from snakepit_otel.sessions.backends.redis._address import parse_url

_SURVIVES = {
    Durability.MEMORY: "as long as that server has them",
    Durability.FSYNC: "and the end of that server's machine",
    Durability.REPLICA: "and the end of that server",
}


def url_of(store: str) -> str:
    """Return the URL of a store that is given as a file or as a URL."""
    return store if "://" in store else f"sqlite:///{store}"


def survival(settings: SessionSettings) -> str:
    """Return where sessions are kept, and what they survive."""
    if not settings.url:
        if settings.backend == MEMORY:
            return "sessions are kept in memory: they end with this process (to keep them: --store FILE)"
        return f"sessions are kept by {settings.backend}"
    if (path := sqlite_path(settings.url)) is not None:
        also = ", and of the machine" if settings.durability is Durability.FSYNC else ""
        return f"sessions are kept in {path}: they survive the end of this process{also}"
    return (
        f"sessions are kept in Redis at {parse_url(settings.url)}, namespace {settings.namespace}: "
        f"they survive the end of this process, {_SURVIVES[settings.durability]}"
    )
