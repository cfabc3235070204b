"""Upstream's worker under `opentelemetry-instrument`: the same spans, metrics and events as ours, over real OTLP."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import aio

from snakepit_otel.telemetry import names
from snakepit_otel.testing import OtlpSink, Span, tree
from tests.instrumentation.elixir import ElixirSnakepit
from tests.instrumentation.upstream import find
from tests.processes import program

INSTRUMENT = Path(sys.executable).with_name("opentelemetry-instrument")
REQUEST = """\
snakepit.bridge.BridgeService/ExecuteTool
  snakepit.bridge.BridgeService/InitializeSession
  handle request
    build adapter
    initialize adapter
    execute tool
    clean up adapter"""
ServerSpans = Callable[..., AbstractAsyncContextManager[ElixirSnakepit]]


@pytest.fixture
def sink() -> Iterator[OtlpSink]:
    """Somewhere for telemetry to go."""
    with OtlpSink() as listening:
        yield listening


@pytest.fixture(params=[False, True], ids=["server", "threaded"])
def threaded(request: pytest.FixtureRequest) -> bool:
    """Which of upstream's two servers."""
    return bool(request.param)


@pytest.fixture
def start(sink: OtlpSink, tmp_path: Path, threaded: bool) -> ServerSpans:
    """Start a worker of upstream's, as an Elixir application does that opentelemetry-instrument started."""

    @asynccontextmanager
    async def starting(adapter: str = "", environ: dict[str, str] | None = None, **given: Any) -> AsyncIterator[Any]:
        upstream = find()
        adapter = adapter or ("ThreadSafe" if threaded else "Plain")
        command = [INSTRUMENT, sys.executable, upstream.server_script(threaded)]
        async with ElixirSnakepit(
            command,
            f"tests.instrumentation.adapters.{adapter}",
            tmp_path,
            upstream=upstream,
            environ={**exporting_to(sink), **(environ or {})},
            tools={"double": lambda x: 2 * x, "list": lambda **given: sorted(given)},
            **given,
        ) as elixir:
            yield elixir
            if elixir.exit_status is None:
                assert await elixir.stop() == 0

    return starting


def exporting_to(sink: OtlpSink) -> dict[str, str]:
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": sink.endpoint,
        "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
        "OTEL_SERVICE_NAME": "shop",
        "OTEL_BSP_SCHEDULE_DELAY": "100",
        "PYTHONWARNINGS": "error",
        # Ours are not to be told a second time, and this is what would.
        "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "",
    }


def of_request(sink: OtlpSink, method: str = "ExecuteTool") -> list[Span]:
    """The spans of the one trace that a call of this method is in."""
    [call] = [span for span in sink.spans if span.name.endswith(f"/{method}") and span.parent_id is None]
    return [span for span in sink.spans if span.trace_id == call.trace_id]


def named(spans: list[Span], name: str) -> Span:
    [found] = [span for span in spans if span.name == name]
    return found


async def test_a_request_is_told_with_the_names_of_the_registry(start: ServerSpans, sink: OtlpSink) -> None:
    """Call, request and every phase have a span, once, with contrib's instrumentation of gRPC active beside ours."""
    async with start() as elixir:
        await elixir.execute("echo", {"a": 1})
        await elixir.execute("value", {"value": 2}, session_id=elixir.session_id)
        assert await elixir.stop() == 0
    traces = {span.trace_id for span in sink.spans if span.attributes.get(names.SNAKEPIT_TOOL_NAME) == "value"}
    assert len(traces) == 1
    spans = [span for span in sink.spans if span.trace_id in traces]
    # Tools are registered with a session's first request, or with each, as the server has it.
    spans = [span for span in spans if not span.name.endswith("/RegisterTools")]
    assert tree(spans) == REQUEST
    execute = named(spans, "execute tool")
    assert execute.attributes == {
        names.SNAKEPIT_PHASE: "execute",
        names.SESSION_ID: elixir.session_id,
        names.SNAKEPIT_TOOL_NAME: "value",
        names.SNAKEPIT_ADAPTER_NAME: execute.attributes[names.SNAKEPIT_ADAPTER_NAME],
    }
    assert str(execute.attributes[names.SNAKEPIT_ADAPTER_NAME]).startswith("tests.instrumentation.adapters.")


async def test_metrics_are_those_of_a_worker(start: ServerSpans, sink: OtlpSink) -> None:
    """Requests, phases, calls and the process are counted as in our own worker."""
    async with start() as elixir:
        for _ in range(3):
            await elixir.execute("echo")
        assert await elixir.stop() == 0
    counts = {
        (point.metric, dict(point.attributes).get(names.SNAKEPIT_PHASE)): point.count
        for point in sink.points
        if point.metric.startswith("snakepit.adapter")
    }
    expected = {("snakepit.adapter.request.duration", None): 3}
    for phase in ("build", "initialize", "execute", "cleanup"):
        expected["snakepit.adapter.phase.duration", phase] = 3
    assert counts == expected
    seen = {point.metric for point in sink.points}
    assert seen >= {"rpc.server.call.duration", "rpc.client.call.duration", "process.memory.usage", "process.cpu.time"}
    assert {"rpc.server.duration", "rpc.client.duration"}.isdisjoint(seen)
    assert {(point.service, point.role) for point in sink.points} == {("shop", "worker")}


@pytest.mark.parametrize(
    ("adapter", "phase"),
    [("FailsToBuild", "build"), ("FailsToInitialize", "initialize"), ("FailsToCleanUp", "cleanup")],
)
@pytest.mark.parametrize("threaded", [False], ids=["server"])
async def test_a_phase_that_fails_says_so(start: ServerSpans, sink: OtlpSink, adapter: str, phase: str) -> None:
    """The phase has the error's type and an event with its session; the request fails unless it was answered well."""
    async with start(adapter) as elixir:
        answer = await elixir.execute("echo")
        assert answer.ok is (phase == "cleanup")
        assert await elixir.stop() == 0
    spans = [span for span in sink.spans if span.attributes.get(names.SNAKEPIT_TOOL_NAME) == "echo"]
    [failed] = [span for span in spans if span.attributes.get(names.SNAKEPIT_PHASE) == phase]
    assert (failed.ok, failed.attributes[names.ERROR_TYPE]) == (False, "OSError")
    request = named(spans, "handle request")
    assert request.attributes.get(names.ERROR_TYPE) == (None if answer.ok else "OSError")
    [event] = [event for event in sink.events if event.name == "snakepit.adapter.exception"]
    assert event.attributes[names.SESSION_ID] == elixir.session_id


@pytest.mark.parametrize("kind", ["Plain", "Async"])
async def test_a_tool_that_raises_fails_execute_and_request(
    start: ServerSpans, sink: OtlpSink, threaded: bool, kind: str
) -> None:
    """What a tool raises is on its phase and its request; the call itself was answered, so it is well."""
    async with start({"Plain": "ThreadSafe", "Async": "ThreadSafeAsync"}[kind] if threaded else kind) as elixir:
        answer = await elixir.execute("fail", {"words": "sold out"})
        assert answer.error["message"] == "sold out"
        assert await elixir.stop() == 0
    spans = of_tool(sink, "fail")
    failed = {span.name for span in spans if span.attributes.get(names.ERROR_TYPE) == "ValueError" and not span.ok}
    assert failed == {"execute tool", "handle request"}
    [call] = [span for span in sink.spans if span.name.endswith("/ExecuteTool")]
    assert call.ok


def of_tool(sink: OtlpSink, tool: str) -> list[Span]:
    return [span for span in sink.spans if span.attributes.get(names.SNAKEPIT_TOOL_NAME) == tool]


@pytest.mark.parametrize("kind", ["Plain", "Async"])
async def test_a_stream_is_executed_until_its_last_chunk(
    start: ServerSpans, sink: OtlpSink, threaded: bool, tmp_path: Path, kind: str
) -> None:
    """The execute phase of a stream lasts as long as the tool makes chunks, and clean-up comes after it."""
    go = tmp_path / "go"
    async with start({"Plain": "ThreadSafe", "Async": "ThreadSafeAsync"}[kind] if threaded else kind) as elixir:
        chunks = []
        async for chunk in elixir.stream("stream_and_wait", {"path": str(go)}):
            chunks.append(chunk)
            go.touch()
        assert len(chunks) == 3
        assert await elixir.stop() == 0
    spans = of_tool(sink, "stream_and_wait")
    execute, cleanup = named(spans, "execute tool"), named(spans, "clean up adapter")
    assert execute.ok
    assert execute.end <= cleanup.start
    assert execute.end > go.stat().st_mtime_ns - 20_000_000
    request = named(spans, "handle request")
    assert (execute.parent_id, cleanup.parent_id) == (request.span_id, request.span_id)


@pytest.mark.parametrize("kind", ["Plain", "Async"])
async def test_a_stream_that_fails_or_is_left_says_which(
    start: ServerSpans, sink: OtlpSink, threaded: bool, tmp_path: Path, kind: str
) -> None:
    """A stream that raises has its error's type; one whose caller goes is cancelled, and the call, too."""
    async with start({"Plain": "ThreadSafe", "Async": "ThreadSafeAsync"}[kind] if threaded else kind) as elixir:
        with pytest.raises(aio.AioRpcError) as failure:
            async for _ in elixir.stream("count", {"to": 3, "fail_at": 2}):
                pass
        assert failure.value.code() is grpc.StatusCode.INTERNAL
        go = tmp_path / "go"
        async for _ in elixir.stream("stream_and_wait", {"path": str(go)}):
            break
        # The worker has noticed by then, and the tool, which it cannot stop, has not gone on.
        await sink.wait_for(lambda seen: "handle request" in {s.name for s in of_tool(seen, "stream_and_wait")})
        go.touch()
        assert await elixir.stop() == 0
    assert named(of_tool(sink, "count"), "execute tool").attributes[names.ERROR_TYPE] == "ValueError"
    left = of_tool(sink, "stream_and_wait")
    assert named(left, "execute tool").attributes[names.ERROR_TYPE] == "cancelled"
    assert named(left, "handle request").attributes[names.ERROR_TYPE] == "cancelled"
    statuses = {
        span.attributes[names.RPC_RESPONSE_STATUS_CODE]
        for span in sink.spans
        if span.name.endswith("/ExecuteStreamingTool")
    }
    assert statuses == {"INTERNAL", "CANCELLED"}


async def test_a_trace_goes_through_the_worker_and_back(start: ServerSpans, sink: OtlpSink) -> None:
    """What the caller sends is continued, and what the adapter asks of Elixir carries it on."""
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    async with start() as elixir:
        headers = {"traceparent": f"00-{trace_id}-b7ad6b7169203331-01"}
        answer = await elixir.execute("ask", {"name": "double", "parameters": {"x": 4}}, headers=headers)
        assert answer.value == 8
        sent = elixir.headers["ExecuteElixirTool"]["traceparent"]
        first = [headers for name, headers in elixir.metadata if name == "InitializeSession"][-1]["traceparent"]
        assert await elixir.stop() == 0
    [asked] = [span for span in sink.spans if span.name.endswith("/ExecuteElixirTool")]
    assert sent == f"00-{trace_id}-{asked.span_id}-01"
    # One of the servers passes on what headers it was called with, where ours take their place.
    [began] = [s for s in sink.spans if s.trace_id == trace_id and s.name.endswith("/InitializeSession")]
    assert first == f"00-{trace_id}-{began.span_id}-01"
    spans = {span.span_id: span for span in sink.spans if span.trace_id == trace_id}
    way = []
    here: Span | None = asked
    while here is not None:
        way.append(here.name.rpartition("/")[2])
        here = spans.get(here.parent_id or "")
    assert way == ["ExecuteElixirTool", "call authority", "execute tool", "handle request", "ExecuteTool"]
    assert spans[asked.parent_id or ""].attributes[names.SNAKEPIT_TOOL_NAME] == "double"


async def test_a_call_back_may_have_parameters_of_any_name(start: ServerSpans, sink: OtlpSink) -> None:
    """No parameter of a tool is taken for one of what stands around the call."""
    named = ["action", "args", "context", "function", "instance", "kwargs", "point", "request", "tool", "wrapped"]
    async with start() as elixir:
        answer = await elixir.execute("ask", {"name": "list", "parameters": dict.fromkeys(named, 1)})
        assert answer.value == named
        assert await elixir.stop() == 0
    [asked] = [span for span in sink.spans if span.name == "call authority"]
    assert asked.attributes[names.SNAKEPIT_TOOL_NAME] == "list"


async def test_events_are_folded_and_still_reach_elixir(start: ServerSpans, sink: OtlpSink, threaded: bool) -> None:
    """What an adapter emits for Elixir is an event and a metric, in the trace of the tool that emitted it."""
    async with start() as elixir:
        assert (await elixir.execute("emit")).value == "emitted"
        if not threaded:  # whose server has no stream to Elixir
            await elixir.event("tool.result_size")
        assert await elixir.stop() == 0
    seen = {event.name for event in sink.events}
    assert seen >= {f"snakepit.worker.tool.{name}" for name in ("result_size", "execution.start", "execution.stop")}
    elsewhere = named(of_tool(sink, "emit"), "execute tool elsewhere")
    assert elsewhere.parent_id == named(of_tool(sink, "emit"), "execute tool").span_id
    [size] = [point.value for point in sink.points if point.metric == "snakepit.worker.tool.result_size.size"]
    assert size == 5


async def test_zero_copy_payloads_are_told(start: ServerSpans, sink: OtlpSink) -> None:
    """A reference that comes in is an import, one that goes out an export, with its kind, owner and size."""
    payload = {
        "__snakepit_zero_copy__": True,
        "kind": "arrow",
        "device": "cpu",
        "dtype": "struct",
        "owner": "elixir",
        "ref": "r-1",
        "copy": False,
        "bytes": 48,
    }
    async with start() as elixir:
        assert (await elixir.execute("take_reference", {"reference": payload})).value["ref"] == "r-1"
        assert (await elixir.execute("make_reference", {"size": 64})).value["owner"] == "python"
        assert await elixir.stop() == 0
    crossed = {event.name.rpartition(".")[2]: event.attributes for event in sink.events if "zero_copy" in event.name}
    assert crossed["import"][names.SNAKEPIT_ZERO_COPY_KIND] == "arrow"
    assert crossed["import"][names.SNAKEPIT_ZERO_COPY_REFERENCE_ID] == "r-1"
    assert crossed["export"][names.SNAKEPIT_ZERO_COPY_OWNER] == "python"
    sizes = {
        point.metric: point.value for point in sink.points if point.metric.endswith((".import.size", ".export.size"))
    }
    assert sizes == {"snakepit.zero_copy.import.size": 48, "snakepit.zero_copy.export.size": 64}


async def test_upstreams_own_exporter_is_silent(start: ServerSpans, sink: OtlpSink) -> None:
    """Nothing is printed to the console, and no provider is put in place of the one there is."""
    async with start(log_level="warning") as elixir:
        await elixir.execute("echo")
        assert await elixir.stop() == 0
        assert "trace_id" not in elixir.said
        assert "TracerProvider" not in elixir.said
    assert not [span for span in sink.spans if span.name.startswith(("BridgeService/", "HeartbeatClient/"))]


async def test_heartbeats_and_pings_make_no_traces(start: ServerSpans, sink: OtlpSink) -> None:
    """What a worker asks again and again is not told, by us or by contrib."""
    async with start(heartbeat={"interval_ms": 20}) as elixir:
        await elixir.execute("echo")
        await elixir.ping()
        if elixir.calls.count("Heartbeat"):
            await until_beaten(elixir)
        assert await elixir.stop() == 0
    assert not [span for span in sink.spans if span.name.endswith(("/Heartbeat",))]
    # Elixir's own pings are calls that the worker serves.
    assert {span.parent_id for span in sink.spans if span.name.endswith("/Ping")} == {None}


async def until_beaten(elixir: ElixirSnakepit) -> None:
    from tests.waiting import until

    before = elixir.calls.count("Heartbeat")
    await until(lambda: elixir.calls.count("Heartbeat") > before + 2)


@pytest.mark.parametrize("threaded", [False], ids=["server"])
async def test_one_trace_crosses_the_bridge_when_the_authority_is_ours(
    sink: OtlpSink, tmp_path: Path, short_path: Path, threaded: bool
) -> None:
    """A worker of upstream's that asks our authority is in one trace with it, from the call to the session's store."""
    upstream = find()
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": sink.endpoint, "OTEL_SERVICE_NAME": "authority"}
    arguments = ["serve", "tests.adapters_for_tests:Useful", "--workers", "1", "--listen", "127.0.0.1:0"]
    # Over TCP a caller without a certificate could be anybody, who is not to decide what is in our traces.
    arguments += ["--trust-trace-context"]
    async with program("-m", "snakepit_otel", *arguments, environ=environ) as server:
        [address] = re.findall(r"127\.0\.0\.1:\d+", await server.says("serving"))
        elixir = ElixirSnakepit(
            [INSTRUMENT, sys.executable, upstream.server_script(False)],
            "tests.instrumentation.adapters.Plain",
            tmp_path,
            upstream=upstream,
            environ=exporting_to(sink),
            listen_telemetry=False,
        )
        elixir.address = address
        try:
            await elixir.start()
            await elixir.connect()
            request = {"name": "set_session_state", "parameters": {"key": "k", "value": "v"}}
            answer = await elixir.execute("ask", request)
            assert answer.ok, answer.error
            assert await elixir.stop() == 0
        finally:
            await elixir.close()
        os.kill(server.process.pid, 15)
        assert await server.ends() == 0
    spans = of_request(sink)
    assert {span.service for span in spans} == {"shop", "authority"}
    update = named(spans, "update session")
    assert update.service == "authority"
