"""Ours under `opentelemetry-instrument`: real processes, contrib's gRPC instrumentation among them."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import orjson
import pytest
from grpc import aio
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource

from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb
from snakepit_otel.bridge.proto.snakepit_bridge_pb2_grpc import BridgeServiceStub
from snakepit_otel.telemetry import names
from snakepit_otel.telemetry.export.existing_providers import existing_provider
from snakepit_otel.testing import Span, tree
from tests.bridge.elixir import Elixir
from tests.bridge.parts import raw
from tests.bridge.parts import serving as elixir_serving
from tests.cli.peers import grpc_peer
from tests.processes import ROOT
from tests.telemetry.auto_instrumented import ADAPTER, KeepingSink, Told, instrumented, serving, to_its_end
from tests.telemetry.test_processes import TRACE, line
from tests.waiting import until

pytest.importorskip("opentelemetry.distro")
pytest.importorskip("opentelemetry.instrumentation.grpc")
NOWHERE = "http://127.0.0.1:9"
OURS = "snakepit_otel"
CLIENT = "unknown_service:python: snakepit.bridge.BridgeService/ExecuteTool"
# What only our own set-up can tell.
LEDGER = {
    metric.name
    for metric in (
        names.METRIC_TELEMETRY_ENDED,
        names.METRIC_TELEMETRY_DELIVERED,
        names.METRIC_TELEMETRY_FAILED,
        names.METRIC_TELEMETRY_DROPPED,
        names.METRIC_TELEMETRY_QUEUE_SIZE,
        names.METRIC_TELEMETRY_QUEUE_LIMIT,
        names.METRIC_WORKER_TELEMETRY_LOST,
    )
}
ELIXIRS_TRACE = """\
snakepit.bridge.BridgeService/ExecuteTool
  handle request
    build adapter
    initialize adapter
    execute tool
      call authority
        snakepit.bridge.BridgeService/ExecuteElixirTool
    clean up adapter"""


@pytest.fixture
def sink() -> Iterator[KeepingSink]:
    """Somewhere for telemetry to go."""
    with KeepingSink() as listening:
        yield listening


def request_of(sink: KeepingSink, name: str = "handle request") -> list[Span]:
    """Return the spans of the one trace that has such a span."""
    (found,) = [span for span in sink.spans if span.name == name]
    return [span for span in sink.spans if span.trace_id == found.trace_id]


async def call(address: str, *arguments: str, **environ: str) -> str:
    """Run `snakepit-otel call` under `opentelemetry-instrument`; return what it prints."""
    code, output, complaints = await to_its_end(
        "-m", "snakepit_otel", "call", *arguments, SNAKEPIT_OTEL_ADDRESS=address, **environ
    )
    assert code == 0, complaints
    return output.strip()


@pytest.mark.parametrize("disabled", ["", "*"])
async def test_one_request_is_one_trace_and_each_point_is_told_once(
    sink: KeepingSink, short_path: Path, disabled: str
) -> None:
    """From the client's call to the call-backs, by us alone, whether or not contrib instruments gRPC, too."""
    environ = {"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": disabled}
    async with serving(short_path, sink.endpoint, **environ) as server:
        endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": sink.endpoint}
        assert await call(server.address, "add", "amount=1", "--session", "s", **endpoint, **environ) == "1"
        await server.stop()
        said = "".join(server.program.lines) + (await server.program.process.communicate())[1].decode()
    expected = f"{CLIENT}\n" + "".join(f"  {row}\n" for row in TRACE.splitlines())
    assert tree(request_of(sink), line) + "\n" == expected
    assert {told.scope for told in sink.told["spans"]} == {OURS}
    assert all(span.ok for span in sink.spans)
    assert "verrid" not in said


async def test_every_process_says_what_it_is(sink: KeepingSink, short_path: Path) -> None:
    """Spans, metrics and events of a process have one resource, with role, version and an id of their own."""
    async with serving(short_path, sink.endpoint) as server:
        for number in range(4):
            await server.client.execute("add", {"amount": 1}, session_id=f"s{number}")
        await server.stop()
    assert Counter((one[names.SNAKEPIT_ROLE], one[names.SERVICE_NAME]) for one in sink.processes) == {
        ("authority", "snakepit-authority"): 1,
        ("worker", "snakepit-worker"): 2,
    }
    assert len({one[names.SERVICE_INSTANCE_ID] for one in sink.processes}) == 3
    assert all(one[names.SERVICE_VERSION] for one in sink.processes)
    memory = [told for told in sink.told["metrics"] if told.it.name == names.METRIC_PROCESS_MEMORY_USAGE.name]
    assert {told.of[names.SERVICE_INSTANCE_ID] for told in memory} == {
        one[names.SERVICE_INSTANCE_ID] for one in sink.processes
    }
    handled = [point for point in sink.points if point.metric == "snakepit.adapter.request.duration"]
    assert sum(point.count or 0 for point in handled) == 4


@pytest.mark.parametrize(
    "environ", [{"OTEL_SERVICE_NAME": "shop"}, {"OTEL_RESOURCE_ATTRIBUTES": "service.name=shop,service.version=7"}]
)
async def test_who_runs_it_names_it(sink: KeepingSink, short_path: Path, environ: dict[str, str]) -> None:
    """A service's name and version in the environment stay."""
    async with serving(short_path, sink.endpoint, workers=1, **environ) as server:
        await server.stop()
    assert {one[names.SERVICE_NAME] for one in sink.processes} == {"shop"}
    assert {one[names.SNAKEPIT_ROLE] for one in sink.processes} == {"authority", "worker"}
    assert all(one[names.SERVICE_VERSION] == "7" for one in sink.processes) == ("RESOURCE" in "".join(environ))


def shape(told: Told) -> tuple[Any, ...]:
    """A metric without its values: name, unit, kind, how it adds up, boundaries and labels."""
    kind = told.it.WhichOneof("data")
    data = getattr(told.it, kind)
    points = data.data_points
    bounds = {tuple(point.explicit_bounds) for point in points} if kind == "histogram" else ()
    labels = frozenset(pair.key for point in points for pair in point.attributes)
    adding = getattr(data, "aggregation_temporality", 0), getattr(data, "is_monotonic", None)
    return told.of[names.SNAKEPIT_ROLE], told.it.name, told.it.unit, kind, *adding, tuple(bounds), labels


@pytest.mark.parametrize("temporality", ["cumulative", "delta"])
async def test_the_same_metrics_as_with_our_own_set_up(short_path: Path, temporality: str) -> None:
    """Names, units, kinds, temporality, boundaries and labels are equal; only the account of telemetry is not there."""
    shapes = []
    for plain in (True, False):
        with KeepingSink() as sink:
            environ = {"OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": temporality}
            async with serving(short_path, sink.endpoint, workers=1, plain=plain, **environ) as server:
                await server.client.execute("add", {"amount": 1}, session_id="s")
                await server.stop()
            metrics = [told for told in sink.told["metrics"] if told.scope == OURS]
            shapes.append({shape(told) for told in metrics if told.it.name not in LEDGER})
            exemplars = [
                exemplar.span_id.hex()
                for told in metrics
                if told.it.name == "snakepit.adapter.request.duration"
                for point in told.it.histogram.data_points
                for exemplar in point.exemplars
            ]
            assert exemplars == [span.span_id for span in sink.spans if span.name == "handle request"]
    ours, theirs = shapes
    assert ours == theirs


async def test_the_fast_lane_serves_the_distros_provider(sink: KeepingSink, short_path: Path) -> None:
    """Its providers are the only ones; spans are made fast, and given to its one processor as the SDK's own."""
    async with serving(short_path, sink.endpoint, workers=1) as server:
        said = await server.client.execute("observed", {})
    assert said == {
        "providers": ["sdk", "sdk", "sdk"],
        "processors": ["BatchSpanProcessor"],
        "maker": "FastSpanMaker",
        "encoded": False,
        "cells": False,
    }


async def test_a_stop_in_good_order_loses_nothing(sink: KeepingSink, short_path: Path) -> None:
    """What the distro's queues hold is sent when the pool stops a worker, and when the authority is stopped."""
    environ = {"OTEL_BSP_SCHEDULE_DELAY": "600000", "OTEL_BLRP_SCHEDULE_DELAY": "600000"}
    async with serving(short_path, sink.endpoint, **environ) as server:
        for number in range(20):
            await server.client.execute("add", {"amount": 1}, session_id=f"s{number}")
        assert not sink.spans
        await server.stop()
    count = Counter(span.name for span in sink.spans)
    assert [count[name] for name in ("execute request", "handle request", "call authority")] == [20, 20, 40]
    assert [count[name] for name in ("start worker", "load adapter", "stop worker")] == [2, 2, 2]
    assert [event.name for event in sink.events].count("snakepit.worker.ready") == 2


@pytest.mark.parametrize("hangs", [False, True])
async def test_a_collector_that_does_not_answer_holds_up_no_stop(short_path: Path, hangs: bool) -> None:
    """The SDK would wait for it for half a minute; nobody does, and nothing is shut down twice."""
    async with AsyncExitStack() as stack:
        endpoint = f"http://127.0.0.1:{stack.enter_context(grpc_peer(hangs=True)).port}" if hangs else NOWHERE
        server = await stack.enter_async_context(serving(short_path, endpoint, workers=1))
        await server.client.execute("add", {"amount": 1}, session_id="s")
        os.kill(server.program.process.pid, signal.SIGTERM)
        assert await server.program.ends(timeout=25) == 0
        said = (await server.program.process.communicate())[1].decode()
    assert "is lost" in said
    assert "shutdown can only be called once" not in said


async def test_log_records_are_exported_once_and_say_their_trace(sink: KeepingSink, short_path: Path) -> None:
    """On standard error and in what the distro exports, a line of a tool has its trace and span."""
    environ = {"OTEL_PYTHON_LOGGING_AUTO_INSTRUMENTATION_ENABLED": "true"}
    async with serving(short_path, sink.endpoint, workers=1, **environ) as server:
        await server.client.execute("complain", {"words": "out of paint"})
        printed = await server.program.says("out of paint")
        await server.stop()
    (executed,) = [span for span in sink.spans if span.name == "execute tool"]
    records = [told for told in sink.told["logs"] if told.it.body.string_value == "out of paint"]
    assert [(told.it.trace_id.hex(), told.it.span_id.hex()) for told in records] == [
        (executed.trace_id, executed.span_id)
    ]
    assert records[0].of[names.SNAKEPIT_ROLE] == "worker"
    assert f"trace_id={executed.trace_id} span_id={executed.span_id}" in printed


async def test_disabled_sdk_disables_all(sink: KeepingSink, short_path: Path) -> None:
    """OTEL_SDK_DISABLED=true is obeyed by the distro and by us."""
    environ = {"OTEL_SDK_DISABLED": "true"}
    async with serving(short_path, sink.endpoint, workers=1, **environ) as server:
        endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": sink.endpoint}
        assert await call(server.address, "add", "amount=1", "--session", "s", **endpoint, **environ) == "1"
        await server.stop()
    assert (sink.spans, sink.points, sink.events) == ([], [], [])


async def test_level_off_is_obeyed_by_every_command(sink: KeepingSink, short_path: Path) -> None:
    """With SNAKEPIT_TELEMETRY_LEVEL=off there is no span, no event and no duration, whoever set the SDK up."""
    environ = {"SNAKEPIT_TELEMETRY_LEVEL": "off"}
    async with serving(short_path, sink.endpoint, workers=1, **environ) as server:
        endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": sink.endpoint}
        assert await call(server.address, "add", "amount=1", "--session", "s", **endpoint, **environ) == "1"
        await server.stop()
        assert "telemetry is off" in server.program.lines[-1]
    assert (sink.spans, sink.events) == ([], [])
    ours = [told.it for told in sink.told["metrics"] if told.scope == OURS]
    assert not [metric.name for metric in ours if metric.WhichOneof("data") == "histogram"]


async def test_without_a_configurator_ours_sets_up(sink: KeepingSink, short_path: Path) -> None:
    """Contrib instruments, we set up: fast spans, encoded; the account is kept; and no export is told as a call."""
    environ = {"OTEL_PYTHON_CONFIGURATOR": "none", "OTEL_BSP_SCHEDULE_DELAY": "50"}
    async with serving(short_path, sink.endpoint, workers=1, **environ) as server:
        said = await server.client.execute("observed", {})
        await sink.wait_for(lambda found: any(span.name == "handle request" for span in found.spans))
        await server.stop()
    assert (said["maker"], said["encoded"], said["cells"]) == ("FastSpanMaker", True, True)
    assert {told.scope for told in sink.told["spans"]} == {OURS}
    delivered = [point for point in sink.points if point.metric == names.METRIC_TELEMETRY_DELIVERED.name]
    assert sum(point.value for point in delivered if ("snakepit.telemetry.signal", "traces") in point.attributes) > 0
    assert {one[names.SNAKEPIT_ROLE] for one in sink.processes} == {"authority", "worker"}


async def test_a_worker_of_an_elixir_authority(sink: KeepingSink, short_path: Path) -> None:
    """`snakepit-otel worker`: the authority's trace goes on in it, each point is told once, SIGTERM loses nothing."""
    ready = short_path / "ready"
    peer, trace_id = Elixir(double=lambda x: 2 * x), "0af7651916cd43dd8448eb211c80319c"
    environ = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": sink.endpoint,
        "OTEL_BSP_SCHEDULE_DELAY": "600000",
        "OTEL_METRIC_EXPORT_INTERVAL": "600000",
        "SNAKEPIT_READY_FILE": str(ready),
    }
    flags = ["--adapter", ADAPTER.replace(":", "."), "--elixir-address", f"unix:{short_path}/elixir"]
    async with (
        elixir_serving(peer, f"unix:{short_path}/elixir"),
        instrumented("-m", "snakepit_otel", "worker", *flags, **environ) as worker,
    ):
        await until(lambda: ready.exists() or worker.process.returncode is not None)
        async with aio.insecure_channel(f"127.0.0.1:{int(ready.read_text())}") as channel:
            request = pb.ExecuteToolRequest(session_id="alice", tool_name="double", parameters=raw(x=21))
            traced = (("traceparent", f"00-{trace_id}-b7ad6b7169203331-01"),)
            answer = await BridgeServiceStub(channel).ExecuteTool(request, metadata=traced)
            assert orjson.loads(answer.result.value) == 42, answer
        worker.process.send_signal(signal.SIGTERM)
        assert await worker.ends() == 0
    spans = [span for span in sink.spans if span.trace_id == trace_id]
    assert tree(spans) == ELIXIRS_TRACE
    assert {told.scope for told in sink.told["spans"]} == {OURS}
    (one,) = sink.processes
    assert (one[names.SNAKEPIT_ROLE], one[names.SERVICE_NAME]) == ("worker", "snakepit-worker")
    told = {point.metric for point in sink.points}
    assert {names.ADAPTER_REQUEST.duration.name, names.METRIC_PROCESS_MEMORY_USAGE.name} <= told
    assert trace_id in peer.headers["ExecuteElixirTool"]["traceparent"]


@pytest.mark.parametrize(
    ("environ", "configured"), [({}, ["traces", "metrics", "logs"]), ({"OTEL_PYTHON_CONFIGURATOR": "none"}, [])]
)
async def test_the_doctor_says_who_set_it_up(environ: dict[str, str], configured: list[str]) -> None:
    """What is configured before us, and how spans are made for it."""
    said = {"OTEL_EXPORTER_OTLP_ENDPOINT": NOWHERE, **environ}
    arguments = ("-m", "snakepit_otel", "doctor", "--telemetry", "--timeout", "0.5", "--json")
    _, output, _ = await to_its_end(*arguments, **said)
    (check,) = [check for check in json.loads(output)["checks"] if check["topic"] == "opentelemetry-instrument"]
    assert check["configured"] == configured
    if configured:
        assert (check["processors"], check["spans"]) == (["BatchSpanProcessor"], "fast")


async def test_a_pool_may_leave_the_distro_out(sink: KeepingSink, short_path: Path) -> None:
    """Workers whose PYTHONPATH does not lead to it set themselves up, by the same variables."""
    environ = {"SNAKEPIT_OTEL_POOL__ENVIRONMENT": json.dumps({"PYTHONPATH": str(ROOT)})}
    async with serving(short_path, sink.endpoint, workers=1, **environ) as server:
        said = await server.client.execute("observed", {})
        await server.stop()
    assert (said["processors"], said["encoded"]) == (["SpanPipeline"], True)
    assert [span.service for span in sink.spans if span.name == "handle request"] == ["snakepit-worker"]


class Refusing:
    """A provider that fails at everything, with a resource that nobody can change."""

    resource = Resource({"service.name": "theirs"})

    def force_flush(self, timeout: int) -> bool:
        raise RuntimeError("no")

    def shutdown(self) -> None:
        raise RuntimeError("no")


def test_a_provider_that_fails_holds_up_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """What it raises is logged, it counts as not sent, and that its resource is as it is can be known."""
    found = existing_provider(Refusing())
    assert found is not None
    assert not found.complete({names.SNAKEPIT_ROLE: "worker"})
    assert not found.flush(1)
    assert not found.close(1)
    assert (
        caplog.text.count("telemetry failed: RuntimeError: no") + caplog.text.count("down failed: RuntimeError: no")
        == 2
    )


@pytest.mark.parametrize("stand_in", [trace.ProxyTracerProvider(), object()])
def test_what_stands_in_for_a_provider_is_none(stand_in: object) -> None:
    """Where nobody has set anything up there is nothing to see to."""
    assert existing_provider(stand_in) is None
