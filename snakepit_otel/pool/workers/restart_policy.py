"""The policy of restarts: delays before a worker that has ended is replaced."""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable

from snakepit_otel.common.backoff import Backoff

_JITTER_S = 0.05


class RestartPolicy:
    """Delays restarts, for a whole pool, where workers end without having completed a request.

    Each such end doubles the delay before the next start, whichever worker it is for, up to ten seconds; after `limit`
    of them within `window` seconds, with no worker's first result between, starts are blocked until the first of these
    is older than the window. `clock` gives monotonic seconds. Callers check `delay` again after they have waited.
    """

    def __init__(
        self,
        limit: int,
        window: float,
        clock: Callable[[], float] = time.monotonic,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._window = window
        self._clock = clock
        self._draw = draw
        self._useless_exits: deque[float] = deque(maxlen=limit)
        self._backoff = Backoff(draw)
        self._pause = 0.0
        self._next = clock()

    def on_exit(self, useful: bool) -> None:
        """A worker ended unexpectedly; it was useful if it had completed a request."""
        now = self._clock()
        if useful:
            # Jitter, so that workers lost together do not start at the same moment.
            self._next = max(self._next, now + _JITTER_S * self._draw())
            return
        self._useless_exits.append(now)
        self._pause = self._backoff.after(0.0)
        self._next = max(self._next, now + self._pause)

    def on_start(self) -> None:
        """A replacement starts now."""
        self._next = max(self._next, self._clock() + self._pause)

    def on_first_result(self) -> None:
        """Reset: a worker's first result proves that workers can serve, and that earlier exits had other causes."""
        self._useless_exits.clear()
        if self._pause:
            self._backoff = Backoff(self._draw)
            self._pause = 0.0
            self._next = self._clock()

    @property
    def is_blocked(self) -> bool:
        """Whether so many workers have ended uselessly within the window that none may be started."""
        return self._clock() < self._blocked_until()

    def delay(self) -> float:
        """Return the seconds from now before the next replacement may start; 0 if it may now."""
        return max(self._next - self._clock(), self._blocked_until() - self._clock(), 0.0)

    def _blocked_until(self) -> float:
        is_full = len(self._useless_exits) == self._useless_exits.maxlen
        return self._useless_exits[0] + self._window if is_full else float("-inf")
