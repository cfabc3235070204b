"""How long to wait before trying again what keeps failing."""

from __future__ import annotations

import random
from collections.abc import Callable

_FIRST = 0.1
_LONGEST = 10.0
_STABLE = 10.0


class Backoff:
    """Doubling waits with jitter, ten seconds at most; what has lasted for ten seconds begins anew."""

    def __init__(self, draw: Callable[[], float] = random.random) -> None:
        self._draw = draw
        self._failures = 0

    def after(self, lasted: float) -> float:
        """Return the seconds to wait after something that had lasted for `lasted` seconds ended."""
        if lasted >= _STABLE:
            self._failures = 0
        wait = min(_FIRST * 2.0 ** min(self._failures, 10), _LONGEST)
        self._failures += 1
        return wait * (0.5 + 0.5 * self._draw())
