"""Growing waits between attempts at something that keeps failing."""

from __future__ import annotations

import random
from collections.abc import Callable

_FIRST_SECONDS = 0.1
_LONGEST_SECONDS = 10.0
_STABLE_SECONDS = 10.0


class Backoff:
    """Doubling waits with jitter, ten seconds at most; an attempt that lasted for ten seconds resets them."""

    def __init__(self, draw: Callable[[], float] = random.random) -> None:
        self._draw = draw
        self._failures = 0

    def after(self, lasted: float) -> float:
        """Return the seconds to wait after an attempt that failed after `lasted` seconds."""
        if lasted >= _STABLE_SECONDS:
            self._failures = 0
        wait = min(_FIRST_SECONDS * 2.0 ** min(self._failures, 10), _LONGEST_SECONDS)
        self._failures += 1
        return wait * (0.5 + 0.5 * self._draw())
