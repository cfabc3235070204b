"""Peers that speak gRPC at a listener of the local transport: half-closes, ends of either side, many connections."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from typing import Any

import pytest

from snakepit_otel import rpc
from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb
from snakepit_otel.bridge.proto import snakepit_buffers_pb2 as buffers_pb
from snakepit_otel.bridge.wire.methods import PING, WRITE_BUFFER
from snakepit_otel.rpc import RpcError, StatusCode
from snakepit_otel.rpc.transports.grpc import GrpcTransport
from tests.rpc.local.conftest import RawPeer
from tests.rpc.test_transports import SERVICES, Service
from tests.waiting import until

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


@pytest.fixture
async def over_grpc(address: str, listener: rpc.Listener) -> AsyncIterator[rpc.Connection]:
    """A connection that speaks gRPC."""
    connection = GrpcTransport().connect(address, SERVICES)
    yield connection
    await connection.close()


async def test_a_caller_that_ends_its_stream(over_grpc: rpc.Connection, service: Service) -> None:
    """The end of a stream of requests reaches the handler, whose answer comes back."""
    await over_grpc.upload(WRITE_BUFFER, [buffers_pb.WriteRequest(data=b"x" * 100_000)] * 5)
    assert service.sizes == [100_000] * 5


async def test_a_caller_that_closes_its_half(raw_peer: RawPeer, listener: Any) -> None:
    """A peer that sends no more is still sent what the server has for it, and then the relay ends."""
    await raw_peer.send(PREFACE + b"\0\0\0\x04\0\0\0\0\0")
    raw_peer._sock.shutdown(1)
    first = await asyncio.get_running_loop().sock_recv(raw_peer._sock, 9)
    assert first[3] == 0x04
    await raw_peer.rest()
    await until(lambda: not listener._relay._running)


async def test_a_caller_that_leaves(address: str, listener: Any, service: Service) -> None:
    """Its calls are cancelled at the server, and nothing of the relay is left."""
    connection = GrpcTransport().connect(address, SERVICES)
    call = asyncio.ensure_future(connection.call(PING, pb.PingRequest(message="wait")))
    await service.started.wait()
    assert len(listener._relay._running) == 1
    await connection.close()
    await asyncio.wait([call])
    await asyncio.wait_for(service.cancelled.wait(), 20)
    # gRPC ends the connection with the last channel that uses it.
    del connection, call
    gc.collect()
    await until(lambda: not listener._relay._running)


async def test_the_server_ends(over_grpc: rpc.Connection, listener: Any, service: Service) -> None:
    """Calls in flight may end within the grace, then the relay's connections end with the server."""
    call = asyncio.ensure_future(over_grpc.call(PING, pb.PingRequest(message="wait")))
    await service.started.wait()
    stopping = asyncio.ensure_future(listener.stop(20.0))
    await until(lambda: listener._sock is None)
    service.release.set()
    assert (await call).message == "wait"
    await stopping
    assert not listener._relay._running
    with pytest.raises(RpcError) as raised:
        await over_grpc.call(PING, pb.PingRequest(), 5.0)
    assert raised.value.code is StatusCode.UNAVAILABLE


async def test_many_connections(address: str, listener: Any, connection: rpc.Connection) -> None:
    """Thirty of them have their own answers, beside those of the local transport."""
    channels = [GrpcTransport().connect(address, SERVICES) for _ in range(30)]
    calls = [one.call(PING, pb.PingRequest(message=str(number))) for number, one in enumerate(channels)]
    answers = await asyncio.gather(*calls, connection.call(PING, pb.PingRequest(message="local")))
    assert [answer.message for answer in answers] == [*(str(number) for number in range(30)), "local"]
    for one in channels:
        await one.close()
    await until(lambda: not listener._relay._running)
