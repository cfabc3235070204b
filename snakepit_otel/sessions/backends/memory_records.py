"""Records of the sessions that are kept in memory, and what they take of it."""

from __future__ import annotations

import sys
from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from functools import partial
from math import inf

from snakepit_otel.sessions._session import Session
from snakepit_otel.sessions.backends.base import MOST_OWNERS, Ended, Entry, NewSession, StateView

# What a session, and a key of its state, take of memory besides their content.
_SESSION_BYTES = 1_024
ENTRY_BYTES = 512
_MOST_REPLACEMENTS = 64  # creates, each of which may have replaced a thousand sessions
_NO_STATE: Mapping[str, Entry] = {}
# A third faster than to call the classes, which an operation would notice.
_new_session = partial(tuple.__new__, Session)
new_entry = partial(tuple.__new__, Entry)
new_view = partial(tuple.__new__, StateView)


class Record:
    """One session as it is kept: small, because there is one for every session."""

    __slots__ = (
        "accessed",
        "base",
        "began",
        "charge",
        "created_at",
        "id",
        "incarnation",
        "memory",
        "metadata",
        "origin",
        "owner",
        "state",
        "token",
        "ttl",
        "version",
        "worker",
        "write_token",
    )

    def __init__(
        self, new: NewSession, now: float, created_at: float, memory: int, base: int, incarnation: int
    ) -> None:
        self.id, self.ttl, self.metadata, self.owner, self.origin, self.charge, self.token = new
        self.incarnation = incarnation
        self.write_token = 0
        self.base = base
        self.began = self.accessed = now
        self.created_at = created_at
        self.memory = memory
        self.state = _NO_STATE
        self.version = 0
        self.worker: str | None = None

    def snapshot(self, now: float) -> Session:
        """Return the session as it is now."""
        accessed = self.accessed
        return _new_session(
            (
                self.id,
                self.ttl,
                self.created_at,
                self.created_at + accessed - self.began,
                self.metadata,
                self.owner,
                self.worker,
                self.version,
                self.memory,
                self.origin,
                self.incarnation,
                now - accessed,
            )
        )


class OwnerSessions:
    """The sessions of one owner; none of them expires before `due`."""

    __slots__ = ("due", "records")

    def __init__(self) -> None:
        self.records: dict[str, Record] = {}
        self.due = inf

    def add(self, record: Record) -> None:
        """Add a new session."""
        self.records[record.id] = record
        self.due = min(self.due, record.accessed + record.ttl)

    def expired(self, now: float) -> list[tuple[str, Record]]:
        """Return those that have expired, by id."""
        if now < self.due:
            # An owner that is refused again and again costs no search.
            return []
        expiries = {session_id: record.accessed + record.ttl for session_id, record in self.records.items()}
        self.due = min(expiries.values(), default=inf)
        return [(session_id, self.records[session_id]) for session_id, expiry in expiries.items() if expiry <= now]


class PendingWarning:
    """The occurrences of one reason that nobody has been warned of yet, and when the next warning may come."""

    def __init__(self, quiet_until: float = -inf) -> None:
        self.count = 0
        self.owners: Counter[str] = Counter()
        self.quiet_until = quiet_until

    def add(self, count: int, owners: Mapping[str, int]) -> None:
        """Add occurrences, and those of each owner."""
        self.count += count
        for owner, refused in owners.items():
            if owner in self.owners or len(self.owners) < MOST_OWNERS:
                self.owners[owner] += refused


class Replacements:
    """The sessions that ended for the last creates, by token, for one that is repeated since its reply was lost."""

    def __init__(self) -> None:
        self._ended: OrderedDict[int, Sequence[Ended]] = OrderedDict()

    def add(self, token: int, ended: Sequence[Ended]) -> None:
        """Keep the sessions that ended for a create, and forget those of earlier ones."""
        if token:
            self._ended[token] = ended
            if len(self._ended) > _MOST_REPLACEMENTS:
                self._ended.popitem(last=False)

    def of(self, token: int) -> Sequence[Ended]:
        """Return the sessions that ended for a create."""
        return self._ended.get(token, ())


def weight_of(record: Record) -> int:
    """Return about how many bytes of memory a session takes."""
    return record.base + record.memory + ENTRY_BYTES * len(record.state)


def base_of(new: NewSession, memory: int) -> int:
    """Return what a session without state takes besides its `memory`, in which texts count as they are in UTF-8."""
    creator, tool = (new.origin.creator, new.origin.tool) if new.origin is not None else (None, None)
    texts = [new.owner, *(creator or (tool,))]
    size = _SESSION_BYTES + sum(sys.getsizeof(text) for text in texts if text)
    size += sum(sys.getsizeof(key) + sys.getsizeof(value) for key, value in new.metadata.items())
    return max(_SESSION_BYTES, size - memory + text_bytes(new.id))


def text_bytes(text: str) -> int:
    """Return the size of a text in UTF-8."""
    return len(text) if text.isascii() else len(text.encode())
