"""The circuit breaker: requests that all lose their worker are not tried for a while."""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import StrEnum


class State(StrEnum):
    """What becomes of requests."""

    CLOSED = "closed"
    """They are tried."""
    OPEN = "open"
    """They are refused."""
    HALF_OPEN = "half_open"
    """One of them is tried, and decides."""


def _nothing(_state: State) -> None:
    """What nobody asked to be told."""


class Breaker:
    """Opens after `failures` requests in a row that lost their worker; `reset` seconds later it lets one through.

    Every request that was allowed reports its end by one of `succeeded`, `failed` and `abandoned`. `clock` gives
    monotonic seconds; `on_change` is told every new state.
    """

    def __init__(
        self,
        failures: int,
        reset: float,
        clock: Callable[[], float] = time.monotonic,
        on_change: Callable[[State], None] = _nothing,
    ) -> None:
        self._limit = failures
        self._reset = reset
        self._clock = clock
        self._on_change = on_change
        self._state = State.CLOSED
        self._failures = 0
        self._opened = 0.0
        self._trying = False

    @property
    def state(self) -> State:
        """What becomes of requests. An open breaker stays so until a request asks after its time."""
        return self._state

    @property
    def retry_after(self) -> float:
        """Seconds until a request may be let through; 0 if one may be now, or if one is that will decide."""
        return max(self._opened + self._reset - self._clock(), 0.0) if self._state is State.OPEN else 0.0

    def allow(self) -> bool:
        """Return whether a request may be tried; where that is the one that decides, no other may until it reports."""
        if self._state is State.CLOSED:
            return True
        if self._state is State.OPEN:
            if self._clock() < self._opened + self._reset:
                return False
            self._become(State.HALF_OPEN)
        if self._trying:
            return False
        self._trying = True
        return True

    def succeeded(self) -> None:
        """A request kept its worker to the end."""
        # One that was let through before the breaker opened says nothing of what came after.
        if self._state is not State.OPEN:
            self._failures = 0
            self._become(State.CLOSED)

    def failed(self) -> None:
        """A request lost its worker."""
        if self._state is State.OPEN:
            return
        self._failures += 1
        if self._state is State.HALF_OPEN or self._failures >= self._limit:
            self.trip()

    def abandoned(self) -> None:
        """A request ended without showing anything, such as one that was cancelled."""
        self._trying = False

    def trip(self) -> None:
        """Open now."""
        self._opened = self._clock()
        self._become(State.OPEN)

    def _become(self, state: State) -> None:
        self._trying = False
        if state is not self._state:
            self._state = state
            self._on_change(state)
