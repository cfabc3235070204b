"""A limit of log lines: one per kind and interval, and the number of those that were left out."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from typing import Final

OTHER: Final = "_OTHER"  # stands for all kinds beyond the number that is kept


class LineLimit:
    """Admits one line of a kind per `interval` seconds; for any number of threads.

    At most `most_kinds` are kept. Lines of further kinds share one, `OTHER`, until intervals have ended.
    """

    def __init__(
        self, interval: float = 60.0, most_kinds: int = 100, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.interval = interval
        self._most_kinds = most_kinds
        self._clock = clock
        self._lock = threading.Lock()
        self._begun: dict[Hashable, float] = {}  # when the present interval of a kind began
        self._omitted: dict[Hashable, int] = {}

    def admit(self, kind: Hashable) -> int | None:
        """Return how many lines of a kind were left out since its last one, if it may have one now; else None."""
        now = self._clock()
        with self._lock:
            begun = self._begun.get(kind)
            if begun is None:
                kind = self._new(kind, now)
                begun = self._begun.get(kind)
            if begun is not None and now - begun < self.interval:
                self._omitted[kind] = self._omitted.get(kind, 0) + 1
                return None
            self._begun[kind] = now
            return self._omitted.pop(kind, 0)

    def ended(self, *, early: bool = False) -> list[tuple[Hashable, int, float]]:
        """Forget the kinds whose interval has ended, or `early` all of them.

        Returns those of which lines were left out, with their number and the seconds in which they were.
        """
        now = self._clock()
        with self._lock:
            over = [kind for kind, begun in self._begun.items() if early or now - begun >= self.interval]
            found = [(kind, self._omitted[kind], now - self._begun[kind]) for kind in over if kind in self._omitted]
            for kind in over:
                del self._begun[kind]
                self._omitted.pop(kind, None)
        return found

    def next_end(self) -> float | None:
        """Return the seconds until the first interval ends; None where there is none."""
        with self._lock:
            first = min(self._begun.values(), default=None)
        return None if first is None else max(first + self.interval - self._clock(), 0.0)

    def reset(self) -> None:
        """Admit a line of each kind again."""
        with self._lock:
            self._begun.clear()
            self._omitted.clear()

    def _new(self, kind: Hashable, now: float) -> Hashable:
        """Make room for a kind, and return it; or return `OTHER` where there is none."""
        if len(self._begun) >= self._most_kinds:
            for one, begun in list(self._begun.items()):
                if now - begun >= self.interval and one not in self._omitted:
                    del self._begun[one]
        return kind if len(self._begun) < self._most_kinds else OTHER
