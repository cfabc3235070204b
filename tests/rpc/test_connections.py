"""Telemetry of calls over connections: the true status, on both ends and for every kind of call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import aio

from snakepit_otel import rpc
from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb
from snakepit_otel.bridge.proto.snakepit_bridge_pb2_grpc import BridgeServiceServicer
from snakepit_otel.bridge.wire.methods import EXECUTE_STREAMING_TOOL, PING
from snakepit_otel.bridge.wire.services import BRIDGE
from snakepit_otel.rpc.transports.grpc import GrpcTransport
from snakepit_otel.telemetry import _switch, names
from snakepit_otel.testing import Capture
from tests.bridge.parts import serving
from tests.waiting import until

TELEMETRY = "snakepit.bridge.BridgeService/StreamTelemetry"
OUTCOMES = [
    # How it ends, the status, and the error as the client's and the server's telemetry have it.
    ("ok", "OK", None, None),
    ("INVALID_ARGUMENT", "INVALID_ARGUMENT", "INVALID_ARGUMENT", None),
    ("INTERNAL", "INTERNAL", "INTERNAL", "INTERNAL"),
    ("raise", "UNKNOWN", "UNKNOWN", "UNKNOWN"),
    ("wait", "CANCELLED", "CANCELLED", None),
]


class Endings(BridgeServiceServicer):
    """Ends its calls as they ask."""

    def __init__(self) -> None:
        self.waiting = asyncio.Event()

    async def end(self, how: str, context: Any) -> None:
        """End a call."""
        if how == "raise":
            raise ValueError("a fault of the server")
        if how == "wait":
            self.waiting.set()
            await asyncio.Event().wait()
        if how != "ok":
            await context.abort(grpc.StatusCode[how], "as asked")

    async def Ping(self, request: pb.PingRequest, context: Any) -> pb.PingResponse:
        """One in, one out."""
        await self.end(request.message, context)
        return pb.PingResponse()

    async def ExecuteStreamingTool(self, request: pb.ExecuteToolRequest, context: Any) -> None:
        """One in, many out."""
        await context.write(pb.ToolChunk())
        await self.end(request.tool_name, context)

    async def StreamTelemetry(self, controls: Any, context: Any) -> None:
        """Many in, many out."""
        async for control in controls:
            await context.write(pb.TelemetryEvent())
            await self.end(control.filter.allow[0], context)


@pytest.fixture
async def service() -> Endings:
    """The service."""
    return Endings()


@pytest.fixture
async def stub(service: Endings, short_path: Path) -> AsyncIterator[Any]:
    """A stub for it."""
    async with serving(service, f"unix:{short_path}/s", observed=True) as called:
        yield called


@pytest.fixture
async def connection(stub: Any, short_path: Path) -> AsyncIterator[rpc.Connection]:
    """A connection to it."""
    connection = GrpcTransport().connect(f"unix:{short_path}/s", (BRIDGE,))
    yield connection
    await connection.close()


@pytest.fixture(autouse=True)
def quiet_server(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Keep what gRPC logs of the server's faults out of the output."""
    with caplog.at_level("CRITICAL", "grpc._cython.cygrpc"):
        yield


async def told(capture: Capture, metric: Any, method: str) -> tuple[str | None, str | None]:
    """Return the status and the error of the one call of a method that was measured."""
    found: list[Any] = []

    def look() -> bool:
        found.extend(point for point in capture.points(metric.name) if point.attributes[names.RPC_METHOD] == method)
        return bool(found)

    await until(look)
    (point,) = found
    assert point.count == 1
    return point.attributes.get(names.RPC_RESPONSE_STATUS_CODE), point.attributes.get(names.ERROR_TYPE)


async def ended(call: Any, how: str, service: Endings) -> grpc.StatusCode | None:
    """Wait for a call to end, cancelled if it would wait for ever; return its status."""
    task = asyncio.ensure_future(call)
    if how == "wait":
        await service.waiting.wait()
        task.cancel()
    try:
        await task
    except rpc.RpcError as error:
        return grpc.StatusCode[error.code.name]
    except aio.AioRpcError as error:
        return error.code()
    except asyncio.CancelledError:
        return grpc.StatusCode.CANCELLED
    return grpc.StatusCode.OK


def unary(connection: rpc.Connection, how: str, timeout: float | None = None) -> Any:
    """Make a unary call."""
    return connection.call(PING, pb.PingRequest(message=how), timeout)


def streaming(connection: rpc.Connection, how: str, timeout: float | None = None) -> Any:
    """Make a call that streams its answer."""

    async def take(message: Any) -> None: ...

    return connection.stream(EXECUTE_STREAMING_TOOL, pb.ExecuteToolRequest(tool_name=how), take, timeout)


@pytest.mark.parametrize(("how", "status", "client_error", "server_error"), OUTCOMES)
@pytest.mark.parametrize(("make", "method"), [(unary, PING), (streaming, EXECUTE_STREAMING_TOOL)])
async def test_both_ends_tell_the_status(
    connection: rpc.Connection,
    service: Endings,
    capture: Capture,
    make: Any,
    method: str,
    how: str,
    status: str,
    client_error: str | None,
    server_error: str | None,
) -> None:
    """Success, refusal, fault and cancellation have their status; only what is the server's fault is its error."""
    code = await ended(make(connection, how), how, service)
    assert code is grpc.StatusCode[status]
    assert await told(capture, names.METRIC_RPC_SERVER_CALL_DURATION, method) == (status, server_error)
    client, server = None, None
    for span in capture.spans(method):
        if span.parent_id is None:
            client = span
        else:
            server = span
    assert client is not None
    assert server is not None
    assert client.attributes[names.RPC_RESPONSE_STATUS_CODE] == status
    assert client.attributes.get(names.ERROR_TYPE) == client_error
    assert client.ok is (client_error is None)
    assert server.attributes[names.RPC_RESPONSE_STATUS_CODE] == status
    assert server.attributes.get(names.ERROR_TYPE) == server_error
    assert server.ok is (server_error is None)
    assert server.parent_id == client.span_id


@pytest.mark.parametrize(("make", "method"), [(unary, PING), (streaming, EXECUTE_STREAMING_TOOL)])
async def test_the_client_measures_too(
    connection: rpc.Connection, service: Endings, capture: Capture, make: Any, method: str
) -> None:
    """A client's duration has the method, the status and, where it failed, the error."""
    await ended(make(connection, "INTERNAL"), "INTERNAL", service)
    assert await told(capture, names.METRIC_RPC_CLIENT_CALL_DURATION, method) == ("INTERNAL", "INTERNAL")


async def test_a_blocking_client_tells_the_status(stub: Any, capture: Capture, short_path: Path) -> None:
    """Calls from threads are observed as those from the loop are."""

    def call(how: str) -> grpc.StatusCode:
        connection = GrpcTransport().connect_blocking(f"unix:{short_path}/s", (BRIDGE,))
        try:
            connection.call(PING, pb.PingRequest(message=how))
        except rpc.RpcError as error:
            return grpc.StatusCode[error.code.name]
        finally:
            connection.close()
        return grpc.StatusCode.OK

    for how, status, client_error, _ in OUTCOMES[:4]:
        capture.clear()
        assert await asyncio.to_thread(call, how) is grpc.StatusCode[status]
        (client,) = [span for span in capture.spans(PING) if span.parent_id is None]
        assert client.attributes[names.RPC_RESPONSE_STATUS_CODE] == status
        assert client.attributes.get(names.ERROR_TYPE) == client_error


@pytest.mark.parametrize("make", [unary, streaming])
async def test_a_deadline(connection: rpc.Connection, service: Endings, capture: Capture, make: Any) -> None:
    """A deadline that passes is an error on both ends."""
    method = PING if make is unary else EXECUTE_STREAMING_TOOL
    with pytest.raises(rpc.RpcError):
        await make(connection, "wait", 0.2)
    told_by_client = await told(capture, names.METRIC_RPC_CLIENT_CALL_DURATION, method)
    assert told_by_client == ("DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED")
    await until(lambda: len(capture.spans(method)) == 2)
    assert {span.attributes[names.ERROR_TYPE] for span in capture.spans(method)} == {"DEADLINE_EXCEEDED"}


async def test_a_taker_that_fails(connection: rpc.Connection, service: Endings, capture: Capture) -> None:
    """Who takes a stream's messages and fails at it has cancelled the call, and keeps its own error."""

    async def take(message: Any) -> None:
        raise rpc.RpcError(rpc.StatusCode.NOT_FOUND, "of another call")

    with pytest.raises(rpc.RpcError, match="of another call"):
        await connection.stream(EXECUTE_STREAMING_TOOL, pb.ExecuteToolRequest(tool_name="wait"), take)
    told_by_client = await told(capture, names.METRIC_RPC_CLIENT_CALL_DURATION, EXECUTE_STREAMING_TOOL)
    assert told_by_client == ("CANCELLED", "CANCELLED")


async def test_a_call_that_cannot_be_made(capture: Capture, short_path: Path) -> None:
    """A call that fails before it is one has no status, and its error's class for an error."""
    connection = GrpcTransport().connect(f"unix:{short_path}/s", (BRIDGE,))
    await connection.close()
    with pytest.raises(rpc.ConnectionClosed):
        await connection.call(PING, pb.PingRequest())
    assert await told(capture, names.METRIC_RPC_CLIENT_CALL_DURATION, PING) == (None, "UsageError")


async def test_the_peer_is_on_the_span(connection: rpc.Connection, capture: Capture, short_path: Path) -> None:
    """A call has its peer on its span."""
    await connection.call(PING, pb.PingRequest(message="ok"))
    (client,) = [span for span in capture.spans(PING) if span.parent_id is None]
    assert client.attributes["server.address"] == f"{short_path}/s"


@pytest.mark.parametrize(
    ("how", "status", "server_error"), [(how, status, error) for how, status, _, error in OUTCOMES]
)
async def test_streams_both_ways(
    stub: Any, service: Endings, capture: Capture, how: str, status: str, server_error: str | None
) -> None:
    """A call that streams both ways is observed as the others are."""

    async def controls() -> AsyncIterator[pb.TelemetryControl]:
        yield pb.TelemetryControl(filter=pb.TelemetryEventFilter(allow=[how]))

    async def all_events() -> None:
        call = stub.StreamTelemetry(controls())
        try:
            async for _ in call:
                pass
        finally:
            # A cancelled reader does not always cancel its call.
            call.cancel()

    assert await ended(all_events(), how, service) is grpc.StatusCode[status]
    assert await told(capture, names.METRIC_RPC_SERVER_CALL_DURATION, TELEMETRY) == (status, server_error)


@pytest.mark.parametrize(("make", "method"), [(unary, PING), (streaming, EXECUTE_STREAMING_TOOL)])
async def test_switched_off(
    connection: rpc.Connection, service: Endings, capture: Capture, make: Any, method: str
) -> None:
    """With telemetry off, calls work and nothing is emitted."""
    _switch.set_enabled(False)
    try:
        assert await ended(make(connection, "ok"), "ok", service) is grpc.StatusCode.OK
    finally:
        _switch.set_enabled(True)
    assert capture.spans() == []
    assert method not in str(capture.metrics())
