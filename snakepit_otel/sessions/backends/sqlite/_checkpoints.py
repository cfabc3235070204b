"""Checkpoints, which copy the log of a file into it, so that the log begins anew."""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from pathlib import Path

COMMITS = 128  # between two checkpoints
LOOK = 8  # commits between two looks at the size of the log
MOST_BYTES = 16 << 20  # by which the log may grow between two checkpoints
MOST_LOG_BYTES = 64 << 20  # of the log, beyond which others' readers are waited for, and the log is cut
_PAUSE_MS = 100


class Checkpoints:
    """Makes checkpoints of its own in place of SQLite's, and only while no process can write.

    One that runs beside a commit can damage the file in all versions of SQLite before 3.51.3, if seldom:
    https://sqlite.org/wal.html#walresetbug. So a second connection keeps the write lock meanwhile, as the first cannot:
    within a transaction there are no checkpoints.
    """

    def __init__(self, connection: sqlite3.Connection, lock: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._lock = lock
        self._log = path.with_name(path.name + "-wal")
        self._commits = 0
        self._size = 0

    def on_commit(self) -> None:
        """Make a checkpoint if it is time; one that fails, as the disk is full, is made later."""
        self._commits += 1
        if self._commits % LOOK:
            return
        with suppress(OSError, sqlite3.Error):
            size = self._log.stat().st_size
            if self._commits >= COMMITS or size - self._size >= MOST_BYTES:
                self._checkpoint()
                self._commits, self._size = 0, size
            if size > MOST_LOG_BYTES:
                self._cut()

    def close(self) -> None:
        """Close the second connection."""
        with suppress(sqlite3.Error):
            self._lock.close()

    def _checkpoint(self) -> None:
        self._lock.execute("BEGIN IMMEDIATE")
        try:
            self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        finally:
            self._lock.execute("ROLLBACK")

    def _cut(self) -> None:
        # Takes the write lock itself.
        self._connection.execute(f"PRAGMA busy_timeout = {_PAUSE_MS}")
        try:
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            self._size = 0
        finally:
            self._connection.execute("PRAGMA busy_timeout = 0")
