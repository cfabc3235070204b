"""Events of upstream's workers become OpenTelemetry."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import trace

from snakepit_otel.bridge.authority import telemetry_listener
from snakepit_otel.bridge.authority.telemetry_listener import TelemetryListener
from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb
from snakepit_otel.bridge.proto.snakepit_bridge_pb2_grpc import BridgeServiceServicer
from snakepit_otel.bridge.wire.telemetry_controls import Controls
from snakepit_otel.telemetry import _controls, _guard, names
from snakepit_otel.telemetry._foreign_events import CATALOGUE, ForeignEventRecorder
from snakepit_otel.testing import Capture
from tests.bridge.parts import serving
from tests.bridge.upstream import SECOND, UpstreamWorker, said
from tests.waiting import until

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture(autouse=True)
def as_configured() -> Iterator[None]:
    """Leave the process as it was."""
    before = Controls.in_force()
    yield
    before.apply()


@pytest.fixture
async def upstream(short_path: Path) -> AsyncIterator[UpstreamWorker]:
    """A worker that speaks the protocol, and no OpenTelemetry."""
    service = UpstreamWorker()
    async with serving(service, f"unix:{short_path}/w"):
        yield service


@pytest.fixture
async def listener(upstream: UpstreamWorker, short_path: Path) -> AsyncIterator[TelemetryListener]:
    """Somebody who folds the worker's events."""
    async with TelemetryListener(f"unix:{short_path}/w", recorder=ForeignEventRecorder(), worker_id="w-1") as listening:
        await until(lambda: upstream.streams)
        yield listening


async def test_an_upstream_worker_is_listened_to(
    upstream: UpstreamWorker, listener: TelemetryListener, capture: Capture
) -> None:
    """Its stream is turned on first of all; a tool's run is an event with its times, a duration and a span."""
    await until(lambda: upstream.heard)
    assert upstream.heard == [pb.TelemetryControl(toggle=pb.TelemetryToggle(enabled=True))]
    end = time.time_ns()
    about = {"tool": "predict", "session_id": "s-1", "model": "secret"}
    start = said("tool.execution.start", {"system_time": end - SECOND // 4}, correlation_id="c-7", **about)
    stop = said("tool.execution.stop", {"duration": SECOND // 4}, correlation_id="c-7", timestamp_ns=end, **about)
    for event in (start, stop):
        upstream.events.put_nowait(event)
    await until(lambda: len(capture.events()) == 2)
    began, ended = capture.events()
    known = {
        "snakepit.tool.name": "predict",
        "snakepit.worker.id": "w-1",
        "session.id": "s-1",
        "snakepit.correlation.id": "c-7",
    }
    assert (began.name, began.attributes, began.trace_id) == ("snakepit.worker.tool.execution.start", known, None)
    assert (ended.name, ended.attributes) == (
        "snakepit.worker.tool.execution.stop",
        {**known, "snakepit.worker.event.duration": 0.25},
    )
    (span,) = capture.spans()
    assert (span.name, span.start, span.end) == ("execute tool elsewhere", end - SECOND // 4, end)
    assert (span.attributes, span.ok, span.parent_id) == (known, True, None)
    assert ended.trace_id == span.trace_id
    metrics = capture.metrics()
    (duration,) = metrics["snakepit.worker.tool.execution.duration"]
    assert (duration.value, duration.attributes) == (0.25, {"snakepit.tool.name": "predict"})
    received = {point.attributes["snakepit.worker.event.name"]: point.value
                for point in metrics["snakepit.worker.event.received"]}  # fmt: skip
    assert received == {"tool.execution.start": 1, "tool.execution.stop": 1}


def fold(*events: pb.TelemetryEvent, **settings: Any) -> None:
    folding = ForeignEventRecorder(**settings)
    for event in events:
        folding.record_message(event, "w-1")


def values(capture: Capture) -> dict[str, list[tuple[float, dict[str, Any]]]]:
    """What was measured of workers, without how much was received."""
    return {
        name.removeprefix("snakepit.worker."): [(point.value, point.attributes) for point in points]
        for name, points in capture.metrics().items()
        if name.startswith(("snakepit.worker.python", "snakepit.worker.tool", "snakepit.worker.event.refused"))
    }


def test_a_tool_that_raised(capture: Capture) -> None:
    """Its event, span and metrics have the error's type, and nothing of its text."""
    fold(said("tool.execution.exception", {"duration": SECOND}, tool="t", error_type="KeyError", error_message="no"))
    (event,) = capture.events("snakepit.worker.tool.execution.exception")
    assert event.attributes["error.type"] == "KeyError"
    assert "no" not in event.attributes.values()
    (span,) = capture.spans()
    assert (span.ok, span.attributes["error.type"]) == (False, "KeyError")
    failed = {"snakepit.tool.name": "t", "error.type": "KeyError"}
    assert values(capture) == {
        "tool.execution.duration": [(1.0, failed)],
        "tool.execution.exception.count": [(1, failed)],
    }


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (said("python.call.start", {"count": 1}, tool="t"), {}),
        (
            said("python.call.stop", {"duration_ms": 250}, tool_name="t"),
            {"python.call.duration": [(0.25, {"snakepit.tool.name": "t"})]},
        ),
        (
            said("python.call.exception", {"count": 2}, tool="t", error_type="E"),
            {"python.call.exception.count": [(2, {"snakepit.tool.name": "t", "error.type": "E"})]},
        ),
        (said("tool.result_size", {"bytes": 5}), {"tool.result_size.size": [(5, {"snakepit.tool.name": "_OTHER"})]}),
        (
            said("tool.result_size", {"message_size": 6}, tool="t"),
            {"tool.result_size.size": [(6, {"snakepit.tool.name": "t"})]},
        ),
        (
            said("python.memory.sampled", {"rss_bytes": 1 << 20, "vms_bytes": 2.0**21}),
            {"python.memory.sampled.rss": [(1 << 20, {})], "python.memory.sampled.vms": [(1 << 21, {})]},
        ),
        (said("python.cpu.sampled", {"cpu_percent": 150.0}), {"python.cpu.sampled.utilization": [(1.5, {})]}),
        (said("python.gc.completed", {"generation": 2}), {"python.gc.completed.count": [(1, {})]}),
        (
            said("python.error.occurred", error_type="E", tool="t"),
            {"python.error.occurred.count": [(1, {"snakepit.tool.name": "t", "error.type": "E"})]},
        ),
    ],
    ids=lambda value: ".".join(value.event_parts) if isinstance(value, pb.TelemetryEvent) else "",
)
def test_the_catalogue(capture: Capture, event: pb.TelemetryEvent, expected: dict[str, Any]) -> None:
    """Each event of the protocol is one of ours, with its measurements in our units, as metrics and on the record."""
    fold(event)
    (found,) = capture.events()
    name = ".".join(event.event_parts)
    assert found.name == f"snakepit.worker.{name}"
    assert values(capture) == expected


def test_every_event_of_the_catalogue_is_known() -> None:
    """The names on the wire, those that metrics may have and those of our events are the same."""
    assert {kind.event.name for kind in CATALOGUE.values()} == {f"snakepit.worker.{name}" for name in CATALOGUE}
    assert len(CATALOGUE) == 11


def test_trace_context_that_an_event_carries(capture: Capture) -> None:
    """A run that says what it belongs to is a span there, and so is its event."""
    fold(said("tool.execution.stop", {"duration": 5}, tool="t", traceparent=TRACEPARENT))
    (span,) = capture.spans()
    assert (span.trace_id, span.parent_id) == ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")
    (event,) = capture.events()
    assert event.trace_id == span.trace_id


@pytest.mark.parametrize("stamp", [0, -5, 1, pytest.param(time.time_ns() * 2, id="to come"), (1 << 63) - 1])
def test_times_that_cannot_be(capture: Capture, stamp: int) -> None:
    """Without a believable time there is no span; the event is of now, and its duration counts."""
    fold(said("tool.execution.stop", {"duration": SECOND}, tool="t", timestamp_ns=stamp))
    assert capture.spans() == []
    assert len(capture.events()) == 1
    assert values(capture) == {"tool.execution.duration": [(1.0, {"snakepit.tool.name": "t"})]}


@pytest.mark.parametrize(
    "value", [-1, float("nan"), float("inf"), "12", 40 * 86_400 * SECOND, -(1 << 63), (1 << 63) - 1]
)
def test_measurements_that_cannot_be(capture: Capture, value: Any) -> None:
    """A measurement that is no number, or no possible one, is dropped and counted; its event is kept."""
    fold(said("tool.execution.stop", {"duration": value}, tool="t"))
    assert capture.spans() == []
    assert len(capture.events("snakepit.worker.tool.execution.stop")) == 1
    assert values(capture) == {"event.refused": [(1, {"snakepit.worker.event.refusal": "measurement"})]}


@pytest.mark.parametrize("name", ["duration", "duration_ms"])
@pytest.mark.parametrize("value", [10**400, -(10**400), 10.0**300], ids=["huge", "negative", "float"])
def test_measurements_beyond_all_numbers(capture: Capture, name: str, value: float) -> None:
    """What adapters' code measures where it runs may be any number of Python's, and is refused alike."""
    ForeignEventRecorder().record("tool.execution.stop", {name: value}, {"tool": "t"})
    assert len(capture.events("snakepit.worker.tool.execution.stop")) == 1
    assert values(capture) == {"event.refused": [(1, {"snakepit.worker.event.refusal": "measurement"})]}


def test_names_that_workers_make_up_are_bounded(capture: Capture) -> None:
    """Unknown events are counted together; tools and error types are a hundred each, at most; long ids are left out."""
    fold(
        *(said(f"made.up.{number}", {"duration": 1}) for number in range(200)),
        *(said("tool.execution.exception", tool=f"t{n}", error_type=f"E{n}", session_id="x" * 300) for n in range(200)),
    )
    metrics = capture.metrics()
    received = {point.attributes["snakepit.worker.event.name"]: point.value
                for point in metrics["snakepit.worker.event.received"]}  # fmt: skip
    assert received == {"_OTHER": 200, "tool.execution.exception": 200}
    counted = metrics["snakepit.worker.tool.execution.exception.count"]
    assert len({point.attributes["snakepit.tool.name"] for point in counted}) == 101
    assert len({point.attributes["error.type"] for point in counted}) == 101
    assert {event.name for event in capture.events()} == {"snakepit.worker.tool.execution.exception"}
    assert not any("session.id" in event.attributes for event in capture.events())


def test_known_tools_are_the_bound(capture: Capture) -> None:
    """Where the authority knows the tools, no other name is a label."""
    fold(*(said("tool.execution.stop", {"duration": 1}, tool=tool) for tool in "ab"), tools=lambda: {"a"})
    points = capture.points("snakepit.worker.tool.execution.duration")
    assert {point.attributes["snakepit.tool.name"] for point in points} == {"a", "_OTHER"}


@pytest.mark.parametrize(
    "event",
    [
        said("python.call.start", **{f"k{number}": "v" for number in range(65)}),
        said("python.call.start", {f"k{number}": 1 for number in range(65)}),
        said("python.call.start", tool="x" * 70_000),
    ],
    ids=["metadata", "measurements", "bytes"],
)
def test_events_that_are_too_large(capture: Capture, event: pb.TelemetryEvent) -> None:
    """What has too much of anything is dropped as a whole, and counted."""
    fold(event)
    assert capture.events() == []
    assert values(capture) == {"event.refused": [(1, {"snakepit.worker.event.refusal": "too_large"})]}


def test_recording_is_controlled_here_too(capture: Capture) -> None:
    """Off, nothing is folded; a share of the traces is kept; a filter leaves the spans out and the metrics in."""
    stop = said("tool.execution.stop", {"duration": SECOND}, tool="t")
    _controls.set_level("off")
    fold(stop)
    _controls.set_level("full")
    assert (capture.events(), capture.spans(), values(capture)) == ([], [], {})
    _controls.set_sampling(0)
    fold(stop)
    _controls.set_sampling(1)
    _controls.set_filter(deny=["snakepit.worker.tool.*"])
    fold(stop)
    assert capture.spans() == []
    assert len(capture.events()) == 2
    assert values(capture) == {"tool.execution.duration": [(2.0, {"snakepit.tool.name": "t"})]}


OWN = {"name", "measurements", "correlation_id", "timestamp_ns"}
numbers = st.one_of(st.integers(-(1 << 63), (1 << 63) - 1), st.floats(), st.text(max_size=10))
keys = st.one_of(
    st.text(max_size=10),
    st.sampled_from(["duration", "duration_ms", "bytes", "rss_bytes", "cpu_percent", "count", "system_time"]),
)
hostile = st.builds(
    lambda name, measurements, metadata, stamp, correlation: said(
        name, measurements, correlation_id=correlation, timestamp_ns=stamp, **metadata
    ),
    st.one_of(st.sampled_from(sorted(CATALOGUE)), st.text(max_size=30)),
    st.dictionaries(keys, numbers, max_size=5),
    st.dictionaries(
        st.one_of(
            st.text(max_size=10).filter(lambda key: key not in OWN),
            st.sampled_from(["tool", "error_type", "session_id", "traceparent", "tracestate"]),
        ),
        st.text(max_size=80),
        max_size=5,
    ),
    st.one_of(st.integers(-(1 << 63), (1 << 63) - 1), st.just(time.time_ns())),
    st.text(max_size=300),
)


@given(st.lists(hostile, max_size=5))
def test_whatever_a_worker_sends(events: list[pb.TelemetryEvent]) -> None:
    """No event raises or is a fault of ours, and nothing is current when it was folded."""
    before = _guard.fault_count
    fold(*events)
    assert _guard.fault_count == before
    assert not trace.get_current_span().get_span_context().is_valid


async def test_a_stream_that_breaks_is_begun_anew(short_path: Path, capture: Capture) -> None:
    """The listener comes back after waits that grow, says again what it had said, and goes on folding."""
    waits: list[float] = []

    async def pause(wait: float) -> None:
        waits.append(wait)

    async with TelemetryListener(f"unix:{short_path}/w", recorder=ForeignEventRecorder(), pause=pause) as listener:
        # Nobody is there yet.
        await until(lambda: waits)
        once = [pb.TelemetryControl(sampling=pb.TelemetrySamplingUpdate(sampling_rate=0.5))]
        listener.set_controls(once)
        service = UpstreamWorker()
        async with serving(service, f"unix:{short_path}/w"):
            for streams in (1, 2, 3):
                await until(lambda streams=streams: service.streams == streams and service.heard == once)
                service.heard.clear()
                service.events.put_nowait(said("python.gc.completed"))
                service.events.put_nowait(None)
            await until(lambda: len(capture.events("snakepit.worker.python.gc.completed")) == 3)
    assert len(waits) >= 3
    assert 0.05 <= waits[0] <= 0.1
    assert all(wait >= 0.05 for wait in waits)
    assert max(waits) <= 10


async def test_events_are_of_no_request_of_whoever_listens(
    upstream: UpstreamWorker, short_path: Path, capture: Capture
) -> None:
    """A listener that is started inside a span does not put what it hears there."""
    with trace.get_tracer("test").start_as_current_span("outer"):
        listening = TelemetryListener(f"unix:{short_path}/w", recorder=ForeignEventRecorder())
        listening.start()
    upstream.events.put_nowait(said("python.gc.completed"))
    (event,) = await until(lambda: capture.events("snakepit.worker.python.gc.completed"))
    assert event.trace_id is None
    await listening.close()


async def test_a_worker_without_the_stream_is_left_alone(short_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Who does not serve the stream is asked once."""
    address = f"unix:{short_path}/w"
    listening = TelemetryListener(address, recorder=ForeignEventRecorder(), worker_id="w-9")
    async with serving(BridgeServiceServicer(), address), listening:
        await until(lambda: listening._ended)
    assert "worker w-9 has no telemetry stream" in caplog.text


async def test_an_event_beyond_all_limits_costs_the_stream_only(
    upstream: UpstreamWorker, short_path: Path, capture: Capture
) -> None:
    """A message that is too large to take is counted, and the stream begun anew."""

    async def pause(_: float) -> None: ...

    async with TelemetryListener(f"unix:{short_path}/w", recorder=ForeignEventRecorder(), pause=pause):
        upstream.events.put_nowait(said("python.gc.completed", tool="x" * (1 << 20)))
        await until(lambda: upstream.streams == 2)
    assert values(capture) == {"event.refused": [(1, {"snakepit.worker.event.refusal": "too_large"})]}


def test_spans_have_a_point_in_the_registry() -> None:
    """A span told afterwards is controlled and documented like every other."""
    assert names.WORKER_TOOL_EXECUTION in names.POINTS


async def test_a_flood_of_events_is_read_at_a_bounded_pace(
    upstream: UpstreamWorker, short_path: Path, capture: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After so many events in a second the listener waits for the next; none of them is lost."""
    monkeypatch.setattr(telemetry_listener, "_MAX_EVENTS_PER_SECOND", 3)
    waits: list[float] = []

    async def pause(wait: float) -> None:
        waits.append(wait)

    async with TelemetryListener(f"unix:{short_path}/w", recorder=ForeignEventRecorder(), pause=pause):
        for _ in range(7):
            upstream.events.put_nowait(said("python.gc.completed"))
        await until(lambda: len(capture.events("snakepit.worker.python.gc.completed")) == 7)
    assert len(waits) == 2
    assert all(0 <= wait <= 1 for wait in waits)
