"""StreamTelemetry: a worker's events, under its authority's control."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import aio

from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb
from snakepit_otel.bridge.proto.snakepit_bridge_pb2_grpc import BridgeServiceServicer
from snakepit_otel.bridge.worker.telemetry_stream import TelemetryStream
from snakepit_otel.testing import Capture
from tests.bridge.painting import Painting
from tests.bridge.parts import raw, serving, worker
from tests.waiting import until


class Streaming(BridgeServiceServicer):
    """Serves one stream of events; a draw of half decides what is sampled."""

    def __init__(self) -> None:
        self.events = TelemetryStream(draw=lambda: 0.5)

    async def StreamTelemetry(self, controls: Any, context: Any) -> None:
        """Serve."""
        await self.events.serve(context)


class Listener:
    """An authority that listens; `say` sends it a control."""

    def __init__(self, stub: Any, timeout: float | None = None) -> None:
        self._controls: asyncio.Queue[pb.TelemetryControl] = asyncio.Queue()
        self.call = stub.StreamTelemetry(self._sent(), timeout=timeout)

    async def _sent(self) -> AsyncIterator[pb.TelemetryControl]:
        while True:
            yield await self._controls.get()

    async def ready(self) -> None:
        """Wait until the worker has taken the call."""
        await self.call.initial_metadata()

    def say(self, **control: Any) -> None:
        """Send a control."""
        self._controls.put_nowait(pb.TelemetryControl(**control))

    async def hear(self) -> Any:
        """Return the next event, or EOF at the end."""
        return await asyncio.wait_for(self.call.read(), 10)

    async def name(self) -> str:
        """Return the next event's name."""
        return ".".join((await self.hear()).event_parts)


@pytest.fixture
async def served(short_path: Path) -> AsyncIterator[tuple[TelemetryStream, Any]]:
    """A stream of events, and a stub to listen by."""
    service = Streaming()
    async with serving(service, f"unix:{short_path}/s") as stub:
        yield service.events, stub


@pytest.fixture
async def events(served: tuple[TelemetryStream, Any]) -> TelemetryStream:
    """The stream of events."""
    return served[0]


@pytest.fixture
async def listener(served: tuple[TelemetryStream, Any]) -> AsyncIterator[Listener]:
    """Somebody who listens."""
    listening = Listener(served[1])
    await listening.ready()
    yield listening
    listening.call.cancel()


def emit(events: TelemetryStream, *named: str) -> None:
    """Emit events of these names."""
    for name in named:
        events.emit(name, {"n": 1}, {"tool": "t"})


async def test_executions_of_a_worker_are_events(short_path: Path) -> None:
    """Each call gives a start and a stop, or an exception, with times, the tool and the correlation id."""
    async with worker(Painting, f"unix:{short_path}/nowhere", short_path) as stub:
        listener = Listener(stub)
        await listener.ready()
        metadata = {"correlation_id": "c-7"}
        await stub.ExecuteTool(pb.ExecuteToolRequest(tool_name="add", parameters=raw(a=1), metadata=metadata))
        async for _ in stub.ExecuteStreamingTool(pb.ExecuteToolRequest(tool_name="strokes", parameters=raw(values=[]))):
            pass
        await stub.ExecuteTool(pb.ExecuteToolRequest(tool_name="fail"))
        heard = [await listener.hear() for _ in range(6)]
        listener.call.cancel()
    said = [(".".join(event.event_parts), event.metadata["tool"]) for event in heard]
    assert said == [
        ("tool.execution.start", "add"),
        ("tool.execution.stop", "add"),
        ("tool.execution.start", "strokes"),
        ("tool.execution.stop", "strokes"),
        ("tool.execution.start", "fail"),
        ("tool.execution.exception", "fail"),
    ]
    assert [event.correlation_id for event in heard] == ["c-7", "c-7", "", "", "", ""]
    assert heard[0].measurements["system_time"].int_value > 0
    assert heard[1].measurements["duration"].int_value > 0
    assert heard[5].metadata["error_type"] == "ValueError"
    assert all(event.timestamp_ns > 0 for event in heard)


async def test_a_stream_that_ends_by_its_deadline_is_no_error(short_path: Path, capture: Capture) -> None:
    """Elixir reads events under a deadline of seconds: when it ends, its status is told and nothing has failed."""
    method = "snakepit.bridge.BridgeService/StreamTelemetry"
    add = pb.ExecuteToolRequest(tool_name="add", parameters=raw(a=1))
    async with worker(Painting, f"unix:{short_path}/nowhere", short_path) as stub:
        for times in (1, 2):
            listener = Listener(stub, timeout=0.3)
            await listener.ready()
            await stub.ExecuteTool(add)
            assert await listener.name() == "tool.execution.start"
            assert await listener.name() == "tool.execution.stop"
            with pytest.raises(aio.AioRpcError) as ended:
                await listener.hear()
            assert ended.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            await until(lambda times=times: len(capture.spans(method)) == times)
    for span in capture.spans(method):
        assert span.attributes["rpc.response.status_code"] == "DEADLINE_EXCEEDED"
        assert "error.type" not in span.attributes
        assert span.ok
    for point in capture.points("rpc.server.call.duration"):
        assert "error.type" not in point.attributes


async def test_nothing_is_kept_while_nobody_listens(events: TelemetryStream, served: tuple[Any, Any]) -> None:
    """Events from before a listener came are not for it."""
    emit(events, "tool.early")
    listener = Listener(served[1])
    await listener.ready()
    emit(events, "tool.late")
    assert await listener.name() == "tool.late"
    listener.call.cancel()


async def test_toggle(events: TelemetryStream, listener: Listener) -> None:
    """The authority turns the events off and on."""
    listener.say(toggle=pb.TelemetryToggle(enabled=False))
    await until(lambda: not events._enabled)
    emit(events, "tool.off")
    listener.say(toggle=pb.TelemetryToggle(enabled=True))
    await until(lambda: events._enabled)
    emit(events, "tool.on")
    assert await listener.name() == "tool.on"


async def test_sampling(events: TelemetryStream, listener: Listener) -> None:
    """A rate keeps that share of the events its patterns name, and all of the others."""
    listener.say(sampling=pb.TelemetrySamplingUpdate(sampling_rate=0.4, event_patterns=["python.*"]))
    await until(lambda: events._rate == 0.4)
    emit(events, "python.dropped", "tool.kept")
    assert await listener.name() == "tool.kept"
    listener.say(sampling=pb.TelemetrySamplingUpdate(sampling_rate=0.6))
    await until(lambda: events._rate == 0.6)
    emit(events, "python.kept")
    assert await listener.name() == "python.kept"


@pytest.mark.parametrize(("rate", "taken"), [(-1.0, 0.0), (7.0, 1.0), (float("nan"), 1.0)])
async def test_a_rate_that_is_none(events: TelemetryStream, listener: Listener, rate: float, taken: float) -> None:
    """A rate beyond 0 and 1 is taken for the nearest, and no number for all."""
    listener.say(sampling=pb.TelemetrySamplingUpdate(sampling_rate=rate, event_patterns=["seen"]))
    await until(lambda: events._patterns == ("seen",))
    assert events._rate == taken


async def test_filter(events: TelemetryStream, listener: Listener) -> None:
    """Globs allow and deny by name; deny wins."""
    listener.say(filter=pb.TelemetryEventFilter(allow=["tool.*"], deny=["*.secret"]))
    await until(lambda: events._allow)
    emit(events, "python.x", "tool.secret", "tool.x")
    assert await listener.name() == "tool.x"


async def test_at_most_1024_are_buffered(events: TelemetryStream, listener: Listener) -> None:
    """What a slow listener leaves beyond 1024 is dropped and counted; what is buffered arrives in order."""
    emit(events, *(f"tool.{number}" for number in range(1030)))
    assert events.dropped == 6
    assert [await listener.name() for _ in range(1024)] == [f"tool.{number}" for number in range(1024)]
    emit(events, "tool.again")
    assert await listener.name() == "tool.again"


async def test_a_new_listener_takes_the_place_of_the_old(
    events: TelemetryStream, listener: Listener, served: tuple[Any, Any]
) -> None:
    """The listener before is let go at once, and events go to the new one."""
    newcomer = Listener(served[1])
    await newcomer.ready()
    assert await listener.hear() is aio.EOF
    emit(events, "tool.x")
    assert await newcomer.name() == "tool.x"
    newcomer.call.cancel()


async def test_a_listener_that_goes_is_forgotten(events: TelemetryStream, listener: Listener) -> None:
    """After the listener has gone nothing is made any more, and another may come."""
    listener.call.cancel()
    await until(lambda: events._listener is None)
    emit(events, "tool.x")
    assert not events._buffer
