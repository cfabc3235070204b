"""How long to wait before starting a worker again."""

from __future__ import annotations

import random
from collections.abc import Callable

_FIRST = 0.1
_LONGEST = 10.0
_STABLE = 10.0


class Backoff:
    """Doubling waits with jitter; a worker that has lived for ten seconds begins anew."""

    def __init__(self, draw: Callable[[], float] = random.random) -> None:
        self._draw = draw
        self._failures = 0

    def after(self, lived: float) -> float:
        """Return the seconds to wait after a worker that had lived for `lived` seconds ended."""
        if lived >= _STABLE:
            self._failures = 0
        wait = min(_FIRST * 2.0**self._failures, _LONGEST)
        self._failures += 1
        return wait * (0.5 + 0.5 * self._draw())
