"""The servers that benchmarks/worker.py measures, each a process of its own."""

from __future__ import annotations

import asyncio
import sys

from grpc import aio

from snakepit_otel import BaseAdapter, tool
from snakepit_otel.bridge.addresses import options
from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb
from snakepit_otel.bridge.proto.snakepit_bridge_pb2_grpc import (
    BridgeServiceServicer,
    add_BridgeServiceServicer_to_server,
)
from snakepit_otel.bridge.worker_server import WorkerServer, spare_what_is_loaded
from snakepit_otel.telemetry import switch


class Echo(BaseAdapter):
    """An adapter that returns what it is given."""

    @tool
    async def echo(self, value: object) -> object:
        """Return the value, on the event loop."""
        return value

    @tool
    def echo_sync(self, value: object) -> object:
        """Return the value, in a thread."""
        return value


class BareEcho(BridgeServiceServicer):
    """The least that a grpc.aio server can do with the same messages."""

    async def ExecuteTool(self, request: pb.ExecuteToolRequest, context: object) -> pb.ExecuteToolResponse:  # noqa: N802 - gRPC's names
        """Return the parameter as it came."""
        return pb.ExecuteToolResponse(success=True, result=request.parameters["value"])


async def serve_bare(address: str) -> None:
    """Serve the bare echo until killed."""
    server = aio.server(options=options())
    add_BridgeServiceServicer_to_server(BareEcho(), server)
    server.add_insecure_port(address)
    await server.start()
    print("ready", flush=True)
    await server.wait_for_termination()


async def serve_worker(address: str) -> None:
    """Serve the worker until killed, telemetry off."""
    switch.turn(False)
    server = WorkerServer(
        adapter="benchmarks.echo_servers:Echo",
        listen=address,
        authority="unix:/nonexistent",
        worker_id="bench",
    )
    await server.start()
    spare_what_is_loaded()
    print("ready", flush=True)
    await server.run_until_told_to_stop()


if __name__ == "__main__":
    asyncio.run({"bare": serve_bare, "worker": serve_worker}[sys.argv[1]](sys.argv[2]))
