"""Connection to a file: its opening, its recognition and its limits."""

from __future__ import annotations

import os
import random
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from snakepit_otel.common.printable import printable
from snakepit_otel.errors import ConfigurationError, SessionStoreUnavailable, SnakepitError
from snakepit_otel.sessions._quota import Limits, Overflow
from snakepit_otel.sessions.backends.sqlite._checkpoints import MOST_LOG_BYTES, Checkpoints
from snakepit_otel.sessions.backends.sqlite._clock import Anchor, StoreClock
from snakepit_otel.sessions.backends.sqlite._file import make_ready, refusal
from snakepit_otel.sessions.backends.sqlite._layout import APPLICATION_ID, TABLES, VERSION

T = TypeVar("T")
_BUSY_PAUSE_S = 0.001  # the longest between two attempts
_CACHE_KIB = 16_384
_MOST_CHECKED_BYTES = 64 << 20  # of a file that is checked from end to end when it is opened
_LIMITS = ("max_sessions", "overflow", "max_session_bytes", "max_total_bytes", "max_sessions_per_owner")
_LIMITS_KEPT = " ".join(("SELECT", ", ".join(_LIMITS), "FROM store"))
_SET_LIMITS = " ".join(("UPDATE store SET", ", ".join(f"{limit} = ?" for limit in _LIMITS)))
# Between the creation of a file and its first lock nobody else in this process may open it.
_opening = threading.Lock()


def is_busy(error: sqlite3.Error) -> bool:
    """Return whether another process or connection was in the way, and it may be tried again."""
    return _code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def pause() -> float:
    """Return the seconds until the next attempt: of several processes that wait, not always the same one is late."""
    return random.uniform(_BUSY_PAUSE_S / 5, _BUSY_PAUSE_S)  # noqa: S311 - no secret


def persist(attempt: Callable[[], T], path: Path, deadline: float) -> T:
    """Return the result of an attempt that is made again while others are in the way.

    Raises `SessionStoreUnavailable` from `deadline` on, on the clock of `time.monotonic`.
    """
    while True:
        try:
            return attempt()
        except sqlite3.Error as error:
            if not is_busy(error):
                raise
            if time.monotonic() >= deadline:
                raise busy(path) from error
        time.sleep(pause())


def _code(error: Exception) -> int:
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def busy(path: Path) -> SessionStoreUnavailable:
    """Return the error for a file that another process did not release in time."""
    return SessionStoreUnavailable(
        f"session store {printable(str(path))}: another process has kept it locked for too long; nothing was written"
    )


def lost(path: Path) -> SessionStoreUnavailable:
    """Return the error for a file that has been removed, or replaced by another."""
    return SessionStoreUnavailable(
        f"session store {printable(str(path))}: the file has been removed or replaced; restart its authorities"
    )


def unavailable(path: Path, error: Exception) -> SessionStoreUnavailable:
    """Return the error for a file that cannot be read or written just now."""
    reason = f"{type(error).__name__}: {error}"
    code = _code(error)
    if code == sqlite3.SQLITE_FULL:
        reason = "its disk is full; nothing was written"
    elif code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        reason = f"the file is damaged ({error}); stop its authorities, and put a copy in its place or remove it"
    return SessionStoreUnavailable(f"session store {printable(str(path))}: {reason}")


def open_store(
    path: Path,
    clock: StoreClock,
    limits: Limits,
    *,
    is_durable: bool = False,
    replace_limits: bool = False,
    deadline: float,
) -> tuple[sqlite3.Connection, str]:
    """Return a connection to the file, which is made a session store if it is new, and the store's name.

    Raises `ConfigurationError` for a file that is something else, and leaves it as it is; likewise for other limits
    than the store's, unless they are to be replaced. Raises `SessionStoreUnavailable` from `deadline` on, on the clock
    of `time.monotonic`.
    """
    connection = _connect(path, deadline)
    try:
        _set_up(connection, path, is_durable=is_durable, deadline=deadline)
        return connection, _agree(connection, path, clock, limits, deadline, replace_limits=replace_limits)
    except sqlite3.Error as error:
        connection.close()
        raise _opening_error(path, error) from error
    except BaseException:
        connection.close()
        raise


def checkpoints(connection: sqlite3.Connection, path: Path) -> Checkpoints:
    """Return what makes the checkpoints of an open store."""
    lock = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
    return Checkpoints(connection, lock, path)


def replace_limits(path: Path, clock: StoreClock, limits: Limits, *, deadline: float) -> None:
    """Write limits to the file in place of those it has. Raises what `open_store` does."""
    connection, _ = open_store(path, clock, limits, replace_limits=True, deadline=deadline)
    connection.close()


def stored_limits(path: Path, *, deadline: float) -> Limits | None:
    """Return the limits of the file; None if there is none, or an empty one. Raises what `open_store` does."""
    if not os.path.lexists(path):
        return None
    connection = _connect(path, deadline)
    try:
        return persist(lambda: None if _recognise(connection, path) else _kept_limits(connection), path, deadline)
    except sqlite3.Error as error:
        raise _opening_error(path, error) from error
    finally:
        connection.close()


def _opening_error(path: Path, error: sqlite3.Error) -> SnakepitError:
    """Return the error for a file that cannot be opened: of the file itself, unless its disk may recover."""
    if _code(error) in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOMEM):
        return unavailable(path, error)
    return refusal(path, f"it cannot be opened as one: {error}")


def _connect(path: Path, deadline: float) -> sqlite3.Connection:
    with _opening:
        make_ready(path)
        try:
            connection = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
        except sqlite3.Error as error:
            raise refusal(path, f"it cannot be opened: {error}") from error
        try:
            persist(lambda: _recognise(connection, path), path, deadline)
        except sqlite3.Error as error:
            connection.close()
            raise _opening_error(path, error) from error
        except BaseException:
            connection.close()
            raise
    return connection


def _recognise(connection: sqlite3.Connection, path: Path) -> bool:
    """Return whether the file is new. Raises `ConfigurationError` if it is no session store of this layout."""
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA cell_size_check = ON")
    found = connection.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if not found and application == version == 0:
        return True
    if application != APPLICATION_ID:
        raise refusal(path, "it is another program's database; name a file of its own")
    if version != VERSION:
        raise refusal(path, f"it has layout {version}, and this version of snakepit-otel reads layout {VERSION}")
    if sorted(sql for (sql,) in found) != sorted(TABLES):  # VACUUM changes the order
        raise refusal(path, "its tables are not those of a session store; they have been changed")
    return False


def _set_up(connection: sqlite3.Connection, path: Path, *, is_durable: bool, deadline: float) -> None:
    execute = connection.execute
    mode = persist(lambda: execute("PRAGMA journal_mode = WAL").fetchone()[0], path, deadline)
    if mode != "wal":
        raise refusal(path, "its file system cannot share memory between processes; use a local disk")
    execute(f"PRAGMA synchronous = {'FULL' if is_durable else 'NORMAL'}")
    execute("PRAGMA wal_autocheckpoint = 0")  # but `Checkpoints`
    execute(f"PRAGMA journal_size_limit = {MOST_LOG_BYTES}")
    execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
    execute("PRAGMA temp_store = MEMORY")
    if path.stat().st_size <= _MOST_CHECKED_BYTES:
        (problem,) = persist(lambda: execute("PRAGMA quick_check(1)").fetchone(), path, deadline)
        if problem != "ok":
            raise refusal(path, f"the file is damaged ({problem}); put a copy in its place, or remove it")


def _agree(
    connection: sqlite3.Connection,
    path: Path,
    clock: StoreClock,
    limits: Limits,
    deadline: float,
    *,
    replace_limits: bool,
) -> str:
    """Write the tables of a new file, compare limits with those of another, set the clock, and return the name."""
    execute = connection.execute
    persist(lambda: execute("BEGIN IMMEDIATE"), path, deadline)
    try:
        if _recognise(connection, path):
            for table in TABLES:
                execute(table)
            execute(f"PRAGMA application_id = {APPLICATION_ID}")
            execute(f"PRAGMA user_version = {VERSION}")
            columns = (f"sqlite-{secrets.token_hex(4)}", *clock.first_anchor(), *_columns(limits))
            execute("INSERT INTO store VALUES (1, ?, ?, ?, ?, ?, ?, ?, ?)", columns)
            times = (clock.now(), clock.wall())
            execute("INSERT INTO ledger VALUES (1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, ?, ?)", times)
        name, *anchor = execute("SELECT name, boot, offset FROM store").fetchone()
        if replace_limits:
            execute(_SET_LIMITS, _columns(limits))
        else:
            _compare(limits, _kept_limits(connection), path)
        agreed = clock.set_anchor(Anchor(*anchor), *execute("SELECT time, wall FROM ledger").fetchone())
        execute("UPDATE store SET boot = ?, offset = ?", agreed)
        execute("UPDATE ledger SET time = max(time, ?), wall = ?", (clock.now(), clock.wall()))
        execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            execute("ROLLBACK")
        raise
    return str(name)


def _columns(limits: Limits) -> tuple[float | str, ...]:
    return (
        float(limits.max_sessions),
        limits.overflow.value,
        limits.max_session_bytes,
        limits.max_total_bytes,
        float(limits.max_sessions_per_owner),
    )


def _kept_limits(connection: sqlite3.Connection) -> Limits:
    sessions, overflow, *rest = connection.execute(_LIMITS_KEPT).fetchone()
    return Limits(sessions, Overflow(overflow), *rest)


def _compare(ours: Limits, kept: Limits, path: Path) -> None:
    for setting, our, their in zip(_LIMITS, _columns(ours), _columns(kept), strict=True):
        if our != their:
            raise ConfigurationError(
                f"session_store.{setting} is {_shown(our)} here, and {_shown(their)} in the session store "
                f"{printable(str(path))}, whose limits hold for all that share it: "
                "set the same here, or change the store's (snakepit-otel sessions limits --set)"
            )


def _shown(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.0f}"
