"""Accesses and hints that are not in the file yet."""

from __future__ import annotations

import sqlite3
import time

from snakepit_otel.sessions.backends.sqlite._rows import storable

LATE_S = 0.5  # after which an access that is not written yet makes further ones wait for it
FLUSH_S = 0.1  # from an access to the write that has it
LEAST_LEFT_S = 1.0  # an access of a session that would end earlier is written at once

_TOUCH = "UPDATE session SET accessed = ?1, used = ?2, expires = ?1 + ttl WHERE incarnation = ?3 AND used < ?2"
_HINT = "UPDATE session SET worker = ? WHERE incarnation = ?"


class Touches:
    """Kept by incarnation, so that none is ever another session's; those of sessions that have ended go at a flush."""

    def __init__(self) -> None:
        self.accessed: dict[int, tuple[float, int]] = {}
        self.workers: dict[int, str] = {}
        self._due: float | None = None
        self._since = 0.0
        self.used = 0

    def next_use(self, now: float) -> int:
        """Return the moment of a use in nanoseconds, later than every one that this process has seen."""
        self.used = max(self.used + 1, int(now * 1e9))
        return self.used

    def touch(self, incarnation: int, now: float) -> None:
        """Keep an access for the next flush."""
        self.accessed[incarnation] = (now, self.next_use(now))
        self._schedule()

    def assign(self, incarnation: int, worker: str) -> None:
        """Keep the last worker for the next flush."""
        self.workers[incarnation] = worker
        self._schedule()

    def wait(self) -> float | None:
        """Return the seconds until the next flush; None if there is nothing to flush."""
        return None if self._due is None else max(0.0, self._due - time.monotonic())

    def is_due(self) -> bool:
        """Return whether it is time to flush."""
        return self._due is not None and time.monotonic() >= self._due

    def is_late(self) -> bool:
        """Return whether the oldest has waited for too long, as the file cannot be written."""
        return self._due is not None and time.monotonic() - self._since > LATE_S

    def hasten(self) -> None:
        """Flush at the next opportunity, if there is anything."""
        if self._due is not None:
            self._due = time.monotonic()

    def postpone(self, seconds: float = FLUSH_S) -> None:
        """Flush later, as it failed just now."""
        if self._due is not None:
            self._due = time.monotonic() + seconds

    def write(self, connection: sqlite3.Connection) -> None:
        """Write all to the file; they stay here until `clear`, after the commit."""
        if self.accessed:
            touches = [(accessed, used, incarnation) for incarnation, (accessed, used) in self.accessed.items()]
            connection.executemany(_TOUCH, touches)
        if self.workers:
            hints = [(storable(worker), incarnation) for incarnation, worker in self.workers.items()]
            connection.executemany(_HINT, hints)

    def clear(self) -> None:
        """Remove all, which are in the file now."""
        self.accessed.clear()
        self.workers.clear()
        self._due = None

    def _schedule(self) -> None:
        if self._due is None:
            self._since = time.monotonic()
            self._due = self._since + FLUSH_S
