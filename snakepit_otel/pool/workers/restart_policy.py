"""When a worker that has ended may be replaced."""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable

from snakepit_otel.common.backoff import Backoff

_BREATH = 0.05
"""Replacements of fruitful workers start within so many seconds, so that not all do so at the same moment."""


class Restarts:
    """Holds back replacements, for a whole pool, where workers end without having answered a request.

    Each such end doubles the wait before the next start, whichever worker it is for, up to ten seconds; after `limit`
    of them within `window` seconds, with no worker's first answer between, none starts until the first of these is
    past. `clock` gives monotonic seconds.

    Several may wait for their turn, so whoever has waited asks again:

        while (seconds := restarts.wait()) > 0:
            await asyncio.sleep(seconds)
        restarts.started()
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
        self._fruitless: deque[float] = deque(maxlen=limit)
        self._backoff = Backoff(draw)
        self._pause = 0.0
        self._next = clock()

    def ended(self, fruitful: bool) -> None:
        """A worker ended unasked; it was fruitful if it had answered a request with success."""
        now = self._clock()
        if fruitful:
            self._next = max(self._next, now + _BREATH * self._draw())
            return
        self._fruitless.append(now)
        self._pause = self._backoff.after(0.0)
        self._next = max(self._next, now + self._pause)

    def started(self) -> None:
        """A replacement starts now."""
        self._next = max(self._next, self._clock() + self._pause)

    def thrived(self) -> None:
        """A worker has answered its first request: whatever ended those before it, workers can live.

        What ended before counts no more; or where workers are killed often, by whoever does that, those that had not
        yet had a request would add up until a pool that serves well is barred. As no worker does so twice, one that
        lives does not have others be started without end.
        """
        self._fruitless.clear()
        if self._pause:
            self._backoff = Backoff(self._draw)
            self._pause = 0.0
            self._next = self._clock()

    @property
    def barred(self) -> bool:
        """Whether so many have ended fruitlessly within the window that none may be started."""
        return self._clock() < self._barred_until()

    def wait(self) -> float:
        """Return the seconds from now before the next replacement may start; 0 if it may now."""
        return max(self._next - self._clock(), self._barred_until() - self._clock(), 0.0)

    def _barred_until(self) -> float:
        full = len(self._fruitless) == self._fruitless.maxlen
        return self._fruitless[0] + self._window if full else float("-inf")
