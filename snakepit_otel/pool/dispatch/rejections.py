"""Requests refused before they ran: counted by reason, with a rate-limited event for saturation."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

from snakepit_otel import telemetry
from snakepit_otel.errors import PoolError, PoolSaturated
from snakepit_otel.telemetry import names

_EVENT_INTERVAL_S = 1.0


class Rejections:
    """A pool's rejected requests. One saturation event a second stands for all since the event before."""

    def __init__(self, pool: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._pool = pool
        self._clock = clock
        self._unreported = 0
        self._last_event = float("-inf")
        self.by_reason: Counter[str] = Counter()

    def count(self, error: PoolError) -> None:
        """Count a rejection."""
        reason = error.reason or type(error).__name__
        self.by_reason[reason] += 1
        telemetry.record(
            names.METRIC_POOL_REJECTIONS,
            1,
            {names.SNAKEPIT_POOL_NAME: self._pool, names.SNAKEPIT_POOL_REJECTION: reason},
        )
        if isinstance(error, PoolSaturated):
            self._unreported += 1
            if self._clock() - self._last_event >= _EVENT_INTERVAL_S:
                self.report()

    def report(self) -> None:
        """Emit the event of the rejections that have had none."""
        if self._unreported:
            body = f"pool {self._pool} has refused {self._unreported} requests that it could not run in time"
            attributes = {names.SNAKEPIT_POOL_NAME: self._pool}
            telemetry.emit(names.EVENT_POOL_SATURATED, attributes, {"count": self._unreported}, body=body)
            self._unreported, self._last_event = 0, self._clock()
