"""Affinity: the influence of a session's last worker on its next request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from snakepit_otel.errors import QueueTimeout, SessionWorkerUnavailable, WorkerBusy, WorkerExited
from snakepit_otel.telemetry import names
from snakepit_otel.testing import Capture
from tests.pool.stub_pool import StubPool, stub_pool
from tests.pool.virtual_time import settle, virtual_time


@asynccontextmanager
async def busy(stubs: StubPool, session: str) -> AsyncIterator[str]:
    """Keep the session's worker busy during the block; yields the worker's id."""
    go = asyncio.Event()
    call = stubs.begin("wait_for", go, session=session)
    await settle()
    try:
        yield stubs.last_workers[session]
    finally:
        go.set()
        await call


@virtual_time
async def test_hint_takes_another_worker_rather_than_wait() -> None:
    """By default a session whose worker is busy is served by another one, at once."""
    async with stub_pool(size=2) as stubs, busy(stubs, "s") as worker:
        assert await stubs.execute("echo", session="s") != worker


@virtual_time
async def test_strict_queue_waits_for_the_worker() -> None:
    """A session waits for its own worker, while others are served by any."""
    async with stub_pool(size=2, affinity="strict_queue") as stubs:
        async with busy(stubs, "s") as worker:
            waiting = stubs.begin("echo", session="s")
            await settle()
            assert await stubs.execute("echo", session="other") != worker
            assert not waiting.done()
        assert await waiting == worker


@virtual_time
async def test_strict_queue_gives_up_with_the_queue_timeout() -> None:
    """A session does not wait for its worker for ever, and the error names the worker."""
    async with stub_pool(size=2, affinity="strict_queue", queue_timeout=50) as stubs, busy(stubs, "s") as worker:
        with pytest.raises(QueueTimeout, match=f"worker {worker}, the only one allowed"):
            await stubs.execute("echo", session="s")


@virtual_time
async def test_strict_fail_fast_refuses_at_once() -> None:
    """A session whose worker is busy is refused, and nothing has run."""
    async with stub_pool(size=2, affinity="strict_fail_fast") as stubs:
        async with busy(stubs, "s") as worker:
            with pytest.raises(WorkerBusy, match="did not run"):
                await stubs.execute("echo", session="s")
        assert await stubs.execute("echo", session="s") == worker


@pytest.mark.parametrize("affinity", ["strict_queue", "strict_fail_fast"])
@virtual_time
async def test_strict_modes_refuse_where_the_worker_is_gone(affinity: str) -> None:
    """A session whose worker has died gets an error, on each request until its last worker is forgotten."""
    async with stub_pool(size=2, affinity=affinity) as stubs:
        with pytest.raises(WorkerExited):
            await stubs.execute("crash", [], session="s")
        with pytest.raises(SessionWorkerUnavailable, match="is gone"):
            await stubs.execute("echo", session="s")
        del stubs.last_workers["s"]
        worker = await stubs.execute("echo", session="s")
        assert await stubs.execute("echo", session="s") == worker


@virtual_time
async def test_requests_that_wait_for_a_worker_fail_with_its_end() -> None:
    """A session that waits for its own worker does not wait for one that has died."""
    async with stub_pool(size=2, affinity="strict_queue") as stubs:
        call = stubs.begin("wait_for", asyncio.Event(), session="s")
        await settle()
        waiting = stubs.begin("echo", session="s")
        await settle()
        next(worker for worker in stubs.made if worker.active).exit()
        with pytest.raises(SessionWorkerUnavailable):
            await waiting
        with pytest.raises(WorkerExited):
            await call


@virtual_time
async def test_a_worker_of_another_pool_is_no_hint() -> None:
    """A session that used another pool last is served here by any worker, also in a strict mode."""
    async with stub_pool(affinity="strict_fail_fast") as stubs:
        stubs.last_workers["s"] = "other-1.1"
        assert await stubs.execute("echo", session="s") == stubs.last_workers["s"] == "default-1.1"


@virtual_time
async def test_outcomes_are_counted_with_their_reasons(capture: Capture) -> None:
    """Each request's span, and the metric, have the outcome of the hint and its reason."""
    async with stub_pool(size=2) as stubs:
        await stubs.execute("echo", session="s")
        await stubs.execute("echo", session="s")
        async with busy(stubs, "s") as worker:
            await stubs.execute("echo", session="s")
            stubs.last_workers["s"] = worker
        with pytest.raises(WorkerExited):
            await stubs.execute("crash", [], session="s")
        await stubs.execute("echo", session="s")
    expected = {("broken", "gone"): 1, ("hit", "preferred"): 3, ("miss", "busy"): 1, ("none", "no_hint"): 1}
    spans = [
        (span.attributes[names.SNAKEPIT_AFFINITY_OUTCOME], span.attributes[names.SNAKEPIT_AFFINITY_REASON])
        for span in capture.spans("dispatch request")
    ]
    assert {pair: spans.count(pair) for pair in spans} == expected
    counted = {
        (
            point.attributes[names.SNAKEPIT_AFFINITY_OUTCOME],
            point.attributes[names.SNAKEPIT_AFFINITY_REASON],
        ): point.value
        for point in capture.points(names.METRIC_POOL_AFFINITY_DECISIONS.name)
    }
    assert counted == expected
