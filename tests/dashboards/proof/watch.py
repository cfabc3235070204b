"""Sees which alerts fire, as they do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.dashboards.proof.stack import Stack
from tests.waiting import until

_EVERY = 0.2


class Watch:
    """The alerts that have fired so far: by their name and the service's, the seconds since 1970 when first seen."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self.fired: dict[tuple[str, str], float] = {}

    def has_seen(self, service: str, *alerts: str) -> bool:
        """Say whether all of these have fired for a service."""
        return all((f"Snakepit{alert}", service) in self.fired for alert in alerts)

    async def sees(self, service: str, *alerts: str, within: float = 60.0) -> None:
        """Return once they have."""
        await until(lambda: self.has_seen(service, *alerts), within)

    async def look(self) -> None:
        """Look, until cancelled."""
        while True:
            firing = await asyncio.to_thread(self._stack.query, 'ALERTS{alertstate="firing"}')
            for labels in (series["metric"] for series in firing):
                self.fired.setdefault((labels["alertname"], labels.get("service_name", "")), time.time())
            await asyncio.sleep(_EVERY)


@asynccontextmanager
async def watch(stack: Stack) -> AsyncIterator[Watch]:
    """Watch for as long as the block lasts."""
    watching = Watch(stack)
    looking = asyncio.create_task(watching.look())
    try:
        yield watching
    finally:
        looking.cancel()
        await asyncio.wait([looking])
        if not looking.cancelled() and (error := looking.exception()):
            raise error
