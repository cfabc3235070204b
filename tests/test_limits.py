"""Callers of an authority with workers, at its limits."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from grpc import aio

from snakepit_otel import BaseAdapter, Client, Snakepit, tool
from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb
from snakepit_otel.bridge.wire.methods import EXECUTE_STREAMING_TOOL
from snakepit_otel.errors import BudgetExceeded
from snakepit_otel.rpc.addresses import split
from tests.bridge.raw_http2 import RawClient
from tests.waiting import PATIENT, until

MB = 1 << 20
DEADLINE = grpc.StatusCode.DEADLINE_EXCEEDED


class Streams(BaseAdapter):
    """Has one tool that sends without an end, and one that answers."""

    @tool
    def endless(self) -> object:
        """Stream megabytes."""
        while True:
            yield "x" * MB

    @tool
    def size(self, text: str) -> int:
        """Return how long a text is."""
        return len(text)


@pytest.mark.parametrize("on_tcp", [True, False], ids=["tcp", "unix"])
async def test_a_stream_that_nobody_reads_gives_its_worker_back(on_tcp: bool) -> None:
    """The only worker runs the next request, when a caller has taken nothing of its stream for `unread_timeout`."""
    server = {"listen": "127.0.0.1:0", "limits": {"unread_timeout": 300}}
    async with Snakepit(Streams, pool={"size": 1, **PATIENT}, server=server) as pit:
        address = pit.address if on_tcp else pit.socket
        assert address is not None
        async with aio.insecure_channel(address) as channel:
            stream = channel.unary_stream(
                f"/{EXECUTE_STREAMING_TOOL}", pb.ExecuteToolRequest.SerializeToString, pb.ToolChunk.FromString
            )(pb.ExecuteToolRequest(tool_name="endless", stream=True))
            await stream.read()
            assert await pit.execute("size", {"text": "abc"}, timeout=60) == 3
            code = await drained(stream)
        assert code in ((grpc.StatusCode.UNAVAILABLE, DEADLINE) if on_tcp else (DEADLINE,))


async def drained(stream: aio.UnaryStreamCall[pb.ExecuteToolRequest, pb.ToolChunk]) -> grpc.StatusCode:
    """Read what is left of a stream, and return how it ended."""
    try:
        while await stream.read() is not aio.EOF:
            pass
    except aio.AioRpcError:
        pass
    return await stream.code()


async def test_callers_on_the_socket_are_served_while_tcp_is_full() -> None:
    """Anonymous callers that hold all that they may, in bytes and connections, leave others theirs."""
    limits = {"anonymous_bytes": 12 * MB, "anonymous_peer_bytes": 12 * MB, "max_connections": 4}
    async with Snakepit(Streams, workers=1, server={"listen": "127.0.0.1:0", "limits": limits}) as pit:
        assert pit.address is not None
        port = split(pit.address)[1]

        def attack() -> list[RawClient]:
            raws = [RawClient(port) for _ in range(12)]
            for raw in raws:
                if not raw.closed:
                    raw.send(raw.call(f"/{EXECUTE_STREAMING_TOOL}"), b"\0\0\x3f\0\0" + bytes(3 * MB))
            return raws

        raws = await asyncio.to_thread(attack)
        await until(lambda: [raw.look() for raw in raws] and sum(raw.closed for raw in raws) >= 8)
        async with Client(pit.socket) as client:
            assert await client.execute("size", {"text": "x" * (20 * MB)}, timeout=60) == 20 * MB
        for raw in raws:
            raw.__exit__()


async def test_no_room_is_an_error_of_its_own() -> None:
    """A client whose request finds no room raises `BudgetExceeded`, which says how much is held."""
    limits = {"known_bytes": 12 * MB}
    async with Snakepit(Streams, workers=1, server={"limits": limits}) as pit, Client(pit.socket) as client:
        with pytest.raises(BudgetExceeded, match=r"no room for .* callers hold"):
            await client.execute("size", {"text": "x" * (5 * MB)})
        assert await client.execute("size", {"text": "x" * (3 * MB)}) == 3 * MB


async def test_idle_connections_are_closed() -> None:
    """A connection on TCP without calls is closed after `idle_timeout`."""
    server = {"listen": "127.0.0.1:0", "limits": {"idle_timeout": 1_000}}
    async with Snakepit(Streams, workers=1, server=server) as pit:
        assert pit.address is not None
        with await asyncio.to_thread(RawClient, split(pit.address)[1]) as raw:
            assert not raw.closed
            await until(lambda: raw.look() or raw.closed)


async def test_the_calls_of_a_connection_are_limited() -> None:
    """On TCP a client has at most `max_connection_calls` at a time, of which the server lets it know."""
    server = {"listen": "127.0.0.1:0", "limits": {"max_connection_calls": 7}}
    async with Snakepit(Streams, workers=1, server=server) as pit:
        assert pit.address is not None
        with await asyncio.to_thread(RawClient, split(pit.address)[1]) as raw:
            await until(lambda: raw.look() or raw.most_calls is not None)
            assert raw.most_calls == 7
