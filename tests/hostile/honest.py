"""Honest callers, whose requests are all counted."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count

from snakepit_otel import Client

CALLERS = 3
PAUSE = 0.01
TIMEOUT = 10.0
"""Seconds that a request has."""
SLACK = 5.0
"""Seconds more, after which a request counts as unanswered."""


class Honest:
    """Callers on the Unix socket that use tools, state and an authority's tool; see `calling`."""

    def __init__(self) -> None:
        self.ends: Counter[str] = Counter()
        """How requests ended: `ok`, or the name of the error."""
        self.durations: list[float] = []
        """Of the requests that were answered, in seconds; who measures empties it."""
        self.unanswered = 0
        self._is_over = False

    async def _call(self, caller: int, address: str) -> None:
        async with Client(address) as client:
            for number in count():
                if self._is_over:
                    return
                begun = time.perf_counter()
                try:
                    async with asyncio.timeout(TIMEOUT + SLACK):
                        await self._one(client, f"honest-{caller}-{number % 5}", number)
                    self.ends["ok"] += 1
                except TimeoutError as error:
                    self.unanswered += type(error) is TimeoutError
                    self.ends[type(error).__name__] += 1
                except Exception as error:
                    self.ends[type(error).__name__] += 1
                self.durations.append(time.perf_counter() - begun)
                await asyncio.sleep(PAUSE)

    @staticmethod
    async def _one(client: Client, session: str, number: int) -> None:
        if number % 10 == 9:
            assert await client.execute("quick", timeout=TIMEOUT) == "quick"
        else:
            await client.execute("add", {"amount": 1}, session_id=session, timeout=TIMEOUT)

    @classmethod
    @asynccontextmanager
    async def calling(cls, address: str) -> AsyncIterator[Honest]:
        """Call an authority for as long as the block lasts, and then until every request has ended."""
        honest = cls()
        tasks = [asyncio.create_task(honest._call(caller, address)) for caller in range(CALLERS)]
        try:
            yield honest
        finally:
            honest._is_over = True
            await asyncio.gather(*tasks)
