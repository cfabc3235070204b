"""Requests that were refused before they ran: counted by reason, and told of at a bearable rate."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

from snakepit_otel import telemetry
from snakepit_otel.errors import PoolError, PoolSaturated
from snakepit_otel.telemetry import names

_INTERVAL = 1.0


class Refusals:
    """What a pool has refused. Of saturation, one event a second tells of all since the one before."""

    def __init__(self, pool: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._pool = pool
        self._clock = clock
        self._saturated = 0
        self._told = float("-inf")
        self.by_reason: Counter[str] = Counter()

    def note(self, error: PoolError) -> None:
        """Count one."""
        reason = error.reason or type(error).__name__
        self.by_reason[reason] += 1
        telemetry.record(
            names.METRIC_POOL_REJECTIONS,
            1,
            {names.SNAKEPIT_POOL_NAME: self._pool, names.SNAKEPIT_POOL_REJECTION: reason},
        )
        if isinstance(error, PoolSaturated):
            self._saturated += 1
            if self._clock() - self._told >= _INTERVAL:
                self.report()

    def report(self) -> None:
        """Tell of those that have not been told of."""
        if self._saturated:
            body = f"pool {self._pool} has refused {self._saturated} requests that it could not do in time"
            about = {names.SNAKEPIT_POOL_NAME: self._pool}
            telemetry.emit(names.EVENT_POOL_SATURATED, about, {"count": self._saturated}, body=body)
            self._saturated, self._told = 0, self._clock()
