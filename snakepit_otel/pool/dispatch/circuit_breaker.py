"""The circuit breaker: while requests in a row lose their worker, further ones are refused."""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import StrEnum


class BreakerState(StrEnum):
    """State of a circuit breaker."""

    CLOSED = "closed"  # requests run
    OPEN = "open"  # requests are refused
    HALF_OPEN = "half_open"  # one request runs, and decides


class CircuitBreaker:
    """Opens after `failures` requests in a row that lost their worker; `reset` seconds later it admits one.

    Every admitted request reports its end by one of `on_success`, `on_failure` and `on_abandoned`.
    """

    def __init__(
        self,
        failures: int,
        reset: float,
        clock: Callable[[], float] = time.monotonic,
        on_change: Callable[[BreakerState], None] = lambda _state: None,
    ) -> None:
        self._limit = failures
        self._reset = reset
        self._clock = clock
        self._on_change = on_change
        self.state = BreakerState.CLOSED  # an open one stays so until a request arrives after its time
        self._failures = 0
        self._opened = 0.0
        self._is_probing = False

    @property
    def retry_after(self) -> float:
        """Seconds until a request may be admitted; 0 if one may be now, or if one runs that will decide."""
        return max(self._opened + self._reset - self._clock(), 0.0) if self.state is BreakerState.OPEN else 0.0

    def allow(self) -> bool:
        """Return whether a request may run; while the one that decides runs, no other may."""
        if self.state is BreakerState.CLOSED:
            return True
        if self.state is BreakerState.OPEN:
            if self._clock() < self._opened + self._reset:
                return False
            self._change(BreakerState.HALF_OPEN)
        if self._is_probing:
            return False
        self._is_probing = True
        return True

    def on_success(self) -> None:
        """A request kept its worker to the end."""
        if self.state is BreakerState.CLOSED:
            self._failures = 0
        # A request admitted before the breaker opened proves nothing about the time after.
        elif self.state is not BreakerState.OPEN:
            self._failures = 0
            self._change(BreakerState.CLOSED)

    def on_failure(self) -> None:
        """A request lost its worker."""
        if self.state is BreakerState.OPEN:
            return
        self._failures += 1
        if self.state is BreakerState.HALF_OPEN or self._failures >= self._limit:
            self.trip()

    def on_abandoned(self) -> None:
        """A request ended without proof either way, such as a cancelled one."""
        self._is_probing = False

    def trip(self) -> None:
        """Open now."""
        self._opened = self._clock()
        self._change(BreakerState.OPEN)

    def _change(self, state: BreakerState) -> None:
        self._is_probing = False
        if state is not self.state:
            self.state = state
            self._on_change(state)
