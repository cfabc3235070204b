"""Operations that need no write transaction, as far as they turn out not to."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from snakepit_otel.errors import SessionNotFound
from snakepit_otel.sessions._quota import Limits, Overflow
from snakepit_otel.sessions._session import Session
from snakepit_otel.sessions.backends.base import Created, Ended, Entry, NewSession, StateView, Stats
from snakepit_otel.sessions.backends.sqlite._clock import StoreClock
from snakepit_otel.sessions.backends.sqlite._layout import LARGE_METADATA, REPLACED
from snakepit_otel.sessions.backends.sqlite._ledger import Ledger
from snakepit_otel.sessions.backends.sqlite._rows import ROWS, Row, session_of, unpacked
from snakepit_otel.sessions.backends.sqlite._touches import LEAST_LEFT_S, Touches


class WriteNeeded(Exception):
    """Raised by a reading operation that has to write, and has done nothing."""


_LEAST_FREE = 4_096  # sessions, below which a store that evicts writes accesses at once
_LEAST_FREE_SHARE = 4  # of its bytes likewise: a quarter

_FIND = ROWS + "WHERE id = ?"
_STATE = "SELECT key, raw, version FROM state WHERE incarnation = ?"
_SCAN = ROWS + "WHERE incarnation > ? AND incarnation <= ? AND expires > ? ORDER BY incarnation LIMIT ?"
_PAGE = ROWS + "WHERE id > ? AND expires > ? ORDER BY id LIMIT ?"
_PAGE_OF_OWNER = ROWS + "WHERE owner = ? AND id > ? AND expires > ? ORDER BY id LIMIT ?"
_BOUND = (
    "SELECT max(incarnation) FROM (SELECT incarnation FROM session WHERE incarnation > ? ORDER BY incarnation LIMIT ?)"
)
_GROUPS = """
SELECT creator, tool, owner, count(*), min(began), trace FROM session
WHERE incarnation > ? AND incarnation <= ? GROUP BY creator, tool, owner"""


class Reading:
    """One reading of the file: every operation between two calls of `begin` sees the same sessions.

    Each raises what the contract says, and `WriteNeeded`.
    """

    def __init__(self, connection: sqlite3.Connection, clock: StoreClock, limits: Limits, touches: Touches) -> None:
        self._connection = connection
        self._execute = connection.execute
        self._clock = clock
        self._limits = limits
        self._touches = touches
        self._evicts = limits.overflow is Overflow.EVICT
        self._ledger: Ledger | None = None

    def begin(self) -> None:
        """Start a new reading."""
        self._ledger = None

    @property
    def ledger(self) -> Ledger:
        if self._ledger is None:
            self._ledger = Ledger(self._connection)
        return self._ledger

    def seen(self) -> Stats | None:
        """Return the ledger, if an operation has read it."""
        return None if self._ledger is None else self._ledger.stats()

    def get(self, session_id: str, touch: bool, incarnation: int | None) -> Session:
        row, accessed, now = self.live(session_id, incarnation)
        if touch:
            if not self._touched(row, now):
                raise WriteNeeded
            accessed = now
        return self.session(row, accessed, now)

    def read(self, session_id: str, touch: bool) -> StateView:
        row, _, now = self.live(session_id)
        if touch and not self._touched(row, now):
            raise WriteNeeded
        return self.state(row)

    def create(self, new: NewSession) -> Created:
        row = self.find(new.id)
        if row is None:
            raise WriteNeeded
        now = self._clock.now()
        if now >= self.accessed(row) + row.ttl or not self._touched(row, now):
            raise WriteNeeded
        is_new = new.token != 0 and row.token == new.token
        ended = self.replaced(row) if is_new else ()
        return Created(self.session(row, now, now), is_new, ended, self.ledger.live)

    def assign_worker(self, session_id: str, worker_id: str) -> None:
        row = self.find(session_id)
        if row is not None:
            self._touches.assign(row.incarnation, worker_id)

    def page(self, after: str | None, limit: int, owner: str | None) -> Sequence[Session]:
        self.settle()
        now, begin = self._clock.now(), after or ""
        if owner is None:
            rows = self._execute(_PAGE, (begin, now, limit))
        else:
            rows = self._execute(_PAGE_OF_OWNER, (owner, begin, now, limit))
        return [self.session(row, row.accessed, now) for row in map(Row._make, rows.fetchall())]

    def scan(self, after: int, last: int, limit: int, owner: str | None) -> tuple[list[Session], int]:
        """Return live sessions by incarnation, and the incarnation to go on after."""
        self.settle()
        now = self._clock.now()
        rows = [Row._make(row) for row in self._execute(_SCAN, (after, last, now, limit)).fetchall()]
        sessions = [self.session(row, row.accessed, now) for row in rows if owner is None or row.owner == owner]
        return sessions, rows[-1].incarnation if len(rows) == limit else last

    def last_incarnation(self) -> int:
        return int(self.ledger.created)

    def groups(self, after: int, limit: int) -> tuple[list[tuple[Any, ...]], int | None, float]:
        """Return sessions by creator, tool and owner, the incarnation to go on after, and the time."""
        bound = self._execute(_BOUND, (after, limit)).fetchone()[0]
        if bound is None:
            return [], None, 0.0
        return self._execute(_GROUPS, (after, bound)).fetchall(), bound, self._clock.now()

    def stats(self) -> Stats:
        return self.ledger.stats()

    def settle(self) -> None:
        """Have all accesses in the file, by whose times sessions are then chosen."""
        if self._touches.accessed:
            raise WriteNeeded

    def find(self, session_id: str) -> Row | None:
        """Return the session's row, whether it has expired or not."""
        row = self._execute(_FIND, (session_id,)).fetchone()
        return None if row is None else Row._make(row)

    def live(self, session_id: str, incarnation: int | None = None) -> tuple[Row, float, float]:
        """Return a live session's row, its last access, and the time. Raises `SessionNotFound`."""
        row = self.find(session_id)
        if row is None or (incarnation is not None and incarnation != row.incarnation):
            raise SessionNotFound(session_id)
        accessed, now = self.accessed(row), self._clock.now()
        if now >= accessed + row.ttl:
            raise SessionNotFound(session_id)
        return row, accessed, now

    def accessed(self, row: Row) -> float:
        """Return the last access, which may not be in the file yet."""
        touched = self._touches.accessed.get(row.incarnation)
        return row.accessed if touched is None else max(row.accessed, touched[0])

    def session(self, row: Row, accessed: float, now: float) -> Session:
        metadata = row.metadata
        if row.extras & LARGE_METADATA:
            select = "SELECT metadata FROM large_metadata WHERE incarnation = ?"
            metadata = self._execute(select, (row.incarnation,)).fetchone()[0]
        return session_of(row, accessed, now, metadata, self._touches.workers.get(row.incarnation))

    def state(self, row: Row) -> StateView:
        if not row.keys:
            return StateView(row.version, {})
        rows = self._execute(_STATE, (row.incarnation,)).fetchall()
        return StateView(row.version, {key: Entry(raw, version) for key, raw, version in rows})

    def replaced(self, row: Row) -> Sequence[Ended]:
        """Return the sessions that ended when this one was created, if they are still kept."""
        if not row.extras & REPLACED:
            return ()
        kept = self._execute("SELECT ended FROM replaced WHERE incarnation = ?", (row.incarnation,)).fetchone()
        return () if kept is None else unpacked(kept[0])

    def _touched(self, row: Row, now: float) -> bool:
        """Keep an access for later and return True, unless it has to be written at once.

        Another process goes by what is in the file: an access is there long before the session would end without it,
        and at once where that process might evict the session for it.
        """
        if row.expires - now < LEAST_LEFT_S or (self._evicts and not self._has_room()) or self._touches.is_late():
            return False
        self._touches.touch(row.incarnation, now)
        return True

    def _has_room(self) -> bool:
        ledger, limits = self.ledger, self._limits
        free = limits.max_total_bytes - ledger.weight
        return bool(
            limits.max_sessions - ledger.live >= _LEAST_FREE and free * _LEAST_FREE_SHARE >= limits.max_total_bytes
        )
