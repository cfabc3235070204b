"""The contract of workers, which all kinds keep."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from snakepit_otel.bridge.authority.jobs import CallFailed, CallTimedOut, Job
from snakepit_otel.bridge.wire.tool_calls import execute_request, result_of
from snakepit_otel.pool.workers.base import Worker
from snakepit_otel.pool.workers.in_flight import WorkerGone
from snakepit_otel.pool.workers.process import ProcessWorker, WorkerSpec
from snakepit_otel.pool.workers.stub import StubScript, StubWorker
from tests.waiting import until


class Rig:
    """A started worker, and calls of its tools `echo`, `count` and `sleep`."""

    def __init__(self, worker: Worker, request_of: Callable[..., Any], value_of: Callable[[Any, Any], Any]) -> None:
        self.worker = worker
        self._request_of = request_of
        self._value_of = value_of

    def job(self, tool: str, *, stream: bool = False, **arguments: Any) -> Job:
        """Return a job for the worker."""

        async def on_assigned(_worker_id: str) -> None:
            """Nothing is assigned here."""

        return Job(self._request_of(tool, arguments, stream), tool, "", "r-1", None, on_assigned)

    async def execute(self, tool: str, timeout: float | None = None, **arguments: Any) -> Any:
        """Return what a tool returns."""
        job = self.job(tool, **arguments)
        with self.worker.until_gone():
            return self._value_of(await self.worker.execute(job, timeout), job.request)


async def _echo(_worker: StubWorker, arguments: dict[str, Any]) -> Any:
    return arguments["value"]


async def _sleep(_worker: StubWorker, arguments: dict[str, Any]) -> None:
    await asyncio.sleep(arguments["seconds"])


async def _count(_worker: StubWorker, arguments: dict[str, Any]) -> AsyncIterator[int]:
    for number in range(arguments["to"]):
        yield number


def _stub(_directory: Path) -> Rig:
    script = StubScript({"echo": _echo, "sleep": _sleep, "count": _count})
    return Rig(StubWorker("w-1.1", "w", script), lambda _tool, arguments, _stream: arguments, lambda got, _: got.value)


def _process(directory: Path) -> Rig:
    spec = WorkerSpec(
        worker_id="w-1.1",
        pool="w",
        adapter="tests.pool.adapters:Conforming",
        listen=f"unix:{directory}/w.sock",
        authority="unix:/nonexistent",
        profile="process",
        threads=1,
        max_message_bytes=1 << 20,
        shutdown_grace=1.0,
        parent=os.getpid(),
        token="",
    )
    return Rig(
        ProcessWorker(spec, "run", {}),
        lambda tool, arguments, stream: execute_request(tool, arguments, None, stream=stream),
        result_of,
    )


@pytest.fixture(params=[_stub, _process], ids=["stub", "process"])
async def rig(request: pytest.FixtureRequest, short_path: Path) -> AsyncIterator[Rig]:
    """A worker of each kind, started."""
    rig: Rig = request.param(short_path)
    await rig.worker.start(60)
    yield rig
    rig.worker.kill()
    await rig.worker.wait()
    await rig.worker.close()


async def test_a_started_worker_lists_its_tools_and_answers(rig: Rig) -> None:
    """After `start` the worker has its tools, answers pings, and runs requests."""
    assert {"echo", "count", "sleep"} <= set(rig.worker.tools)
    await rig.worker.ping(10)
    assert await rig.execute("echo", value=3) == 3


async def test_a_stream_is_taken_chunk_by_chunk(rig: Rig) -> None:
    """`take` gets each chunk, and what it raises ends the stream."""
    chunks: list[Any] = []

    async def take(chunk: Any) -> None:
        chunks.append(chunk)

    await rig.worker.stream(rig.job("count", stream=True, to=3), take, None)
    assert len(chunks) >= 3

    async def fail(_chunk: Any) -> None:
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        await rig.worker.stream(rig.job("count", stream=True, to=3), fail, None)


async def test_a_call_past_its_deadline_times_out(rig: Rig) -> None:
    """The error is typed, and the worker goes on; the request's end can be awaited."""
    with pytest.raises(CallTimedOut) as caught:
        await rig.execute("sleep", 0.2, seconds=0.5)
    assert caught.value.status == "DEADLINE_EXCEEDED"
    assert await rig.worker.await_request_end("r-1", 10)
    assert await rig.execute("echo", value=1) == 1


async def test_a_worker_that_ends_ends_its_calls(rig: Rig) -> None:
    """A call in flight fails with a typed error; the worker tells how it ended, and is gone."""
    call: asyncio.Task[Any] = asyncio.create_task(rig.execute("sleep", seconds=60))
    await until(lambda: rig.worker._in_flight.calls)
    rig.worker.kill()
    assert await rig.worker.wait() == "was killed by SIGKILL"
    with pytest.raises((CallFailed, WorkerGone)):
        await call
    assert rig.worker.state == "gone"
    assert await rig.worker.exited(1) == "was killed by SIGKILL"


async def test_a_stopped_worker_exits_by_itself(rig: Rig) -> None:
    """`stop` returns when the worker is gone, and is a requested end."""
    await rig.worker.stop()
    assert rig.worker.stop_requested
    assert await rig.worker.wait() == "exited with status 0"


async def test_access_may_be_withdrawn_twice(rig: Rig) -> None:
    """`revoke` may be repeated."""
    rig.worker.admit()
    steps: list[Callable[[], Awaitable[None] | None]] = [rig.worker.revoke, rig.worker.revoke, rig.worker.read_memory]
    for step in steps:
        step()
