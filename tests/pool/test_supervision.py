"""Workers that come and go: starts, crashes, replacements, heartbeats."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from snakepit_otel import Snakepit
from snakepit_otel.bridge.wire.restart_report import Replacement
from snakepit_otel.errors import CircuitOpen, PoolNotFound, WorkerExited, WorkerStartFailed
from snakepit_otel.pool.workers.base import WorkerState
from snakepit_otel.telemetry import names
from snakepit_otel.testing import Capture
from tests.pool.adapters import Fragile, Other, Patient, Unsafe, lines
from tests.processes import children
from tests.waiting import PATIENT, until

SWITCHED = """
import os, pathlib
from snakepit_otel import BaseAdapter, tool
if not pathlib.Path(__file__).with_name("works").exists():
    raise RuntimeError("it does not work today")
pathlib.Path(__file__).with_name("started").open("a").write("started\\n")

class Switched(BaseAdapter):
    @tool
    def pid(self) -> int:
        return os.getpid()
"""
"""An adapter that can be imported only while there is a file `works` beside it."""


def in_state(pit: Snakepit, state: WorkerState) -> list[str]:
    """Return the ids of the workers in that state."""
    return [worker.id for worker in pit.pool.workers if worker.state is state]


def switched(directory: Path) -> str:
    """Make the adapter, which works for now."""
    (directory / "switched.py").write_text(SWITCHED)
    (directory / "works").touch()
    return f"{directory / 'switched.py'}:Switched"


async def replaced(pit: Snakepit, worker_id: str) -> None:
    """Wait until that worker is gone and there are as many as before."""
    there = len(pit.pool.workers)
    await until(lambda: worker_id not in [worker.id for worker in pit.pool.workers] and len(pit.pool.workers) <= there)
    await until(lambda: len(in_state(pit, WorkerState.READY)) == pit.pool.settings.size)


async def test_spares_wait_and_take_the_place_of_the_dead() -> None:
    """A spare takes no requests until a worker dies, and then at once, with a new spare behind it."""
    async with Snakepit(Patient, pool={"size": 1, "spares": 1, "queue_timeout": 60_000}) as pit:
        (ready,), (spare,) = in_state(pit, WorkerState.READY), in_state(pit, WorkerState.SPARE)
        pids = {await pit.execute("pid") for _ in range(4)}
        assert len(pids) == 1
        with pytest.raises(WorkerExited):
            await pit.execute("die")
        assert await pit.execute("pid") not in pids
        assert in_state(pit, WorkerState.READY) == [spare]
        await until(lambda: in_state(pit, WorkerState.SPARE) == [f"{ready.partition('.')[0]}.2"])


async def test_workers_are_started_in_batches(capture: Capture) -> None:
    """No more than `startup_batch_size` start at a time, unless the pause between batches is over."""
    pit = Snakepit(Patient, pool={"size": 3, "startup_batch_size": 1, "startup_batch_delay": 60_000})
    before = len(children(os.getpid()))
    starting = asyncio.ensure_future(pit.start())
    while not starting.done():
        await asyncio.sleep(0.005)
        assert len(children(os.getpid())) - before <= len(capture.spans("start worker")) + 1
    await starting
    assert len(in_state(pit, WorkerState.READY)) == 3
    await pit.stop()


async def test_a_first_batch_that_fails_is_the_last() -> None:
    """An adapter that cannot be loaded is not tried a thousand times."""
    pit = Snakepit("tests.broken_adapter:Broken", pool={"size": 20, "startup_batch_size": 2})
    with pytest.raises(Exception, match="broken_adapter"):
        await pit.start()


async def test_a_thread_pool_wants_thread_safe_adapters() -> None:
    """An adapter that does not say that it is thread-safe is refused, with what to do."""
    pit = Snakepit(Unsafe, pool={"size": 1, "profile": "thread"})
    with pytest.raises(Exception, match="__thread_safe__ = True"):
        await pit.start()


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"worker_max_requests": 3}, "max_requests"),
        ({"worker_ttl": 2}, "ttl"),
        ({"worker_max_memory_bytes": 300 << 20}, "memory"),
    ],
)
async def test_workers_are_replaced_when_they_are_due(settings: dict[str, Any], reason: str, capture: Capture) -> None:
    """A worker is replaced by age, by requests and by memory, and no request fails of it."""
    async with Snakepit(Patient, pool={"size": 1, **settings}) as pit:
        first = pit.pool.workers[0]
        if reason == "memory":
            await pit.execute("grow", {"megabytes": 400})
        while first in pit.pool.workers:
            await pit.execute("pid")
        assert await pit.execute("pid") != first.pid
        assert first.exit_reason == reason
    event = capture.events(names.EVENT_WORKER_RECYCLED.name)[0]
    assert event.attributes[names.SNAKEPIT_WORKER_EXIT_REASON] == reason
    assert event.attributes[names.SNAKEPIT_WORKER_ID] == "default-1.1"
    assert not capture.events(names.EVENT_WORKER_CRASH.name)


async def test_a_worker_that_is_due_finishes_what_it_has(tmp_path: Path) -> None:
    """Draining comes before stopping."""
    async with Snakepit(Patient, pool={**PATIENT, "size": 1, "worker_max_requests": 1}) as pit:
        arguments = {"path": str(tmp_path / "go"), "started": str(tmp_path / "started")}
        call = asyncio.ensure_future(pit.execute("wait_for", arguments))
        await until(lambda: lines(tmp_path / "started"))
        rolling = asyncio.ensure_future(pit.restart_workers())
        await until(lambda: in_state(pit, WorkerState.DRAINING))
        assert await pit.execute("pid") != int(lines(tmp_path / "started")[0])
        (tmp_path / "go").touch()
        assert await call == int(lines(tmp_path / "started")[0])
        await rolling


async def test_all_workers_can_be_replaced_in_service() -> None:
    """A rolling restart replaces each worker, one after the other, and requests go on meanwhile."""
    told: list[Replacement] = []
    async with Snakepit(Patient, workers=2, pool=PATIENT) as pit:
        before = {worker.pid for worker in pit.pool.workers}
        rolling = asyncio.ensure_future(pit.restart_workers(progress=told.append))
        served = 0
        while not rolling.done():
            await pit.execute("pid")
            served += 1
            assert len(in_state(pit, WorkerState.READY)) in (2, 3)
        report = await rolling
        assert served
        assert report.replacements == tuple(told)
        assert not report.failures
        assert [(one.worker, one.replacement, one.remaining) for one in told] == [
            ("default-1.1", "default-3.1", 1), ("default-2.1", "default-1.2", 0),
        ]  # fmt: skip
        assert not before & {worker.pid for worker in pit.pool.workers}
        with pytest.raises(PoolNotFound, match="there are: default"):
            await pit.restart_workers("defualt")


async def test_a_worker_without_a_successor_goes_on(tmp_path: Path) -> None:
    """Where new workers do not start, the old ones are kept, and the report says why."""
    async with Snakepit(switched(tmp_path), pool={**PATIENT, "size": 1}) as pit:
        pid = await pit.execute("pid")
        (tmp_path / "works").unlink()
        (failure,) = (await pit.restart_workers()).failures
        assert "it does not work today" in str(failure.failure)
        assert await pit.execute("pid") == pid
        (tmp_path / "works").touch()
        assert not (await pit.restart_workers()).failures
        assert await pit.execute("pid") != pid


async def test_workers_that_do_not_start_are_not_started_all_the_time(tmp_path: Path, capture: Capture) -> None:
    """After `max_restarts` ends without an answer none is started for a while, and requests are refused at once."""
    settings = {"size": 1, "max_restarts": 3, "queue_timeout": 60_000}
    async with Snakepit(switched(tmp_path), pool=settings) as pit:
        pit.pool.fleet.restarts.on_first_result()
        (tmp_path / "works").unlink()
        pit.pool.workers[0].kill()
        pit.pool.workers[0].stop_requested = False
        waiting = asyncio.ensure_future(pit.execute("pid"))
        with pytest.raises((CircuitOpen, WorkerExited)):
            await waiting
        await until(lambda: pit.pool.fleet.restarts.is_blocked)
        # At once, where the bar lasts a minute.
        async with asyncio.timeout(30):
            with pytest.raises(CircuitOpen, match="did not run"):
                await pit.execute("pid")
        assert (await pit.status()).pools[0].barred_seconds > 0
    assert len(capture.events(names.EVENT_POOL_BARRED.name)) == 1
    failed = [span for span in capture.spans("start worker") if "error.type" in span.attributes]
    assert 2 <= len(failed) <= 3


async def test_workers_that_die_of_every_request_open_the_circuit(capture: Capture) -> None:
    """After `breaker_failures` deaths in a row requests are refused at once; then one is tried, and decides."""
    settings = {"size": 1, "breaker_failures": 2, "breaker_reset": 100, "queue_timeout": 60_000}
    pools = {"other": {"adapter": Other, "size": 1}}
    async with Snakepit(Fragile, pool=settings, pools=pools) as pit:
        for _ in range(2):
            with pytest.raises(WorkerExited):
                await pit.execute("anything")
        with pytest.raises(CircuitOpen, match=r"'default' die .* did not run"):
            await pit.execute("anything")
        assert await pit.execute("elsewhere")
        await until(lambda: not pit.pool.breaker.retry_after)
        with pytest.raises(WorkerExited):
            await pit.execute("anything")
        with pytest.raises(CircuitOpen):
            await pit.execute("anything")
    told = [event.name for event in capture.events() if "circuit_breaker" in event.name]
    opened, half_open = names.EVENT_CIRCUIT_BREAKER_OPENED.name, names.EVENT_CIRCUIT_BREAKER_HALF_OPEN.name
    assert told == [opened, half_open, opened]


async def test_the_circuit_closes_with_the_first_success(tmp_path: Path) -> None:
    """A request that is answered lets all others through again."""
    settings = {"size": 1, "breaker_failures": 1, "breaker_reset": 100, "queue_timeout": 60_000}
    async with Snakepit(Patient, pool=settings) as pit:
        with pytest.raises(WorkerExited):
            await pit.execute("die")
        await until(lambda: not pit.pool.breaker.retry_after)
        assert await pit.execute("pid")
        assert pit.pool.breaker.state == "closed"


async def test_a_busy_worker_is_not_dead(tmp_path: Path, capture: Capture) -> None:
    """Code that holds the interpreter misses heartbeats; its worker is set aside, not killed, and trusted again."""
    settings = {"size": 2, "heartbeat_interval": 100, "heartbeat_timeout": 300, "heartbeat_max_missed": 2}
    async with Snakepit(Patient, pool=settings) as pit:
        started = tmp_path / "started"
        arguments = {"seconds": 4, "started": str(started)}
        call = asyncio.ensure_future(pit.execute("hold_the_interpreter", arguments))
        await until(lambda: lines(started))
        held = next(worker for worker in pit.pool.workers if worker.active)
        await until(lambda: held.missed_heartbeats >= 3)
        assert held.suspect
        assert (await pit.status()).pools[0].workers[pit.pool.workers.index(held)].suspect == "heartbeat"
        assert await call == held.pid
        await until(lambda: not held.suspect)
        assert held in pit.pool.workers
    told = [event.attributes for event in capture.events(names.EVENT_WORKER_TAINTED.name)]
    about = {names.SNAKEPIT_POOL_NAME: "default", names.SNAKEPIT_WORKER_ID: held.id, "count": 1}
    assert {**about, names.SNAKEPIT_WORKER_SUSPICION: "heartbeat"} in told
    assert len(capture.events(names.EVENT_HEARTBEAT_TIMEOUT.name)) >= 3


async def test_an_idle_worker_that_does_not_answer_is_replaced(capture: Capture) -> None:
    """A worker that has no request has no deadline that would decide: late too often, it is replaced."""
    settings = {"size": 1, "heartbeat_interval": 100, "heartbeat_timeout": 300, "queue_timeout": 60_000}
    async with Snakepit(Patient, pool=settings) as pit:
        first = pit.pool.workers[0]
        os.kill(first.pid, signal.SIGSTOP)
        await until(lambda: first not in pit.pool.workers)
        assert await pit.execute("pid") != first.pid
        assert first.exit_reason == "unresponsive"
    assert not capture.events(names.EVENT_WORKER_CRASH.name)


async def test_heartbeats_are_timed(capture: Capture) -> None:
    """How long workers take to answer is there to be collected."""
    async with Snakepit(Patient, pool={**PATIENT, "size": 1, "heartbeat_interval": 100}) as pit:
        await until(lambda: pit.pool.workers[0].last_heartbeat is not None)
    (point,) = capture.points(names.METRIC_WORKER_HEARTBEAT_DURATION.name)
    assert point.attributes == {names.SNAKEPIT_POOL_NAME: "default"}
    assert point.count >= 1


async def test_starts_and_replacements_are_told(capture: Capture) -> None:
    """Each worker that becomes ready, and each that follows a lost one, is an event; each end is counted by reason."""
    async with Snakepit(Patient, pool={"size": 1, "queue_timeout": 60_000}) as pit:
        with pytest.raises(WorkerExited):
            await pit.execute("die")
        await pit.execute("pid")
        await pit.restart_workers()
    ready = [event.attributes[names.SNAKEPIT_WORKER_ID] for event in capture.events(names.EVENT_WORKER_READY.name)]
    assert ready == ["default-1.1", "default-1.2", "default-2.1"]
    (restarted,) = capture.events(names.EVENT_WORKER_RESTARTED.name)
    assert restarted.attributes[names.SNAKEPIT_WORKER_ID] == "default-1.2"
    (span,) = capture.spans("replace worker")
    assert span.attributes[names.SNAKEPIT_WORKER_EXIT_REASON] == "rolling_restart"
    exits = {
        point.attributes[names.SNAKEPIT_WORKER_EXIT_REASON]: point.value
        for point in capture.points(names.METRIC_WORKER_EXITS.name)
    }
    assert exits == {"crash": 1, "rolling_restart": 1, "stop": 1}


async def test_environment_and_library_threads_reach_the_workers() -> None:
    """A pool's environment is its workers' alone; numeric libraries get one thread unless told otherwise."""
    pools = {"other": {"adapter": Patient, "size": 1, "environment": {"OMP_NUM_THREADS": "3", "COLOUR": "red"}}}
    async with Snakepit(Patient, pool={"size": 1, "environment": {"COLOUR": "blue"}}, pools=pools) as pit:
        asked = {"names": ["COLOUR", "OMP_NUM_THREADS", "NUMBA_NUM_THREADS"]}
        here = await pit.execute("environment", asked)
        assert here == {"COLOUR": "blue", "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
        there = await pit.execute("environment", asked, pool="other")
        assert there == {"COLOUR": "red", "OMP_NUM_THREADS": "3", "NUMBA_NUM_THREADS": "1"}
    assert "COLOUR" not in os.environ


async def test_a_start_that_takes_too_long_is_ended() -> None:
    """A worker that is not ready in time is killed, and said to be so."""
    pit = Snakepit("tests.pool.slow_adapter:Slow", pool={"size": 1, "startup_timeout": 300})
    with pytest.raises(WorkerStartFailed, match=r"not ready within 0\.3 s"):
        await pit.start()
