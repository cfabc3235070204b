"""Periodic task that sweeps expired sessions."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from snakepit_otel.common.guard import guard

_log = logging.getLogger("snakepit_otel.sessions")


class Sweeper:
    """Calls `sweep` every `interval` seconds until stopped; a failed sweep is logged, and does not end the task."""

    def __init__(
        self,
        sweep: Callable[[], Awaitable[object]],
        interval: float,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._sweep = sweep
        self._interval = interval
        self._sleep = sleep
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="session sweeper")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None

    async def _run(self) -> None:
        while True:
            await self._sleep(self._interval)
            with guard("the session sweep", _log):
                await self._sweep()
