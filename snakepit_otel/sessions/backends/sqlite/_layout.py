"""Layout of the file: its tables, and the marks by which it is recognised."""

from __future__ import annotations

APPLICATION_ID = 0x534E504B  # "SNPK", in the header of the file
VERSION = 1

# Sessions are ordered by incarnation, which grows, so that new ones are appended. The columns that change with an
# access stay in small rows: state and large metadata have tables of their own. That of state has row ids: without them
# a page holds values of up to 1,000 bytes only, and each above takes a page. Times are on the store's axis, see
# `StoreClock`; `used` is that of the last access in nanoseconds, different for each access.
TABLES = (
    """CREATE TABLE session (
    incarnation INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, ttl REAL NOT NULL, began REAL NOT NULL,
    accessed REAL NOT NULL, used INTEGER NOT NULL, expires REAL NOT NULL, created_at REAL NOT NULL,
    version INTEGER NOT NULL, memory INTEGER NOT NULL, weight INTEGER NOT NULL, keys INTEGER NOT NULL,
    extras INTEGER NOT NULL, token INTEGER NOT NULL, write_token INTEGER NOT NULL,
    owner TEXT, worker TEXT, creator TEXT, trace TEXT, tool TEXT, metadata BLOB)""",
    "CREATE INDEX session_by_expiry ON session (expires)",
    "CREATE INDEX session_by_use ON session (used)",
    "CREATE INDEX session_by_owner ON session (owner, id) WHERE owner IS NOT NULL",
    """CREATE TABLE state (
    incarnation INTEGER NOT NULL, key TEXT NOT NULL, version INTEGER NOT NULL, raw BLOB NOT NULL,
    PRIMARY KEY (incarnation, key))""",
    "CREATE TABLE large_metadata (incarnation INTEGER PRIMARY KEY, metadata BLOB NOT NULL)",
    "CREATE TABLE replaced (incarnation INTEGER PRIMARY KEY, at REAL NOT NULL, ended TEXT NOT NULL)",
    """CREATE TABLE warning (
    reason TEXT PRIMARY KEY, count INTEGER NOT NULL, quiet_until REAL NOT NULL, owners TEXT NOT NULL) WITHOUT ROWID""",
    """CREATE TABLE ledger (
    only INTEGER PRIMARY KEY CHECK (only = 1), created INTEGER NOT NULL, deleted INTEGER NOT NULL,
    pruned_ttl INTEGER NOT NULL, pruned_overflow INTEGER NOT NULL, rejected INTEGER NOT NULL, live INTEGER NOT NULL,
    memory INTEGER NOT NULL, rejected_per_owner INTEGER NOT NULL, reported INTEGER NOT NULL,
    version INTEGER NOT NULL, weight INTEGER NOT NULL, used INTEGER NOT NULL,
    time REAL NOT NULL, wall REAL NOT NULL)""",
    """CREATE TABLE store (
    only INTEGER PRIMARY KEY CHECK (only = 1), name TEXT NOT NULL, boot TEXT NOT NULL, offset REAL NOT NULL,
    max_sessions REAL NOT NULL, overflow TEXT NOT NULL, max_session_bytes INTEGER NOT NULL,
    max_total_bytes INTEGER NOT NULL, max_sessions_per_owner REAL NOT NULL)""",
)

LARGE_METADATA = 1  # bits of `extras`
REPLACED = 2
