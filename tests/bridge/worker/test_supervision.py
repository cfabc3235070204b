"""Service for the pool: ends of requests, and telemetry controls."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, ClassVar

import grpc
import pytest
from grpc import aio
from hypothesis import given
from hypothesis import strategies as st

from snakepit_otel import BaseAdapter, rpc, tool
from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb
from snakepit_otel.bridge.proto import snakepit_supervision_pb2 as supervision_pb
from snakepit_otel.bridge.proto.snakepit_bridge_pb2_grpc import BridgeServiceStub
from snakepit_otel.bridge.proto.snakepit_supervision_pb2_grpc import SupervisionServiceStub
from snakepit_otel.bridge.wire import methods
from snakepit_otel.bridge.wire.telemetry_controls import Controls
from snakepit_otel.bridge.worker.supervision import RunningRequests
from snakepit_otel.telemetry import Level
from tests.bridge.parts import worker
from tests.waiting import until


class Stubborn(BaseAdapter):
    """Tools that take no notice of being cancelled; `release` lets them end, `tidy` their clean-up."""

    started: ClassVar[threading.Event] = threading.Event()
    release: ClassVar[threading.Event] = threading.Event()
    cleaning: ClassVar[threading.Event] = threading.Event()
    tidy: ClassVar[threading.Event] = threading.Event()
    ran: ClassVar[list[str]] = []

    def cleanup(self) -> None:
        """Take as long as the test wants."""
        self.cleaning.set()
        assert self.tidy.wait(30)

    @tool
    def block(self, name: str = "") -> None:
        """Wait in a thread."""
        self.ran.append(name)
        self.started.set()
        assert self.release.wait(30)

    @tool
    def think(self) -> Iterator[int]:
        """Wait in a thread before the first chunk."""
        self.block()
        yield 1

    @tool
    async def wait(self) -> None:
        """Wait on the loop."""
        self.started.set()
        await asyncio.Event().wait()

    @tool
    def echo(self, value: int = 0) -> int:
        """Return the value."""
        return value


class Worker:
    """A worker's two services, on one channel."""

    def __init__(self, channel: Any) -> None:
        self.bridge = BridgeServiceStub(channel)
        self.supervision = SupervisionServiceStub(channel)

    def begin(self, tool: str, request_id: str) -> Any:
        """Begin a request; cancel what is returned to leave it."""
        request = pb.ExecuteToolRequest(tool_name=tool, metadata={methods.REQUEST_ID: request_id})
        if tool == "think":
            return self.bridge.ExecuteStreamingTool(request)
        return self.bridge.ExecuteTool(request)

    def end_of(self, request_id: str) -> asyncio.Future[Any]:
        """Return what is done once the worker says that the request has ended."""
        return asyncio.ensure_future(
            self.supervision.AwaitEnd(supervision_pb.AwaitEndRequest(request_id=request_id), timeout=30)
        )


@pytest.fixture
async def ours(short_path: Path) -> AsyncIterator[Worker]:
    """A worker of one thread."""
    events = (Stubborn.started, Stubborn.release, Stubborn.cleaning, Stubborn.tidy)
    for event in events:
        event.clear()
    Stubborn.ran.clear()
    async with worker(Stubborn, f"unix:{short_path}/nowhere", short_path):
        async with rpc.aio_channel(f"unix:{short_path}/worker") as channel:
            yield Worker(channel)
        for event in events:
            event.set()


@pytest.mark.parametrize("tool", ["block", "think"])
async def test_a_tool_that_takes_no_notice_is_waited_for(ours: Worker, tool: str) -> None:
    """What a thread goes on with after its caller has gone has ended once the tool and its clean-up have."""
    call = ours.begin(tool, "r1")
    reading = asyncio.ensure_future(call.read() if tool == "think" else call.code())
    await until(Stubborn.started.is_set)
    call.cancel()
    await asyncio.wait([reading])
    ended = ours.end_of("r1")
    await ours.bridge.Ping(pb.PingRequest())
    assert not ended.done()
    Stubborn.release.set()
    await until(Stubborn.cleaning.is_set)
    await ours.bridge.Ping(pb.PingRequest())
    assert not ended.done()
    Stubborn.tidy.set()
    await ended


async def test_a_coroutine_has_ended_with_its_clean_up(ours: Worker) -> None:
    """A coroutine tool is cancelled, so its request has ended once it is cleaned up."""
    call = ours.begin("wait", "r1")
    await until(Stubborn.started.is_set)
    call.cancel()
    await until(Stubborn.cleaning.is_set)
    ended = ours.end_of("r1")
    await ours.bridge.Ping(pb.PingRequest())
    assert not ended.done()
    Stubborn.tidy.set()
    await ended


async def test_a_request_that_is_left_at_its_deadline(ours: Worker) -> None:
    """A request that was answered because its time was up has not ended before its thread is done with it."""
    request = pb.ExecuteToolRequest(tool_name="block", metadata={methods.REQUEST_ID: "r1", "timeout_ms": "20"})
    assert "DeadlineExceeded" in (await ours.bridge.ExecuteTool(request)).error_message
    ended = ours.end_of("r1")
    await ours.bridge.Ping(pb.PingRequest())
    assert not ended.done()
    Stubborn.tidy.set()
    Stubborn.release.set()
    await ended


async def test_what_never_began_has_ended(ours: Worker) -> None:
    """A request that waited for the worker's thread when its caller went never runs, and has ended at once."""
    first = ours.begin("block", "r1")
    await until(Stubborn.started.is_set)
    second = ours.begin("block", "r2")
    async with asyncio.timeout(30):
        while True:
            running = ours.end_of("r2")
            await ours.bridge.Ping(pb.PingRequest())
            if not running.done():
                break
    second.cancel()
    await running
    await ours.end_of("r2")
    Stubborn.tidy.set()
    Stubborn.release.set()
    await first
    assert len(Stubborn.ran) == 1


async def test_what_is_not_there_has_ended(ours: Worker) -> None:
    """A request that the worker never had, or that it has answered, has ended."""
    await ours.end_of("never")
    await ours.end_of("")
    Stubborn.tidy.set()
    assert (await ours.begin("echo", "r1")).success
    await ours.end_of("r1")


async def test_a_running_request_that_nobody_left_is_waited_for(ours: Worker) -> None:
    """Many may wait for the end of one request; giving up on it hurts none of the others."""
    Stubborn.tidy.set()
    call = ours.begin("block", "r1")
    await until(Stubborn.started.is_set)
    waiting = [ours.end_of("r1") for _ in range(3)]
    await ours.bridge.Ping(pb.PingRequest())
    waiting[0].cancel()
    await asyncio.wait(waiting[:1])
    assert not any(wait.done() for wait in waiting[1:])
    Stubborn.release.set()
    await asyncio.gather(*waiting[1:])
    assert (await call).success


_STEPS = st.lists(st.tuples(st.sampled_from(["begin", "end", "go on", "done"]), st.sampled_from("ab")), max_size=30)


@given(steps=_STEPS)
def test_a_request_runs_as_long_as_a_part_of_it_does(steps: list[tuple[str, str]]) -> None:
    """Whatever parts of requests begin and end in whatever order: the wait is over exactly when none is left."""

    async def check() -> None:
        running = RunningRequests()
        parts = {"a": 0, "b": 0}
        rests: dict[str, list[asyncio.Future[None]]] = {"a": [], "b": []}
        waits: dict[str, list[asyncio.Task[None]]] = {"a": [], "b": []}
        for what, name in steps:
            if what == "begin":
                running.begin(name)
                parts[name] += 1
            elif what == "end" and parts[name]:
                running.end(name)
                parts[name] -= 1
            elif what == "go on":
                rests[name].append(asyncio.get_running_loop().create_future())
                running.add_work(name, rests[name][-1])
            elif what == "done" and rests[name]:
                rests[name].pop().set_result(None)
            for _ in range(3):
                await asyncio.sleep(0)
            for each, tasks in waits.items():
                idle = not parts[each] and not rests[each]
                assert all(task.done() for task in tasks) or not idle
                if not idle:
                    assert not any(task.done() for task in tasks)
                else:
                    tasks.clear()
                waits[each].append(asyncio.ensure_future(running.wait_for_end(each)))
            await asyncio.sleep(0)
            for each, tasks in waits.items():
                if not parts[each] and not rests[each]:
                    assert all(task.done() for task in tasks)
                    tasks.clear()
        for tasks in waits.values():
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(check())


@pytest.fixture
def as_configured() -> Iterator[None]:
    """Leave the process as it was."""
    before = Controls.in_force()
    yield
    before.apply()


@pytest.mark.usefixtures("as_configured")
@pytest.mark.parametrize("level", list(Level))
@pytest.mark.parametrize("patterns", [{}, {"allow": ["snakepit.*"], "deny": ["snakepit.adapter.execute"]}])
async def test_controls_cross_the_wire(ours: Worker, level: Level, patterns: dict[str, Any]) -> None:
    """When the call returns, what was meant is in force in the worker."""
    meant = Controls(level=level, sampling=0.5, **patterns)
    await ours.supervision.SetTelemetry(meant.to_message())
    assert Controls.in_force() == meant


@pytest.mark.usefixtures("as_configured")
async def test_controls_that_cannot_be_are_refused(ours: Worker) -> None:
    """A worker refuses controls that no authority of ours sends, by name."""
    with pytest.raises(aio.AioRpcError, match="sampling") as raised:
        await ours.supervision.SetTelemetry(supervision_pb.SetTelemetryRequest(level="full", sampling=2))
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert Controls.in_force() == Controls()
