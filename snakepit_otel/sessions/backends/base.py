"""The contract of session backends, which keep the sessions of a `SessionStore`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple, Protocol

from snakepit_otel.common.byte_charge import ByteCharge
from snakepit_otel.sessions._attribution import CreatorReport, Origin
from snakepit_otel.sessions._quota import Limits
from snakepit_otel.sessions._session import Session

MOST_OWNERS = 100  # of which refused creates are counted between two warnings


class EndReason(StrEnum):
    """The reason for the end of a session."""

    DELETED = "deleted"
    TTL = "ttl"
    OVERFLOW = "overflow"


class WarningReason(StrEnum):
    """The reasons of `snakepit.bridge.session.accumulation_warning`, of which the guide documents the first two."""

    THRESHOLD_WARNING = "threshold_warning"
    QUOTA_EXCEEDED = "quota_exceeded"
    OWNER_QUOTA_EXCEEDED = "owner_quota_exceeded"


class Ended(NamedTuple):
    """The end of a session, one incarnation of its id; `lifetime` is in seconds."""

    session_id: str
    reason: EndReason
    lifetime: float
    origin: Origin | None
    incarnation: int


class Entry(NamedTuple):
    """One key of a session's state: its JSON and the version of its last write."""

    raw: bytes
    version: int


class NewSession(NamedTuple):
    """The checked arguments of a create.

    `token`, not 0, names this create: one that is repeated since its reply was lost has the same token.
    A backend that keeps the session in this process resizes `charge` with it, and releases it at its end.
    """

    id: str
    ttl: float
    metadata: Mapping[str, str]
    owner: str | None = None
    origin: Origin | None = None
    charge: ByteCharge | None = None
    token: int = 0


class Created(NamedTuple):
    """The outcome of a create: the session, whether it is new, and the sessions that it replaced."""

    session: Session
    new: bool
    ended: Sequence[Ended]
    live: int


class Deleted(NamedTuple):
    """The outcome of a delete: the session's end, None if there was no such session, and how many remain."""

    ended: Ended | None
    live: int


class Pruned(NamedTuple):
    """The outcome of a prune: the sessions that ended, how many remain, and whether more may be due."""

    ended: Sequence[Ended]
    live: int
    more: bool


class Claim(NamedTuple):
    """The outcome of a claim to warn: how many occurrences to warn of now, 0 if it is not time yet.

    `owners` has refused creates by owner, for those owners that were counted; `quiet` are the seconds for which the
    next claim of the same reason will be too early.
    """

    occurrences: int
    owners: Mapping[str, int]
    quiet: float


class Stats(NamedTuple):
    """The ledger: `created - deleted - pruned_ttl - pruned_overflow == live`, always.

    `rejected_per_owner` are those of `rejected` that were refused at `max_sessions_per_owner`; `reported` those of
    `pruned_ttl + pruned_overflow` of which an authority has confirmed the event. What is missing there when every
    authority has swept was pruned by one that died with the reply.
    """

    created: int = 0
    deleted: int = 0
    pruned_ttl: int = 0
    pruned_overflow: int = 0
    rejected: int = 0
    live: int = 0
    memory_bytes: int = 0
    rejected_per_owner: int = 0
    reported: int = 0


class StateView(NamedTuple):
    """A session's state at one moment: its version, and its entries by key."""

    version: int
    entries: Mapping[str, Entry]


class SessionBackend(Protocol):
    """Keeps sessions, for one authority or for several. Every method between `open` and `close` is one atomic step.

    A session whose `last_accessed + ttl` has passed does not exist for any method, whether it has been
    pruned yet or not. Ids, TTLs, metadata, keys and JSON come checked. Over all authorities, every session that
    ends is counted exactly once in `stats`, and reported at most once, in an `Ended`: not at all if the authority
    that ended it dies with the reply. How many were reported, `prune` is given.

    Versions grow over the whole backend, so that no version of a session comes back after its end. So do
    incarnations: the sessions that have one id after another differ in `incarnation`, and a call with the incarnation
    of an earlier one finds no session.

    A call whose reply may have been lost is made at most once again, with the same token, which makes `create` and
    `write` idempotent. One that cannot be completed within the backend's time limit raises `SessionStoreUnavailable`,
    and so does `open`. A caller that is cancelled leaves no call half done: the operation takes place or not.

    Times: a backend has one clock, its own where several authorities share it, and no other decides about TTLs. It
    never runs backwards. In a `Session`, `created_at` and `last_accessed` are seconds since the epoch on that clock;
    `idle` and `Ended.lifetime` are differences on it.

    `last_stats` is up to date after each call that changes the ledger, also where it raises.

    Limits are the store's: authorities whose limits differ from those it has are refused at `open`, with a
    `ConfigurationError` that names the setting and both values.

    A class that is named in `session_store.backend` is called with `Limits`, and with `backend_options` as keyword
    arguments. It must not connect before `open`. One whose sessions end with this process has an attribute
    `is_lasting` that is False, and a name that begins with `memory-`; any other may be shared with further authorities,
    and may have an attribute `client`, its `ClientCounters`. `name` is the store's in metrics: the same for all
    authorities that share it, and no other store's. It holds no secrets, and is right once `open` has returned.
    """

    limits: Limits

    @property
    def name(self) -> str:
        """The store's name in metrics; a plain attribute will do, final once the backend is open."""

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
        The live session that the same token made is returned as new, with the sessions that it replaced.
        At the quota of all, expired sessions are pruned first; then the policy decides.
        Raises `SessionQuotaExceeded`; `InvalidSession` if id and metadata exceed the byte budget; and with nothing
        changed, `SessionStoreFull` where all sessions hold too much, or `BudgetExceeded` from the session's `charge`.
        """

    async def get(self, session_id: str, *, touch: bool = True, incarnation: int | None = None) -> Session:
        """Return the session; `touch` starts its TTL anew. Raises `SessionNotFound`, also for another incarnation."""

    async def read(self, session_id: str, *, touch: bool = True) -> StateView:
        """Return the session's state. Raises `SessionNotFound`."""

    async def write(
        self,
        session_id: str,
        changes: Mapping[str, bytes | None],
        *,
        if_version: int | None = None,
        if_versions: Mapping[str, int] | None = None,
        token: int = 0,
    ) -> int:
        """Write JSON by key (None removes) all or nothing, touch, and return the new version.

        Where the session's last write had this token, not 0, nothing is written again, and its version returned.
        With `if_version` only if the session is at that version; with `if_versions` only if each of
        those keys is, 0 for a key that is not there. Raises `StateConflict`, `StateRefused` over the byte
        budget, `SessionNotFound`; `SessionStoreFull` and `BudgetExceeded` as `create` does.
        """

    async def update(self, session_id: str, change: Callable[[Mapping[str, Entry]], Mapping[str, bytes | None]]) -> int:
        """Write what `change` makes of the current state, in one atomic step; return the version.

        `change` must have no other effects: a backend may call it again when somebody else wrote
        meanwhile. No changes, no write. Raises what `write` raises, and what `change` raises; `StateConflict` where
        others were faster too many times.
        """

    async def assign_worker(self, session_id: str, worker_id: str) -> None:
        """Store the worker that served the session last; no error if there is no such session."""

    async def delete(self, session_id: str, *, owner: str | None = None, incarnation: int | None = None) -> Deleted:
        """Delete the session, if there is one; with an `owner` or an `incarnation`, only one that has these."""

    async def prune(self, limit: int, *, reported: int = 0) -> Pruned:
        """Remove at most `limit` expired sessions, in time proportional to those removed.

        `reported` are the sessions pruned by this authority whose events it has emitted since its last prune.
        """

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

    async def suspects(self, most: int = 5, *, owner: str | None = None) -> CreatorReport:
        """Return the creators with most sessions, of all authorities, or of the sessions of one owner; no atomic step.

        Sessions made without a creator are counted as `MADE_BEFORE`. Those that have expired and are not pruned yet
        may be counted.
        """

    async def claim(self, reason: WarningReason, count: int, quiet: float, owners: Mapping[str, int]) -> Claim:
        """Add `count` occurrences, and claim to warn of all that are pending, over all authorities.

        One claim in `quiet` seconds succeeds, and takes what is pending, which is then pending no more; any other
        returns 0. `owners` has the occurrences by owner, for `OWNER_QUOTA_EXCEEDED`; they are kept of at
        most `MOST_OWNERS`. With a `count` of 0 and nothing pending, nothing is claimed.
        """

    async def stats(self) -> Stats:
        """Return the ledger of all authorities as it stands, pruning nothing, and keep it as `last_stats`.

        It is called for each export of metrics.
        """
