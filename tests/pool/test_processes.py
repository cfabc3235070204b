"""Pools of worker processes: starts, environment, and processes that do not answer."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from snakepit_otel import Snakepit
from snakepit_otel.errors import SessionWorkerUnavailable, WorkerExited, WorkerStartFailed
from snakepit_otel.telemetry import names
from snakepit_otel.testing import Capture
from tests.pool.adapters import Hooked, Patient, Unsafe, lines
from tests.waiting import PATIENT, until


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


@pytest.mark.parametrize("affinity", ["strict_queue", "strict_fail_fast"])
async def test_strict_modes_refuse_a_session_once(affinity: str) -> None:
    """A session whose worker has died gets an error once, and has any worker from then on."""
    async with Snakepit(Patient, workers=2, pool={**PATIENT, "affinity": affinity}) as pit:
        with pytest.raises(WorkerExited):
            await pit.execute("die", session_id="s")
        with pytest.raises(SessionWorkerUnavailable, match="is gone"):
            await pit.execute("pid", session_id="s")
        pid = await pit.execute("pid", session_id="s")
        assert await pit.execute("pid", session_id="s") == pid


async def test_hooks_run_once_in_each_worker_of_a_pool(tmp_path: Path, capture: Capture) -> None:
    """The start hook has the slot's environment before it runs, and the stop hook runs at the end of each worker."""
    log = tmp_path / "log"
    settings = {"size": 2, "environment": {"DEVICE": "gpu{slot}", "LOG": str(log)}}
    async with Snakepit(Hooked, pool=settings) as pit:
        assert sorted(lines(log)) == [
            "start default-1.1 default 0 gpu0",
            "start default-2.1 default 1 gpu1",
        ]
        assert await pit.execute("device") in ("gpu0 True", "gpu1 True")
        assert sorted(worker.slot for worker in (await pit.status()).pools[0].workers) == [0, 1]
        (first, _) = pit.pool.workers
        await pit.restart_workers()
        assert "stop default-1.1" in lines(log)
        assert pit.stop_hook_time == 2.0
        assert first not in pit.pool.workers
    ended = [line for line in lines(log) if line.startswith("stop")]
    assert sorted(ended) == [f"stop default-{number}.{generation}" for number in (1, 2) for generation in (1, 2)]


async def test_a_start_hook_that_fails_or_hangs_fails_the_start() -> None:
    """The error names the hook, and has what it raised or where it hangs."""
    pit = Snakepit(Hooked, pool={"size": 1, "environment": {"FAIL": "no weights"}})
    with pytest.raises(
        WorkerStartFailed, match=r"on_worker_start of adapter .*Hooked raised OSError: no weights\nTrac"
    ):
        await pit.start()
    pit = Snakepit(Hooked, pool={"size": 1, "startup_timeout": 5_000, "environment": {"HANG": "1"}})
    with pytest.raises(WorkerStartFailed, match=r"(?s)had not ended .* it was here:.*threading.Event\(\).wait"):
        await pit.start()
