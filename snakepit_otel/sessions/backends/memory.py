"""Session backend in the memory of one process, for one event loop."""

from __future__ import annotations

import asyncio
import heapq
import secrets
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from math import inf

from snakepit_otel.common.byte_charge import ByteCharge
from snakepit_otel.common.clock import Clock, SystemClock
from snakepit_otel.errors import (
    InvalidSession,
    OwnerQuotaExceeded,
    SessionNotFound,
    SessionQuotaExceeded,
    SessionStoreFull,
    StateConflict,
    StateRefused,
)
from snakepit_otel.sessions._attribution import CreatorReport, CreatorTally
from snakepit_otel.sessions._quota import Limits, Overflow
from snakepit_otel.sessions._session import Session
from snakepit_otel.sessions.backends.base import (
    Claim,
    Created,
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
from snakepit_otel.sessions.backends.memory_records import (
    ENTRY_BYTES,
    OwnerSessions,
    PendingWarning,
    Record,
    Replacements,
    base_of,
    new_entry,
    new_view,
    text_bytes,
    weight_of,
)

_BATCH = 1_000


class MemoryBackend:
    """The default backend: nothing outlives the process.

    All sessions are kept in order of last access, for eviction. Those of one TTL are kept in that order
    as well, which for them is the order of expiry; a heap holds, for each TTL in use, a time before
    which nothing of that TTL expires. So touching is constant, and pruning costs what it removes.

    Under a quota of owners, those of each owner are kept by themselves, too.

    No method suspends, which makes each atomic on its event loop. It is not safe for threads.
    """

    is_lasting = False

    def __init__(self, limits: Limits | None = None, clock: Clock | None = None) -> None:
        self.limits = limits or Limits()
        self.name = f"memory-{secrets.token_hex(4)}"
        clock = clock or SystemClock()
        self._now, self._wall = clock.monotonic, clock.time
        self._quota, self._budget = self.limits.max_sessions, self.limits.max_session_bytes
        self._recent: OrderedDict[str, Record] = OrderedDict()
        self._by_ttl: dict[float, OrderedDict[str, Record]] = {}
        self._due: list[tuple[float, float]] = []
        self._version = self._weight = 0
        self._replaced = Replacements()
        self._by_owner: dict[str, OwnerSessions] | None = None if self.limits.max_sessions_per_owner == inf else {}
        self._created = self._deleted = self._ttl = self._overflow = self._memory = 0
        self._rejected = self._rejected_per_owner = self._reported = 0
        self._warnings = {reason: PendingWarning() for reason in WarningReason}

    async def open(self) -> None:
        """Do nothing: there is nothing to connect to."""

    async def close(self) -> None:
        """Do nothing: sessions stay for the next start."""

    async def create(self, new: NewSession) -> Created:
        """Create a session or return the live one; see the contract."""
        now = self._now()
        ended: list[Ended] = []
        record = self._recent.get(new.id)
        if record is not None and now < record.accessed + record.ttl:
            self._touch(new.id, record, now)
            is_new = new.token != 0 and record.token == new.token
            return Created(record.snapshot(now), is_new, self._replaced.of(new.token), len(self._recent))
        memory = text_bytes(new.id)
        if new.metadata:
            memory += sum(text_bytes(key) + text_bytes(value) for key, value in new.metadata.items())
        if memory > self._budget:
            raise InvalidSession(
                f"session {new.id!r} would hold {memory} bytes of metadata; max_session_bytes is {self._budget}"
            )
        in_the_way = () if self._by_owner is None or new.owner is None else self._in_the_way(new.owner, now)
        base = base_of(new, memory)
        # Before another session ends for it: its end would be lost with an error here.
        self._reserve(base + memory, new.charge, base + memory)
        if record is not None:
            ended.append(self._end(new.id, record, EndReason.TTL, now))
        ended += [
            self._end(session_id, expired, EndReason.TTL, now)
            for session_id, expired in in_the_way
            if expired is not record
        ]
        if len(self._recent) >= self._quota:
            ended += self._prune(now, _BATCH)
            while len(self._recent) >= self._quota:
                if self.limits.overflow is Overflow.REJECT:
                    self._rejected += 1
                    if new.charge is not None:
                        new.charge.release()
                    raise SessionQuotaExceeded(self._quota)
                oldest, record = next(iter(self._recent.items()))
                ended.append(self._end(oldest, record, EndReason.OVERFLOW, now))
        self._created += 1
        record = Record(new, now, self._wall(), memory, base, self._created)
        self._weight += base + memory
        self._recent[new.id] = record
        peers = self._by_ttl.get(new.ttl)
        if peers is None:
            peers = self._by_ttl[new.ttl] = OrderedDict()
            heapq.heappush(self._due, (now + new.ttl, new.ttl))
        peers[new.id] = record
        if self._by_owner is not None and new.owner is not None:
            self._by_owner.setdefault(new.owner, OwnerSessions()).add(record)
        self._memory += memory
        if ended:
            self._replaced.add(new.token, ended)
        return Created(record.snapshot(now), True, ended, len(self._recent))

    async def get(self, session_id: str, *, touch: bool = True, incarnation: int | None = None) -> Session:
        """Return the session; see the contract."""
        record = self._live(session_id, touch=touch, incarnation=incarnation)
        return record.snapshot(record.accessed if touch else self._now())

    async def read(self, session_id: str, *, touch: bool = True) -> StateView:
        """Return the session's state; see the contract."""
        record = self._live(session_id, touch=touch)
        return new_view((record.version, record.state))

    async def write(
        self,
        session_id: str,
        changes: Mapping[str, bytes | None],
        *,
        if_version: int | None = None,
        if_versions: Mapping[str, int] | None = None,
        token: int = 0,
    ) -> int:
        """Write state all or nothing; see the contract."""
        record = self._live(session_id)
        if token and record.write_token == token:
            return record.version
        if if_version is not None and record.version != if_version:
            raise StateConflict(session_id, "the state", if_version, record.version)
        if if_versions:
            for key, expected in if_versions.items():
                entry = record.state.get(key)
                current = entry.version if entry else 0
                if current != expected:
                    raise StateConflict(session_id, f"state[{key!r}]", expected, current)
        version = self._apply(record, changes)
        record.write_token = token
        return version

    async def update(self, session_id: str, change: Callable[[Mapping[str, Entry]], Mapping[str, bytes | None]]) -> int:
        """Write what `change` makes of the state; see the contract."""
        record = self._live(session_id)
        changes = change(record.state)
        if not changes:
            return record.version
        record.write_token = 0
        return self._apply(record, changes)

    def _apply(self, record: Record, changes: Mapping[str, bytes | None]) -> int:
        version = self._version + 1
        # A copy, put in place only when all of it is fine: views handed out before stay as they were.
        state = dict(record.state)
        growth = 0
        for key, raw in changes.items():
            before = state.get(key)
            if raw is not None:
                state[key] = new_entry((raw, version))
                growth += len(raw) - len(before.raw) if before else len(raw) + text_bytes(key)
            elif before:
                del state[key]
                growth -= len(before.raw) + text_bytes(key)
        if growth > 0 and record.memory + growth > self._budget:
            raise StateRefused(
                f"writing {', '.join(sorted(changes))[:200]} would take session {record.id!r} to "
                f"{record.memory + growth} bytes; max_session_bytes is {self._budget}"
            )
        more = len(state) - len(record.state)
        if more > 0 and len(state) > (most := self.limits.max_session_keys):
            raise StateRefused(f"session {record.id!r} would have {len(state)} keys; at most {most} are allowed")
        heavier = growth + ENTRY_BYTES * more
        self._reserve(heavier, record.charge, weight_of(record) + heavier)
        record.state = state
        record.version = self._version = version
        record.memory += growth
        self._memory += growth
        self._weight += heavier
        return version

    def _reserve(self, more: int, charge: ByteCharge | None, size: int) -> None:
        """Raise unless `more` bytes are free, and charge the session with `size` bytes."""
        missing = self._weight + more - self.limits.max_total_bytes
        if more > 0 and missing > 0:
            raise SessionStoreFull(missing, self.limits.max_total_bytes)
        if charge is not None:
            charge.resize(size)

    async def assign_worker(self, session_id: str, worker_id: str) -> None:
        """Remember the session's last worker."""
        record = self._recent.get(session_id)
        if record is not None:
            record.worker = worker_id

    async def delete(self, session_id: str, *, owner: str | None = None, incarnation: int | None = None) -> Deleted:
        """Delete the session; one that has expired is not there, and left to the sweep."""
        record = self._recent.get(session_id)
        now = self._now()
        ended = None
        if (
            record is not None
            and now < record.accessed + record.ttl
            and (owner is None or record.owner == owner)
            and (incarnation is None or record.incarnation == incarnation)
        ):
            ended = self._end(session_id, record, EndReason.DELETED, now)
        return Deleted(ended, len(self._recent))

    async def prune(self, limit: int, *, reported: int = 0) -> Pruned:
        """Remove expired sessions; see the contract."""
        self._reported += reported
        ended = self._prune(self._now(), limit)
        return Pruned(ended, len(self._recent), 0 < limit == len(ended))

    async def evict(self, size: int, keep: str) -> Sequence[Ended]:
        """Remove the least recently used sessions; see the contract."""
        now, goal = self._now(), self._weight - size
        ended: list[Ended] = []
        while self._weight > goal:
            going = next((one for one in self._recent.items() if one[0] != keep), None)
            if going is None:
                break
            expired = now >= going[1].accessed + going[1].ttl
            ended.append(self._end(*going, EndReason.TTL if expired else EndReason.OVERFLOW, now))
        return ended

    async def page(self, after: str | None, limit: int, *, owner: str | None = None) -> Sequence[Session]:
        """Return live sessions in order of id."""
        now = self._now()
        ids = (
            session_id
            for session_id, record in self._recent.items()
            if (after is None or session_id > after)
            and (owner is None or record.owner == owner)
            and now < record.accessed + record.ttl
        )
        return [self._recent[session_id].snapshot(now) for session_id in heapq.nsmallest(limit, ids)]

    async def scan(self, *, owner: str | None = None) -> AsyncGenerator[Sequence[Session], None]:
        """Yield the live sessions in batches; see the contract."""
        records = [record for record in self._recent.values() if owner is None or record.owner == owner]
        for begin in range(0, len(records), _BATCH):
            now = self._now()
            yield [
                record.snapshot(now)
                for record in records[begin : begin + _BATCH]
                if self._recent.get(record.id) is record and now < record.accessed + record.ttl
            ]

    async def suspects(self, most: int = 5, *, owner: str | None = None) -> CreatorReport:
        """Return the creators with most sessions; see the contract."""
        tally, records = CreatorTally(owner), list(self._recent.values())
        for begin in range(0, len(records), _BATCH):
            now = self._now()
            for record in records[begin : begin + _BATCH]:
                tally.add(record.origin, record.owner, now - record.began)
            if begin + _BATCH < len(records):
                await asyncio.sleep(0)
        return tally.report(most)

    async def claim(self, reason: WarningReason, count: int, quiet: float, owners: Mapping[str, int]) -> Claim:
        """Claim to warn; see the contract."""
        now, pending = self._now(), self._warnings[reason]
        pending.add(count, owners)
        if not pending.count or now < pending.quiet_until:
            return Claim(0, {}, max(0.0, pending.quiet_until - now))
        claim = Claim(pending.count, pending.owners, quiet)
        self._warnings[reason] = PendingWarning(now + quiet)
        return claim

    async def stats(self) -> Stats:
        """Return the ledger."""
        return self.last_stats

    @property
    def last_stats(self) -> Stats:
        """The ledger as it stands."""
        return Stats(
            self._created,
            self._deleted,
            self._ttl,
            self._overflow,
            self._rejected,
            len(self._recent),
            self._memory,
            self._rejected_per_owner,
            self._reported,
        )

    def _in_the_way(self, owner: str, now: float) -> Sequence[tuple[str, Record]]:
        """Return the expired sessions of an owner at its quota; raise `OwnerQuotaExceeded` if there are none."""
        owned, quota = (self._by_owner or {}).get(owner), self.limits.max_sessions_per_owner
        if owned is None or len(owned.records) < quota:
            return []
        if not (expired := owned.expired(now)):
            self._rejected += 1
            self._rejected_per_owner += 1
            raise OwnerQuotaExceeded(quota, owner)
        return expired

    def _live(self, session_id: str, *, touch: bool = True, incarnation: int | None = None) -> Record:
        record = self._recent.get(session_id)
        if record is None or (incarnation is not None and record.incarnation != incarnation):
            raise SessionNotFound(session_id)
        now = self._now()
        if now >= record.accessed + record.ttl:
            raise SessionNotFound(session_id)
        if touch:
            self._touch(session_id, record, now)
        return record

    def _touch(self, session_id: str, record: Record, now: float) -> None:
        record.accessed = now
        self._recent.move_to_end(session_id)
        self._by_ttl[record.ttl].move_to_end(session_id)

    def _end(self, session_id: str, record: Record, reason: EndReason, now: float) -> Ended:
        del self._recent[session_id]
        peers = self._by_ttl[record.ttl]
        del peers[session_id]
        if not peers:
            del self._by_ttl[record.ttl]
            # What the heap still holds for TTLs no longer in use must not grow without bound.
            if len(self._due) > 2 * len(self._by_ttl) + 64:
                self._due = [(next(iter(group.values())).accessed + ttl, ttl) for ttl, group in self._by_ttl.items()]
                heapq.heapify(self._due)
        if self._by_owner is not None and record.owner is not None:
            owned = self._by_owner[record.owner]
            del owned.records[session_id]
            if not owned.records:
                del self._by_owner[record.owner]
        self._memory -= record.memory
        self._weight -= weight_of(record)
        if record.charge is not None:
            record.charge.release()
        if reason is EndReason.DELETED:
            self._deleted += 1
        elif reason is EndReason.TTL:
            self._ttl += 1
        else:
            self._overflow += 1
        # One whose TTL has passed ended then, not when somebody noticed.
        end = record.accessed + record.ttl if reason is EndReason.TTL else now
        return Ended(session_id, reason, end - record.began, record.origin, record.incarnation)

    def _prune(self, now: float, limit: int) -> list[Ended]:
        ended: list[Ended] = []
        while self._due and self._due[0][0] <= now and len(ended) < limit:
            _, ttl = heapq.heappop(self._due)
            while len(ended) < limit:
                peers = self._by_ttl.get(ttl)
                if not peers:
                    break
                session_id, record = next(iter(peers.items()))
                expiry = record.accessed + ttl
                if now < expiry:
                    heapq.heappush(self._due, (expiry, ttl))
                    break
                ended.append(self._end(session_id, record, EndReason.TTL, now))
            else:
                if ttl in self._by_ttl:
                    heapq.heappush(self._due, (now, ttl))
        return ended
