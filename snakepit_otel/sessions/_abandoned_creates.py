"""Creates whose caller was cancelled before the reply came."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from snakepit_otel.sessions.backends.base import Created


class AbandonedCreates:
    """Waits for creates in place of cancelled callers; `on_created` is called with the session that comes of one."""

    def __init__(self, on_created: Callable[[Created], object]) -> None:
        self._on_created = on_created
        self._pending: set[asyncio.Future[Created]] = set()

    async def outcome(self, create: Coroutine[Any, Any, Created]) -> Created:
        """Return the outcome of a create, unless the caller is cancelled meanwhile."""
        creating = asyncio.ensure_future(create)
        try:
            return await asyncio.shield(creating)
        except asyncio.CancelledError:
            self._pending.add(creating)
            creating.add_done_callback(self._on_done)
            raise

    async def wait(self) -> None:
        """Wait for those that are on their way."""
        while self._pending:
            await asyncio.wait(self._pending)
            await asyncio.sleep(0)  # done callbacks run in the loop's next iteration

    def _on_done(self, creating: asyncio.Future[Created]) -> None:
        self._pending.discard(creating)
        if not creating.cancelled() and creating.exception() is None:
            self._on_created(creating.result())
