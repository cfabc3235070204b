"""Model of a session store, simple enough to be right: a list of sessions, scanned from end to end.

Written from the design page, the contract of backends and the documentation of the watchdog. Methods raise
the errors that the store is to raise. What a write's version is, only the store knows: see `numbered`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from snakepit_otel.errors import (
    InvalidSession,
    OwnerQuotaExceeded,
    SessionNotFound,
    SessionQuotaExceeded,
    StateConflict,
    StateRefused,
)
from snakepit_otel.sessions import Overflow, SessionSettings, Stats
from snakepit_otel.testing import FakeClock

REMOVED: Any = object()  # stands for the removal of a key

_UNNUMBERED = -1


def json_text(value: Any) -> str:
    """Return the value as compact JSON."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


@dataclass(frozen=True)
class Pruned:
    """An event of `snakepit.bridge.session.pruned`."""

    reason: str
    count: int
    remaining: int


@dataclass(frozen=True)
class Warned:
    """An event of `snakepit.bridge.session.accumulation_warning`."""

    reason: str
    count: int
    current: int


@dataclass
class ModelSession:
    """One session; `used` is the number of its last use, in the order of all uses."""

    id: str
    ttl: float
    metadata: Mapping[str, str]
    owner: str | None
    began: float
    accessed: float
    used: int
    worker: str | None = None
    version: int = 0
    state: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)

    @property
    def memory(self) -> int:
        """Bytes of id, metadata and state."""
        values = map(json_text, self.state.values())
        texts = (self.id, *self.metadata, *self.metadata.values(), *self.state, *values)
        return sum(len(text.encode()) for text in texts)


class Model:
    """What a store with these settings is to do."""

    def __init__(self, settings: SessionSettings, clock: FakeClock) -> None:
        self.settings = settings
        self.clock = clock
        self.stored: list[ModelSession] = []
        self.counts: Counter[str] = Counter()
        self.events: list[Pruned | Warned] = []
        self.highest_version = 0
        self.refused: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()
        self._uses = 0
        self._occurrences: Counter[str] = Counter()
        self._last_warning: dict[str, float] = {}

    @property
    def now(self) -> float:
        """The time, in seconds."""
        return self.clock.monotonic()

    @property
    def live(self) -> list[ModelSession]:
        """The sessions that exist."""
        return [session for session in self.stored if self.now < session.accessed + session.ttl]

    @property
    def expired(self) -> list[ModelSession]:
        """The sessions that have expired, and are not pruned yet."""
        return [session for session in self.stored if self.now >= session.accessed + session.ttl]

    @property
    def stats(self) -> Stats:
        """The ledger."""
        return Stats(
            self.counts["created"],
            self.counts["deleted"],
            self.counts["ttl"],
            self.counts["overflow"],
            self.counts["rejected"],
            live=len(self.stored),
            memory_bytes=sum(session.memory for session in self.stored),
            rejected_per_owner=self.counts["rejected_per_owner"],
        )

    def find(self, session_id: str, *, touch: bool = True) -> ModelSession:
        """Return the live session with that id. Raises `SessionNotFound`."""
        for session in self.live:
            if session.id == session_id:
                if touch:
                    self._touch(session)
                return session
        raise SessionNotFound(session_id)

    def create(
        self, session_id: str, ttl: float | None, metadata: Mapping[str, str], owner: str | None
    ) -> ModelSession:
        """Create a session, or touch the live one."""
        if any(session.id == session_id for session in self.live):
            return self.find(session_id)
        ttl = self.settings.default_ttl if ttl is None else ttl
        new = ModelSession(session_id, ttl, metadata, owner, self.now, self.now, 0)
        if new.memory > self.settings.max_session_bytes:
            raise InvalidSession("too large")
        owned = [session for session in self.stored if owner is not None and session.owner == owner]
        in_the_way: list[ModelSession] = []
        if len(owned) >= (owner_quota := self.settings.max_sessions_per_owner):
            in_the_way = [session for session in owned if session in self.expired]
            if not in_the_way:
                self.counts["rejected"] += 1
                self.counts["rejected_per_owner"] += 1
                self._refused[owner or ""] += 1
                self._warn("owner_quota_exceeded")
                raise OwnerQuotaExceeded(owner_quota, owner or "")
        quota = self.settings.max_sessions
        gone = Counter(ttl=self._remove("ttl", [session for session in self.stored if session.id == session_id]))
        gone["ttl"] += self._remove("ttl", [session for session in in_the_way if session in self.stored])
        if len(self.stored) >= quota:
            gone["ttl"] += self._remove("ttl", self.expired)
        if len(self.stored) >= quota:
            if self.settings.overflow is Overflow.REJECT:
                self.counts["rejected"] += 1
                self._warn("quota_exceeded")
                raise SessionQuotaExceeded(quota)
            oldest = min(self.stored, key=lambda session: session.used)
            gone["overflow"] = self._remove("overflow", [oldest])
        self._pruned(gone)
        self.stored.append(new)
        self.counts["created"] += 1
        self._touch(new)
        if self._crossed(len(self.stored)):
            self._pruned({"ttl": self._remove("ttl", self.expired)})
        if reason := self._crossed(len(self.stored)):
            self._warn(reason)
        return new

    def _crossed(self, live: int) -> str:
        """Return the reason for which a new session that makes this count is warned of, if it is."""
        if live == self.settings.max_sessions:
            return "quota_exceeded"
        return "threshold_warning" if self._too_many(live) and not self._too_many(live - 1) else ""

    def delete(self, session_id: str) -> bool:
        """Delete the session, and return whether there was one."""
        return self._remove("deleted", [session for session in self.live if session.id == session_id]) > 0

    def delete_owned(self, owner: str, *, dry_run: bool) -> int:
        """Delete the sessions of an owner, or only count them, and return how many."""
        owned = [session for session in self.live if session.owner == owner]
        return len(owned) if dry_run else self._remove("deleted", owned)

    def grouped(self) -> dict[str | None, tuple[int, int, float]]:
        """Return number, bytes and the age of the oldest of the live sessions, by owner."""
        owners = {session.owner for session in self.live}
        return {
            owner: (
                len(owned := [session for session in self.live if session.owner == owner]),
                sum(session.memory for session in owned),
                self.now - min(session.began for session in owned),
            )
            for owner in owners
        }

    def write(
        self,
        session_id: str,
        changes: Mapping[str, Any],
        *,
        if_version: int | None = None,
        if_versions: Mapping[str, int] | None = None,
    ) -> ModelSession:
        """Write values by key, all or nothing, and return the session; its version is not set yet."""
        session = self.find(session_id)
        if if_version is not None and session.version != if_version:
            raise StateConflict(session_id, "the state", if_version, session.version)
        for key, expected in (if_versions or {}).items():
            if session.versions.get(key, 0) != expected:
                raise StateConflict(session_id, key, expected, session.versions.get(key, 0))
        before, memory_before = session.state, session.memory
        written = {**before, **changes}
        session.state = {key: value for key, value in written.items() if value is not REMOVED}
        if session.memory > max(memory_before, self.settings.max_session_bytes):
            session.state = before
            raise StateRefused("too large")
        session.versions = {key: session.versions.get(key, 0) for key in session.state}
        session.versions |= {key: _UNNUMBERED for key in changes if key in session.state}
        session.version = _UNNUMBERED
        return session

    def numbered(self, session: ModelSession, version: int) -> None:
        """Take over the version that the store gave to the last write; they never come again."""
        assert version > self.highest_version
        self.highest_version = session.version = version
        for key, known in session.versions.items():
            if known == _UNNUMBERED:
                session.versions[key] = version

    def sweep(self) -> int:
        """Remove what has expired, emit what is due, and return the number removed."""
        count = self._remove("ttl", self.expired)
        self._pruned({"ttl": count})
        if len(self.stored) >= self.settings.max_sessions:
            self._occurrences["quota_exceeded"] += 1
        elif self._too_many(len(self.stored)):
            self._occurrences["threshold_warning"] += 1
        self._emit_due("threshold_warning")
        self._emit_due("quota_exceeded")
        self._emit_due("owner_quota_exceeded")
        return count

    def _touch(self, session: ModelSession) -> None:
        self._uses += 1
        session.used, session.accessed = self._uses, self.now

    def _remove(self, reason: str, sessions: Iterable[ModelSession]) -> int:
        gone = {session.id for session in sessions}
        self.stored = [session for session in self.stored if session.id not in gone]
        self.counts[reason] += len(gone)
        return len(gone)

    def _pruned(self, counts: Mapping[str, int]) -> None:
        self.events += [Pruned(reason, count, len(self.stored)) for reason, count in counts.items() if count]

    def _too_many(self, count: int) -> bool:
        if self.settings.max_sessions == float("inf"):
            return False
        share = Fraction(count, int(self.settings.max_sessions))
        return share >= Fraction(str(self.settings.accumulation_threshold))

    def _warn(self, reason: str) -> None:
        self._occurrences[reason] += 1
        self._emit_due(reason)

    def _emit_due(self, reason: str) -> None:
        interval = self.settings.cleanup_interval / 1000
        if self._occurrences[reason] and self.now >= self._last_warning.get(reason, -interval) + interval:
            live = len(self.stored)
            if reason == "owner_quota_exceeded":
                live = int(self.settings.max_sessions_per_owner)
                self.refused, self._refused = self._refused, Counter()
            self.events.append(Warned(reason, self._occurrences[reason], live))
            self._last_warning[reason] = self.now
            self._occurrences[reason] = 0
