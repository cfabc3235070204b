"""Supervision of a pool's workers: starts, crashes, replacements, heartbeats."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from snakepit_otel.bridge.wire.restart_report import Replacement
from snakepit_otel.bridge.wire.telemetry_controls import Controls
from snakepit_otel.errors import CircuitOpen, PoolNotFound, PoolNotStarted, WorkerExited, WorkerStartFailed
from snakepit_otel.pool.status import status_of
from snakepit_otel.pool.workers.base import WorkerState
from snakepit_otel.pool.workers.stub import StubWorker
from snakepit_otel.telemetry import names
from snakepit_otel.testing import Capture
from tests.pool.stub_pool import StubPool, stub_pool
from tests.pool.virtual_time import settle, virtual_time


@virtual_time
async def test_spares_wait_and_take_the_place_of_the_dead() -> None:
    """A spare takes no requests until a worker dies, and then at once, with a new spare behind it."""
    async with stub_pool(spares=1) as stubs:
        assert {await stubs.execute("echo") for _ in range(4)} == {"default-1.1"}
        with pytest.raises(WorkerExited, match=r"was killed by SIGKILL while it ran 'crash'"):
            await stubs.execute("crash", [])
        assert await stubs.execute("echo") == "default-2.1"
        await asyncio.sleep(1)
        assert stubs.in_state(WorkerState.READY) == ["default-2.1"]
        assert stubs.in_state(WorkerState.SPARE) == ["default-1.2"]


@virtual_time
async def test_workers_are_started_in_batches() -> None:
    """`startup_batch_size` start at a time; the next batch follows when they are ready, or after the delay."""
    stubs = StubPool(size=5, startup_batch_size=2, startup_batch_delay=10_000)
    stubs.script.start_seconds = 3
    starting = asyncio.create_task(stubs.pool.start())
    for seconds, made in ((0, 2), (3, 2), (3, 2), (3, 2)):
        await asyncio.sleep(seconds)
        await settle()
        assert len(stubs.made) >= made
    await starting
    assert len(stubs.in_state(WorkerState.READY)) == 5
    await stubs.pool.stop()


@virtual_time
async def test_a_pool_whose_first_batch_fails_does_not_start(caplog: pytest.LogCaptureFixture) -> None:
    """The first error is raised, and not logged as well; no further batch is tried."""
    stubs = StubPool(size=20, startup_batch_size=2)
    stubs.script.start_error = WorkerStartFailed("no adapter")
    with pytest.raises(WorkerStartFailed, match="no adapter"):
        await stubs.pool.start()
    assert len(stubs.made) == 2
    assert "no adapter" not in caplog.text
    with pytest.raises(PoolNotStarted):
        await stubs.execute("echo")


@virtual_time
async def test_failed_starts_of_a_pool_that_serves_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """Where some workers start, what the others failed by is one line, with their number."""
    stubs = StubPool(size=3)

    async def fail_but_the_first(worker: StubWorker) -> None:
        if worker.slot:
            raise WorkerStartFailed("no room")

    stubs.script.on_worker_start = fail_but_the_first
    await stubs.pool.start()
    assert [record.message for record in caplog.records if "no room" in record.message] == ["no room (2 workers)"]
    await stubs.pool.stop()


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"worker_max_requests": 3}, "max_requests"),
        ({"worker_ttl": 20}, "ttl"),
        ({"worker_max_memory_bytes": 300 << 20}, "memory"),
        ({}, "socket_gone"),
    ],
)
@virtual_time
async def test_workers_are_replaced_when_they_are_due(settings: dict[str, Any], reason: str, capture: Capture) -> None:
    """A worker is replaced by age, by requests, by memory and without its socket, and no request fails of it."""
    async with stub_pool(**settings) as stubs:
        first = stubs.made[0]
        first.next_memory = 400 << 20
        first.reachable = reason != "socket_gone"
        while first in stubs.pool.workers:
            await stubs.execute("sleep", 0.5)
        assert await stubs.execute("echo") == "default-1.2"
        assert first.exit_reason == reason
        assert first.closed
        assert not first.admitted
    event = capture.events(names.EVENT_WORKER_RECYCLED.name)[0]
    assert event.attributes[names.SNAKEPIT_WORKER_EXIT_REASON] == reason
    assert event.attributes[names.SNAKEPIT_WORKER_ID] == "default-1.1"
    assert not capture.events(names.EVENT_WORKER_CRASH.name)


@virtual_time
async def test_a_worker_that_is_due_completes_its_requests() -> None:
    """Draining comes before stopping."""
    async with stub_pool() as stubs:
        go = asyncio.Event()
        call = stubs.begin("wait_for", go)
        await settle()
        rolling = asyncio.create_task(stubs.pools.restart(None, lambda _: None))
        await asyncio.sleep(0.1)
        assert stubs.in_state(WorkerState.DRAINING) == ["default-1.1"]
        assert await stubs.execute("echo") == "default-1.2"
        go.set()
        assert await call == "default-1.1"
        await rolling


@virtual_time
async def test_all_workers_can_be_replaced_in_service() -> None:
    """A rolling restart replaces each worker, one after the other, and requests go on meanwhile."""
    replaced: list[Replacement] = []
    async with stub_pool(size=2) as stubs:
        stubs.script.start_seconds = 1
        rolling = asyncio.create_task(stubs.pools.restart(None, replaced.append))
        served = 0
        while not rolling.done():
            await stubs.execute("sleep", 0.1)
            served += 1
            assert len(stubs.in_state(WorkerState.READY)) in (2, 3)
        report = await rolling
        assert served >= 20
        assert report.replacements == tuple(replaced)
        assert not report.failures
        assert [(one.worker, one.replacement, one.remaining) for one in replaced] == [
            ("default-1.1", "default-1.2", 1), ("default-2.1", "default-2.2", 0),
        ]  # fmt: skip
        with pytest.raises(PoolNotFound, match="there are: default"):
            await stubs.pools.restart("defualt", replaced.append)


@virtual_time
async def test_a_worker_without_a_successor_goes_on() -> None:
    """Where new workers do not start, the old ones are kept, and the report has the error."""
    async with stub_pool() as stubs:
        stubs.script.start_error = WorkerStartFailed("it does not work today")
        (failure,) = (await stubs.pools.restart(None, lambda _: None)).failures
        assert "it does not work today" in str(failure.failure)
        assert await stubs.execute("echo") == "default-1.1"
        stubs.script.start_error = None
        assert not (await stubs.pools.restart(None, lambda _: None)).failures
        assert await stubs.execute("echo") != "default-1.1"


@virtual_time
async def test_workers_that_do_not_start_are_not_started_all_the_time(capture: Capture) -> None:
    """After `max_restarts` ends without a result none is started for a while, and requests are refused at once."""
    async with stub_pool(max_restarts=3, queue_timeout=60_000) as stubs:
        stubs.script.start_error = WorkerStartFailed("it does not work today")
        stubs.made[0].exit()
        await settle()
        with pytest.raises(CircuitOpen):
            await stubs.execute("echo")
        assert stubs.pool.fleet.restarts.is_blocked
        assert len(stubs.made) == 3
        with pytest.raises(CircuitOpen, match="did not run"):
            await stubs.execute("echo")
        assert 50 < status_of(stubs.pool).start_blocked_seconds <= 60
        stubs.script.start_error = None
        await asyncio.sleep(61)
        assert await stubs.execute("echo")
    assert len(capture.events(names.EVENT_POOL_START_BLOCKED.name)) == 1


@virtual_time
async def test_workers_that_die_of_every_request_open_the_circuit(capture: Capture) -> None:
    """After `breaker_failures` deaths in a row requests are refused at once; then one is tried, and decides."""
    async with stub_pool(breaker_failures=2, breaker_reset=50_000, queue_timeout=60_000) as stubs:
        await stubs.execute("echo")
        for _ in range(2):
            with pytest.raises(WorkerExited):
                await stubs.execute("crash", [])
        with pytest.raises(CircuitOpen, match=r"'default' die .* did not run"):
            await stubs.execute("echo")
        await asyncio.sleep(50)
        with pytest.raises(WorkerExited):
            await stubs.execute("crash", [])
        with pytest.raises(CircuitOpen):
            await stubs.execute("echo")
        await asyncio.sleep(50)
        assert await stubs.execute("echo")
        assert stubs.pool.breaker.state == "closed"
    changes = [event.name for event in capture.events() if "circuit_breaker" in event.name]
    opened, half_open = names.EVENT_CIRCUIT_BREAKER_OPENED.name, names.EVENT_CIRCUIT_BREAKER_HALF_OPEN.name
    assert changes == [opened, half_open, opened, half_open, names.EVENT_CIRCUIT_BREAKER_CLOSED.name]


@virtual_time
async def test_a_busy_worker_that_misses_heartbeats_is_set_aside(capture: Capture) -> None:
    """It gets no requests while others answer, is not replaced, and recovers with its next answer."""
    async with stub_pool(size=2) as stubs:
        go = asyncio.Event()
        call = stubs.begin("wait_for", go)
        await settle()
        busy = next(worker for worker in stubs.made if worker.active)
        busy.responsive.clear()
        await asyncio.sleep(40)
        assert busy.missed_heartbeats == 3
        assert busy.suspect
        assert "heartbeat" in [worker.suspect for worker in status_of(stubs.pool).workers]
        go.set()
        await call
        assert await stubs.execute("echo") != busy.id
        busy.responsive.set()
        await asyncio.sleep(10)
        assert not busy.suspect
        assert busy in stubs.pool.workers
    tainted = [event.attributes for event in capture.events(names.EVENT_WORKER_TAINTED.name)]
    attributes = {names.SNAKEPIT_POOL_NAME: "default", names.SNAKEPIT_WORKER_ID: busy.id, "count": 1}
    assert {**attributes, names.SNAKEPIT_WORKER_SUSPICION: "heartbeat"} in tainted
    assert len(capture.events(names.EVENT_HEARTBEAT_TIMEOUT.name)) == 3


@virtual_time
async def test_an_idle_worker_that_does_not_answer_is_replaced(capture: Capture) -> None:
    """A worker that has no request has no deadline that would decide: late too often, it is replaced."""
    async with stub_pool() as stubs:
        first = stubs.made[0]
        first.responsive.clear()
        await asyncio.sleep(60)
        assert first not in stubs.pool.workers
        assert await stubs.execute("echo") == "default-1.2"
        assert first.exit_reason == "unresponsive"
    assert not capture.events(names.EVENT_WORKER_CRASH.name)


@virtual_time
async def test_heartbeats_are_timed(capture: Capture) -> None:
    """The time that workers take to answer is collected."""
    async with stub_pool() as stubs:
        await asyncio.sleep(5)
        assert stubs.made[0].last_heartbeat is not None
    (point,) = capture.points(names.METRIC_WORKER_HEARTBEAT_DURATION.name)
    assert point.attributes == {names.SNAKEPIT_POOL_NAME: "default"}
    assert point.count == 2


@virtual_time
async def test_telemetry_of_starts_and_replacements(capture: Capture) -> None:
    """Each worker that becomes ready, and each that follows a lost one, is an event; each end is counted by reason."""
    async with stub_pool() as stubs:
        await stubs.execute("echo")
        with pytest.raises(WorkerExited):
            await stubs.execute("crash", [])
        await stubs.execute("echo")
        await stubs.pools.restart(None, lambda _: None)
    ready = [event.attributes[names.SNAKEPIT_WORKER_ID] for event in capture.events(names.EVENT_WORKER_READY.name)]
    assert ready == ["default-1.1", "default-1.2", "default-1.3"]
    (restarted,) = capture.events(names.EVENT_WORKER_RESTARTED.name)
    assert restarted.attributes[names.SNAKEPIT_WORKER_ID] == "default-1.2"
    (span,) = capture.spans("replace worker")
    assert span.attributes[names.SNAKEPIT_WORKER_EXIT_REASON] == "rolling_restart"
    exits = {
        point.attributes[names.SNAKEPIT_WORKER_EXIT_REASON]: point.value
        for point in capture.points(names.METRIC_WORKER_EXITS.name)
    }
    assert exits == {"crash": 1, "rolling_restart": 1, "stop": 1}


@virtual_time
async def test_controls_reach_all_workers() -> None:
    """Telemetry controls are set on the workers of now."""
    async with stub_pool(size=2) as stubs:
        await stubs.pools.configure(Controls(level="essential"))
        assert [worker.controls for worker in stubs.made] == [Controls(level="essential")] * 2
