"""Removal of expired sessions, and the confirmation of their events."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from snakepit_otel.sessions._metrics import SessionMetrics
from snakepit_otel.sessions.backends.base import Ended, Pruned, SessionBackend

_BATCH = 1_000


class Pruning:
    """Prunes a backend, in batches between which other tasks run; `on_ended` is called with each batch."""

    def __init__(
        self,
        backend: SessionBackend,
        metrics: SessionMetrics,
        on_ended: Callable[[Sequence[Ended]], object],
        *,
        is_lasting: bool,
    ) -> None:
        self._backend = backend
        self._metrics = metrics
        self._on_ended = on_ended
        self._is_lasting = is_lasting

    async def prune(self) -> tuple[Sequence[Ended], int]:
        """Remove every expired session; return their ends, and how many sessions remain."""
        ended: list[Ended] = []
        live = self._backend.last_stats.live
        more = True
        try:
            while more:
                gone, live, more = await self._next(ended)
                self._on_ended(gone)
                ended += gone
                if more:
                    await asyncio.sleep(0)
        finally:
            # Also for a sweep that is cancelled half-way: the backend reports no end twice.
            self._metrics.record_ended(ended, live)
        if self._metrics.unconfirmed:
            await self.confirm()
        return ended, live

    async def confirm(self, limit: int = 0) -> Pruned:
        """Confirm to the backend what was emitted, and prune; confirmed once, also where the reply is lost."""
        reported, self._metrics.unconfirmed = self._metrics.unconfirmed, 0
        return await self._backend.prune(limit, reported=reported)

    async def _next(self, ended: list[Ended]) -> Pruned:
        """Prune a batch. A sweep that is cancelled waits for its reply, which no other sweep will have."""
        if not self._is_lasting:
            return await self.confirm(_BATCH)
        batch = asyncio.ensure_future(self.confirm(_BATCH))
        try:
            return await asyncio.shield(batch)
        except asyncio.CancelledError:
            await asyncio.wait([batch])
            if not batch.cancelled() and batch.exception() is None:
                self._on_ended(batch.result().ended)
                ended += batch.result().ended
            raise
