"""Peers that send what is no frame, too much, or nothing: they lose their connection, and nobody else anything."""

from __future__ import annotations

import asyncio
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from snakepit_otel import rpc
from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb
from snakepit_otel.bridge.proto import snakepit_buffers_pb2 as buffers_pb
from snakepit_otel.bridge.wire.methods import EXECUTE_STREAMING_TOOL, PING, WRITE_BUFFER
from snakepit_otel.rpc import RpcError, StatusCode
from snakepit_otel.rpc.transports.local import LocalTransport, arriving, frames, link, serving
from snakepit_otel.telemetry import names
from snakepit_otel.testing import Capture
from tests.rpc.local.conftest import HELLO, RawPeer, RawServer, frame, serve
from tests.rpc.test_transports import SERVICES, Service
from tests.waiting import until

FAULTS = names.METRIC_RPC_CONNECTION_FAULTS.name
_PING_REQUEST = frames.request_body(frames.names_of(PING), pb.PingRequest(message="m").SerializeToString(), None, None)
_STREAM = frames.request_body(frames.names_of(EXECUTE_STREAMING_TOOL), b"", None, None)
_WAITING = frames.request_body(
    frames.names_of(PING), pb.PingRequest(message="wait").SerializeToString(), None, [("x-key", "value")]
)
_UPLOAD = frames.request_body(frames.names_of(WRITE_BUFFER), None, None, None)
_names = count()
_PART = b"x" * frames.MIN_PART_BYTES
TO_SERVER = {
    "too large a body": b"\x00\xff\xff\xff" + b"\0" * 6,
    "an even stream": frame(frames.REQUEST, 2, 0, _PING_REQUEST),
    "no stream": frame(frames.REQUEST, 0, 0, _PING_REQUEST),
    "a stream in use": frame(frames.REQUEST, 1, 0, _WAITING) * 2,
    "no request": frame(frames.REQUEST, 1, 0, b"\x0a\xff"),
    "a response": frame(frames.RESPONSE, 1, 0, b""),
    "an unknown type": frame(0x7F, 1, 0, b""),
    "no type": frame(0, 1, 0, b""),
    "a second hello": HELLO * 2,
    "a hello of others": frame(frames.HELLO, 0, 0, b"other\0\0\0\0\0"),
    "a short hello": frame(frames.HELLO, 0, 0, b"spit"),
    "data without a stream of it": frame(frames.REQUEST, 1, 0, _WAITING) + frame(frames.DATA, 1, 0, b""),
    "data after the end": frame(frames.REQUEST, 1, frames.REMOTE_CLOSED, _UPLOAD) + frame(frames.DATA, 1, 0, b""),
    "a window of three bytes": frame(frames.REQUEST, 1, 0, _WAITING) + frame(frames.WINDOW, 1, 0, b"\0\0\0"),
    "a tiny part": frame(frames.REQUEST, 1, frames.MORE, b"x"),
    "a part of an answer": frame(frames.RESPONSE, 1, frames.MORE, _PART),
}


@pytest.mark.parametrize("sent", TO_SERVER.values(), ids=TO_SERVER)
async def test_a_malformed_frame_ends_its_connection_alone(
    raw_peer: RawPeer, connection: rpc.Connection, sent: bytes, capture: Capture, caplog: pytest.LogCaptureFixture
) -> None:
    """The peer is closed, counted and logged; others go on."""
    assert (await connection.call(PING, pb.PingRequest(message="before"))).message == "before"
    await raw_peer.send(sent)
    await raw_peer.rest()
    assert (await connection.call(PING, pb.PingRequest(message="after"))).message == "after"
    assert [(point.value, point.attributes[names.ERROR_TYPE]) for point in capture.points(FAULTS)] == [(1, "malformed")]
    assert "ended by a fault of its peer" in caplog.text


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.binary(min_size=1, max_size=300)
    | st.lists(
        st.builds(frame, st.integers(0, 0x90), st.integers(0, 5), st.integers(0, 255), st.binary(max_size=40)),
        max_size=12,
    ).map(b"".join)
)
def test_any_bytes_leave_the_server_whole(short_path: Path, data: bytes) -> None:
    """Whatever a peer sends, another one's call is answered, and nothing is kept after it has left."""

    async def run() -> None:
        address = f"unix:{short_path}/{next(_names)}"
        listener = serve(address, Service())
        await listener.start()
        peer = await RawPeer.to(address)
        await peer.send(HELLO, data) if data[:1] == b"\0" else await peer.send(HELLO[:1], data)
        connection = LocalTransport().connect(address, SERVICES)
        assert (await connection.call(PING, pb.PingRequest(message="m"), 10.0)).message == "m"
        peer.close()
        await until(lambda: len(listener._links) <= 1 and not listener._unserved)  # type: ignore[attr-defined]
        await connection.close()
        await listener.stop(None)

    asyncio.run(run())


TO_CLIENT = {
    "no message": frame(frames.RESPONSE, 1, 0, b"\x12\xff"),
    "a refusal that is none": frame(frames.RESPONSE, 1, frames.NOT_RUN, b"\x12\xff"),
    "a request": frame(frames.REQUEST, 1, 0, _PING_REQUEST),
    "data of a call without": frame(frames.DATA, 1, 0, b""),
    "too large a body": b"\x7f\xff\xff\xff" + b"\0" * 6,
    "a leaving without its stream": frame(frames.LEAVING, 0, 0, b""),
    "a second hello": HELLO,
}


@pytest.mark.parametrize("sent", TO_CLIENT.values(), ids=TO_CLIENT)
@pytest.mark.parametrize("kind", ["loop", "thread"])
async def test_a_malformed_answer_ends_its_calls(raw_server: RawServer, address: str, sent: bytes, kind: str) -> None:
    """Calls over the connection fail with a status, and the next one connects anew."""
    if kind == "thread" and sent in (TO_CLIENT["a second hello"], TO_CLIENT["data of a call without"]):
        pytest.skip("a connection of threads takes no notice of it")
    connection: Any
    if kind == "loop":
        connection = LocalTransport().connect(address, SERVICES)
        calls = [asyncio.ensure_future(connection.call(PING, pb.PingRequest(), 10.0)) for _ in range(2)]
    else:
        connection = LocalTransport().connect_blocking(address, SERVICES)
        calls = [
            asyncio.ensure_future(asyncio.to_thread(connection.call, PING, pb.PingRequest(), 10.0)) for _ in range(2)
        ]
    peer = await raw_server.accept()
    assert {(await peer.frame())[1] for _ in calls} == {1, 3}
    await peer.send(sent)
    for call in calls:
        with pytest.raises(RpcError) as raised:
            await call
        assert raised.value.code in (StatusCode.UNAVAILABLE, StatusCode.INTERNAL)
    again = asyncio.ensure_future(
        connection.call(PING, pb.PingRequest())
        if kind == "loop"
        else asyncio.to_thread(connection.call, PING, pb.PingRequest())
    )
    peer = await raw_server.accept()
    await peer.frame()
    await peer.send(
        frame(frames.RESPONSE, 1, 0, frames.response_body(pb.PingResponse(message="m").SerializeToString()))
    )
    assert (await again).message == "m"
    if kind == "loop":
        await connection.close()
    else:
        connection.close()


async def test_messages_that_cannot_be_parsed(raw_peer: RawPeer, address: str) -> None:
    """They are errors of their calls alone, at either end."""
    body = frames.request_body(frames.names_of(PING), b"\xff", None, None)
    await raw_peer.send(HELLO, frame(frames.REQUEST, 1, 0, body))
    await raw_peer.frame()
    with pytest.raises(RpcError) as raised:
        frames.payload_in((await raw_peer.frame())[3])
    assert raised.value.code is StatusCode.INTERNAL
    server = RawServer(f"{address}2")
    connection = LocalTransport().connect(f"{address}2", SERVICES)
    call = asyncio.ensure_future(connection.call(PING, pb.PingRequest()))
    peer = await server.accept()
    await peer.frame()
    await peer.send(frame(frames.RESPONSE, 1, 0, frames.response_body(b"\xff")))
    with pytest.raises(RpcError) as raised:
        await call
    assert raised.value.code is StatusCode.INTERNAL
    await connection.close()
    server.close()


async def test_metadata_has_a_limit(connection: rpc.Connection, service: Service) -> None:
    """As much as gRPC carries is carried, and more is refused, as a status."""
    await connection.call(PING, pb.PingRequest(), 10.0, [("k", "\N{SNOWMAN}" * 60_000)])
    assert service.metadata["k"] == "\N{SNOWMAN}" * 60_000
    with pytest.raises(RpcError) as raised:
        await connection.call(PING, pb.PingRequest(), 10.0, [("k", "v" * 300_000)])
    assert raised.value.code is StatusCode.RESOURCE_EXHAUSTED
    assert (await connection.call(PING, pb.PingRequest(message="m"))).message == "m"


async def test_calls_at_a_time_have_a_limit(
    connection: rpc.Connection, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond it they are refused, and have not run."""
    monkeypatch.setattr(serving, "MAX_CALLS", 3)
    calls = [asyncio.ensure_future(connection.call(PING, pb.PingRequest(message="wait"))) for _ in range(3)]
    await asyncio.wait_for(service.started.wait(), 10)
    with pytest.raises(RpcError) as raised:
        await connection.call(PING, pb.PingRequest(), 10.0)
    assert raised.value.code is StatusCode.RESOURCE_EXHAUSTED
    assert "at a time" in raised.value.details
    service.release.set()
    await asyncio.gather(*calls)


async def test_bodies_in_parts_have_a_limit(
    raw_peer: RawPeer, connection: rpc.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A peer that begins bodies and ends none is closed."""
    monkeypatch.setattr(arriving, "_MAX_BODIES", 3)
    for stream in (1, 3, 5, 7):
        await raw_peer.send(frame(frames.REQUEST, stream, frames.MORE, _PART))
    assert await raw_peer.rest() == []
    assert (await connection.call(PING, pb.PingRequest(message="m"))).message == "m"


async def test_a_stream_that_is_not_read_holds_up_its_writer(address: str) -> None:
    """A peer that gives nothing back is sent a window of messages, empty ones counted; given back, more."""
    written = 0

    class Endless(Service):
        async def ExecuteStreamingTool(self, request: Any, context: Any) -> None:
            nonlocal written
            while True:
                await context.write(pb.ToolChunk())
                written += 1

    listener = serve(address, Endless())
    await listener.start()
    peer = await RawPeer.to(address)
    await peer.send(HELLO, frame(frames.REQUEST, 1, 0, _STREAM))
    window = -(-frames.WINDOW_BYTES // frames.MESSAGE_COST)
    await peer.frame()
    for _ in range(window):
        await peer.frame()
    await asyncio.sleep(0)
    assert written == window
    await peer.send(frame(frames.WINDOW, 1, 0, frames.count_body(frames.MESSAGE_COST)))
    await peer.frame()
    assert written == window + 1
    peer.close()
    await listener.stop(None)


async def test_a_writer_beyond_the_window_is_refused(address: str) -> None:
    """A peer that writes on though nothing was given back has its call refused, and only that."""

    class Unread(Service):
        async def Write(self, requests: Any, context: Any) -> buffers_pb.WriteResponse:
            await asyncio.Event().wait()
            return buffers_pb.WriteResponse()

    listener = serve(address, Unread())
    await listener.start()
    peer = await RawPeer.to(address)
    count = frames.WINDOW_BYTES // frames.MESSAGE_COST + 2
    await peer.send(HELLO, frame(frames.REQUEST, 1, frames.REMOTE_OPEN, _UPLOAD), frame(frames.DATA, 1) * count)
    await peer.frame()
    with pytest.raises(RpcError) as raised:
        frames.payload_in((await peer.frame())[3])
    assert raised.value.code is StatusCode.RESOURCE_EXHAUSTED
    await peer.send(frame(frames.REQUEST, 3, 0, _PING_REQUEST))
    assert (await peer.frame())[1] == 3
    peer.close()
    await listener.stop(None)


async def test_who_never_sends_anything_is_closed(
    address: str, service: Service, monkeypatch: pytest.MonkeyPatch, capture: Capture
) -> None:
    """A connection on which nothing comes is no connection for long."""
    monkeypatch.setattr(link, "_PING_INTERVAL_S", 0.02)
    monkeypatch.setattr(link, "_FIRST_TIMEOUT_S", 0.05)
    listener = serve(address, service)
    await listener.start()
    peer = await RawPeer.to(address)
    assert await peer.rest() == []
    assert [point.attributes[names.ERROR_TYPE] for point in capture.points(FAULTS)] == ["silent"]
    peer.close()
    await listener.stop(None)
