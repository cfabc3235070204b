"""Operations that change the file, each within a transaction that many may share."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from math import inf

import orjson

from snakepit_otel.errors import (
    InvalidSession,
    OwnerQuotaExceeded,
    SessionNotFound,
    SessionQuotaExceeded,
    SessionStoreFull,
    StateConflict,
    StateRefused,
)
from snakepit_otel.sessions._quota import Limits, Overflow
from snakepit_otel.sessions._session import Session
from snakepit_otel.sessions.backends.base import (
    MOST_OWNERS,
    Claim,
    Created,
    Deleted,
    Ended,
    EndReason,
    NewSession,
    Pruned,
    WarningReason,
)
from snakepit_otel.sessions.backends.memory_records import ENTRY_BYTES, base_of, text_bytes
from snakepit_otel.sessions.backends.sqlite._clock import StoreClock
from snakepit_otel.sessions.backends.sqlite._layout import LARGE_METADATA, REPLACED
from snakepit_otel.sessions.backends.sqlite._ledger import Ledger
from snakepit_otel.sessions.backends.sqlite._reading import Reading
from snakepit_otel.sessions.backends.sqlite._rows import (
    ENDED_ROWS,
    SMALL_METADATA,
    EndedRow,
    Row,
    ended_of,
    ended_row,
    origin_columns,
    packed,
)
from snakepit_otel.sessions.backends.sqlite._touches import Touches

MOST_PRUNED = 500  # by one call, so that none holds the others up for long
_SWEEP_AT_QUOTA = 1_000
_REPLACED_S = 60.0
_EVICTED_AT_ONCE = 20

_DUE = ENDED_ROWS + "WHERE expires <= ? ORDER BY expires LIMIT ?"
_OLDEST = ENDED_ROWS + "WHERE id <> ? ORDER BY used LIMIT ?"
_DUE_OF_OWNER = ENDED_ROWS + "WHERE owner = ? AND expires <= ?"
_INSERT = """
INSERT INTO session (incarnation, id, ttl, began, accessed, used, expires, created_at, version, memory, weight, keys,
extras, token, write_token, owner, creator, trace, tool, metadata)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0, ?, ?, 0, ?, ?, 0, ?, ?, ?, ?, ?)"""
_TOUCH = "UPDATE session SET accessed = ?, used = ?, expires = ? WHERE incarnation = ?"
_WRITE = """
UPDATE session SET accessed = ?, used = ?, expires = ?, version = ?, memory = ?, weight = ?, keys = ?, write_token = ?
WHERE incarnation = ?"""
_SET = """
INSERT INTO state (incarnation, key, version, raw) VALUES (?, ?, ?, ?)
ON CONFLICT (incarnation, key) DO UPDATE SET version = excluded.version, raw = excluded.raw"""
_ENTRY = "SELECT length(raw), version FROM state WHERE incarnation = ? AND key = ?"
_TABLES = ("session", "state", "large_metadata", "replaced")
_DELETES = tuple(
    (
        " ".join(("DELETE FROM", table, "WHERE incarnation = ?")),
        " ".join(("DELETE FROM", table, "WHERE incarnation IN (SELECT value FROM json_each(?))")),
    )
    for table in _TABLES
)
_FORGET_REPLACED = """
DELETE FROM replaced WHERE at < ? AND incarnation IN (SELECT incarnation FROM replaced ORDER BY incarnation LIMIT 2)"""


class Writing(Reading):
    """One transaction that writes: every operation sees what those before it have changed.

    Each checks all before it changes anything, so that one that raises has changed nothing but counts and accesses.
    """

    def __init__(self, connection: sqlite3.Connection, clock: StoreClock, limits: Limits, touches: Touches) -> None:
        super().__init__(connection, clock, limits, touches)
        self.has_settled = False

    def begin(self) -> None:
        """Start in a transaction that has just begun."""
        self._ledger = Ledger(self._connection)
        self._touches.used = max(self._touches.used, self._ledger.used)
        self.has_settled = False

    def finish(self, now: float, wall: float) -> None:
        """Write the ledger, with the times on the store's axis and on the wall clock."""
        self.ledger.used = self._touches.used
        self.ledger.save(self._connection, now, wall)

    def settle(self) -> None:
        """Write the accesses that are kept, once in a transaction."""
        if not self.has_settled:
            self._touches.write(self._connection)
            self.has_settled = True

    def _touched(self, row: Row, now: float) -> bool:
        self._execute(_TOUCH, (now, self._touches.next_use(now), now + row.ttl, row.incarnation))
        return True

    def create(self, new: NewSession) -> Created:
        ledger, limits = self.ledger, self._limits
        row, now = self.find(new.id), self._clock.now()
        if row is not None and now < self.accessed(row) + row.ttl:
            self._touched(row, now)
            is_new = new.token != 0 and row.token == new.token
            ended = self.replaced(row) if is_new else ()
            return Created(self.session(row, now, now), is_new, ended, ledger.live)
        memory = text_bytes(new.id)
        if new.metadata:
            memory += sum(text_bytes(key) + text_bytes(value) for key, value in new.metadata.items())
        if memory > limits.max_session_bytes:
            raise InvalidSession(
                f"session {new.id!r} would hold {memory} bytes of metadata; "
                f"max_session_bytes is {limits.max_session_bytes}"
            )
        going: dict[int, EndedRow] = {}
        if row is not None:
            going[row.incarnation] = ended_row(row, self.accessed(row))
        if new.owner is not None and limits.max_sessions_per_owner != inf:
            going |= self._in_the_way(new.owner, now)
        weight = base_of(new, memory) + memory
        self._reserve(weight)
        overflow: dict[int, EndedRow] = {}
        if ledger.live - len(going) >= limits.max_sessions:
            self.settle()
            going |= self._rows(_DUE, (now, _SWEEP_AT_QUOTA))
            over = int(ledger.live - len(going) - limits.max_sessions) + 1
            if over > 0:
                if limits.overflow is Overflow.REJECT:
                    ledger.rejected += 1
                    raise SessionQuotaExceeded(limits.max_sessions)
                oldest = self._rows(_OLDEST, (new.id, over + len(going)))
                overflow = dict([one for one in oldest.items() if one[0] not in going][:over])
        ended = self._end(going.values(), EndReason.TTL, now) if going else []
        if overflow:
            ended += self._end(overflow.values(), EndReason.OVERFLOW, now)
        return Created(self._insert(new, now, memory, weight, ended), True, ended, ledger.live)

    def _insert(self, new: NewSession, now: float, memory: int, weight: int, ended: Sequence[Ended]) -> Session:
        ledger = self.ledger
        ledger.created += 1
        ledger.live += 1
        ledger.memory += memory
        ledger.weight += weight
        incarnation, created_at, extras = ledger.created, self._clock.wall(), 0
        metadata = orjson.dumps({**new.metadata}) if new.metadata else None
        if metadata is not None and len(metadata) > SMALL_METADATA:
            self._execute("INSERT INTO large_metadata VALUES (?, ?)", (incarnation, metadata))
            metadata, extras = None, LARGE_METADATA
        if ended and new.token:
            self._execute("INSERT INTO replaced VALUES (?, ?, ?)", (incarnation, now, packed(ended)))
            self._execute(_FORGET_REPLACED, (now - _REPLACED_S,))
            extras |= REPLACED
        use, creator = self._touches.next_use(now), origin_columns(new.origin)
        row = (incarnation, new.id, new.ttl, now, now, use, now + new.ttl, created_at, memory, weight, extras)
        self._execute(_INSERT, (*row, new.token, new.owner, *creator, metadata))
        origin = new.origin if any(column is not None for column in creator) else None
        return Session(
            new.id,
            new.ttl,
            created_at,
            created_at,
            new.metadata,
            new.owner,
            memory_bytes=memory,
            origin=origin,
            incarnation=incarnation,
        )

    def write(
        self,
        session_id: str,
        changes: Mapping[str, bytes | None],
        if_version: int | None,
        if_versions: Mapping[str, int] | None,
        token: int,
    ) -> int:
        row, _, now = self.live(session_id)
        try:
            return self._write(row, now, changes, if_version, if_versions, token)
        except (StateConflict, StateRefused, SessionStoreFull):
            self._touched(row, now)
            raise

    def _write(
        self,
        row: Row,
        now: float,
        changes: Mapping[str, bytes | None],
        if_version: int | None,
        if_versions: Mapping[str, int] | None,
        token: int,
    ) -> int:
        ledger, limits = self.ledger, self._limits
        if token and row.write_token == token:
            self._touched(row, now)
            return int(row.version)
        if if_version is not None and row.version != if_version:
            raise StateConflict(row.id, "the state", if_version, row.version)
        concerned = {*changes, *(if_versions or ())}
        before = {key: self._execute(_ENTRY, (row.incarnation, key)).fetchone() for key in concerned}
        for key, expected in (if_versions or {}).items():
            current = before[key][1] if before[key] else 0
            if current != expected:
                raise StateConflict(row.id, f"state[{key!r}]", expected, current)
        growth = more = 0
        for key, raw in changes.items():
            entry = before[key]
            if raw is not None:
                growth += len(raw) - entry[0] if entry else len(raw) + text_bytes(key)
                more += not entry
            elif entry:
                growth -= entry[0] + text_bytes(key)
                more -= 1
        if growth > 0 and row.memory + growth > limits.max_session_bytes:
            raise StateRefused(
                f"writing {', '.join(sorted(changes))[:200]} would take session {row.id!r} to "
                f"{row.memory + growth} bytes; max_session_bytes is {limits.max_session_bytes}"
            )
        keys = row.keys + more
        if more > 0 and keys > (most := limits.max_session_keys):
            raise StateRefused(f"session {row.id!r} would have {keys} keys; at most {most} are allowed")
        heavier = growth + ENTRY_BYTES * more
        self._reserve(heavier)
        ledger.version += 1
        ledger.memory += growth
        ledger.weight += heavier
        version, incarnation = int(ledger.version), row.incarnation
        for key, raw in changes.items():
            if raw is not None:
                self._execute(_SET, (incarnation, key, version, raw))
            elif before[key]:
                self._execute("DELETE FROM state WHERE incarnation = ? AND key = ?", (incarnation, key))
        memory, weight = row.memory + growth, row.weight + heavier
        use = self._touches.next_use(now)
        self._execute(_WRITE, (now, use, now + row.ttl, version, memory, weight, keys, token, incarnation))
        return version

    def delete(self, session_id: str, owner: str | None, incarnation: int | None) -> Deleted:
        try:
            row, accessed, now = self.live(session_id, incarnation)
        except SessionNotFound:
            return Deleted(None, self.ledger.live)
        if owner is not None and row.owner != owner:
            return Deleted(None, self.ledger.live)
        (ended,) = self._end([ended_row(row, accessed)], EndReason.DELETED, now)
        return Deleted(ended, self.ledger.live)

    def prune(self, limit: int, reported: int) -> Pruned:
        self.ledger.reported += reported
        if limit <= 0:
            return Pruned([], self.ledger.live, False)
        self.settle()
        now, most = self._clock.now(), min(limit, MOST_PRUNED)
        ended = self._end(self._rows(_DUE, (now, most)).values(), EndReason.TTL, now)
        return Pruned(ended, self.ledger.live, len(ended) == most)

    def evict(self, size: int, keep: str) -> Sequence[Ended]:
        self.settle()
        now, goal = self._clock.now(), self.ledger.weight - size
        ended: list[Ended] = []
        while self.ledger.weight > goal and (rows := self._rows(_OLDEST, (keep, _EVICTED_AT_ONCE))):
            for row in rows.values():
                if self.ledger.weight > goal:
                    is_expired = now >= row.accessed + row.ttl
                    ended += self._end([row], EndReason.TTL if is_expired else EndReason.OVERFLOW, now)
        return ended

    def claim(self, reason: WarningReason, count: int, quiet: float, owners: Mapping[str, int]) -> Claim:
        now = self._clock.now()
        kept = self._execute("SELECT count, quiet_until, owners FROM warning WHERE reason = ?", (reason,)).fetchone()
        pending, quiet_until, texts = kept or (0, -inf, "{}")
        refused = Counter(json.loads(texts))
        pending += count
        for owner, number in owners.items():
            if owner in refused or len(refused) < MOST_OWNERS:
                refused[owner] += number
        claim = Claim(0, {}, max(0.0, quiet_until - now))
        if pending and now >= quiet_until:
            claim = Claim(pending, refused, quiet)
            pending, quiet_until, refused = 0, now + quiet, Counter()
        self._execute("REPLACE INTO warning VALUES (?, ?, ?, ?)", (reason, pending, quiet_until, json.dumps(refused)))
        return claim

    def _rows(self, select: str, arguments: tuple[object, ...]) -> dict[int, EndedRow]:
        return {row[0]: EndedRow._make(row) for row in self._execute(select, arguments).fetchall()}

    def _in_the_way(self, owner: str, now: float) -> dict[int, EndedRow]:
        """Return the expired sessions of an owner at its quota; raise `OwnerQuotaExceeded` if there are none."""
        quota, ledger = self._limits.max_sessions_per_owner, self.ledger
        count = "SELECT count(*) FROM (SELECT 1 FROM session WHERE owner = ? LIMIT ?)"
        if self._execute(count, (owner, int(quota))).fetchone()[0] < quota:
            return {}
        self.settle()
        if not (expired := self._rows(_DUE_OF_OWNER, (owner, now))):
            ledger.rejected += 1
            ledger.rejected_per_owner += 1
            raise OwnerQuotaExceeded(quota, owner)
        return expired

    def _reserve(self, more: int) -> None:
        missing = self.ledger.weight + more - self._limits.max_total_bytes
        if more > 0 and missing > 0:
            raise SessionStoreFull(missing, self._limits.max_total_bytes)

    def _end(self, rows: Iterable[EndedRow], reason: EndReason, now: float) -> list[Ended]:
        """Remove sessions, and count them."""
        ledger = self.ledger
        going, with_state, with_metadata, with_replaced = [], [], [], []
        ended = []
        for row in rows:
            going.append(row.incarnation)
            if row.keys:
                with_state.append(row.incarnation)
            if row.extras & LARGE_METADATA:
                with_metadata.append(row.incarnation)
            if row.extras & REPLACED:
                with_replaced.append(row.incarnation)
            ledger.memory -= row.memory
            ledger.weight -= row.weight
            ended.append(ended_of(row, reason, now))
        tables = zip(_DELETES, (going, with_state, with_metadata, with_replaced), strict=True)
        for (delete_one, delete_some), incarnations in tables:
            if len(incarnations) == 1:
                self._execute(delete_one, incarnations)
            elif incarnations:
                self._execute(delete_some, (json.dumps(incarnations),))
        ledger.live -= len(ended)
        if reason is EndReason.DELETED:
            ledger.deleted += len(ended)
        elif reason is EndReason.TTL:
            ledger.pruned_ttl += len(ended)
        else:
            ledger.pruned_overflow += len(ended)
        return ended
