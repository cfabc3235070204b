"""A session backend with a fault, for a proof that is to find it."""

from __future__ import annotations

from typing import Any

from snakepit_otel.sessions import Stats
from snakepit_otel.sessions.backends.base import Deleted
from snakepit_otel.sessions.backends.sqlite import SqliteBackend


class CountsTwice(SqliteBackend):
    """Counts each session that is deleted once more than it was, from the second on."""

    _deleted = 0

    async def delete(self, session_id: str, **options: Any) -> Deleted:
        deleted = await super().delete(session_id, **options)
        self._deleted += deleted.ended is not None
        return deleted

    async def stats(self) -> Stats:
        stats = await super().stats()
        return stats._replace(deleted=stats.deleted + (stats.deleted > 1))


class Forgets(SqliteBackend):
    """Loses every third write of state that it acknowledges."""

    _writes = 0

    async def update(self, session_id: str, change: Any) -> int:
        type(self)._writes += 1
        if self._writes % 3:
            return await super().update(session_id, change)
        return (await self.get(session_id)).version
