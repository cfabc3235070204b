"""Bridges for tests: real servers on Unix sockets, in this process."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from google.protobuf.any_pb2 import Any as AnyMessage

from snakepit_otel import rpc
from snakepit_otel.adapters._adapter_loading import spec_of
from snakepit_otel.bridge.authority.dispatcher import Dispatcher
from snakepit_otel.bridge.authority.fencing import FencingTokens
from snakepit_otel.bridge.authority.jobs import Job, TakeChunk
from snakepit_otel.bridge.authority.service import AuthorityService, authority_limits
from snakepit_otel.bridge.authority.state_tools import STATE_TOOLS
from snakepit_otel.bridge.authority.tool_registry import ToolRegistry
from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb
from snakepit_otel.bridge.proto.snakepit_bridge_pb2_grpc import BridgeServiceStub
from snakepit_otel.bridge.wire import methods
from snakepit_otel.bridge.wire.method_guards import guarded
from snakepit_otel.bridge.wire.services import BRIDGE, WORKER
from snakepit_otel.bridge.wire.tool_calls import stream_error
from snakepit_otel.bridge.worker.server import WorkerServer
from snakepit_otel.bridge.worker.service import WorkerService, worker_limits
from snakepit_otel.errors import PoolNotStarted
from snakepit_otel.rpc.addresses import listen, options
from snakepit_otel.rpc.services import Handler, handlers_of
from snakepit_otel.rpc.transports.grpc import add_handlers
from snakepit_otel.sessions import SessionStore

STRING = "type.googleapis.com/google.protobuf.StringValue"
VALUE = "type.googleapis.com/google.protobuf.Value"
MAX_MESSAGE_BYTES = 1 << 20


def raw(**values: Any) -> dict[str, AnyMessage]:
    """Return parameters as an Elixir authority sends them: raw JSON under StringValue's name."""
    return {name: AnyMessage(type_url=STRING, value=json.dumps(value).encode()) for name, value in values.items()}


def error_name(text: str) -> str:
    """Return the name of an error on the wire: ours beside the type, or the type that a user's error has."""
    described = json.loads(text)
    return str(described["context"].get("snakepit_error", described["type"]))


class NoWorkers:
    """Workers of a pool that has none."""

    def label(self, tool: str) -> str:
        """Know every tool."""
        return tool

    def on_refused(self, tool: str, pool: str | None) -> None:
        """Count nothing."""

    async def execute(self, request: pb.ExecuteToolRequest, **_: Any) -> pb.ExecuteToolResponse:
        """Fail."""
        raise PoolNotStarted("there are no workers")

    async def stream(self, request: pb.ExecuteToolRequest, take: TakeChunk, **_: Any) -> None:
        """Fail."""
        raise PoolNotStarted("there are no workers")


@asynccontextmanager
async def connected(address: str) -> AsyncIterator[rpc.Connection]:
    """Yield a connection to a bridge service, with spans around its calls."""
    connection = rpc.transport_of(address).connect(address, (BRIDGE,), max_message_bytes=MAX_MESSAGE_BYTES)
    try:
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def closing(connection: rpc.Connection) -> AsyncIterator[None]:
    """Close a connection in the end."""
    try:
        yield
    finally:
        await connection.close()


class OneWorker:
    """A pool of one worker, already running at an address."""

    def __init__(self, address: str, tools: Iterable[str] = ()) -> None:
        self._tools = frozenset(tools)
        self.connection = rpc.transport_of(address).connect(address, [WORKER], max_message_bytes=MAX_MESSAGE_BYTES)

    def label(self, tool: str) -> str:
        """Know the tools given, or all if none are."""
        return tool if not self._tools or tool in self._tools else "_OTHER"

    def pool_of(self, tool: str) -> str:
        """Return the name of the only pool."""
        return "default"

    def on_refused(self, tool: str, pool: str | None) -> None:
        """Count nothing."""

    async def execute(self, job: Job) -> pb.ExecuteToolResponse:
        """Run the request on the worker."""
        assigned = job.on_assigned("worker-1")
        if assigned is not None:
            await assigned
        try:
            response: pb.ExecuteToolResponse = await self.connection.call(methods.EXECUTE_TOOL, job.request, _left(job))
        except rpc.RpcError as error:
            raise stream_error(error, "worker-1") from None
        return response

    async def stream(self, job: Job, take: TakeChunk) -> None:
        """Run the request on the worker and hand on its chunks."""
        assigned = job.on_assigned("worker-1")
        if assigned is not None:
            await assigned
        try:
            await self.connection.stream(methods.EXECUTE_STREAMING_TOOL, job.request, take, _left(job))
        except rpc.RpcError as error:
            raise stream_error(error, "worker-1") from None


def _left(job: Job) -> float | None:
    return None if job.deadline is None else job.deadline - time.monotonic()


def _handlers(service: object) -> list[Handler]:
    """Return handlers of the bridge: guarded as the real ones are, unless the service stands for Elixir."""
    if isinstance(service, AuthorityService):
        return guarded(BRIDGE, service, authority_limits(MAX_MESSAGE_BYTES, 1 << 20))
    if isinstance(service, WorkerService):
        return guarded(BRIDGE, service, worker_limits(MAX_MESSAGE_BYTES))
    return handlers_of(BRIDGE, service)


@asynccontextmanager
async def serving(service: object, address: str, *, observed: bool = False) -> AsyncIterator[Any]:
    """Serve a bridge service at `unix:PATH`, and yield a stub to call it by."""
    interceptors = [rpc.ServerInterceptor()] if observed else []
    server = rpc.aio_server(interceptors=interceptors, options=options(MAX_MESSAGE_BYTES))
    add_handlers(server, _handlers(service))
    listen(server, address)
    await server.start()
    try:
        async with rpc.aio_channel(address, options=options(MAX_MESSAGE_BYTES)) as channel:
            yield BridgeServiceStub(channel)
    finally:
        await server.stop(None)


@asynccontextmanager
async def worker(adapter: type, authority: str, directory: Path, **more: Any) -> AsyncIterator[Any]:
    """Run a worker that calls back to `authority`, and yield a stub to call it by."""
    server = WorkerServer(
        adapter=spec_of(adapter),
        listen=f"unix:{directory}/worker",
        authority_address=authority,
        worker_id="worker-1",
        max_message_bytes=MAX_MESSAGE_BYTES,
        grace=0.0,
        **more,
    )
    await server.start()
    try:
        async with rpc.aio_channel(server.address, options=options(MAX_MESSAGE_BYTES)) as channel:
            yield BridgeServiceStub(channel)
    finally:
        server.request_stop()
        await server.run_until_stopped()


class Authority:
    """A served authority: its sessions, its tools, its address, and a stub to call it by."""

    def __init__(self, address: str, sessions: SessionStore, tools: ToolRegistry, stub: Any) -> None:
        self.address = address
        self.sessions = sessions
        self.tools = tools
        self.stub = stub


@asynccontextmanager
async def authority(
    directory: Path,
    adapter: type | None = None,
    *,
    sessions: SessionStore | None = None,
    tools: Iterable[Any] = (),
    fencing_tokens: FencingTokens | None = None,
) -> AsyncIterator[Authority]:
    """Serve an authority, with one worker for the adapter if there is one."""
    sessions = sessions or SessionStore()
    registry = ToolRegistry((*STATE_TOOLS, *tools))
    address = f"unix:{directory}/authority"
    pool = OneWorker(f"unix:{directory}/worker") if adapter else None
    service = AuthorityService(Dispatcher(sessions, registry, pool or NoWorkers()), fencing_tokens)
    async with serving(service, address, observed=True) as stub:
        served = Authority(address, sessions, registry, stub)
        if adapter is None or pool is None:
            yield served
            return
        async with worker(adapter, address, directory), closing(pool.connection):
            yield served
