"""Servers that leave for a successor at the same path: no call fails, and none runs twice."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb
from snakepit_otel.bridge.wire.methods import EXECUTE_STREAMING_TOOL, PING
from snakepit_otel.rpc import RpcError, StatusCode
from snakepit_otel.rpc.transports.local import LocalTransport, frames
from tests.rpc.local.conftest import RawPeer, RawServer, frame, serve
from tests.rpc.test_transports import SERVICES, Service
from tests.waiting import until

REFUSED = frames.failure_body(StatusCode.UNAVAILABLE, "the server is stopping; the call did not run")
ANSWER = frames.response_body(pb.PingResponse(message="done").SerializeToString())
KINDS = pytest.mark.parametrize("kind", ["loop", "thread"])


class Counting(Service):
    """Keeps what ran here."""

    def __init__(self) -> None:
        super().__init__()
        self.ran: list[str] = []

    async def _end(self, how: str, context: Any) -> None:
        self.ran.append(how)
        await super()._end(how, context)


class Caller:
    """A connection of a loop, or of threads."""

    def __init__(self, address: str, kind: str) -> None:
        self._in_loop = kind == "loop"
        transport = LocalTransport()
        self._connection: Any = (
            transport.connect(address, SERVICES) if self._in_loop else transport.connect_blocking(address, SERVICES)
        )

    async def ping(self, message: str) -> str:
        """Make a call."""
        if self._in_loop:
            return str((await self._connection.call(PING, pb.PingRequest(message=message), 20.0)).message)
        call = asyncio.to_thread(self._connection.call, PING, pb.PingRequest(message=message), 20.0)
        return str((await call).message)

    async def stream(self, name: str) -> list[str]:
        """Read a stream."""
        taken: list[str] = []

        async def take(chunk: pb.ToolChunk) -> None:
            taken.append(chunk.chunk_id)

        await self._connection.stream(EXECUTE_STREAMING_TOOL, pb.ExecuteToolRequest(tool_name=name), take)
        return taken

    async def close(self) -> None:
        """Close it."""
        if self._in_loop:
            await self._connection.close()
        else:
            self._connection.close()


@KINDS
async def test_a_successor_takes_over(address: str, kind: str) -> None:
    """Calls in flight finish on the server that leaves, and others run once, on its successor."""
    leaving, following = Counting(), Counting()
    old = serve(address, leaving)
    await old.start()
    caller = Caller(address, kind)
    in_flight = asyncio.ensure_future(caller.ping("wait"))
    await leaving.started.wait()
    new = serve(address, following, replace=True)
    await new.start()
    stopping = asyncio.ensure_future(old.stop(20.0))
    # These are sent before the news has come, or after.
    calls = [asyncio.ensure_future(caller.ping(f"call-{number}")) for number in range(4)]
    assert await asyncio.gather(*calls) == [f"call-{number}" for number in range(4)]
    assert leaving.ran.count("wait") == 1
    assert sorted(leaving.ran + following.ran) == [*(f"call-{number}" for number in range(4)), "wait"]
    assert not in_flight.done()
    leaving.release.set()
    assert await in_flight == "wait"
    await stopping
    assert await caller.ping("later") == "later"
    assert following.ran[-1] == "later"
    await caller.close()
    await new.stop(None)


async def test_what_was_sent_to_one_that_leaves(address: str) -> None:
    """Calls and streams whose requests it has not read run on the successor alone."""
    leaving, following = Counting(), Counting()
    old = serve(address, leaving)
    await old.start()
    caller = Caller(address, "loop")
    assert await caller.ping("first") == "first"
    new = serve(address, following, replace=True)
    await new.start()
    calls: list[asyncio.Future[Any]] = [
        asyncio.ensure_future(caller.ping("call")),
        asyncio.ensure_future(caller.stream("stream")),
    ]
    # Their requests are sent in one turn of the loop, in which nobody reads them yet.
    stopping = asyncio.ensure_future(old.stop(20.0))
    assert await asyncio.gather(*calls) == ["call", ["0", "1", "2"]]
    await stopping
    assert leaving.ran == ["first"]
    assert sorted(following.ran) == ["call", "stream"]
    await caller.close()
    await new.stop(None)


async def _request(peer: RawPeer) -> int:
    while True:
        kind, stream, _, _ = await peer.frame()
        if kind == frames.REQUEST:
            return stream


@KINDS
@pytest.mark.parametrize("again", [False, True])
async def test_a_refusal_is_repeated_once(raw_server: RawServer, address: str, kind: str, again: bool) -> None:
    """A call that was refused before it ran is made once more, on another connection, and no third time."""
    caller = Caller(address, kind)
    call = asyncio.ensure_future(caller.ping("call"))
    for is_refused in (True, again):
        peer = await raw_server.accept()
        stream = await _request(peer)
        if is_refused:
            await peer.send(
                frame(frames.LEAVING, 0, 0, frames.count_body(stream)),
                frame(frames.RESPONSE, stream, frames.NOT_RUN, REFUSED),
            )
        else:
            await peer.send(frame(frames.RESPONSE, stream, 0, ANSWER))
    if again:
        with pytest.raises(RpcError) as raised:
            await call
        assert raised.value.code is StatusCode.UNAVAILABLE
        assert not raised.value.was_sent
    else:
        assert await call == "done"
    await caller.close()


@KINDS
async def test_a_call_that_may_have_run_is_not_repeated(raw_server: RawServer, address: str, kind: str) -> None:
    """A server that leaves and ends without an answer may have run what it took."""
    caller = Caller(address, kind)
    call = asyncio.ensure_future(caller.ping("call"))
    peer = await raw_server.accept()
    stream = await _request(peer)
    await peer.send(frame(frames.LEAVING, 0, 0, frames.count_body(stream)))
    peer.close()
    with pytest.raises(RpcError) as raised:
        await call
    assert raised.value.code is StatusCode.UNAVAILABLE
    assert raised.value.was_sent
    await caller.close()


@KINDS
async def test_a_server_that_has_gone_between_calls(address: str, kind: str) -> None:
    """A connection that ended while nobody called is no failure of the next call."""
    first = serve(address, Counting())
    await first.start()
    caller = Caller(address, kind)
    assert await caller.ping("first") == "first"
    await first.stop(None)
    following = Counting()
    second = serve(address, following, replace=True)
    await second.start()
    assert await caller.ping("second") == "second"
    assert following.ran == ["second"]
    await caller.close()
    await until(lambda: not second._links)  # type: ignore[attr-defined]
    await second.stop(None)
