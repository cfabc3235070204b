"""Worker processes under a real authority: start, crash, replacement, stop."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from snakepit_otel import Snakepit
from snakepit_otel.errors import (
    AdapterNotLoaded,
    DeadlineExceeded,
    PoolNotStarted,
    QueueTimeout,
    ToolRefused,
    WorkerExited,
    WorkerStartFailed,
)
from snakepit_otel.pool.workers.base import WorkerState
from tests.adapters_for_tests import NoTools, Useful
from tests.waiting import PATIENT, until


@pytest.fixture
async def pit() -> AsyncIterator[Snakepit]:
    """Two workers."""
    async with Snakepit(adapter=Useful, workers=2, pool=PATIENT) as running:
        yield running


async def test_results_come_back_as_they_were(pit: Snakepit) -> None:
    """JSON values and bytes survive the way to a worker and back."""
    value = {"list": [1, 2.5, None, True], "text": "ü", "nested": {"a": []}}
    assert await pit.execute("echo", {"value": value}) == value
    assert await pit.execute("echo_async", {"value": value}) == value
    assert await pit.execute("echo", {"value": b"\x00\xff"}) == b"\x00\xff"


async def test_workers_are_other_processes(pit: Snakepit) -> None:
    """A tool runs in a process that is one of the pool's and not ours."""
    pid = await pit.execute("pid")
    assert pid != os.getpid()
    assert pid in [worker.pid for worker in pit.pool.workers]


async def test_state_is_shared_by_workers(pit: Snakepit) -> None:
    """Concurrent requests of one session, on both workers, lose no update."""
    await asyncio.gather(*(pit.execute("add", {"amount": 1}, session_id="s") for _ in range(40)))
    assert await pit.sessions.get_state("s", "total") == 40


async def test_session_goes_back_to_its_worker(pit: Snakepit) -> None:
    """An idle session's requests prefer the worker it used last."""
    first = await pit.execute("pid", session_id="s")
    assert [await pit.execute("pid", session_id="s") for _ in range(5)] == [first] * 5


async def test_any_worker_can_serve_any_session(pit: Snakepit, tmp_path: Path) -> None:
    """While a session's last worker is busy, another one serves it."""
    first = await pit.execute("pid", session_id="s")
    busy = asyncio.ensure_future(
        pit.execute("wait_for", {"path": str(tmp_path / "go"), "started": str(tmp_path / "started")}, session_id="s")
    )
    await until((tmp_path / "started").exists)
    assert await pit.execute("pid", session_id="s") != first
    (tmp_path / "go").touch()
    assert await busy == "seen"


async def test_crash_is_a_clear_error_at_once_and_the_worker_is_replaced(pit: Snakepit, tmp_path: Path) -> None:
    """A worker that dies takes its request with it, says how, runs nothing twice, and has a successor."""
    before = {worker.id for worker in pit.pool.workers}
    with pytest.raises(WorkerExited, match="killed by SIGKILL while it ran 'die'"):
        await pit.execute("die", {"marker": str(tmp_path / "ran")})
    assert (tmp_path / "ran").read_text() == "ran\n"
    await until(lambda: len([w for w in pit.pool.workers if w.state is WorkerState.READY]) == 2)
    assert len({worker.id for worker in pit.pool.workers} - before) == 1
    assert await pit.execute("echo", {"value": 1}) == 1


async def test_session_outlives_its_worker(pit: Snakepit, tmp_path: Path) -> None:
    """A crash loses no state, and the next request of the session is served."""
    await pit.execute("add", {"amount": 5}, session_id="s")
    with pytest.raises(WorkerExited):
        await pit.execute("die", {"marker": str(tmp_path / "ran")}, session_id="s")
    assert await pit.execute("add", {"amount": 1}, session_id="s") == 6


async def test_waiting_request_is_served_by_the_replacement(tmp_path: Path) -> None:
    """With the only worker gone, a request waits for its successor."""
    async with Snakepit(adapter=Useful, workers=1, pool=PATIENT) as pit:
        with pytest.raises(WorkerExited):
            await pit.execute("die", {"marker": str(tmp_path / "ran")})
        assert await pit.execute("echo", {"value": 1}) == 1


async def test_waiting_ends_with_the_queue_timeout(tmp_path: Path) -> None:
    """A request that no worker becomes ready for fails by the queue timeout, saying that it did not run."""
    async with Snakepit(adapter=Useful, workers=1, pool={"queue_timeout": 0}) as pit:
        with pytest.raises(WorkerExited):
            await pit.execute("die", {"marker": str(tmp_path / "ran")})
        with pytest.raises(QueueTimeout, match="did not run"):
            await pit.execute("echo", {"value": 1})


async def test_deadline_ends_the_wait_and_cancels_the_tool(pit: Snakepit, tmp_path: Path) -> None:
    """After its timeout the caller is told so, and a coroutine tool is cancelled."""
    with pytest.raises(DeadlineExceeded):
        await pit.execute(
            "wait_forever", {"started": str(tmp_path / "s"), "cancelled": str(tmp_path / "c")}, timeout=0.5
        )
    await until((tmp_path / "c").exists)


async def test_cancelling_the_caller_cancels_the_tool(pit: Snakepit, tmp_path: Path) -> None:
    """A caller that gives up takes its coroutine tool along."""
    call = asyncio.ensure_future(
        pit.execute("wait_forever", {"started": str(tmp_path / "s"), "cancelled": str(tmp_path / "c")})
    )
    await until((tmp_path / "s").exists)
    call.cancel()
    await until((tmp_path / "c").exists)


async def test_streams_arrive_in_order(pit: Snakepit) -> None:
    """Chunks of plain and async generators come one by one, in order."""
    numbers = [{"number": 1}, {"number": 2}, {"number": 3}]
    assert [chunk async for chunk in pit.stream("count", {"to": 3})] == numbers
    assert [chunk async for chunk in pit.stream("count_async", {"to": 3})] == numbers


async def test_standard_input_of_a_worker_is_empty(pit: Snakepit) -> None:
    """A tool that reads standard input finds nothing, least of all the control socket."""
    assert await pit.execute("read_standard_input") == ""


async def test_stop_finishes_what_is_in_flight(tmp_path: Path) -> None:
    """A request that runs when the pit stops is answered."""
    pit = Snakepit(adapter=Useful, workers=1)
    await pit.start()
    call = asyncio.ensure_future(
        pit.execute("wait_for", {"path": str(tmp_path / "go"), "started": str(tmp_path / "started")})
    )
    await until((tmp_path / "started").exists)
    stopping = asyncio.ensure_future(pit.stop())
    (tmp_path / "go").touch()
    assert await call == "seen"
    await stopping


async def test_stop_is_final_and_leaves_nothing(tmp_path: Path) -> None:
    """After stop no worker and no socket remains, and calls say that the pit is not running."""
    async with Snakepit(adapter=Useful, workers=2) as pit:
        pids = [worker.pid for worker in pit.pool.workers]
        directory = Path(pit.socket.removeprefix("unix:")).parent
        assert directory.stat().st_mode & 0o777 == 0o700
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert not directory.exists()
    with pytest.raises(PoolNotStarted):
        await pit.execute("echo", {"value": 1})


async def test_stuck_worker_is_killed_when_its_grace_is_over(tmp_path: Path) -> None:
    """A worker that holds the interpreter in C code does not hold up stop."""
    pit = Snakepit(adapter=Useful, workers=1, pool={"shutdown_grace": 100})
    await pit.start()
    pid = pit.pool.workers[0].pid
    call = asyncio.ensure_future(pit.execute("hold_the_interpreter", {"started": str(tmp_path / "started")}))
    await until((tmp_path / "started").exists)
    await pit.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(WorkerExited):
        await call


@pytest.mark.parametrize(
    ("adapter", "error", "words"),
    [
        ("tests.no_such_module:Adapter", AdapterNotLoaded, "No module named 'tests.no_such_module'"),
        ("tests.adapters_for_tests:Nobody", AdapterNotLoaded, "has no 'Nobody'"),
        ("tests.adapters_for_tests:os", AdapterNotLoaded, "not a class"),
        ("tests.broken_adapter:Broken", AdapterNotLoaded, "ZeroDivisionError"),
        ("tests.dying_adapter:Dying", WorkerStartFailed, "killed by SIGKILL before it was ready"),
        (NoTools, ToolRefused, "has no tools"),
    ],
)
async def test_a_bad_adapter_fails_the_start(adapter: type | str, error: type[Exception], words: str) -> None:
    """Start fails with the reason, whatever it is, and leaves nothing behind."""
    pit = Snakepit(adapter=adapter, workers=2)
    with pytest.raises(error, match=words):
        await pit.start()
    assert pit.socket == "" or not Path(pit.socket.removeprefix("unix:")).exists()


async def test_start_after_a_failed_start(tmp_path: Path) -> None:
    """A pit whose start has failed can be started once the cause is mended."""
    module = tmp_path / "late.py"
    pit = Snakepit(adapter=f"{module}:Late", workers=1)
    with pytest.raises(AdapterNotLoaded, match="there is no file"):
        await pit.start()
    module.write_text(
        "from snakepit_otel import BaseAdapter, tool\n"
        "class Late(BaseAdapter):\n    @tool\n    def hello(self) -> str:\n        return 'hello'\n"
    )
    async with pit:
        assert await pit.execute("hello") == "hello"


async def test_killed_worker_fails_its_callers_quickly(pit: Snakepit, tmp_path: Path) -> None:
    """Callers of a killed worker hear of it long before any timeout."""
    call = asyncio.ensure_future(
        pit.execute("wait_for", {"path": str(tmp_path / "never"), "started": str(tmp_path / "started")})
    )
    await until((tmp_path / "started").exists)
    victim = next(worker for worker in pit.pool.workers if worker.active)
    killed = time.monotonic()
    os.kill(victim.pid, signal.SIGKILL)
    with pytest.raises(WorkerExited):
        await call
    assert time.monotonic() - killed < 30, "the caller waited for a timeout"
