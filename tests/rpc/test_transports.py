"""Conformance of transports: what every connection and every listener does, whatever carries it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from snakepit_otel import rpc
from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb
from snakepit_otel.bridge.proto import snakepit_buffers_pb2 as buffers_pb
from snakepit_otel.bridge.wire.methods import EXECUTE_STREAMING_TOOL, HEARTBEAT, PING, WRITE_BUFFER
from snakepit_otel.bridge.wire.services import BRIDGE, BUFFERS
from snakepit_otel.errors import ConfigurationError
from snakepit_otel.rpc import RpcError, StatusCode
from snakepit_otel.rpc.services import handlers_of
from snakepit_otel.rpc.transports.base import Transport
from snakepit_otel.rpc.transports.grpc import GrpcTransport
from snakepit_otel.rpc.transports.local import LocalTransport
from snakepit_otel.telemetry import names
from snakepit_otel.testing import Capture

TRANSPORTS = {"grpc": GrpcTransport, "local": LocalTransport}
SERVICES = (BRIDGE, BUFFERS)


class Service:
    """Answers with what it was sent, or ends a call as its message wants it."""

    def __init__(self) -> None:
        self.metadata: dict[str, str] = {}
        self.time_remaining: float | None = None
        self.started = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.release = asyncio.Event()

    async def Ping(self, request: pb.PingRequest, context: Any) -> pb.PingResponse:
        """One in, one out."""
        self.metadata = dict(context.invocation_metadata())
        self.time_remaining = context.time_remaining()
        await self._end(request.message, context)
        return pb.PingResponse(message=request.message)

    async def ExecuteStreamingTool(self, request: pb.ExecuteToolRequest, context: Any) -> None:
        """One in, three out."""
        for number in range(3):
            await context.write(pb.ToolChunk(chunk_id=str(number)))
        await self._end(request.tool_name, context)

    async def Write(self, requests: Any, context: Any) -> buffers_pb.WriteResponse:
        """Many in, one out."""
        self.sizes = [len(request.data) async for request in requests]
        return buffers_pb.WriteResponse()

    async def _end(self, how: str, context: Any) -> None:
        self.started.set()
        if how == "raise":
            raise ValueError("a fault of the server")
        if how == "wait":
            try:
                await self.release.wait()
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
        if how in StatusCode.__members__:
            await context.abort(StatusCode[how], "as asked")


@pytest.fixture(params=["grpc", "local"])
def transport(request: pytest.FixtureRequest) -> Transport:
    """Each transport."""
    return TRANSPORTS[request.param]()


@pytest.fixture
def address(transport: Transport, short_path: Path) -> str:
    """An address of the transport's kind."""
    return f"unix:{short_path}/s"


@pytest.fixture(autouse=True)
def quiet_server(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Keep what gRPC logs of the server's faults out of the output."""
    with caplog.at_level("CRITICAL", "grpc._cython.cygrpc"):
        yield


@pytest.fixture
async def service() -> Service:
    """The service."""
    return Service()


@pytest.fixture
async def listener(transport: Transport, address: str, service: Service) -> AsyncIterator[rpc.Listener]:
    """A listener that serves it."""
    listener = transport.listen(address, trusted=True)
    listener.add(handlers_of(BRIDGE, service))
    listener.add(handlers_of(BUFFERS, service))
    assert listener.bind() == address
    await listener.start()
    yield listener
    await listener.stop(None)


@pytest.fixture
async def connection(transport: Transport, address: str, listener: rpc.Listener) -> AsyncIterator[rpc.Connection]:
    """A connection to it."""
    connection = transport.connect(address, SERVICES)
    yield connection
    await connection.close()


async def test_one_message_each_way(connection: rpc.Connection) -> None:
    """A call returns the answer, parsed."""
    await asyncio.wait_for(connection.ready(), 10)
    assert (await connection.call(PING, pb.PingRequest(message="hello"))).message == "hello"


async def test_metadata_and_deadline_cross(connection: rpc.Connection, service: Service, capture: Capture) -> None:
    """The server sees the caller's metadata, trace context among it, and the time that is left."""
    await connection.call(PING, pb.PingRequest(), 30.0, [("x-key", "value")])
    assert service.metadata["x-key"] == "value"
    assert "traceparent" in service.metadata
    assert service.time_remaining is not None
    assert 20 < service.time_remaining <= 31
    await connection.call(PING, pb.PingRequest(), observed=False)
    assert "traceparent" not in service.metadata


async def test_a_stream(connection: rpc.Connection) -> None:
    """Each message of a stream is awaited, in order."""
    taken: list[str] = []

    async def take(chunk: pb.ToolChunk) -> None:
        await asyncio.sleep(0)
        taken.append(chunk.chunk_id)

    await connection.stream(EXECUTE_STREAMING_TOOL, pb.ExecuteToolRequest(), take)
    assert taken == ["0", "1", "2"]


async def test_an_upload(connection: rpc.Connection, service: Service) -> None:
    """Messages are sent until there are no more, and have one answer."""
    await connection.upload(WRITE_BUFFER, (buffers_pb.WriteRequest(data=b"x" * size) for size in range(1, 4)))
    assert service.sizes == [1, 2, 3]


FAILURES = [(code.name, code) for code in StatusCode if code is not StatusCode.OK] + [("raise", StatusCode.UNKNOWN)]


@pytest.mark.parametrize(("how", "code"), FAILURES, ids=[how for how, _ in FAILURES])
async def test_every_status_is_raised(connection: rpc.Connection, how: str, code: StatusCode, capture: Capture) -> None:
    """A call that fails raises its status and its details; its span has the status."""
    with pytest.raises(RpcError) as raised:
        await connection.call(PING, pb.PingRequest(message=how))
    assert raised.value.code is code
    assert raised.value.details == "as asked" or how == "raise"
    statuses = {span.attributes[names.RPC_RESPONSE_STATUS_CODE] for span in capture.spans(PING)}
    assert statuses == {code.name}


async def test_a_method_that_nobody_serves(connection: rpc.Connection) -> None:
    """It has a status of its own."""
    with pytest.raises(RpcError) as raised:
        await connection.call(HEARTBEAT, pb.HeartbeatRequest())
    assert raised.value.code is StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("kind", ["call", "stream"])
async def test_a_deadline_that_passes(connection: rpc.Connection, service: Service, kind: str) -> None:
    """The caller gets the status, and the server is cancelled."""

    async def take(_: Any) -> None: ...

    if kind == "call":
        call: Any = connection.call(PING, pb.PingRequest(message="wait"), 0.1)
    else:
        call = connection.stream(EXECUTE_STREAMING_TOOL, pb.ExecuteToolRequest(tool_name="wait"), take, 0.1)
    with pytest.raises(RpcError) as raised:
        await call
    assert raised.value.code is StatusCode.DEADLINE_EXCEEDED
    await asyncio.wait_for(service.cancelled.wait(), 10)


@pytest.mark.parametrize("kind", ["call", "stream"])
async def test_a_caller_that_is_cancelled(connection: rpc.Connection, service: Service, kind: str) -> None:
    """Cancelling the caller cancels the call at the server."""

    async def take(_: Any) -> None: ...

    if kind == "call":
        call: Any = connection.call(PING, pb.PingRequest(message="wait"))
    else:
        call = connection.stream(EXECUTE_STREAMING_TOOL, pb.ExecuteToolRequest(tool_name="wait"), take)
    task = asyncio.ensure_future(call)
    await asyncio.wait_for(service.started.wait(), 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(service.cancelled.wait(), 10)


async def test_a_taker_that_fails(connection: rpc.Connection, capture: Capture) -> None:
    """Its error is the caller's, as it is, and the call is cancelled."""

    async def take(_: Any) -> None:
        raise LookupError("of the taker")

    with pytest.raises(LookupError, match="of the taker"):
        await connection.stream(EXECUTE_STREAMING_TOOL, pb.ExecuteToolRequest(tool_name="wait"), take)


async def test_a_thread(transport: Transport, address: str, listener: rpc.Listener) -> None:
    """A blocking connection makes the same calls from a thread."""
    blocking = transport.connect_blocking(address, SERVICES)

    def call(how: str) -> Any:
        return blocking.call(PING, pb.PingRequest(message=how), 10.0, [("x-key", "value")])

    assert (await asyncio.to_thread(call, "hello")).message == "hello"
    with pytest.raises(RpcError) as raised:
        await asyncio.to_thread(call, "NOT_FOUND")
    assert (raised.value.code, raised.value.details) == (StatusCode.NOT_FOUND, "as asked")
    blocking.close()


async def test_a_connection_that_is_closed(connection: rpc.Connection) -> None:
    """Calls over it raise, and nothing is sent."""
    await connection.close()
    with pytest.raises(rpc.ConnectionClosed):
        await connection.call(PING, pb.PingRequest())


async def test_a_peer_that_is_not_there(transport: Transport, address: str) -> None:
    """A call where nobody listens is unavailable."""
    connection = transport.connect(address, SERVICES)
    with pytest.raises(RpcError) as raised:
        await connection.call(PING, pb.PingRequest(), 10.0)
    assert raised.value.code is StatusCode.UNAVAILABLE
    await connection.close()


async def test_an_address_in_use(transport: Transport, address: str, listener: rpc.Listener) -> None:
    """A second listener cannot have the address."""
    with pytest.raises(ConfigurationError, match="in use"):
        transport.listen(address).bind()


async def test_a_listener_that_stops(connection: rpc.Connection, listener: rpc.Listener, service: Service) -> None:
    """Calls in flight may end within the grace, and new ones are refused."""
    in_flight = asyncio.ensure_future(connection.call(PING, pb.PingRequest(message="wait")))
    await asyncio.wait_for(service.started.wait(), 10)
    stopping = asyncio.ensure_future(listener.stop(10.0))
    await asyncio.sleep(0.05)
    service.release.set()
    assert (await in_flight).message == "wait"
    await stopping
    with pytest.raises(RpcError) as raised:
        await connection.call(PING, pb.PingRequest(), 10.0)
    assert raised.value.code is StatusCode.UNAVAILABLE
