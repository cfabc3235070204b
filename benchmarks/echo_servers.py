"""The servers that benchmarks/worker.py measures, each a process of its own."""

from __future__ import annotations

import asyncio
import sys

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from grpc import aio
from opentelemetry import metrics, trace
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from benchmarks.transports import chosen
from snakepit_otel import BaseAdapter, tool
from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb
from snakepit_otel.bridge.proto.snakepit_bridge_pb2_grpc import (
    BridgeServiceServicer,
    add_BridgeServiceServicer_to_server,
)
from snakepit_otel.bridge.worker.server import WorkerServer, freeze_gc
from snakepit_otel.rpc.addresses import options


class Echo(BaseAdapter):
    @tool
    async def echo(self, value: object) -> object:
        return value

    @tool
    def echo_sync(self, value: object) -> object:
        return value


class BareEcho(BridgeServiceServicer):
    async def ExecuteTool(self, request: pb.ExecuteToolRequest, context: object) -> pb.ExecuteToolResponse:  # noqa: N802 - gRPC's names
        return pb.ExecuteToolResponse(success=True, result=request.parameters["value"])


class BareCounters(BridgeServiceServicer):
    """Counters of sessions in a dict of the process."""

    def __init__(self) -> None:
        self._counts = dict[str, int]()

    async def ExecuteTool(self, request: pb.ExecuteToolRequest, context: object) -> pb.ExecuteToolResponse:  # noqa: N802 - gRPC's names
        session = request.session_id
        self._counts[session] = count = self._counts.get(session, 0) + 1
        return pb.ExecuteToolResponse(success=True, result=AnyMessage(value=b"%d" % count))


async def serve_bare(address: str, servicer: BridgeServiceServicer | None = None) -> None:
    server = aio.server(options=options())
    add_BridgeServiceServicer_to_server(servicer or BareEcho(), server)
    server.add_insecure_port(address)
    await server.start()
    print("ready", flush=True)
    await server.wait_for_termination()


async def serve_worker(address: str) -> None:
    """Serve the worker over the transport that was chosen: the local one as workers of a pool do, or gRPC."""
    transport = chosen()
    server = WorkerServer(
        adapter="benchmarks.echo_servers:Echo",
        listen=address,
        local_transport=transport,
        serves_grpc=transport == "grpc",
        authority_address="unix:/nonexistent",
        worker_id="bench",
    )
    await server.start()
    freeze_gc()
    print("ready", flush=True)
    await server.run_until_stopped()


async def serve_stock_worker(address: str) -> None:
    """Serve the worker with the SDK as its documentation has it, every point done by its plain calls."""
    tracing = TracerProvider()
    tracing.add_span_processor(_Watching())
    tracing.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(tracing)
    metrics.set_meter_provider(MeterProvider([PeriodicExportingMetricReader(OTLPMetricExporter())]))
    await serve_worker(address)


class _Watching(SpanProcessor):
    """Sees spans as they start, which keeps the worker from using lean ones."""

    def on_start(self, span: object, parent_context: object = None) -> None:
        """Do nothing."""


async def serve_sink(address: str) -> None:
    async def take(_request: bytes, _context: object) -> bytes:
        return b""

    class Everything(grpc.GenericRpcHandler):
        def service(self, _call: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
            return grpc.unary_unary_rpc_method_handler(take)

    server = aio.server(options=[("grpc.max_receive_message_length", -1)])
    server.add_generic_rpc_handlers((Everything(),))
    server.add_insecure_port(address)
    await server.start()
    print("ready", flush=True)
    await server.wait_for_termination()


async def serve_counters(address: str) -> None:
    await serve_bare(address, BareCounters())


SERVERS = {
    "bare": serve_bare,
    "bare_counters": serve_counters,
    "worker": serve_worker,
    "stock": serve_stock_worker,
    "sink": serve_sink,
}

if __name__ == "__main__":
    asyncio.run(SERVERS[sys.argv[1]](sys.argv[2]))
