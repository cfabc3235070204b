"""Guards of a server's methods."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import orjson
import pytest
from grpc import aio

from snakepit_otel import rpc
from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb
from snakepit_otel.bridge.wire.errors import from_wire
from snakepit_otel.bridge.wire.method_guards import DEFAULT_MAX_BYTES, Limit, guarded
from snakepit_otel.bridge.wire.services import BRIDGE
from snakepit_otel.bridge.wire.values import from_json
from snakepit_otel.errors import ToolError
from snakepit_otel.rpc.addresses import listen
from snakepit_otel.rpc.transports.grpc import add_handlers
from snakepit_otel.zero_copy._descriptor import replaced

_CALL = "/snakepit.bridge.BridgeService/"


class Failing:
    """Has no memory for anything but heartbeats."""

    async def Ping(self, request: pb.PingRequest, context: Any) -> pb.PingResponse:
        """Fail."""
        raise MemoryError

    async def Heartbeat(self, request: pb.HeartbeatRequest, context: Any) -> pb.HeartbeatResponse:
        """Answer."""
        return pb.HeartbeatResponse(session_valid=True)

    async def GetSession(self, request: pb.GetSessionRequest, context: Any) -> pb.GetSessionResponse:
        """Answer."""
        return pb.GetSessionResponse()

    async def CleanupSession(self, request: pb.CleanupSessionRequest, context: Any) -> pb.CleanupSessionResponse:
        """Answer."""
        return pb.CleanupSessionResponse()

    async def StreamTelemetry(self, request_iterator: Any, context: Any) -> None:
        """Read all there is."""
        while await context.read() is not aio.EOF:
            pass


@pytest.fixture
async def channel(short_path: Path) -> AsyncIterator[aio.Channel]:
    """A channel to a server whose GetSession takes 100 bytes, and for whose CleanupSession there is no memory."""

    def no_memory(raw: bytes) -> Any:
        raise MemoryError

    server = rpc.aio_server(interceptors=[], options=[])
    limits = {"GetSession": Limit(100), "CleanupSession": Limit(100, no_memory)}
    add_handlers(server, guarded(BRIDGE, Failing(), limits))
    listen(server, f"unix:{short_path}/guarded")
    await server.start()
    async with rpc.aio_channel(f"unix:{short_path}/guarded", options=[]) as made:
        yield made
    await server.stop(0)


@pytest.mark.parametrize(
    ("method", "size", "code", "why"),
    [
        ("GetSession", 101, grpc.StatusCode.RESOURCE_EXHAUSTED, r"GetSession is larger than max \(101 vs. 100\)"),
        ("Heartbeat", DEFAULT_MAX_BYTES + 1, grpc.StatusCode.RESOURCE_EXHAUSTED, "Heartbeat is larger than max"),
        ("Heartbeat", 1, grpc.StatusCode.INVALID_ARGUMENT, "Heartbeat cannot be read"),
        ("Ping", 0, grpc.StatusCode.RESOURCE_EXHAUSTED, "no memory left"),
        ("CleanupSession", 0, grpc.StatusCode.RESOURCE_EXHAUSTED, "no memory left"),
        ("RegisterTools", 9, grpc.StatusCode.UNIMPLEMENTED, "not found"),
    ],
    ids=["own limit", "limit of most", "no message", "no memory to serve it", "no memory to read it", "nobody"],
)
async def test_calls_end_with_a_status_that_says_why(
    channel: aio.Channel, method: str, size: int, code: grpc.StatusCode, why: str
) -> None:
    """What is too large, no message, or one for which there is no memory, is refused, and others are served."""
    with pytest.raises(aio.AioRpcError, match=why) as raised:
        await channel.unary_unary(_CALL + method)(b"\xff" * size, timeout=30)
    assert raised.value.code() is code
    assert await channel.unary_unary(_CALL + "Heartbeat")(b"", timeout=30)


async def test_a_stream_ends_at_what_cannot_be_read(channel: aio.Channel) -> None:
    """Whoever reads a stream of requests does not see one that is too large; the call ends with why."""
    call = channel.stream_stream(_CALL + "StreamTelemetry")(timeout=30)
    await call.write(b"")
    await call.write(bytes(DEFAULT_MAX_BYTES + 1))
    assert await call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "larger than max" in await call.details()


def test_a_value_for_which_there_is_no_memory_is_not_malformed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the parser says of memory is no error of whoever sent the value."""

    def refuse(raw: bytes) -> Any:
        raise orjson.JSONDecodeError("Not enough memory to allocate buffer for parsing", "", 0)

    monkeypatch.setattr(orjson, "loads", refuse)
    with pytest.raises(MemoryError):
        from_json(b"[1]")


def test_an_error_that_is_too_large_is_not_read() -> None:
    """The text of an error is read as far as our own go; of more there is a beginning."""
    error = from_wire('{"type":"Error","message":"' + "x" * 2_000_000 + '"}')
    assert isinstance(error, ToolError)
    assert len(str(error)) < 20_000


def test_references_are_found_at_any_depth() -> None:
    """A value may be nested as deeply as JSON may, and no reference in it is missed."""
    value: Any = {"__snakepit_zero_copy__": True}
    for _ in range(5_000):
        value = [value]
    value = replaced(value, lambda _: "here")
    while isinstance(value, list):
        (value,) = value
    assert value == "here"
