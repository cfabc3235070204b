"""Session backend in a dictionary: the contract in few lines, to begin one of your own with.

It is for one process and one event loop, and slower than the one in memory that is built in: it looks at all sessions
where that has an index. No method suspends between its first look and its last change, which makes each atomic; over
a server, one script, transaction or stored procedure for each method does.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields

from snakepit_otel.errors import (
    ConfigurationError,
    InvalidSession,
    OwnerQuotaExceeded,
    SessionNotFound,
    SessionQuotaExceeded,
    SessionStoreFull,
    StateConflict,
    StateRefused,
)
from snakepit_otel.sessions import Limits, Overflow, Session
from snakepit_otel.sessions.backends import (
    MOST_OWNERS,
    Claim,
    Clock,
    Created,
    CreatorReport,
    CreatorTally,
    Deleted,
    Ended,
    EndReason,
    Entry,
    NewSession,
    Pruned,
    StateView,
    Stats,
    WarningReason,
)

Changes = Mapping[str, bytes | None]


@dataclass
class Kept:
    """One session as it is kept; `replaced` are the sessions that its create ended."""

    new: NewSession
    incarnation: int
    began: float
    accessed: float
    created_at: float
    replaced: Sequence[Ended]
    version: int = 0
    state: dict[str, Entry] = field(default_factory=dict)
    worker: str | None = None
    write_token: int = 0

    def is_expired(self, now: float) -> bool:
        return now >= self.accessed + self.new.ttl

    def memory(self) -> int:
        """The bytes of id, metadata and state."""
        texts = (self.new.id, *self.new.metadata, *self.new.metadata.values(), *self.state)
        return sum(len(text.encode()) for text in texts) + sum(len(entry.raw) for entry in self.state.values())

    def size(self) -> int:
        """About what it takes to keep the session, for `max_total_bytes`."""
        return 1_000 + 500 * len(self.state) + self.memory()


class Store:
    """What several backends share: sessions, the least recently used first, counts, and pending warnings."""

    def __init__(self, limits: Limits, clock: Clock) -> None:
        self.limits = limits
        self.clock = clock
        self.name = f"dict-{secrets.token_hex(4)}"
        self.sessions: dict[str, Kept] = {}
        self.counts: Counter[str] = Counter()
        self.version = 0
        self.pending: dict[WarningReason, Counter[str]] = {reason: Counter() for reason in WarningReason}
        self.occurrences: Counter[WarningReason] = Counter()
        self.quiet_until: dict[WarningReason, float] = {}


class DictBackend:
    """One authority's way to a store."""

    is_lasting = False

    def __init__(self, limits: Limits, *, store: Store | None = None, clock: Clock = time) -> None:
        self.limits = limits
        self.store = store or Store(limits, clock)
        self.name = self.store.name

    @property
    def last_stats(self) -> Stats:
        counts, sessions = self.store.counts, self.store.sessions
        memory = sum(kept.memory() for kept in sessions.values())
        return Stats(**counts, live=len(sessions), memory_bytes=memory)

    async def open(self) -> None:
        for setting in (one.name for one in fields(Limits)):
            ours, agreed = getattr(self.limits, setting), getattr(self.store.limits, setting)
            if ours != agreed:
                raise ConfigurationError(f"session_store.{setting} is {ours}, and {agreed} for the others of the store")

    async def close(self) -> None:
        """Sessions stay for the next start."""

    async def create(self, new: NewSession) -> Created:
        store, now = self.store, self.store.clock.monotonic()
        before = store.sessions.get(new.id)
        if before is not None and not before.is_expired(now):
            self._touch(before)
            is_new = new.token != 0 and before.new.token == new.token
            return Created(self._snapshot(before), is_new, before.replaced if is_new else (), len(store.sessions))
        kept = Kept(new, store.counts["created"] + 1, now, now, store.clock.time(), [])
        if kept.memory() > self.limits.max_session_bytes:
            raise InvalidSession(f"session {new.id!r} would hold {kept.memory()} bytes")
        gone = self._of_owner_at_quota(new.owner, now)
        self._reserve(kept, kept.size())
        gone |= {new.id} & store.sessions.keys()
        kept.replaced = ended = [self._end(session_id, EndReason.TTL) for session_id in gone]
        if len(store.sessions) >= self.limits.max_sessions:
            ended += self._prune(1_000)
        while len(store.sessions) >= self.limits.max_sessions:
            if self.limits.overflow is Overflow.REJECT:
                store.counts["rejected"] += 1
                if new.charge is not None:
                    new.charge.release()
                raise SessionQuotaExceeded(self.limits.max_sessions)
            ended.append(self._end(next(iter(store.sessions)), EndReason.OVERFLOW))
        store.counts["created"] += 1
        store.sessions[new.id] = kept
        return Created(self._snapshot(kept), True, ended, len(store.sessions))

    async def get(self, session_id: str, *, touch: bool = True, incarnation: int | None = None) -> Session:
        return self._snapshot(self._live(session_id, touch=touch, incarnation=incarnation))

    async def read(self, session_id: str, *, touch: bool = True) -> StateView:
        kept = self._live(session_id, touch=touch)
        return StateView(kept.version, kept.state)

    async def write(
        self,
        session_id: str,
        changes: Changes,
        *,
        if_version: int | None = None,
        if_versions: Mapping[str, int] | None = None,
        token: int = 0,
    ) -> int:
        kept = self._live(session_id)
        if token and kept.write_token == token:
            return kept.version
        if if_version is not None and kept.version != if_version:
            raise StateConflict(session_id, "the state", if_version, kept.version)
        for key, expected in (if_versions or {}).items():
            current = kept.state[key].version if key in kept.state else 0
            if current != expected:
                raise StateConflict(session_id, f"state[{key!r}]", expected, current)
        self._apply(kept, changes)
        kept.write_token = token
        return kept.version

    async def update(self, session_id: str, change: Callable[[Mapping[str, Entry]], Changes]) -> int:
        kept = self._live(session_id)
        if changes := change(kept.state):
            self._apply(kept, changes)
            kept.write_token = 0
        return kept.version

    async def assign_worker(self, session_id: str, worker_id: str) -> None:
        if session_id in self.store.sessions:
            self.store.sessions[session_id].worker = worker_id

    async def delete(self, session_id: str, *, owner: str | None = None, incarnation: int | None = None) -> Deleted:
        try:
            kept = self._live(session_id, touch=False, incarnation=incarnation)
        except SessionNotFound:
            return Deleted(None, len(self.store.sessions))
        is_theirs = owner is None or kept.new.owner == owner
        ended = self._end(session_id, EndReason.DELETED) if is_theirs else None
        return Deleted(ended, len(self.store.sessions))

    async def prune(self, limit: int, *, reported: int = 0) -> Pruned:
        self.store.counts["reported"] += reported
        ended = self._prune(limit)
        return Pruned(ended, len(self.store.sessions), 0 < limit == len(ended))

    async def evict(self, size: int, keep: str) -> Sequence[Ended]:
        ended: list[Ended] = []
        for session_id, kept in list(self.store.sessions.items()):
            if size > 0 and session_id != keep:
                size -= kept.size()
                expired = kept.is_expired(self.store.clock.monotonic())
                ended.append(self._end(session_id, EndReason.TTL if expired else EndReason.OVERFLOW))
        return ended

    async def page(self, after: str | None, limit: int, *, owner: str | None = None) -> Sequence[Session]:
        sessions = sorted(self._listed(owner), key=lambda session: session.id)
        return [session for session in sessions if after is None or session.id > after][:limit]

    async def scan(self, *, owner: str | None = None) -> AsyncGenerator[Sequence[Session], None]:
        after: str | None = None
        while batch := await self.page(after, 100, owner=owner):
            yield batch
            after = batch[-1].id
            await asyncio.sleep(0)

    async def suspects(self, most: int = 5, *, owner: str | None = None) -> CreatorReport:
        tally, now = CreatorTally(owner), self.store.clock.monotonic()
        for kept in self.store.sessions.values():
            tally.add(kept.new.origin, kept.new.owner, now - kept.began)
        return tally.report(most)

    async def claim(self, reason: WarningReason, count: int, quiet: float, owners: Mapping[str, int]) -> Claim:
        store, now = self.store, self.store.clock.monotonic()
        pending = store.pending[reason]
        store.occurrences[reason] += count
        for owner, refused in owners.items():
            if owner in pending or len(pending) < MOST_OWNERS:
                pending[owner] += refused
        early = store.quiet_until.get(reason, now) - now
        if early > 0 or not store.occurrences[reason]:
            return Claim(0, {}, max(0.0, early))
        store.quiet_until[reason] = now + quiet
        store.pending[reason] = Counter()
        return Claim(store.occurrences.pop(reason), pending, quiet)

    async def stats(self) -> Stats:
        return self.last_stats

    def _live(self, session_id: str, *, touch: bool = True, incarnation: int | None = None) -> Kept:
        kept = self.store.sessions.get(session_id)
        if (
            kept is None
            or kept.is_expired(self.store.clock.monotonic())
            or (incarnation is not None and kept.incarnation != incarnation)
        ):
            raise SessionNotFound(session_id)
        if touch:
            self._touch(kept)
        return kept

    def _touch(self, kept: Kept) -> None:
        kept.accessed = self.store.clock.monotonic()
        self.store.sessions[kept.new.id] = self.store.sessions.pop(kept.new.id)

    def _snapshot(self, kept: Kept) -> Session:
        return Session(
            kept.new.id,
            kept.new.ttl,
            kept.created_at,
            kept.created_at + kept.accessed - kept.began,
            kept.new.metadata,
            kept.new.owner,
            kept.worker,
            kept.version,
            kept.memory(),
            kept.new.origin,
            kept.incarnation,
            self.store.clock.monotonic() - kept.accessed,
        )

    def _listed(self, owner: str | None) -> list[Session]:
        now = self.store.clock.monotonic()
        return [
            self._snapshot(kept)
            for kept in self.store.sessions.values()
            if not kept.is_expired(now) and (owner is None or kept.new.owner == owner)
        ]

    def _of_owner_at_quota(self, owner: str | None, now: float) -> set[str]:
        """Return the expired sessions of an owner at its quota, which have to go; raise if there are none."""
        owned = [kept for kept in self.store.sessions.values() if owner is not None and kept.new.owner == owner]
        if owner is None or len(owned) < self.limits.max_sessions_per_owner:
            return set()
        expired = {kept.new.id for kept in owned if kept.is_expired(now)}
        if not expired:
            self.store.counts.update(("rejected", "rejected_per_owner"))
            raise OwnerQuotaExceeded(self.limits.max_sessions_per_owner, owner)
        return expired

    def _prune(self, limit: int) -> list[Ended]:
        now = self.store.clock.monotonic()
        expired = [session_id for session_id, kept in self.store.sessions.items() if kept.is_expired(now)]
        return [self._end(session_id, EndReason.TTL) for session_id in expired[:limit]]

    def _end(self, session_id: str, reason: EndReason) -> Ended:
        kept = self.store.sessions.pop(session_id)
        if kept.new.charge is not None:
            kept.new.charge.release()
        self.store.counts["deleted" if reason is EndReason.DELETED else f"pruned_{reason.value}"] += 1
        is_expired = reason is EndReason.TTL
        end = kept.accessed + kept.new.ttl if is_expired else self.store.clock.monotonic()
        return Ended(session_id, reason, end - kept.began, kept.new.origin, kept.incarnation)

    def _apply(self, kept: Kept, changes: Changes) -> None:
        """Write all changes, or none where one of them goes over a limit."""
        version = self.store.version + 1
        before = kept.state, kept.memory(), kept.size()
        written = {key: Entry(raw, version) for key, raw in changes.items() if raw is not None}
        # A new dictionary: views that were read before stay as they were.
        kept.state = {key: entry for key, entry in kept.state.items() if key not in changes} | written
        try:
            if kept.memory() > max(before[1], self.limits.max_session_bytes):
                raise StateRefused(f"session {kept.new.id!r} would hold {kept.memory()} bytes")
            if len(kept.state) > max(len(before[0]), self.limits.max_session_keys):
                raise StateRefused(f"session {kept.new.id!r} would have {len(kept.state)} keys")
            self._reserve(kept, kept.size() - before[2])
        except Exception:
            kept.state = before[0]
            raise
        self.store.version = kept.version = version

    def _reserve(self, kept: Kept, more: int) -> None:
        others = sum(other.size() for other in self.store.sessions.values() if other is not kept)
        missing = others + kept.size() - self.limits.max_total_bytes
        if more > 0 and missing > 0:
            raise SessionStoreFull(missing, self.limits.max_total_bytes)
        if kept.new.charge is not None:
            kept.new.charge.resize(kept.size())
