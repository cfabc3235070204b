"""Hints of the worker that served a session last, sent to a backend elsewhere without waiting for it."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

from snakepit_otel.errors import SessionError

_MOST = 1_000  # on their way at once; further ones are dropped


class WorkerHints:
    """Hints on their way, each of which may be lost; and the names of workers in them.

    Workers of several authorities have the same ids, so a hint for others to see names the authority as well:
    `1a2b3c4d/default-1`.
    """

    def __init__(self) -> None:
        self._authority = f"{secrets.token_hex(4)}/"
        self._tasks: set[asyncio.Task[None]] = set()

    def qualified(self, worker_id: str) -> str:
        """Return the name of one of our workers for others; none stays none."""
        return worker_id and self._authority + worker_id

    def own(self, name: str) -> str:
        """Return the id of one of our workers by its name; that of another authority's is no worker's id here."""
        return name.removeprefix(self._authority)

    def send(self, hint: Coroutine[Any, Any, None]) -> None:
        """Begin to send a hint, unless too many are on their way."""
        if len(self._tasks) >= _MOST:
            hint.close()
            return
        task = asyncio.ensure_future(_sent(hint))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def wait(self) -> None:
        """Wait for those that are on their way."""
        if self._tasks:
            await asyncio.wait(self._tasks)


async def _sent(hint: Coroutine[Any, Any, None]) -> None:
    with suppress(SessionError):
        await hint
