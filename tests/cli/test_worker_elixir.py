"""Our worker in place of upstream's: started, used, watched and stopped by Elixir, as Elixir's Snakepit does it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from snakepit_otel.cli.elixir import SCRIPT
from snakepit_otel.testing import OtlpSink, tree
from tests.compatibility.starting import KINDS, WITHOUT, elixir
from tests.instrumentation.elixir import CORRELATION, ElixirSnakepit
from tests.processes import alive
from tests.waiting import until

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}
REQUEST = """\
snakepit.bridge.BridgeService/ExecuteTool
  handle request
    build adapter
    initialize adapter
    execute tool
      call authority
        snakepit.bridge.BridgeService/ExecuteElixirTool
    clean up adapter"""
STREAM = """\
snakepit.bridge.BridgeService/ExecuteStreamingTool
  handle request
    build adapter
    initialize adapter
    execute tool
    clean up adapter"""


@pytest.fixture
def sink() -> Iterator[OtlpSink]:
    """Somewhere for telemetry to go."""
    with OtlpSink() as listening:
        yield listening


def started(sink: OtlpSink, directory: Path, adapter: str = "Plain", **more: object) -> ElixirSnakepit:
    """Return an Elixir that starts our worker with an adapter of upstream's kind, and telemetry to the sink."""
    environ = {
        "OTEL_SDK_DISABLED": "false",
        "OTEL_EXPORTER_OTLP_ENDPOINT": sink.endpoint,
        "OTEL_METRIC_EXPORT_INTERVAL": "600000",
        "OTEL_SERVICE_NAME": "shop",
    }
    return elixir(adapter, directory, environ=environ, tools={"double": lambda x: 2 * x}, **more)  # type: ignore[arg-type]


async def test_the_whole_deployment(sink: OtlpSink, tmp_path: Path) -> None:
    """Every lifecycle point of a request and a stream is in one trace each, with its metrics; SIGTERM loses nothing."""
    beats = {"interval_ms": 20}
    async with started(sink, tmp_path, heartbeat=beats) as theirs:
        assert theirs.calls[0] == "Ping"
        assert os.getpgid(theirs.pid) == theirs.pid
        assert (await theirs.ping("hello")).message == "Pong from Python: hello"
        ask = {"name": "double", "parameters": {"x": 4}}
        assert (await theirs.execute("ask", ask, headers=PARENT, correlation_id="c-1")).value == 8
        # What Elixir is called with belongs to the trace.
        assert theirs.headers["ExecuteElixirTool"]["traceparent"].split("-")[1] == TRACE
        assert len(await theirs.chunks("count", {"to": 3})) == 4
        failed = await theirs.execute("fail", {"words": "told so"})
        assert (failed.error["type"], failed.error["message"]) == ("ValueError", "told so")
        await until(lambda: theirs.calls.count("Heartbeat") >= 3)
        assert theirs.last["Heartbeat"].session_id == theirs.session_id
        assert (await theirs.heartbeat()).session_valid
        assert (await theirs.get_session(theirs.session_id)).session_id == theirs.session_id
        names = [".".join(event.event_parts) for event in theirs.events]
        await until(lambda: "tool.execution.exception" in [".".join(event.event_parts) for event in theirs.events])
        assert names[:2] == ["tool.execution.start", "tool.execution.stop"]
        assert theirs.events[0].correlation_id == "c-1"
        await until(lambda: "RegisterTools" in theirs.calls)
        assert await theirs.stop(signal.SIGTERM) == 0
    spans = [span for span in sink.spans if span.trace_id == TRACE]
    assert tree(spans, lambda span: span.name) == REQUEST
    assert {span.service for span in sink.spans} == {"shop"}
    roots = {span.trace_id: span for span in sink.spans if span.name.endswith("ExecuteStreamingTool")}
    assert len(roots) == 1
    (stream,) = roots
    assert tree((span for span in sink.spans if span.trace_id == stream), lambda span: span.name) == STREAM
    assert "load adapter" in {span.name for span in sink.spans}
    (bad,) = [span for span in sink.spans if span.name == "execute tool" and not span.ok]
    assert bad.attributes["error.type"] == "ValueError"

    def counted(metric: str, **attributes: str) -> int:
        return sum(
            point.count or 0
            for point in sink.points
            if point.metric == metric and attributes.items() <= dict(point.attributes).items()
        )

    assert counted("snakepit.adapter.request.duration") == 3
    for phase in ("build", "initialize", "execute", "cleanup"):
        assert counted("snakepit.adapter.phase.duration", **{"snakepit.phase": phase}) == 3
    assert counted("snakepit.callback.duration") == 1
    assert counted("snakepit.adapter.load.duration") == 1
    method = "snakepit.bridge.BridgeService/ExecuteTool"
    assert counted("rpc.server.call.duration", **{"rpc.method": method}) == 2


async def test_what_adapters_emit_is_in_opentelemetry_too(sink: OtlpSink, tmp_path: Path) -> None:
    """Events of `snakepit_bridge.telemetry` are events and metrics of the registry, in the trace of their tool."""
    async with started(sink, tmp_path) as theirs:
        assert (await theirs.execute("emit", headers=PARENT, correlation_id="c-7")).ok
        assert await theirs.stop() == 0
    names = {event.name: event for event in sink.events}
    assert names["snakepit.worker.tool.result_size"].attributes["snakepit.correlation.id"] == "c-7"
    assert "snakepit.worker.tool.execution.stop" in names
    received = [point for point in sink.points if point.metric == "snakepit.worker.event.received"]
    assert sum(point.value for point in received) == 3
    (executed,) = [span for span in sink.spans if span.name == "execute tool"]
    told = [span for span in sink.spans if span.parent_id == executed.span_id]
    assert [span.trace_id for span in told] == [TRACE]


@pytest.mark.parametrize("kind", KINDS)
async def test_nothing_is_told_twice_where_upstreams_worker_is_instrumented_too(
    sink: OtlpSink, tmp_path: Path, kind: str
) -> None:
    """Under `opentelemetry-instrument`, with our instrumentation of upstream's workers there, ours alone tells."""
    instrument = Path(sys.executable).with_name("opentelemetry-instrument")
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": sink.endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    theirs = ElixirSnakepit(
        [instrument, sys.executable, SCRIPT],
        "tests.instrumentation.adapters.Plain",
        tmp_path / "elixir",
        adapter_args=("--snakepit-bridge",),
        environ=environ,
        upstream=WITHOUT if kind == "ours" else None,
        tools={"double": lambda x: 2 * x},
    )
    async with theirs:
        assert (await theirs.execute("emit", headers=PARENT)).ok
        assert (await theirs.execute("ask", {"name": "double", "parameters": {"x": 1}}, headers=PARENT)).value == 2
        assert await theirs.stop() == 0
    received = [point for point in sink.points if point.metric == "snakepit.worker.event.received"]
    assert sum(point.value for point in received) == 3
    assert [span.name for span in sink.spans].count("call authority") == 1
    assert [span.name for span in sink.spans].count("execute tool") == 2


async def test_a_correlation_id_travels_both_ways(sink: OtlpSink, tmp_path: Path) -> None:
    """What Elixir sends as its correlation id is the adapter's."""
    async with started(sink, tmp_path) as theirs:
        answer = await theirs.execute("where", correlation_id="mine")
        assert answer.value["correlation_id"] == "mine"
        assert CORRELATION == "x-snakepit-correlation-id"


async def test_elixir_knows_the_process_for_its_own(sink: OtlpSink, tmp_path: Path) -> None:
    """What Elixir looks for when it cleans up after a run that died, it finds: python, the script, run and instance."""
    async with started(sink, tmp_path) as theirs:
        line = Path(f"/proc/{theirs.pid}/cmdline").read_bytes().decode().replace("\0", " ")
        assert "python" in Path(f"/proc/{theirs.pid}/comm").read_text()
        assert "grpc_server.py" in line
        assert f"--snakepit-run-id {theirs.run_id}" in line
        assert "--snakepit-instance-name tests --snakepit-instance-token token" in line
        # As the last resort does it.
        theirs.kill_group()
        await until(lambda: not alive(theirs.pid))


async def test_the_profile_thread_takes_an_executable_in_between(sink: OtlpSink, tmp_path: Path) -> None:
    """Elixir starts its threaded script whatever the adapter says, so the executable puts ours in its place."""
    executable = tmp_path / "snakepit-python"
    executable.write_text(f'#!/bin/sh\nshift\nexec {sys.executable} {SCRIPT} "$@"\n')
    executable.chmod(0o755)
    theirs = ElixirSnakepit(
        [executable, "/nowhere/priv/python/grpc_server_threaded.py"],
        "tests.instrumentation.adapters.ThreadSafe",
        tmp_path / "elixir",
        adapter_args=("--max-workers", "4", "--thread-safety-check"),
        environ={"SNAKEPIT_BRIDGE_COMPATIBILITY": "1", "OTEL_EXPORTER_OTLP_ENDPOINT": sink.endpoint},
        upstream=WITHOUT,
        cwd=tmp_path,
    )
    async with theirs:
        assert (await theirs.execute("value", {"value": 3})).value == 3
        assert "python" in Path(f"/proc/{theirs.pid}/comm").read_text()
        assert "grpc_server.py" in Path(f"/proc/{theirs.pid}/cmdline").read_text()
        assert await theirs.stop() == 0


async def test_it_leaves_when_elixir_is_gone(sink: OtlpSink, tmp_path: Path) -> None:
    """A worker whose Elixir dies without a word leaves by itself, with exit status 0."""
    async with started(sink, tmp_path, heartbeat={"interval_ms": 20, "timeout_ms": 500}) as theirs:
        assert theirs.process is not None
        await theirs._server.stop(None)  # type: ignore[union-attr]
        async with asyncio.timeout(20):
            assert await theirs.process.wait() == 0
