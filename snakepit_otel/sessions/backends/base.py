"""The contract between the session store and whatever keeps the sessions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Protocol

from snakepit_otel.sessions._attribution import Origin
from snakepit_otel.sessions._session import Session


class Overflow(StrEnum):
    """What a create at the quota does once nothing expired is left to sweep."""

    REJECT = "reject"
    EVICT = "evict"


class EndReason(StrEnum):
    """Why a session ended."""

    DELETED = "deleted"
    TTL = "ttl"
    OVERFLOW = "overflow"


class Ended(NamedTuple):
    """A session that ended, why, and how many seconds it had lived."""

    session_id: str
    reason: EndReason
    lifetime: float
    origin: Origin | None


class Entry(NamedTuple):
    """One key of a session's state: its JSON and the version of its last write."""

    raw: bytes
    version: int


class Room(Protocol):
    """Bytes that are reserved for one session, by whoever it is kept for."""

    def resize(self, size: int) -> None:
        """Reserve `size` bytes in place of those before. Raises `BudgetExceeded`, and changes nothing then."""
        ...

    def release(self) -> None:
        """Give all of them back."""
        ...


class NewSession(NamedTuple):
    """What a session is to be created with; all of it checked already."""

    id: str
    ttl: float
    metadata: Mapping[str, str]
    owner: str | None = None
    origin: Origin | None = None
    room: Room | None = None
    """Has what the session takes of this process' memory, for as long as it lives. None for sessions of nobody else."""


class Created(NamedTuple):
    """The outcome of a create: the session, whether it is new, and who had to go for it."""

    session: Session
    new: bool
    ended: Sequence[Ended]
    live: int


class Pruned(NamedTuple):
    """The outcome of a prune: who went, how many remain, and whether more may be due."""

    ended: Sequence[Ended]
    live: int
    more: bool


class Stats(NamedTuple):
    """The ledger: `created - deleted - pruned_ttl - pruned_overflow == live`, always."""

    created: int = 0
    deleted: int = 0
    pruned_ttl: int = 0
    pruned_overflow: int = 0
    rejected: int = 0
    live: int = 0
    memory_bytes: int = 0


@dataclass(frozen=True)
class Limits:
    """What a backend enforces: the quota, what happens at it, and the bytes one session may hold."""

    max_sessions: float = 10_000
    overflow: Overflow = Overflow.REJECT
    max_session_bytes: int = 1 << 20
    max_total_bytes: int = 1 << 30
    """What all sessions take of memory, with what it takes to keep them."""

    @property
    def max_session_keys(self) -> int:
        """How many keys a session's state may have."""
        return max(1_000, self.max_session_bytes // 64)


class StateView(NamedTuple):
    """A session's state at one moment: its version, and its entries by key."""

    version: int
    entries: Mapping[str, Entry]


class Backend(Protocol):
    """Keeps sessions. Every method is one atomic step.

    A session whose `last_accessed + ttl` has passed does not exist for any method, whether it has been
    pruned yet or not. Ids, TTLs, metadata, keys and JSON come checked. Every session that ends is
    reported exactly once, in an `Ended` or as True from `delete`, and counted once in `stats`.
    Versions grow over the whole backend, so that no version of a session comes back after its end.
    """

    limits: Limits

    async def create(self, new: NewSession) -> Created:
        """Create a session, or touch and return the live one with that id unchanged.

        At the quota, expired sessions are pruned first; then the policy decides.
        Raises `SessionQuotaExceeded`; `InvalidSession` if id and metadata exceed the byte budget; and with nothing
        changed, `SessionStoreFull` where all sessions hold too much, or `BudgetExceeded` from the session's `room`.
        """
        ...

    async def get(self, session_id: str, *, touch: bool = True) -> Session:
        """Return the session; `touch` starts its TTL anew. Raises `SessionNotFound`."""
        ...

    async def read(self, session_id: str, *, touch: bool = True) -> StateView:
        """Return the session's state. Raises `SessionNotFound`."""
        ...

    async def write(
        self,
        session_id: str,
        changes: Mapping[str, bytes | None],
        *,
        if_version: int | None = None,
        if_versions: Mapping[str, int] | None = None,
    ) -> int:
        """Write JSON by key (None removes) all or nothing, touch, and return the new version.

        With `if_version` only if the session is at that version; with `if_versions` only if each of
        those keys is, 0 for a key that is not there. Raises `StateConflict`, `StateRefused` over the byte
        budget, `SessionNotFound`; `SessionStoreFull` and `BudgetExceeded` as `create` does.
        """
        ...

    async def update(self, session_id: str, change: Callable[[Mapping[str, Entry]], Mapping[str, bytes | None]]) -> int:
        """Write what `change` makes of the current state, in one atomic step; return the version.

        `change` must have no other effects: a backend may call it again when somebody else wrote
        meanwhile. No changes, no write. Raises what `write` raises, and what `change` raises.
        """
        ...

    async def assign_worker(self, session_id: str, worker_id: str) -> None:
        """Remember the worker that served the session last; no error if it is gone."""
        ...

    async def delete(self, session_id: str) -> Ended | None:
        """Delete the session and say so, or return None if there is none."""
        ...

    async def prune(self, limit: int) -> Pruned:
        """Remove at most `limit` expired sessions, in time proportional to those removed."""
        ...

    async def evict(self, size: int, keep: str) -> Sequence[Ended]:
        """Remove the least recently used sessions, but for `keep`, until they have given back `size` bytes."""
        ...

    async def page(self, after: str | None, limit: int) -> Sequence[Session]:
        """Return up to `limit` live sessions with ids above `after`, in order of id, untouched."""
        ...

    async def stats(self) -> Stats:
        """Return the ledger as it stands, pruning nothing: what ends is reported by `prune`."""
        ...

    def glance(self) -> Stats:
        """Return the ledger as this process last knew it, at once and from any thread."""
        ...
