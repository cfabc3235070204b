"""Time that can be injected."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """A source of time."""

    def monotonic(self) -> float:
        """Seconds that never run backwards; the origin is arbitrary."""

    def time(self) -> float:
        """Seconds since the Unix epoch."""


class SystemClock:
    """The time of this machine."""

    monotonic = staticmethod(time.monotonic)
    time = staticmethod(time.time)
