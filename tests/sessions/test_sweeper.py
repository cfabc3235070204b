"""The periodic sweep."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from snakepit_otel.sessions import SessionStore
from snakepit_otel.sessions._sweeper import Sweeper
from snakepit_otel.telemetry import names
from snakepit_otel.telemetry._definitions import Event
from snakepit_otel.testing import FakeClock
from tests.sessions.conftest import Emissions


class Nights:
    """Sleeps on the test's clock, which the test ends."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.asked: list[float] = []
        self._mornings: asyncio.Queue[asyncio.Future[None]] = asyncio.Queue()
        self._next: asyncio.Future[None] | None = None

    async def sleep(self, seconds: float) -> None:
        """Sleep until `pass_by`."""
        self.asked.append(seconds)
        morning = asyncio.get_running_loop().create_future()
        self._mornings.put_nowait(morning)
        await morning
        self.clock.advance(seconds)

    async def pass_by(self) -> None:
        """End the sleep that has begun, and wait until the next one begins."""
        while self._next is None or self._next.done():
            self._next = await self._mornings.get()
        self._next.set_result(None)
        self._next = await self._mornings.get()


@pytest.fixture
async def nights(clock: FakeClock) -> Nights:
    """Sleeps for a sweeper."""
    return Nights(clock)


async def test_the_sweeper_sweeps_once_each_interval(clock: FakeClock, nights: Nights, emissions: Emissions) -> None:
    """What expires is pruned at the end of the interval it expired in."""
    store = SessionStore(clock=clock, emit=emissions.take)
    for ttl in (5, 15, 15):
        await store.create(ttl=ttl)
    sweeper = Sweeper(store.sweep, 10, nights.sleep)
    sweeper.start()
    await nights.pass_by()
    await nights.pass_by()
    await sweeper.stop()
    assert nights.asked == [10, 10, 10]
    assert emissions.counts(names.EVENT_BRIDGE_SESSION_PRUNED) == [("ttl", 1), ("ttl", 2)]


async def test_a_failed_sweep_is_logged_and_not_the_last(
    clock: FakeClock, nights: Nights, caplog: pytest.LogCaptureFixture
) -> None:
    """An error in one sweep goes to the log with its traceback; the next sweep comes all the same."""
    store = SessionStore(clock=clock)
    await store.create("a", ttl=5)
    failures = [OSError("the disk is on fire")]

    async def sweep() -> int:
        if failures:
            raise failures.pop()
        return await store.sweep()

    sweeper = Sweeper(sweep, 10, nights.sleep)
    sweeper.start()
    await nights.pass_by()
    assert store.stats_snapshot().live == 1
    await nights.pass_by()
    await sweeper.stop()
    assert store.stats_snapshot().live == 0
    (record,) = caplog.records
    assert record.getMessage() == "the session sweep failed"
    assert "the disk is on fire" in caplog.text


async def test_starting_twice_starts_one_sweeper(nights: Nights) -> None:
    """A second start changes nothing."""

    async def sweep() -> None: ...

    sweeper = Sweeper(sweep, 10, nights.sleep)
    sweeper.start()
    sweeper.start()
    await nights.pass_by()
    await sweeper.stop()
    assert len(nights.asked) == 2


async def test_a_stopped_sweeper_can_start_again(nights: Nights) -> None:
    """Stopping ends the task, twice is no error, and starting makes a new one."""
    sweeps: list[int] = []

    async def sweep() -> None:
        sweeps.append(len(sweeps))

    sweeper = Sweeper(sweep, 10, nights.sleep)
    sweeper.start()
    await nights.pass_by()
    await sweeper.stop()
    await sweeper.stop()
    sweeper.start()
    await nights.pass_by()
    await sweeper.stop()
    assert len(sweeps) == 2
    assert [task for task in asyncio.all_tasks() if task.get_name() == "session sweeper"] == []


async def test_a_store_sweeps_by_itself_while_it_is_open() -> None:
    """Inside `async with` sessions are pruned without anybody asking, at an interval in milliseconds."""
    pruned = asyncio.Event()

    def emit(event: Event, *_: Any, **__: Any) -> None:
        if event is names.EVENT_BRIDGE_SESSION_PRUNED:
            pruned.set()

    async with SessionStore(cleanup_interval=40, emit=emit) as store, asyncio.timeout(30):
        await store.create("a", ttl=0.001)
        await pruned.wait()
    assert store.stats_snapshot().pruned_ttl == 1
