"""Telemetry of a real authority and its workers, over real OTLP."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from snakepit_otel import Client
from snakepit_otel.testing import OtlpSink, Span, tree
from tests.processes import program

TRACE = """\
authority: snakepit.bridge.BridgeService/ExecuteTool
  authority: execute request
    authority: create session
    authority: dispatch request
      authority: snakepit.bridge.BridgeService/ExecuteTool
        worker: snakepit.bridge.BridgeService/ExecuteTool
          worker: handle request
            worker: build adapter
            worker: initialize adapter
            worker: execute tool
              worker: call authority
                worker: snakepit.bridge.BridgeService/ExecuteElixirTool
                  authority: snakepit.bridge.BridgeService/ExecuteElixirTool
                    authority: access session
              worker: call authority
                worker: snakepit.bridge.BridgeService/ExecuteElixirTool
                  authority: snakepit.bridge.BridgeService/ExecuteElixirTool
                    authority: update session
            worker: clean up adapter"""


@pytest.fixture
def sink() -> Iterator[OtlpSink]:
    """Somewhere for telemetry to go."""
    with OtlpSink() as listening:
        yield listening


def line(span: Span) -> str:
    """A span by its side of the bridge and its name."""
    return f"{span.service.removeprefix('snakepit-')}: {span.name}"


async def test_one_request_is_one_trace(sink: OtlpSink, short_path: Path) -> None:
    """From the caller's call through the worker to the call-backs, all spans are one tree."""
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": sink.endpoint}
    arguments = ["serve", "tests.adapters_for_tests:Useful", "--workers", "1", "--socket", str(short_path / "a.sock")]
    async with program("-m", "snakepit_otel", *arguments, environ=environ) as server:
        await server.says("serving")
        async with Client(f"unix:{short_path / 'a.sock'}") as client:
            await client.execute("add", {"amount": 1}, session_id="s")
        os.kill(server.process.pid, signal.SIGTERM)
        assert await server.ends() == 0
    requests = [span for span in sink.spans if span.name == "execute request"]
    assert len(requests) == 1
    assert tree((span for span in sink.spans if span.trace_id == requests[0].trace_id), line) == TRACE
    assert all(span.ok for span in sink.spans)


async def test_loading_an_adapter_belongs_to_the_start_of_its_worker(sink: OtlpSink, short_path: Path) -> None:
    """The trace of a worker's start goes on in the new process, and ends there: requests are traces of their own."""
    async with serving(sink, short_path, "tests.adapters_for_tests:Useful") as client:
        await client.execute("echo", {"value": 1})
    (started,) = [span for span in sink.spans if span.name == "start worker"]
    of_start = [span for span in sink.spans if span.trace_id == started.trace_id]
    assert tree(of_start, line) == "authority: start worker\n  worker: load adapter"


@pytest.mark.parametrize("tool", ["stream", "stream_async"])
async def test_what_a_stream_does_on_its_way_is_in_its_trace(sink: OtlpSink, short_path: Path, tool: str) -> None:
    """Call-backs between chunks, from a thread or from an async generator, are children of the tool."""
    async with serving(sink, short_path, "tests.telemetry.propagating_adapter:Wanderer") as client:
        assert [chunk async for chunk in client.stream(tool, {"to": 3}, session_id="s")] == [1, 2, 3]
    (executed,) = [span for span in sink.spans if span.name == "execute tool"]
    (request,) = [span for span in sink.spans if span.name == "execute request"]
    called_back = [span for span in sink.spans if span.name == "call authority"]
    assert len(called_back) == 6
    assert {span.parent_id for span in called_back} == {executed.span_id}
    assert {span.trace_id for span in called_back} == {request.trace_id}


@asynccontextmanager
async def serving(sink: OtlpSink, short_path: Path, adapter: str) -> AsyncIterator[Client]:
    """A server with one worker, and a client; what they emit is in the sink when they have stopped."""
    arguments = ["serve", adapter, "--workers", "1", "--socket", str(short_path / "a.sock")]
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": sink.endpoint}
    async with program("-m", "snakepit_otel", *arguments, environ=environ) as server:
        await server.says("serving")
        async with Client(f"unix:{short_path / 'a.sock'}") as client:
            yield client
        os.kill(server.process.pid, signal.SIGTERM)
        assert await server.ends() == 0


async def test_metrics_of_both_sides_arrive_with_their_resource(sink: OtlpSink, short_path: Path) -> None:
    """Stopping sends what was counted; each process is an instance of its own."""
    environ = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": sink.endpoint,
        "OTEL_SERVICE_NAME": "shop",
        "OTEL_METRIC_EXPORT_INTERVAL": "600000",
    }
    arguments = ["serve", "tests.adapters_for_tests:Useful", "--workers", "2", "--socket", str(short_path / "a.sock")]
    async with program("-m", "snakepit_otel", *arguments, environ=environ) as server:
        await server.says("serving")
        async with Client(f"unix:{short_path / 'a.sock'}") as client:
            for number in range(4):
                await client.execute("add", {"amount": 1}, session_id=f"s{number}")
        os.kill(server.process.pid, signal.SIGTERM)
        assert await server.ends() == 0
    assert {point.service for point in sink.points} == {"shop"}
    handled = [point for point in sink.points if point.metric == "snakepit.adapter.request.duration"]
    assert sum(point.count or 0 for point in handled) == 4
    live = [point for point in sink.points if point.metric == "snakepit.session.count"]
    assert [point.value for point in live] == [4]
    assert not any(key.endswith(".id") for point in sink.points for key, _ in point.attributes)


async def test_disabled_sdk_disables_all(sink: OtlpSink, short_path: Path) -> None:
    """OTEL_SDK_DISABLED=true is obeyed on both sides."""
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": sink.endpoint, "OTEL_SDK_DISABLED": "true"}
    arguments = ["serve", "tests.adapters_for_tests:Useful", "--workers", "1", "--socket", str(short_path / "a.sock")]
    async with program("-m", "snakepit_otel", *arguments, environ=environ) as server:
        await server.says("serving")
        async with Client(f"unix:{short_path / 'a.sock'}") as client:
            assert await client.execute("echo", {"value": 1}) == 1
        os.kill(server.process.pid, signal.SIGTERM)
        assert await server.ends() == 0
    assert (sink.spans, sink.points, sink.events) == ([], [], [])


async def test_wrong_variables_stop_nothing(sink: OtlpSink, short_path: Path) -> None:
    """Whatever variables say, authority and worker start and export; each wrong one is a line, without a traceback."""
    wrong = {
        "OTEL_TRACES_EXPORTER": "zipkin9",
        "OTEL_PROPAGATORS": "b3",
        "OTEL_PYTHON_CONTEXT": "nowhere",
        "OTEL_PYTHON_TRACER_PROVIDER": "nobody",
        "OTEL_PYTHON_METER_PROVIDER": "nobody",
        "OTEL_PYTHON_LOGGER_PROVIDER": "nobody",
        "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "many",
        "OTEL_ATTRIBUTE_COUNT_LIMIT": "-1",
        "OTEL_BSP_SCHEDULE_DELAY": "9" * 30,
        "OTEL_METRIC_EXPORT_INTERVAL": "0",
        "OTEL_METRICS_EXEMPLAR_FILTER": "sometimes",
        "OTEL_TRACES_SAMPLER": "xray",
        "OTEL_EXPERIMENTAL_RESOURCE_DETECTORS": "cloud",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "grcp",
        "OTEL_EXPORTER_OTLP_COMPRESSION": "zstd",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "10s",
        "OTEL_EXPORTER_OTLP_HEADERS": "nonsense",
        "OTEL_EXPORTER_OTLP_CERTIFICATE": "/no/such.pem",
        "SNAKEPIT_TELEMETRY_LEVEL": "loud",
        "SNAKEPIT_LOG_LEVEL": "loud",
        "SNAKEPIT_UNSERIALIZABLE_DETAIL": "all",
    }
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": sink.endpoint, **wrong}
    arguments = ["serve", "tests.adapters_for_tests:Useful", "--workers", "1", "--socket", str(short_path / "a.sock")]
    async with program("-m", "snakepit_otel", *arguments, environ=environ) as server:
        await server.says("serving")
        async with Client(f"unix:{short_path / 'a.sock'}") as client:
            assert await client.execute("echo", {"value": 1}) == 1
        os.kill(server.process.pid, signal.SIGTERM)
        with pytest.raises(AssertionError, match="ended without"):
            await server.says("what it never says")
        assert await server.ends() == 0
    named = [
        line.partition(" snakepit_otel.environment: ")[2].split()[0] for line in server.lines if "environment:" in line
    ]
    assert sorted(named) == sorted(wrong)
    assert not [line for line in server.lines if "Traceback" in line]
    assert {span.name for span in sink.spans} >= {"execute request", "execute tool"}
    assert sink.points


async def test_collector_that_is_away_holds_up_nothing(short_path: Path) -> None:
    """With nobody at the endpoint requests are served, and the stop takes seconds, not half a minute."""
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
    arguments = ["serve", "tests.adapters_for_tests:Useful", "--workers", "1", "--socket", str(short_path / "a.sock")]
    async with program("-m", "snakepit_otel", *arguments, environ=environ) as server:
        await server.says("serving")
        async with Client(f"unix:{short_path / 'a.sock'}") as client:
            assert await client.execute("echo", {"value": 1}) == 1
        os.kill(server.process.pid, signal.SIGTERM)
        assert await server.ends(timeout=10) == 0
