"""Requests that have to wait for a worker, and those that need not begin to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from snakepit_otel import Snakepit
from snakepit_otel.errors import DeadlineExceeded, PoolNotStarted, PoolSaturated, QueueTimeout
from snakepit_otel.telemetry import names
from snakepit_otel.testing import Capture
from tests.pool.adapters import Patient, lines
from tests.waiting import until


@asynccontextmanager
async def occupied(directory: Path, workers: int = 1, **settings: Any) -> AsyncIterator[tuple[Snakepit, Path]]:
    """A pool whose workers are all busy until the file is there; it is, at the end."""
    go, started = directory / "go", directory / "started"
    async with Snakepit(Patient, workers=workers, pool=settings) as pit:
        arguments = {"path": str(go), "started": str(started)}
        calls = [asyncio.ensure_future(pit.execute("wait_for", arguments)) for _ in range(workers)]
        await until(lambda: len(lines(started)) == workers)
        yield pit, go
        go.touch()
        await asyncio.gather(*calls)


async def test_waiting_requests_are_served_in_their_order(tmp_path: Path) -> None:
    """First come, first served, and each worker runs one at a time."""
    async with occupied(tmp_path) as (pit, go):
        order: list[int] = []

        async def call(number: int) -> None:
            await pit.execute("pid")
            order.append(number)

        calls = []
        for number in range(5):
            calls.append(asyncio.ensure_future(call(number)))
            await until(lambda number=number: len(pit.pool.queue) == number + 1)
        go.touch()
        await asyncio.gather(*calls)
    assert order == [0, 1, 2, 3, 4]


async def test_a_full_queue_refuses_at_once(tmp_path: Path) -> None:
    """Beyond `max_queue_size` a request is refused, saying so, and what was there is served."""
    async with occupied(tmp_path, max_queue_size=1) as (pit, go):
        waiting = asyncio.ensure_future(pit.execute("pid"))
        await until(lambda: len(pit.pool.queue) == 1)
        with pytest.raises(PoolSaturated, match=r"1 requests wait already, .*max_queue_size.* did not run"):
            await pit.execute("pid")
        go.touch()
        assert await waiting


async def test_without_a_queue_what_finds_no_room_is_refused(tmp_path: Path) -> None:
    """`max_queue_size = 0` is a pool without a queue."""
    async with occupied(tmp_path, max_queue_size=0) as (pit, _):
        with pytest.raises(PoolSaturated):
            await pit.execute("pid")


async def test_waiting_ends_with_the_queue_timeout(tmp_path: Path) -> None:
    """A request that no worker has room for in time is told that it did not run."""
    async with occupied(tmp_path, queue_timeout=50) as (pit, _):
        with pytest.raises(QueueTimeout, match="did not run"):
            await pit.execute("pid")


async def test_waiting_ends_with_the_request_own_deadline(tmp_path: Path) -> None:
    """The time in the queue is a part of the request's time."""
    async with occupied(tmp_path) as (pit, _):
        with pytest.raises(DeadlineExceeded, match="did not run"):
            await pit.execute("pid", timeout=0.05)
        assert len(pit.pool.queue) == 0


async def test_what_cannot_be_done_in_time_is_refused_at_once(tmp_path: Path) -> None:
    """Once it is known how long a tool takes, a request that would be late does not wait for that to happen."""
    async with Snakepit(Patient, workers=1) as pit:
        for _ in range(3):
            await pit.execute("sleep", {"seconds": 0.3})
        busy = asyncio.ensure_future(pit.execute("sleep", {"seconds": 0.3}))
        await until(lambda: pit.pool.workers[0].active)
        # Said of one that has not begun to wait.
        with pytest.raises(PoolSaturated, match=r"would wait about .*, but had 0\.\d+ s left"):
            await pit.execute("sleep", {"seconds": 0.3}, timeout=0.25)
        assert await pit.execute("sleep", {"seconds": 0.3}, timeout=20) == await busy


async def test_the_tool_gets_what_the_queue_has_left(tmp_path: Path) -> None:
    """One budget: what was spent waiting is gone for the tool."""
    async with occupied(tmp_path) as (pit, go):
        call = asyncio.ensure_future(pit.execute("time_left", timeout=30))
        await until(lambda: pit.pool.queue.longest_wait > 0.2)
        go.touch()
        assert 0 < await call < 29.8


async def test_cancelling_one_that_waits_leaves_nothing_behind(tmp_path: Path) -> None:
    """Who gives up in the queue makes room there."""
    async with occupied(tmp_path, max_queue_size=1) as (pit, go):
        waiting = asyncio.ensure_future(pit.execute("pid"))
        await until(lambda: len(pit.pool.queue) == 1)
        waiting.cancel()
        await until(lambda: len(pit.pool.queue) == 0)
        after = asyncio.ensure_future(pit.execute("pid"))
        go.touch()
        assert await after


async def test_a_thread_pool_runs_several_at_a_time(tmp_path: Path) -> None:
    """With the profile `thread`, a worker runs `threads_per_worker` requests at a time, and no more."""
    settings = {"size": 1, "profile": "thread", "threads_per_worker": 3}
    async with Snakepit(Patient, pool=settings) as pit:
        arguments = {"path": str(tmp_path / "go"), "started": str(tmp_path / "started")}
        calls = [asyncio.ensure_future(pit.execute("wait_for", arguments)) for _ in range(4)]
        await until(lambda: len(lines(tmp_path / "started")) == 3)
        assert len(pit.pool.queue) == 1
        (tmp_path / "go").touch()
        assert len(set(await asyncio.gather(*calls))) == 1


async def test_streams_take_a_place_until_they_end(tmp_path: Path) -> None:
    """A worker that streams is busy until the consumer has it all, or leaves."""
    async with Snakepit("tests.adapters_for_tests:Useful", workers=1) as pit:
        stream = pit.stream("count", {"to": 1_000_000})
        assert await anext(stream) == {"number": 1}
        assert pit.pool.workers[0].active == 1
        await stream.aclose()
        assert await pit.execute("echo", {"value": 1}) == 1
        assert len(pit.pool.workers) == 1
        assert pit.pool.workers[0].id == "default-1.1"


async def test_those_in_line_are_told_when_the_pool_stops(tmp_path: Path) -> None:
    """What still waits when the grace is over did not run, and hears so."""
    pit = Snakepit(Patient, workers=1, pool={"shutdown_grace": 100})
    await pit.start()
    arguments = {"path": str(tmp_path / "never"), "started": str(tmp_path / "started")}
    running = asyncio.ensure_future(pit.execute("wait_for", arguments))
    await until(lambda: lines(tmp_path / "started"))
    waiting = asyncio.ensure_future(pit.execute("pid"))
    await until(lambda: len(pit.pool.queue) == 1)
    await pit.stop()
    with pytest.raises(PoolNotStarted, match="did not run"):
        await waiting
    assert isinstance((await asyncio.gather(running, return_exceptions=True))[0], Exception)


async def test_what_a_pool_has_room_for_is_told(capture: Capture, tmp_path: Path) -> None:
    """How many wait, how many may, and how many places there are and are taken, are there to be collected."""
    async with occupied(tmp_path, workers=2, max_queue_size=7) as (pit, go):
        waiting = asyncio.ensure_future(pit.execute("pid"))
        await until(lambda: len(pit.pool.queue) == 1)
        metrics = capture.metrics()
        go.touch()
        await waiting
    asked = (
        names.METRIC_POOL_QUEUE_LENGTH, names.METRIC_POOL_QUEUE_LIMIT, names.METRIC_POOL_CAPACITY,
        names.METRIC_POOL_REQUEST_ACTIVE,
    )  # fmt: skip
    assert [[point.value for point in metrics[metric.name]] for metric in asked] == [[1], [7], [2], [2]]
    (breaker,) = [point for point in metrics[names.METRIC_POOL_BREAKER_STATE.name] if point.value]
    assert breaker.attributes == {names.SNAKEPIT_POOL_NAME: "default", names.SNAKEPIT_BREAKER_STATE: "closed"}
    states = {
        point.attributes[names.SNAKEPIT_WORKER_STATE]: point.value
        for point in metrics[names.METRIC_POOL_WORKER_COUNT.name]
    }
    assert states == {"starting": 0, "spare": 0, "ready": 2, "draining": 0, "stopping": 0}


async def test_waiting_and_refusing_are_told(capture: Capture, tmp_path: Path) -> None:
    """The wait has a span and a histogram of its own, and refusals are counted by reason; saturation is an event."""
    async with occupied(tmp_path, max_queue_size=1, queue_timeout=50) as (pit, _):
        with pytest.raises(QueueTimeout):
            await pit.execute("pid", session_id="s")
        waiting = asyncio.ensure_future(pit.execute("pid"))
        await until(lambda: len(pit.pool.queue) == 1)
        with pytest.raises(PoolSaturated):
            await pit.execute("pid")
        with pytest.raises(QueueTimeout):
            await waiting
    spans = capture.spans("queue request")
    assert [span.attributes.get("error.type") for span in spans] == ["QueueTimeout", "PoolSaturated", "QueueTimeout"]
    assert spans[0].attributes[names.SESSION_ID] == "s"
    assert not capture.spans("dispatch request")[1:]
    metrics = capture.metrics()
    refused = {
        point.attributes[names.SNAKEPIT_POOL_REJECTION]: point.value
        for point in metrics[names.METRIC_POOL_REJECTIONS.name]
    }
    assert refused == {"queue_timeout": 2, "pool_saturated": 1}
    waits = {
        point.attributes.get(names.ERROR_TYPE): point.count for point in metrics[names.METRIC_POOL_QUEUE_DURATION.name]
    }
    assert waits == {"QueueTimeout": 2, "PoolSaturated": 1}
    (event,) = capture.events(names.EVENT_POOL_SATURATED.name)
    assert event.attributes == {names.SNAKEPIT_POOL_NAME: "default", "count": 1}
