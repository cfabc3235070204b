"""A clock that a test advances."""

from __future__ import annotations


class FakeClock:
    """Stands still until `advance`; both of its times move together."""

    def __init__(self, monotonic: float = 1_000.0, time: float = 1_700_000_000.0) -> None:
        self._monotonic = monotonic
        self._time = time

    def advance(self, seconds: float) -> None:
        """Let time pass. Raises `ValueError` for a step backwards."""
        if seconds < 0:
            raise ValueError("time does not run backwards")
        self._monotonic += seconds
        self._time += seconds

    def monotonic(self) -> float:
        """Seconds since nothing in particular."""
        return self._monotonic

    def time(self) -> float:
        """Seconds since the epoch."""
        return self._time
