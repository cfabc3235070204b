"""Hooks of the worker in users' tests: around each run of a tool, or once around many."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from typing import ClassVar

import pytest

from snakepit_otel import BaseAdapter, WorkerContext, tool
from snakepit_otel.errors import AlreadyStarted, WorkerStartFailed
from snakepit_otel.testing import run_tool, started_worker


class Database(BaseAdapter):
    """Has a connection that only the thread that opened it may use."""

    connection: ClassVar[sqlite3.Connection]
    starts: ClassVar[list[int | None]] = []

    @classmethod
    def on_worker_start(cls, worker: WorkerContext) -> None:
        """Open the connection."""
        if "FAIL" in worker.environment:
            raise OSError("no database")
        cls.starts.append(worker.slot)
        cls.connection = sqlite3.connect(":memory:")
        cls.connection.execute("CREATE TABLE numbers (number INTEGER)")

    @classmethod
    def on_worker_stop(cls) -> None:
        """Close it."""
        cls.connection.close()

    @tool
    def add(self, number: int) -> int:
        """Add a number, and return how many there are."""
        self.connection.execute("INSERT INTO numbers VALUES (?)", (number,))
        return int(self.connection.execute("SELECT count(*) FROM numbers").fetchone()[0])


async def test_each_run_is_a_worker_of_its_own_unless_one_is_started() -> None:
    """Without a block the hooks run for each call; in one, once, and all tools run in the hooks' thread."""
    Database.starts.clear()
    assert [await run_tool(Database, "add", {"number": 1}, leaks="error") for _ in range(2)] == [1, 1]
    async with started_worker(Database, slot=3) as worker:
        assert worker.slot == 3
        assert [await run_tool(Database, "add", {"number": 1}, leaks="error") for _ in range(2)] == [1, 2]
        with pytest.raises(AlreadyStarted):
            await started_worker(Database).__aenter__()
    with pytest.raises(sqlite3.ProgrammingError):
        Database.connection.execute("SELECT 1")
    assert Database.starts == [0, 0, 3]


async def test_runs_at_the_same_time_share_a_worker() -> None:
    """The first one runs the start hook, and the last one the stop hook."""
    Database.starts.clear()
    counts = await asyncio.gather(*(run_tool(Database, "add", {"number": 1}) for _ in range(3)))
    assert sorted(counts) == [1, 2, 3]
    assert Database.starts == [0]
    assert await run_tool(Database, "add", {"number": 1}) == 1


async def test_a_start_hook_that_fails_is_the_tests_error() -> None:
    """The error is a worker's, and its cause is what the hook raised."""
    with pytest.raises(WorkerStartFailed, match="raised OSError: no database") as caught:
        async with started_worker(Database, environment={"FAIL": "1"}):
            pass
    assert isinstance(caught.value.__cause__, OSError)


class Threaded(BaseAdapter):
    """Has a thread for as long as its worker lives."""

    release: ClassVar[threading.Event] = threading.Event()

    @classmethod
    async def on_worker_start(cls) -> None:
        """Start the thread."""
        threading.Thread(target=cls.release.wait, name="refresher", daemon=True).start()

    @classmethod
    def on_worker_stop(cls) -> None:
        """End it."""
        cls.release.set()

    @tool
    def nothing(self) -> None:
        """Leave nothing."""


async def test_what_a_hook_keeps_is_no_leak_of_the_request() -> None:
    """Only what the request leaves is a leak; the tools' own thread is none."""
    await run_tool(Threaded, "nothing", leaks="error")
    Threaded.release.clear()
    async with started_worker(Threaded):
        await run_tool(Threaded, "nothing", leaks="error")
