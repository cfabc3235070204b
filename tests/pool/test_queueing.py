"""Requests that wait for a slot, and those that are refused before they wait."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from snakepit_otel.errors import DeadlineExceeded, PoolNotStarted, PoolSaturated, QueueTimeout
from snakepit_otel.telemetry import names
from snakepit_otel.testing import Capture
from tests.pool.stub_pool import StubPool, stub_pool
from tests.pool.virtual_time import settle, virtual_time


@asynccontextmanager
async def occupied(**settings: Any) -> AsyncIterator[tuple[StubPool, asyncio.Event]]:
    """A pool whose slots are all taken until the event is set; it is, at the end."""
    async with stub_pool(**settings) as stubs:
        go = asyncio.Event()
        slots = stubs.pool.settings.size * stubs.pool.settings.concurrency
        calls = [stubs.begin("wait_for", go) for _ in range(slots)]
        await settle()
        yield stubs, go
        go.set()
        await asyncio.gather(*calls)


@virtual_time
async def test_waiting_requests_are_served_in_order() -> None:
    """First in, first out, and each worker runs one at a time."""
    async with occupied() as (stubs, go):
        order: list[int] = []

        async def call(number: int) -> None:
            await stubs.execute("sleep", 1)
            order.append(number)

        calls = [asyncio.create_task(call(number)) for number in range(5)]
        await settle()
        assert len(stubs.pool.queue) == 5
        go.set()
        started = stubs.clock()
        await asyncio.gather(*calls)
        assert stubs.clock() - started == 5
    assert order == [0, 1, 2, 3, 4]


@virtual_time
async def test_a_full_queue_refuses_at_once() -> None:
    """Beyond `max_queue_size` a request is refused with the reason, and those in the queue are served."""
    async with occupied(max_queue_size=1) as (stubs, go):
        waiting = stubs.begin("echo")
        await settle()
        with pytest.raises(PoolSaturated, match=r"1 requests wait already, .*max_queue_size.* did not run"):
            await stubs.execute("echo")
        go.set()
        assert await waiting


@virtual_time
async def test_without_a_queue_a_request_without_a_slot_is_refused() -> None:
    """`max_queue_size = 0` is a pool without a queue."""
    async with occupied(max_queue_size=0) as (stubs, _):
        with pytest.raises(PoolSaturated):
            await stubs.execute("echo")


@virtual_time
async def test_waiting_ends_with_the_queue_timeout() -> None:
    """A request that gets no slot in time fails with an error that it did not run."""
    async with occupied(queue_timeout=50) as (stubs, _):
        with pytest.raises(QueueTimeout, match="did not run"):
            await stubs.execute("echo")


@virtual_time
async def test_waiting_ends_with_the_request_own_deadline() -> None:
    """The time in the queue is a part of the request's time."""
    async with occupied() as (stubs, _):
        with pytest.raises(DeadlineExceeded, match="did not run"):
            await stubs.execute("echo", timeout=0.05)
        assert len(stubs.pool.queue) == 0


@virtual_time
async def test_a_request_that_cannot_complete_in_time_is_refused_at_once() -> None:
    """Once a tool's service time is known, a request that would be late does not wait."""
    async with stub_pool() as stubs:
        for _ in range(3):
            await stubs.execute("sleep", 3)
        busy = stubs.begin("sleep", 3)
        await settle()
        with pytest.raises(PoolSaturated, match=r"would wait about .*, but had 2\.5 s left"):
            await stubs.execute("sleep", 3, timeout=2.5)
        assert await stubs.execute("sleep", 3, timeout=200) == await busy


@virtual_time
async def test_a_worker_gets_the_time_that_the_queue_has_left() -> None:
    """One budget: time spent in the queue is not available for the tool."""
    async with occupied(queue_timeout=60_000) as (stubs, go):
        started = stubs.clock()
        call = stubs.begin("sleep", 100, timeout=30)
        await asyncio.sleep(20)
        go.set()
        with pytest.raises(DeadlineExceeded):
            await call
        assert stubs.clock() - started == 30


@virtual_time
async def test_a_cancelled_request_leaves_the_queue() -> None:
    """A request that gives up makes room in the queue."""
    async with occupied(max_queue_size=1) as (stubs, go):
        waiting = stubs.begin("echo")
        await settle()
        waiting.cancel()
        await settle()
        assert len(stubs.pool.queue) == 0
        after = stubs.begin("echo")
        await settle()
        go.set()
        assert await after


@virtual_time
async def test_a_thread_pool_runs_several_at_a_time() -> None:
    """With the profile `thread`, a worker runs `threads_per_worker` requests at a time, and no more."""
    async with occupied(profile="thread", threads_per_worker=3) as (stubs, go):
        assert stubs.pool.workers[0].active == 3
        waiting = stubs.begin("echo")
        await settle()
        assert len(stubs.pool.queue) == 1
        go.set()
        assert await waiting == "default-1.1"


@virtual_time
async def test_streams_hold_a_slot_until_they_end() -> None:
    """A worker that streams is busy until the consumer has it all, or leaves."""

    async def count(_worker: object, to: int) -> AsyncIterator[int]:
        for number in range(to):
            yield number

    async with stub_pool() as stubs:
        stubs.script.tools = {**stubs.script.tools, "count": count}
        taken: asyncio.Queue[int] = asyncio.Queue(1)
        stream = asyncio.create_task(stubs.pool.stream(stubs.job("count", 1_000_000), taken.put))
        assert await taken.get() == 0
        assert stubs.pool.workers[0].active == 1
        stream.cancel()
        await asyncio.wait([stream])
        assert await stubs.execute("echo") == "default-1.1"
        assert len(stubs.made) == 1


@virtual_time
async def test_queued_requests_fail_when_the_pool_stops() -> None:
    """Requests still in the queue when the grace is over did not run, and fail with that."""
    async with stub_pool(shutdown_grace=100) as stubs:
        running, waiting = stubs.begin("wait_for", asyncio.Event()), stubs.begin("echo")
        await settle()
        await stubs.pool.drain()
        with pytest.raises(PoolNotStarted, match="did not run"):
            await waiting
        await stubs.pool.stop()
        assert isinstance((await asyncio.gather(running, return_exceptions=True))[0], Exception)


@virtual_time
async def test_draining_ends_with_the_last_request_that_nobody_waits_for() -> None:
    """A request whose caller has gone is waited for as long as it runs, and not for the whole grace."""
    release = asyncio.Event()
    async with stub_pool(shutdown_grace=6_000, cancel_grace=60_000) as stubs:
        left = stubs.begin("stubborn", release)
        await settle()
        left.cancel()
        await settle()
        draining, started = asyncio.ensure_future(stubs.pool.drain()), stubs.clock()
        await asyncio.sleep(1)
        assert not draining.done()
        release.set()
        await draining
        assert stubs.clock() - started == 1


@virtual_time
async def test_queue_and_capacity_are_gauges(capture: Capture) -> None:
    """Lengths and limits of queues, and the numbers of slots and of those taken, are collected."""
    async with occupied(size=2, max_queue_size=7) as (stubs, go):
        waiting = stubs.begin("echo")
        await settle()
        metrics = capture.metrics()
        go.set()
        await waiting
    expected = {
        names.METRIC_POOL_QUEUE_LENGTH: 1,
        names.METRIC_POOL_QUEUE_LIMIT: 7,
        names.METRIC_POOL_CAPACITY: 2,
        names.METRIC_POOL_REQUEST_ACTIVE: 2,
    }
    assert {metric: metrics[metric.name][0].value for metric in expected} == expected
    (breaker,) = [point for point in metrics[names.METRIC_POOL_BREAKER_STATE.name] if point.value]
    assert breaker.attributes == {names.SNAKEPIT_POOL_NAME: "default", names.SNAKEPIT_BREAKER_STATE: "closed"}
    states = {
        point.attributes[names.SNAKEPIT_WORKER_STATE]: point.value
        for point in metrics[names.METRIC_POOL_WORKER_COUNT.name]
    }
    assert states == {"starting": 0, "spare": 0, "ready": 2, "draining": 0, "stopping": 0}


@virtual_time
async def test_telemetry_of_waits_and_rejections(capture: Capture) -> None:
    """The wait has a span and a histogram of its own, and rejections are counted by reason; saturation is an event."""
    async with occupied(max_queue_size=1, queue_timeout=50) as (stubs, _):
        with pytest.raises(QueueTimeout):
            await stubs.execute("echo", session="s")
        waiting = stubs.begin("echo")
        await settle()
        with pytest.raises(PoolSaturated):
            await stubs.execute("echo")
        with pytest.raises(QueueTimeout):
            await waiting
    spans = capture.spans("queue request")
    assert [span.attributes.get("error.type") for span in spans] == ["QueueTimeout", "PoolSaturated", "QueueTimeout"]
    assert spans[0].attributes[names.SESSION_ID] == "s"
    assert not capture.spans("dispatch request")[1:]
    metrics = capture.metrics()
    rejections = {
        point.attributes[names.SNAKEPIT_POOL_REJECTION]: point.value
        for point in metrics[names.METRIC_POOL_REJECTIONS.name]
    }
    assert rejections == {"queue_timeout": 2, "pool_saturated": 1}
    waits = {
        point.attributes.get(names.ERROR_TYPE): point.count for point in metrics[names.METRIC_POOL_QUEUE_DURATION.name]
    }
    assert waits == {"QueueTimeout": 2, "PoolSaturated": 1}
    (event,) = capture.events(names.EVENT_POOL_SATURATED.name)
    assert event.attributes == {names.SNAKEPIT_POOL_NAME: "default", "count": 1}
