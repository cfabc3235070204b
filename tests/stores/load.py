"""Load on a store while its servers change, and what of it was acknowledged."""

from __future__ import annotations

import asyncio
import time

from snakepit_otel.errors import SessionStoreUnavailable
from snakepit_otel.sessions import SessionStore


class Load:
    """Tasks that count in sessions of their own; `gap` is the longest time in seconds without any success."""

    def __init__(self, store: SessionStore, tasks: int = 8) -> None:
        self.acknowledged = [0] * tasks
        self.begun = [0] * tasks
        self.failures = 0
        self.messages: set[str] = set()
        self.gap = 0.0
        self._store = store
        self._last = time.monotonic()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Create the sessions, and begin to count."""
        for number in range(len(self.begun)):
            await self._store.create(f"load-{number}", ttl=3_600)
        self._last = time.monotonic()
        self._tasks = [asyncio.ensure_future(self._count(number)) for number in range(len(self.begun))]

    async def stop(self) -> None:
        """Stop counting, after the calls that are under way."""
        tasks, self._tasks = self._tasks, []
        await asyncio.wait(tasks)

    async def successes(self, count: int) -> None:
        """Wait until there were so many more."""
        goal = sum(self.acknowledged) + count
        async with asyncio.timeout(60):
            while sum(self.acknowledged) < goal:
                await asyncio.sleep(0.01)

    async def values(self) -> list[int]:
        """Return what the sessions have counted to; 0 for one that is not there."""
        return [await self._value(number) for number in range(len(self.begun))]

    async def _value(self, number: int) -> int:
        try:
            return int(await self._store.get_state(f"load-{number}", "n", 0))
        except LookupError:
            return 0

    async def _count(self, number: int) -> None:
        while self._tasks:
            value = self.acknowledged[number] + 1
            self.begun[number] = value
            try:
                await self._store.set_state(f"load-{number}", "n", value)
            except SessionStoreUnavailable as error:
                self.failures += 1
                self.messages.add(str(error))
                await asyncio.sleep(0.01)
            else:
                self.acknowledged[number] = value
                now = time.monotonic()
                self.gap, self._last = max(self.gap, now - self._last), now
