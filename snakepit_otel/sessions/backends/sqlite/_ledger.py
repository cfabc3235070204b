"""Ledger of a file during a transaction."""

from __future__ import annotations

import sqlite3

from snakepit_otel.sessions.backends.base import Stats

_COLUMNS = (
    "created",
    "deleted",
    "pruned_ttl",
    "pruned_overflow",
    "rejected",
    "live",
    "memory",
    "rejected_per_owner",
    "reported",
    "version",
    "weight",
    "used",
)
_SELECT = " ".join(("SELECT", ", ".join(_COLUMNS), "FROM ledger"))
_UPDATE = " ".join(("UPDATE ledger SET", ", ".join(f"{column} = ?" for column in _COLUMNS), ", time = ?, wall = ?"))


class Ledger:
    """The counts of the store, changed in place.

    `version` and `used` are those of the last write and the last use, `weight` counts for `max_total_bytes`.
    """

    __slots__ = _COLUMNS

    def __init__(self, connection: sqlite3.Connection) -> None:
        (
            self.created,
            self.deleted,
            self.pruned_ttl,
            self.pruned_overflow,
            self.rejected,
            self.live,
            self.memory,
            self.rejected_per_owner,
            self.reported,
            self.version,
            self.weight,
            self.used,
        ) = connection.execute(_SELECT).fetchone()

    def save(self, connection: sqlite3.Connection, now: float, wall: float) -> None:
        """Write the counts, and the times on the store's axis and on the wall clock."""
        connection.execute(_UPDATE, [*(getattr(self, column) for column in _COLUMNS), now, wall])

    def stats(self) -> Stats:
        """Return the counts as they are."""
        return Stats(
            self.created,
            self.deleted,
            self.pruned_ttl,
            self.pruned_overflow,
            self.rejected,
            self.live,
            self.memory,
            self.rejected_per_owner,
            self.reported,
        )
