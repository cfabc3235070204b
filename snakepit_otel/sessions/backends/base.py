"""The contract of session backends, which keep the sessions of a `SessionStore`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple, Protocol

from snakepit_otel.common.byte_charge import ByteCharge
from snakepit_otel.sessions._attribution import Origin
from snakepit_otel.sessions._quota import Limits
from snakepit_otel.sessions._session import Session


class EndReason(StrEnum):
    """The reason for the end of a session."""

    DELETED = "deleted"
    TTL = "ttl"
    OVERFLOW = "overflow"


class Ended(NamedTuple):
    """The end of a session; `lifetime` is in seconds."""

    session_id: str
    reason: EndReason
    lifetime: float
    origin: Origin | None


class Entry(NamedTuple):
    """One key of a session's state: its JSON and the version of its last write."""

    raw: bytes
    version: int


class NewSession(NamedTuple):
    """The checked arguments of a create.

    A backend that keeps the session in this process resizes `charge` with it, and releases it at its end.
    """

    id: str
    ttl: float
    metadata: Mapping[str, str]
    owner: str | None = None
    origin: Origin | None = None
    charge: ByteCharge | None = None


class Created(NamedTuple):
    """The outcome of a create: the session, whether it is new, and the sessions that it replaced."""

    session: Session
    new: bool
    ended: Sequence[Ended]
    live: int


class Pruned(NamedTuple):
    """The outcome of a prune: the sessions that ended, how many remain, and whether more may be due."""

    ended: Sequence[Ended]
    live: int
    more: bool


class Stats(NamedTuple):
    """The ledger: `created - deleted - pruned_ttl - pruned_overflow == live`, always.

    `rejected_per_owner` are those of `rejected` that were refused at `max_sessions_per_owner`.
    """

    created: int = 0
    deleted: int = 0
    pruned_ttl: int = 0
    pruned_overflow: int = 0
    rejected: int = 0
    live: int = 0
    memory_bytes: int = 0
    rejected_per_owner: int = 0


class StateView(NamedTuple):
    """A session's state at one moment: its version, and its entries by key."""

    version: int
    entries: Mapping[str, Entry]


class SessionBackend(Protocol):
    """Keeps sessions, for one authority or for several. Every method between `open` and `close` is one atomic step.

    A session whose `last_accessed + ttl` has passed does not exist for any method, whether it has been
    pruned yet or not. Ids, TTLs, metadata, keys and JSON come checked. Over all authorities, every session that
    ends is reported exactly once, in an `Ended`, and counted once in `stats`.
    Versions grow over the whole backend, so that no version of a session comes back after its end.

    Times: a backend has one clock, its own where several authorities share it, and no other decides about TTLs. In a
    `Session`, `created_at` and `last_accessed` are seconds since the epoch on that clock; `Ended.lifetime` is a
    difference on it.

    A class that is named in `session_store.backend` is called with `Limits`, and with `backend_options` as keyword
    arguments. It must not connect before `open`. One whose sessions end with this process has an attribute
    `is_lasting` that is False.
    """

    limits: Limits

    @property
    def last_stats(self) -> Stats:
        """The ledger as this process last saw it, read from any thread and without I/O.

        A plain attribute will do, assigned from each reply of a server that carries the counters.
        """

    async def open(self) -> None:
        """Connect; called before all else by `SessionStore.start`, and again after each `close`.

        Whatever it raises fails the start of the authority. `close` is called then, too.
        """

    async def close(self) -> None:
        """Release what `open` acquired, as far as it did. Sessions stay where they are kept beyond the process."""

    async def create(self, new: NewSession) -> Created:
        """Create a session, or touch and return the live one with that id unchanged.

        At the owner's quota, expired sessions of that owner are pruned first; if there are none,
        `OwnerQuotaExceeded` is raised, whatever the policy, and nothing else has changed. So is no session's end lost.
        At the quota of all, expired sessions are pruned first; then the policy decides.
        Raises `SessionQuotaExceeded`; `InvalidSession` if id and metadata exceed the byte budget; and with nothing
        changed, `SessionStoreFull` where all sessions hold too much, or `BudgetExceeded` from the session's `charge`.
        """

    async def get(self, session_id: str, *, touch: bool = True) -> Session:
        """Return the session; `touch` starts its TTL anew. Raises `SessionNotFound`."""

    async def read(self, session_id: str, *, touch: bool = True) -> StateView:
        """Return the session's state. Raises `SessionNotFound`."""

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

    async def update(self, session_id: str, change: Callable[[Mapping[str, Entry]], Mapping[str, bytes | None]]) -> int:
        """Write what `change` makes of the current state, in one atomic step; return the version.

        `change` must have no other effects: a backend may call it again when somebody else wrote
        meanwhile. No changes, no write. Raises what `write` raises, and what `change` raises.
        """

    async def assign_worker(self, session_id: str, worker_id: str) -> None:
        """Store the worker that served the session last; no error if there is no such session."""

    async def delete(self, session_id: str, *, owner: str | None = None) -> Ended | None:
        """Delete the session and return its end, or None if there is no such session.

        With an `owner`, only if it is that owner's.
        """

    async def prune(self, limit: int) -> Pruned:
        """Remove at most `limit` expired sessions, in time proportional to those removed."""

    async def evict(self, size: int, keep: str) -> Sequence[Ended]:
        """Remove the least recently used sessions, but not `keep`, until `size` bytes are free."""

    async def page(self, after: str | None, limit: int, *, owner: str | None = None) -> Sequence[Session]:
        """Return up to `limit` live sessions with ids above `after`, in order of id, untouched.

        With an `owner`, those of that owner only.
        """

    def scan(self, *, owner: str | None = None) -> AsyncGenerator[Sequence[Session], None]:
        """Yield all live sessions, or those of an `owner`, in batches and in any order, untouched.

        The scan as a whole is no atomic step: a session that lives from its begin to its end is yielded once, any
        other at most once.
        """

    async def stats(self) -> Stats:
        """Return the ledger of all authorities as it stands, pruning nothing, and keep it as `last_stats`."""
