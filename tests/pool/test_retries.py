"""Retries of requests that lose their worker."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest
from opentelemetry import trace

from snakepit_otel import Client, Snakepit
from snakepit_otel.errors import WorkerExited
from snakepit_otel.pool.workers.stub import StubWorker
from snakepit_otel.telemetry import names
from snakepit_otel.testing import Capture
from tests.pool.adapters import Patient, lines
from tests.pool.stub_pool import crash, stub_pool
from tests.pool.virtual_time import settle, virtual_time
from tests.waiting import PATIENT


@virtual_time
async def test_a_request_that_is_not_idempotent_runs_once() -> None:
    """A request whose worker dies is not run again unless it is idempotent."""
    runs: list[str] = []
    async with stub_pool(size=2) as stubs:
        with pytest.raises(WorkerExited, match=r"killed by SIGKILL while it ran 'crash_once'; .* may have run in part"):
            await stubs.execute("crash_once", runs)
    assert len(runs) == 1


@virtual_time
async def test_an_idempotent_request_runs_again_elsewhere() -> None:
    """An idempotent request survives its worker, and its session goes with it."""
    runs: list[str] = []
    async with stub_pool(size=2) as stubs:
        worker = await stubs.execute("crash_once", runs, session="s", idempotent=True)
        first, second = runs
        assert first != second == worker
        assert await stubs.execute("echo", session="s") == worker


async def test_a_client_asks_for_it_too(tmp_path: Path) -> None:
    """`idempotent` crosses the wire."""
    async with Snakepit(Patient, workers=2, pool=PATIENT) as pit, Client(pit.socket) as client:
        await client.execute("die_once", {"ran": str(tmp_path / "ran")}, idempotent=True)
    assert len(lines(tmp_path / "ran")) == 2


@virtual_time
async def test_retries_are_limited() -> None:
    """A request that ends every worker that runs it is run `max_retries` times more."""
    runs: list[str] = []
    async with stub_pool(size=3, max_retries=2) as stubs:
        with pytest.raises(WorkerExited):
            await stubs.execute("crash", runs, idempotent=True)
    assert len(runs) == 3


@virtual_time
async def test_no_retry_beyond_the_deadline() -> None:
    """A request whose deadline has passed is not run again; the error is that of the loss."""
    runs: list[str] = []
    async with stub_pool() as stubs:
        stubs.script.start_seconds = 10
        with pytest.raises(WorkerExited):
            await stubs.execute("crash", runs, idempotent=True, timeout=2)
    assert len(runs) == 1


@pytest.mark.parametrize(("before", "idempotent", "runs"), [(0, True, 2), (2, True, 1), (0, False, 1)])
@virtual_time
async def test_streams_run_again_only_before_their_first_chunk(before: int, idempotent: bool, runs: int) -> None:
    """A consumer gets no chunk twice."""
    ran: list[str] = []
    chunks: list[int] = []

    async def count(worker: StubWorker, _request: object) -> AsyncIterator[int]:
        for number in range(4):
            if number == before and not ran:
                await crash(worker, ran)
            yield number
        ran.append(worker.id)

    async def take(chunk: int) -> None:
        chunks.append(chunk)

    async with stub_pool(size=2) as stubs:
        stubs.script.tools = {"count": count}
        job = stubs.job("count", idempotent=idempotent)
        if runs == 2:
            await stubs.pool.stream(job, take)
        else:
            with pytest.raises(WorkerExited):
                await stubs.pool.stream(job, take)
    assert chunks == (list(range(4)) if runs == 2 else list(range(before)))
    assert len(ran) == runs


async def test_a_death_is_noticed_although_a_child_holds_the_connection(tmp_path: Path) -> None:
    """A process that the adapter forked keeps the worker's sockets open; its death is reported at once nevertheless."""
    async with Snakepit(Patient, pool={"size": 1, "queue_timeout": 60_000}) as pit:
        started = time.monotonic()
        with pytest.raises(WorkerExited):
            await pit.execute("leave_a_child_and_die", {"child": str(tmp_path / "child")})
        assert time.monotonic() - started < 15, "the child lives for twenty seconds"
        assert await pit.execute("pid")
    with suppress(ProcessLookupError):  # ended as a leftover process by then, on a busy machine
        os.kill(int((tmp_path / "child").read_text()), signal.SIGKILL)


@virtual_time
async def test_several_requests_of_a_worker_are_one_failure_for_the_breaker() -> None:
    """A worker that takes ten requests with it does not open the circuit breaker."""
    async with stub_pool(size=2, profile="thread", threads_per_worker=10, breaker_failures=2) as stubs:
        go = asyncio.Event()
        calls = [stubs.begin("wait_for", go) for _ in range(20)]
        await settle()
        stubs.made[0].exit()
        await asyncio.sleep(0.1)
        assert sum(call.done() for call in calls) == 10
        assert stubs.pool.breaker.state == "closed"
        go.set()
        ended = await asyncio.gather(*calls, return_exceptions=True)
    assert sum(isinstance(end, WorkerExited) for end in ended) == 10


@virtual_time
async def test_telemetry_of_retries(capture: Capture) -> None:
    """Each run has a span of its own within the caller's, and retries are counted."""
    async with stub_pool(size=2) as stubs:
        with trace.get_tracer("test").start_as_current_span("caller"):
            await stubs.execute("crash_once", [], idempotent=True)
    runs = capture.spans("dispatch request")
    (caller,) = capture.spans("caller")
    assert {run.parent_id for run in runs} == {caller.span_id}
    assert [run.attributes.get("error.type") for run in runs] == ["WorkerExited", None]
    assert [point.value for point in capture.points(names.METRIC_POOL_RETRIES.name)] == [1]
