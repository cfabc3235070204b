"""Controls of a telemetry listener, applied to all that the worker records."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from grpc import aio
from hypothesis import given
from hypothesis import strategies as st

from snakepit_otel.adapters._adapter_loading import spec_of
from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb
from snakepit_otel.bridge.proto.snakepit_bridge_pb2_grpc import BridgeServiceStub
from snakepit_otel.bridge.wire.telemetry_controls import Controls
from snakepit_otel.bridge.worker.process_controls import ProcessControls
from snakepit_otel.bridge.worker.server import WorkerServer
from snakepit_otel.bridge.worker.telemetry_stream import TelemetryStream
from snakepit_otel.errors import ConfigurationError
from snakepit_otel.telemetry import Level, _controls, names
from snakepit_otel.testing import Capture
from tests.bridge.painting import Painting
from tests.bridge.parts import raw, worker
from tests.bridge.worker.test_telemetry_stream import Listener
from tests.waiting import until


@pytest.fixture(autouse=True)
def as_configured() -> Iterator[None]:
    """Leave the process as it was."""
    before = Controls.in_force()
    yield
    before.apply()


@pytest.fixture
async def stub(short_path: Path) -> AsyncIterator[Any]:
    """A stub to call a worker by."""
    async with worker(Painting, f"unix:{short_path}/nowhere", short_path) as connected:
        yield connected


@pytest.fixture
async def listener(stub: Any) -> AsyncIterator[Listener]:
    """An authority that listens to the worker."""
    listening = Listener(stub)
    await listening.ready()
    yield listening
    listening.call.cancel()


def toggle(enabled: bool) -> dict[str, Any]:
    return {"toggle": pb.TelemetryToggle(enabled=enabled)}


def sampling(rate: float, *patterns: str) -> dict[str, Any]:
    return {"sampling": pb.TelemetrySamplingUpdate(sampling_rate=rate, event_patterns=patterns)}


def filtering(allow: tuple[str, ...] = (), deny: tuple[str, ...] = ()) -> dict[str, Any]:
    return {"filter": pb.TelemetryEventFilter(allow=allow, deny=deny)}


def wanted() -> set[Any]:
    """The points that have spans."""
    return set(names.POINTS) - _controls.suppressed


async def test_toggle_turns_recording_off_and_on(stub: Any, listener: Listener, capture: Capture) -> None:
    """Off, a call leaves no span and no metric; on, it has all that was configured."""
    listener.say(**toggle(False))
    await until(lambda: _controls.level is Level.OFF)
    await stub.ExecuteTool(pb.ExecuteToolRequest(tool_name="add", parameters=raw(a=1)))
    assert capture.spans() == []
    assert "snakepit.adapter.request.duration" not in capture.metrics()
    listener.say(**toggle(True))
    await until(lambda: _controls.level is Level.FULL)
    await stub.ExecuteTool(pb.ExecuteToolRequest(tool_name="add", parameters=raw(a=1)))
    assert {"handle request", "build adapter", "execute tool"} <= {span.name for span in capture.spans()}


async def test_on_is_as_configured() -> None:
    """An authority that says `on`, as Elixir's does first of all, raises nothing above what was configured."""
    for level in Level:
        _controls.set_level(level)
        recording = ProcessControls()
        recording.toggle(True)
        assert _controls.level is level
        recording.filter(allow=["*"])
        assert _controls.level is (Level.OFF if level is Level.OFF else Level.FULL)
        recording.restore()
        assert _controls.level is level


async def test_a_rate_goes_for_whole_traces(stub: Any, listener: Listener, capture: Capture) -> None:
    """A rate without patterns is that of traces, too; at 0 there are none, and metrics go on."""
    listener.say(**sampling(0))
    await until(lambda: _controls.sampling_rate == 0)
    await stub.ExecuteTool(pb.ExecuteToolRequest(tool_name="add", parameters=raw(a=1)))
    assert capture.spans() == []
    assert [point.count for point in capture.points("snakepit.adapter.request.duration")] == [1]


@pytest.mark.parametrize(
    ("patterns", "rate"),
    [
        ((), 0.25),
        (("*",), 0.25),
        (("snakepit.*", "python.*"), 0.25),
        (("snakepit.adapter.build",), 0.25),
        (("python.*",), 1.0),
        (("tool.execution.*", "snakepit.adapter"), 1.0),
    ],
)
def test_a_rate_with_patterns_goes_for_traces_if_one_matches_a_point(patterns: tuple[str, ...], rate: float) -> None:
    """Patterns that match events alone leave the traces as configured."""
    recording = ProcessControls()
    recording.sample(0.25, patterns)
    assert _controls.sampling_rate == rate


def test_the_last_rate_is_the_one_in_force() -> None:
    """A rate for events alone takes back one that went for traces."""
    recording = ProcessControls()
    recording.sample(0.25)
    recording.sample(0.5, ["python.*"])
    assert _controls.sampling_rate == 1.0


async def test_a_filter_picks_points(stub: Any, listener: Listener, capture: Capture) -> None:
    """Points that are denied have no spans, and their durations are counted."""
    listener.say(**filtering(deny=("snakepit.adapter.build", "tool.*")))
    await until(lambda: names.ADAPTER_BUILD in _controls.suppressed)
    await stub.ExecuteTool(pb.ExecuteToolRequest(tool_name="add", parameters=raw(a=1)))
    assert "execute tool" in {span.name for span in capture.spans()}
    assert not capture.spans("build adapter")
    phases = {point.attributes["snakepit.phase"] for point in capture.points("snakepit.adapter.phase.duration")}
    assert "build" in phases


@pytest.mark.parametrize(
    ("allow", "deny", "expected"),
    [
        (["tool.*", "python.call.*"], [], set(names.POINTS)),
        ([], ["python.*"], set(names.POINTS)),
        (["snakepit.adapter.*", "tool.*"], ["*.cleanup"], {p for p in names.POINTS if p.name in {
            "snakepit.adapter.request", "snakepit.adapter.build", "snakepit.adapter.initialize",
            "snakepit.adapter.execute", "snakepit.adapter.load",
        }}),
        (["*"], ["*"], set()),
    ],
)  # fmt: skip
def test_patterns_that_match_no_point_say_nothing_of_them(
    allow: list[str], deny: list[str], expected: set[Any]
) -> None:
    """To allow events alone leaves the spans as they are; what matches points is obeyed, and to deny wins."""
    ProcessControls().filter(allow, deny)
    assert wanted() == expected


async def test_what_was_configured_is_back_when_the_listener_is_gone(stub: Any, listener: Listener) -> None:
    """An authority that died leaves no worker silent, neither its spans nor its events."""
    listener.say(**sampling(0))
    listener.say(**filtering(deny=("*",)))
    listener.say(**toggle(False))
    await until(lambda: _controls.level is Level.OFF)
    listener.call.cancel()
    await until(lambda: Controls.in_force() == Controls())
    newcomer = Listener(stub)
    await newcomer.ready()
    await stub.ExecuteTool(pb.ExecuteToolRequest(tool_name="add", parameters=raw(a=1)))
    assert await newcomer.name() == "tool.execution.start"
    newcomer.call.cancel()


async def test_a_new_listener_begins_with_what_was_configured(stub: Any, listener: Listener) -> None:
    """What the listener before had said is forgotten, and what it says now is not heard."""
    listener.say(**toggle(False))
    await until(lambda: _controls.level is Level.OFF)
    newcomer = Listener(stub)
    await newcomer.ready()
    assert _controls.level is Level.FULL
    newcomer.say(**sampling(0.5))
    await until(lambda: _controls.sampling_rate == 0.5)
    assert await listener.hear() is aio.EOF
    assert _controls.sampling_rate == 0.5
    newcomer.call.cancel()


async def test_a_bad_control_costs_nothing_but_itself(
    stub: Any, listener: Listener, caplog: pytest.LogCaptureFixture
) -> None:
    """Too many patterns, or too long ones, are refused in words; an empty control is nothing; the stream goes on."""
    listener.say()
    listener.say(**filtering(allow=("a",) * 1_001))
    listener.say(**sampling(0.5, "x" * 1_001))
    listener.say(**filtering(deny=("x" * 1_000,) * 33))
    listener.say(**sampling(float("inf")))
    listener.say(**sampling(0.75))
    await until(lambda: _controls.sampling_rate == 0.75)
    assert wanted() == set(names.POINTS)
    assert caplog.text.count("more than 1,000 patterns, or one of more than 1,000 characters") == 2
    assert "patterns of 33,000 characters; at most 32,000 are allowed" in caplog.text
    await stub.ExecuteTool(pb.ExecuteToolRequest(tool_name="add", parameters=raw(a=1)))


async def test_a_message_that_is_no_control(short_path: Path, stub: Any) -> None:
    """Bytes that cannot be parsed are passed over: the stream goes on, and so do the controls."""
    async with aio.insecure_channel(f"unix:{short_path}/worker") as channel:
        call = channel.stream_stream("/snakepit.bridge.BridgeService/StreamTelemetry")()
        await call.initial_metadata()
        await call.write(b"\xff\xff\xff")
        await call.write(pb.TelemetryControl(**sampling(0.5, "*.adapter.*")).SerializeToString())
        await until(lambda: _controls.sampling_rate == 0.5)
        await stub.ExecuteTool(pb.ExecuteToolRequest(tool_name="add", parameters=raw(a=1)))
        assert pb.TelemetryEvent.FromString(await call.read()).event_parts[-1] == "start"
        call.cancel()


async def test_a_listener_holds_up_no_stop(short_path: Path) -> None:
    """A worker that is told to stop sends its listener the events of what still runs, lets it go, and is gone."""
    server = WorkerServer(
        adapter=spec_of(Painting),
        listen=f"unix:{short_path}/worker",
        authority_address=f"unix:{short_path}/nowhere",
        worker_id="worker-1",
        grace=60.0,
    )
    await server.start()
    async with asyncio.timeout(20), aio.insecure_channel(server.address) as channel:
        stub = BridgeServiceStub(channel)
        listening = Listener(stub)
        await listening.ready()
        listening.say(**sampling(0.5, "*.adapter.*"))
        await until(lambda: _controls.sampling_rate == 0.5)
        call = stub.ExecuteTool(pb.ExecuteToolRequest(tool_name="block"))
        await asyncio.to_thread(Painting.started.wait, 10)
        assert await listening.name() == "tool.execution.start"
        server.request_stop()
        stopping = asyncio.ensure_future(server.run_until_stopped())
        await until(lambda: server._service._events._closing)
        Painting.release.set()
        assert (await call).success
        assert await listening.name() == "tool.execution.stop"
        assert await listening.hear() is aio.EOF
        await stopping
    assert _controls.sampling_rate == 0.5, "until its end a worker records as it was told to"


async def test_dropped_events_are_counted(capture: Capture) -> None:
    """What a listener did not take in time is a metric of the worker."""
    events = TelemetryStream()
    events.dropped = 7
    assert sum(point.value for point in capture.points("snakepit.worker.event.dropped")) == 7
    del events


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"level": "loud"}, r"telemetry\.level: input should be 'off', 'essential' or 'full' \(got 'loud'\)"),
        ({"sampling": 1.5}, r"telemetry\.sampling: input should be less than or equal to 1"),
        ({"sampling": float("nan")}, r"telemetry\.sampling: "),
        ({"sampling": True}, r"telemetry\.sampling: must be a number, not a boolean"),
        ({"allow": "snakepit.*"}, r"telemetry\.allow: input should be a valid tuple"),
        ({"deny": [""]}, r"telemetry\.deny\.0: string should have at least 1 character"),
        ({"deny": ["*"] * 101}, r"telemetry\.deny: tuple should have at most 100 items"),
        ({"allow": ["snakepit.adaptr.*"]}, r"telemetry\.allow: the pattern 'snakepit.adaptr.\*' matches no"),
        ({"volume": 11}, r"telemetry\.volume: unknown setting"),
    ],
)  # fmt: skip
def test_controls_that_cannot_be(changes: dict[str, Any], words: str) -> None:
    """What cannot be is refused, naming it and saying what can."""
    with pytest.raises(ConfigurationError, match=words):
        Controls().changed(**changes)


@given(
    st.lists(
        st.one_of(
            st.builds(toggle, st.booleans()),
            st.builds(sampling, st.floats(), st.text(max_size=20)),
            st.builds(filtering, st.tuples(st.text(max_size=20)), st.tuples(st.text(max_size=20))),
            st.just({}),
        )
    )
)
def test_whatever_is_said_can_be_taken_back(said: list[dict[str, Any]]) -> None:
    """No series of controls raises, and after any of them what was configured can be restored."""
    stream = TelemetryStream(ProcessControls())
    for control in said:
        stream.control(pb.TelemetryControl(**control))
        stream._wanted("tool.execution.start")
    stream._reset_controls()
    assert Controls.in_force() == Controls()
    assert wanted() == set(names.POINTS)
