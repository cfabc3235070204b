"""Authorities that share a file: accesses that one of them has not written yet, limits, and order of use."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from snakepit_otel.errors import SessionNotFound, SessionStoreUnavailable
from snakepit_otel.sessions import Limits, Overflow, SessionStore
from snakepit_otel.sessions.backends.base import EndReason, NewSession
from snakepit_otel.sessions.backends.sqlite import SqliteBackend, _touches
from snakepit_otel.testing import FakeClock
from tests.sessions.sqlite.files import created, opened
from tests.waiting import until

EVICT = Limits(max_sessions=3, overflow=Overflow.EVICT)


@pytest.fixture
def _never_flushed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep accesses from being written before they have to be."""
    monkeypatch.setattr(_touches, "FLUSH_S", 3_600.0)


async def test_accesses_reach_the_file_soon(tmp_path: Path) -> None:
    """Another authority sees them, and the last worker, without any further call of the first."""
    clock, path = FakeClock(), tmp_path / "sessions.db"
    async with opened(path, clock=clock) as one, opened(path, clock=clock) as other:
        await created(one, "a")
        clock.advance(5)
        await one.get("a")
        await one.assign_worker("a", "default-1.1")
        assert (await one.get("a", touch=False)).last_worker_id == "default-1.1"
        async with asyncio.timeout(30):
            while (seen := await other.get("a", touch=False)).idle or not seen.last_worker_id:
                await asyncio.sleep(0.01)


@pytest.mark.usefixtures("_never_flushed")
async def test_a_session_whose_end_is_near_does_not_end_for_another(tmp_path: Path) -> None:
    """An access is written at once where the other authority would find the session expired within a second."""
    clock, path = FakeClock(), tmp_path / "sessions.db"
    async with opened(path, clock=clock) as one, opened(path, clock=clock) as other:
        await created(one, "a", ttl=60)
        await created(one, "short", ttl=1)
        for _ in range(3):
            clock.advance(0.75)
            await one.get("short")
        clock.advance(57)
        await one.get("a")
        clock.advance(0.5)
        assert [ended.session_id for ended in (await other.prune(10)).ended] == ["short"]
        clock.advance(58.5)
        assert not (await other.prune(10)).ended
        assert (await other.get("a", touch=False)).idle == 59


@pytest.mark.usefixtures("_never_flushed")
async def test_the_session_used_last_is_not_evicted_by_another(tmp_path: Path) -> None:
    """Near the quota, accesses are written at once, so that the order of use is that of all authorities."""
    path = tmp_path / "sessions.db"
    async with opened(path, EVICT) as one, opened(path, EVICT) as other:
        for session_id in "abc":
            await created(one, session_id)
        await one.get("a")
        await one.read("b")
        made = await other.create(NewSession("d", 60.0, {}))
        assert [(ended.session_id, ended.reason) for ended in made.ended] == [("c", EndReason.OVERFLOW)]
        await one.create(NewSession("a", 60.0, {}))
        assert [ended.session_id for ended in await other.evict(1, "nobody")] == ["b"]


@pytest.mark.usefixtures("_never_flushed")
async def test_accesses_are_written_at_the_end(tmp_path: Path) -> None:
    """The stop of an authority loses none."""
    clock, path = FakeClock(), tmp_path / "sessions.db"
    async with opened(path, clock=clock) as backend:
        await created(backend, "a")
        clock.advance(5)
        await backend.get("a")
    async with opened(path, clock=clock) as backend:
        assert (await backend.get("a", touch=False)).idle == 0


async def test_an_access_does_not_touch_the_next_session_of_the_id(tmp_path: Path) -> None:
    """One that is written after its session has ended elsewhere is dropped."""
    clock, path = FakeClock(), tmp_path / "sessions.db"
    async with opened(path, clock=clock) as one, opened(path, clock=clock) as other:
        first = await created(one, "a")
        await one.get("a")
        await one.assign_worker("a", "default-1.1")
        await other.delete("a")
        second = await created(other, "a")
        clock.advance(5)
        with pytest.raises(SessionNotFound):
            await one.get("a", incarnation=first.incarnation)
        async with asyncio.timeout(30):
            while one._engine is not None and one._engine._touches.accessed:
                await asyncio.sleep(0.01)
        seen = await other.get("a", touch=False)
        assert (seen.idle, seen.last_worker_id, seen.incarnation) == (5, None, second.incarnation)


async def test_updates_of_both_are_kept(tmp_path: Path) -> None:
    """However many are made at once."""
    path = tmp_path / "sessions.db"
    async with (
        SessionStore(backend=SqliteBackend(path=path, timeout=30)) as one,
        SessionStore(backend=SqliteBackend(path=path, timeout=30)) as other,
    ):
        await one.create("a")

        def bump(state: dict[str, int]) -> dict[str, int]:
            return {"n": state.get("n", 0) + 1}

        await asyncio.gather(*(store.update("a", bump) for _ in range(20) for store in (one, other)))
        assert await one.get_state("a", "n") == 40


async def test_what_a_killed_authority_ended_is_counted_and_not_reported(tmp_path: Path) -> None:
    """Whoever is left counts the same, and confirms only what was emitted."""
    clock, path = FakeClock(), tmp_path / "sessions.db"
    async with opened(path, clock=clock) as one, opened(path, clock=clock) as other:
        for number in range(3):
            await created(one, f"{number}", ttl=1)
        clock.advance(1)
        assert len((await one.prune(2)).ended) == 2
        assert len((await other.prune(10)).ended) == 1
        await other.prune(0, reported=1)
        stats = await other.stats()
        assert (stats.created, stats.pruned_ttl, stats.reported, stats.live) == (3, 3, 1, 0)


async def test_a_file_that_another_keeps_locked_fails_writes_in_time_and_reads_not_at_all(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Sessions are served, as long as their accesses need not be written; the log has a line, and one of the return."""
    caplog.set_level("INFO", "snakepit_otel.sessions")
    path = tmp_path / "sessions.db"
    async with opened(path) as one, opened(path, timeout=0.5) as other:
        await created(one, "a")
        assert one._engine is not None
        lock = await asyncio.to_thread(_locked, path)
        try:
            writing = asyncio.ensure_future(other.create(NewSession("b", 60.0, {})))
            await other.get("a")
            assert not writing.done()
            with pytest.raises(SessionStoreUnavailable, match="another process has kept it locked for too long"):
                await writing
            await other.get("a", touch=False)
            with pytest.raises(SessionStoreUnavailable):
                await other.delete("a")
            # Accesses that cannot be written for so long are promised no more.
            await until(lambda: other._engine is not None and other._engine._touches.is_late())
            with pytest.raises(SessionStoreUnavailable):
                await other.get("a")
        finally:
            lock.close()
        assert (await other.stats()).live == 1
        await other.delete("a")
        assert other.client.retries > 0
        texts = ["another process has kept it locked for too long; nothing was written", "can be used again"]
        assert len(caplog.messages) == len(texts)
        assert all(text in message for text, message in zip(texts, caplog.messages, strict=True))


def _locked(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute("BEGIN IMMEDIATE")
    return connection
