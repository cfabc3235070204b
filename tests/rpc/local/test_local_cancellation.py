"""Callers that are cancelled at any point of a call: nothing of it is left at either side."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest

from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb
from snakepit_otel.bridge.proto import snakepit_buffers_pb2 as buffers_pb
from snakepit_otel.bridge.wire.methods import EXECUTE_STREAMING_TOOL, PING, WRITE_BUFFER
from snakepit_otel.rpc import RpcError, StatusCode
from snakepit_otel.rpc.transports.base import EOF
from snakepit_otel.rpc.transports.local import LocalTransport, frames
from tests.rpc.local.conftest import HELLO, RawPeer, RawServer, frame, serve
from tests.rpc.test_transports import SERVICES, Service
from tests.waiting import until

LARGE = "x" * (1 << 20)
Make = Callable[[Any], Coroutine[Any, Any, Any]]


class Charges:
    """What calls are charged with, all in all."""

    def __init__(self) -> None:
        self.total = 0
        self.made = 0

    def new(self) -> Charge:
        """Return the charge of one call."""
        self.made += 1
        return Charge(self)


class Charge:
    """Charge of one call."""

    def __init__(self, all_of_them: Charges) -> None:
        self._all = all_of_them
        self._size = 0

    def resize(self, size: int) -> None:
        """Charge so many bytes."""
        self._all.total += size - self._size
        self._size = size

    def release(self) -> None:
        """Charge none."""
        self.resize(0)


async def _small(connection: Any) -> None:
    await connection.call(PING, pb.PingRequest(message="small"))


async def _timed(connection: Any) -> None:
    await connection.call(PING, pb.PingRequest(message="small"), 30.0)


async def _large(connection: Any) -> None:
    await connection.call(PING, pb.PingRequest(message=LARGE))


async def _stream(connection: Any) -> None:
    async def take(_: Any) -> None:
        await asyncio.sleep(0)

    await connection.stream(EXECUTE_STREAMING_TOOL, pb.ExecuteToolRequest(), take, 30.0)


async def _upload(connection: Any) -> None:
    await connection.upload(WRITE_BUFFER, [buffers_pb.WriteRequest(data=b"x" * 100_000)] * 8)


async def _both_ways(connection: Any) -> None:
    dialogue = connection.bidirectional(WRITE_BUFFER)
    try:
        await dialogue.write(buffers_pb.WriteRequest(data=b"x"))
        await dialogue.done_writing()
        while await dialogue.read() is not EOF:
            pass
    except RpcError:
        # The method has one answer, which is no message of a stream.
        return
    finally:
        dialogue.cancel()


CALLS: dict[str, Make] = {
    "small": _small,
    "timed": _timed,
    "large": _large,
    "stream": _stream,
    "upload": _upload,
    "both ways": _both_ways,
}


@asynccontextmanager
async def _served(address: str) -> AsyncIterator[tuple[Any, Any, Charges]]:
    charges = Charges()
    listener: Any = serve(address, Service(), new_charge=charges.new)
    await listener.start()
    connection: Any = LocalTransport().connect(address, SERVICES)
    try:
        yield listener, connection, charges
    finally:
        await connection.close()
        await listener.stop(None)


def _is_empty(listener: Any, connection: Any, charges: Charges) -> bool:
    calling = connection._calling
    own = calling is None or not (calling._calls or calling.link._bulk or calling.link._arriving.bodies)
    return (
        own
        and not charges.total
        and not any(
            served.calls or served._arriving or served.link._bulk or served.link._arriving.bodies
            for served in listener._links
        )
    )


@pytest.mark.parametrize("is_connected", [True, False], ids=["connected", "connecting"])
@pytest.mark.parametrize("make", CALLS.values(), ids=CALLS)
async def test_cancelled_after_any_turn(address: str, make: Make, is_connected: bool) -> None:
    """After a cancel in each of its first turns nothing is kept or charged, and the connection serves on."""
    for turns in range(13):
        async with _served(address) as (listener, connection, charges):
            if is_connected:
                await connection.ready()
            task = asyncio.ensure_future(make(connection))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            if not task.cancelled():
                assert task.exception() is None, turns
            assert (await connection.call(PING, pb.PingRequest(message="after"), 20.0)).message == "after"
            await until(lambda parts=(listener, connection, charges): _is_empty(*parts))
            assert charges.made
            assert len(listener._links) == 1


@pytest.mark.parametrize("size", [10, 1 << 20])
async def test_cancelled_at_the_server_after_any_turn(address: str, size: int) -> None:
    """So it is where the cancel comes with the request, or some turns of the server's after it."""
    body = frames.request_body(frames.names_of(PING), pb.PingRequest(message="wait").SerializeToString(), 30.0, None)
    for turns in range(13):
        async with _served(address) as (listener, connection, charges):
            await connection.ready()
            peer = await RawPeer.to(address)
            await peer.send(HELLO, frame(frames.REQUEST, 1, 0, body))
            for _ in range(turns):
                await asyncio.sleep(0)
            await peer.send(frame(frames.CANCEL, 1))
            while (answer := await peer.frame())[0] != frames.RESPONSE:
                pass
            with pytest.raises(RpcError) as raised:
                frames.payload_in(answer[3])
            assert raised.value.code is StatusCode.CANCELLED
            await until(lambda parts=(listener, connection, charges): _is_empty(*parts))
            peer.close()


async def test_a_large_answer_that_nobody_waits_for(address: str) -> None:
    """A server that has answered sends no more of a large answer, and ends it, so that the caller keeps no part."""
    async with _served(address) as (listener, connection, charges):
        peer = await RawPeer.to(address)
        message = pb.PingRequest(message=LARGE * 3).SerializeToString()
        body = frames.request_body(frames.names_of(PING), message, None, None)
        parts = [body[start : start + frames.PART_BYTES] for start in range(0, len(body), frames.PART_BYTES)]
        await peer.send(HELLO, *(frame(frames.REQUEST, 1, frames.MORE, part) for part in parts[:-1]))
        await peer.send(frame(frames.REQUEST, 1, 0, parts[-1]))
        (served,) = await until(lambda: listener._links)
        await until(lambda: served.link.unsent and not served.calls)
        await peer.send(frame(frames.CANCEL, 1))
        await until(lambda: not served.link._bulk)
        came = 0
        while (answer := await peer.frame())[2] & frames.MORE or answer[0] != frames.RESPONSE:
            came += len(answer[3])
        assert came < len(body) // 2
        with pytest.raises(RpcError) as raised:
            frames.payload_in(answer[3])
        assert raised.value.code is StatusCode.CANCELLED
        assert _is_empty(listener, connection, charges)
        peer.close()


async def test_parts_that_were_on_their_way(raw_server: RawServer, address: str) -> None:
    """Parts of an answer that come after its caller has left are kept nowhere once the server has ended it."""
    connection: Any = LocalTransport().connect(address, SERVICES)
    part = frame(frames.RESPONSE, 1, frames.MORE, b"x" * frames.PART_BYTES)
    call = asyncio.ensure_future(connection.call(PING, pb.PingRequest()))
    peer = await raw_server.accept()
    await peer.frame()
    await peer.send(part)
    bodies = connection._calling.link._arriving.bodies
    await until(lambda: bodies)
    call.cancel()
    await asyncio.wait([call])
    assert not bodies
    assert (await peer.frame())[:2] == (frames.CANCEL, 1)
    await peer.send(part, part, frame(frames.RESPONSE, 1, 0, frames.failure_body(StatusCode.CANCELLED, "")))
    following = asyncio.ensure_future(connection.call(PING, pb.PingRequest()))
    assert (await peer.frame())[:2] == (frames.REQUEST, 3)
    await peer.send(frame(frames.RESPONSE, 3, 0, frames.response_body(b"")))
    await following
    assert not bodies
    await connection.close()


async def test_a_large_request_that_is_cancelled(address: str) -> None:
    """The parts of a request that have come before its caller left are charged to nobody."""
    async with _served(address) as (listener, connection, charges):
        peer = await RawPeer.to(address)
        await peer.send(HELLO, frame(frames.REQUEST, 1, frames.MORE, b"x" * frames.PART_BYTES))
        await until(lambda: charges.total)
        await peer.send(frame(frames.CANCEL, 1))
        await until(lambda: _is_empty(listener, connection, charges))
        await peer.send(frame(frames.REQUEST, 3, frames.MORE, b"x" * frames.PART_BYTES))
        await until(lambda: charges.total)
        peer.close()
        await until(lambda: _is_empty(listener, connection, charges))


async def test_cancelled_while_the_server_says_nothing(raw_server: RawServer, address: str) -> None:
    """Callers may leave while the connection is made; it goes on for the next."""
    connection: Any = LocalTransport().connect(address, SERVICES)
    calls = [asyncio.ensure_future(connection.call(PING, pb.PingRequest())) for _ in range(3)]
    await asyncio.sleep(0)
    for call in calls:
        call.cancel()
    await asyncio.wait(calls)
    assert all(call.cancelled() for call in calls)
    last = asyncio.ensure_future(connection.call(PING, pb.PingRequest()))
    peer = await raw_server.accept()
    assert (await peer.frame())[:2] == (frames.REQUEST, 1)
    await peer.send(frame(frames.RESPONSE, 1, 0, frames.response_body(b"")))
    await last
    assert not connection._calling._calls
    await connection.close()
