"""Faults around a file: a full disk, a file that is gone, forks, cancelled calls, and a log that grows."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from pathlib import Path

import pytest

from snakepit_otel.errors import SessionNotFound, SessionStoreUnavailable
from snakepit_otel.sessions.backends.base import NewSession
from snakepit_otel.sessions.backends.sqlite import SqliteBackend, _checkpoints, _database, _engine
from snakepit_otel.testing import FakeClock
from tests.disks import fill, mounted, needs_mounts
from tests.sessions.sqlite.files import created, opened

UNTIL_LOOKED_AT = 1.1  # seconds


@needs_mounts
async def test_a_full_disk_costs_writes_and_nothing_else(tmp_path: Path) -> None:
    """They fail with the reason, and nothing is half done; sessions are served, and all goes on with space."""
    with mounted(tmp_path, 1 << 20):
        async with opened(tmp_path / "sessions.db") as backend:
            await created(backend, "a")
            await backend.write("a", {"k": b"1"})
            ballast = fill(tmp_path)
            failed = 0
            for number in range(40):
                try:
                    await backend.create(NewSession(f"{number}", 60.0, {"text": "x" * 9_000}))
                except SessionStoreUnavailable:
                    failed += 1
            with pytest.raises(SessionStoreUnavailable, match="its disk is full; nothing was written"):
                await backend.create(NewSession("one more", 60.0, {"text": "x" * 9_000}))
            stats = await backend.stats()
            assert stats.live == stats.created == 41 - failed
            assert (await backend.read("a", touch=False)).entries["k"].raw == b"1"
            # One that is too large for the disk does not take those with it that are not.
            ballast.write_bytes(b"")
            done = await asyncio.gather(
                *(backend.create(NewSession(f"small-{number}", 60.0, {})) for number in range(5)),
                backend.create(NewSession("large", 60.0, {"text": "x" * 900_000})),
                return_exceptions=True,
            )
            assert [isinstance(one, SessionStoreUnavailable) for one in done] == [False] * 5 + [True]
            await backend.write("a", {"k": b"2"})
            ballast.write_bytes(b"")
            ballast = fill(tmp_path)
            with pytest.raises(SessionStoreUnavailable, match="its disk is full"):
                await SqliteBackend(path=tmp_path / "another.db").open()
            ballast.write_bytes(b"")
        async with opened(tmp_path / "sessions.db") as backend:
            assert (await backend.stats()).live == stats.live + 5
            assert (await backend.read("a")).entries["k"].raw == b"2"


async def test_a_file_that_is_removed_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rather than written to where nobody will find it."""
    path = tmp_path / "sessions.db"
    async with opened(path) as backend:
        await created(backend, "a")
        path.unlink()
        assert backend._engine is not None
        backend._engine._checked -= UNTIL_LOOKED_AT
        for call in (backend.get("a"), backend.delete("a"), backend.stats()):
            with pytest.raises(SessionStoreUnavailable, match="the file has been removed or replaced; restart"):
                await call


async def test_a_forked_process_has_to_open_it_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread is not there, and a call would wait for it forever."""
    async with opened(tmp_path / "sessions.db") as backend:
        monkeypatch.setattr(os, "getpid", lambda: -1)
        with pytest.raises(SessionStoreUnavailable, match="before this process was forked; open it again"):
            await backend.stats()
        monkeypatch.undo()


async def test_a_cancelled_call_takes_place_or_not(tmp_path: Path) -> None:
    """The ledger is exact, and the next calls get their own replies."""
    async with opened(tmp_path / "sessions.db") as backend:
        for number in range(200):
            call = asyncio.ensure_future(backend.create(NewSession(f"{number}", 60.0, {})))
            for _ in range(number % 4):
                await asyncio.sleep(0)
            call.cancel()
            await asyncio.wait([call])
            assert (await created(backend, "same")).id == "same"
        live = [session.id async for batch in backend.scan() for session in batch]
        stats = await backend.stats()
        assert stats.live == stats.created == len(live)
        assert len(live) < 200


async def test_a_disk_that_hangs_fails_calls_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The event loop does not wait for it, neither at a call nor at the end, and a bounded number of calls do."""
    monkeypatch.setattr("snakepit_otel.sessions.backends.sqlite.backend._MOST_WAITING", 3)
    backend = SqliteBackend(path=tmp_path / "sessions.db", timeout=0.2)
    await backend.open()
    hanging, go_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def hang(_: _engine.Reading, *_arguments: object) -> None:
        loop.call_soon_threadsafe(hanging.set)
        go_on.wait(30)

    monkeypatch.setattr(_engine.Reading, "stats", hang)
    try:
        hung = asyncio.ensure_future(backend.stats())
        await hanging.wait()
        monkeypatch.undo()
        calls = [asyncio.ensure_future(backend.get("a")) for _ in range(5)]
        done = await asyncio.gather(hung, *calls, return_exceptions=True)
        assert all(isinstance(one, SessionStoreUnavailable) for one in done)
        assert "did not answer within 0.2 s" in str(done[0])
        await backend.close()
    finally:
        go_on.set()


async def test_a_fault_of_the_program_costs_its_call_only(tmp_path: Path) -> None:
    """Here a text that no database takes: it is undone, and those in the same transaction are done."""
    async with opened(tmp_path / "sessions.db") as backend:
        done = await asyncio.gather(
            created(backend, "a"), created(backend, "\ud800"), created(backend, "b"), return_exceptions=True
        )
        assert isinstance(done[1], UnicodeEncodeError)
        assert (await backend.stats()).created == 2


async def test_the_file_and_its_log_stay_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Space of sessions that have ended is used again, and the log is emptied where readers keep it long."""
    monkeypatch.setattr(_checkpoints, "LOOK", 4)
    monkeypatch.setattr(_checkpoints, "COMMITS", 8)
    monkeypatch.setattr(_checkpoints, "MOST_LOG_BYTES", 1 << 20)
    monkeypatch.setattr(_database, "MOST_LOG_BYTES", 1 << 20)
    path, log, sizes = tmp_path / "sessions.db", tmp_path / "sessions.db-wal", []
    clock = FakeClock()
    async with opened(path, clock=clock) as backend:
        for number in range(20):
            if number == 5:
                # Another process that reads without end.
                reader = sqlite3.connect(path, isolation_level=None)
                reader.execute("BEGIN")
                reader.execute("SELECT count(*) FROM session").fetchone()
            if number == 15:
                reader.close()
            await asyncio.gather(
                *(created(backend, f"{number}-{one}", 1.0, metadata={"text": "x" * 5_000}) for one in range(20))
            )
            clock.advance(2)
            await backend.prune(100)
            sizes.append(log.stat().st_size)
        with pytest.raises(SessionNotFound):
            await backend.get("0-0")
        assert max(sizes) > 2 << 20
        assert max(sizes[-3:]) < 2 << 20
        await backend.stats()
    assert path.stat().st_size < 40 * 5_000 + 100_000
    assert not log.exists()


@pytest.mark.parametrize("is_busy", [False, True])
def test_checkpoints_are_made_only_while_nobody_can_write(tmp_path: Path, is_busy: bool) -> None:
    """Not where another process has the lock; then later, by the commits that follow."""
    path, statements = tmp_path / "any.db", []
    connection, lock, other = (sqlite3.connect(path, timeout=0, isolation_level=None) for _ in range(3))
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("CREATE TABLE anything (id)")
    checkpoints = _checkpoints.Checkpoints(connection, lock, path)
    connection.set_trace_callback(lambda statement: statements.append(("connection", statement)))
    lock.set_trace_callback(lambda statement: statements.append(("lock", statement)))
    if is_busy:
        other.execute("BEGIN IMMEDIATE")
    for _ in range(_checkpoints.COMMITS):
        checkpoints.on_commit()
    for one in (connection, lock, other):
        one.close()
    made = [("connection", "PRAGMA wal_checkpoint(PASSIVE)"), ("lock", "ROLLBACK")]
    assert statements == [("lock", "BEGIN IMMEDIATE"), *([] if is_busy else made)]
