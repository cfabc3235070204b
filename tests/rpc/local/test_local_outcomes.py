"""Every end of every type of call: its status at the caller, in the caller's span and in the server's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from snakepit_otel import rpc
from snakepit_otel.rpc import RpcError, StatusCode
from snakepit_otel.rpc.services import Handler, RpcMethod
from snakepit_otel.rpc.transports.base import EOF
from snakepit_otel.rpc.transports.local import LocalTransport, frames
from snakepit_otel.telemetry import names
from snakepit_otel.testing import Capture
from tests.rpc.ends import KINDS, SERVICE, Gate, told
from tests.rpc.local.conftest import HELLO, RawPeer, frame
from tests.waiting import until

FAULTS = {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
METHODS = {
    kind: RpcMethod(f"{SERVICE}/{kind}", bytes, bytes, bytes, bytes, kind.startswith("stream"), kind.endswith("stream"))
    for kind in KINDS
}
ALL_KINDS = pytest.mark.parametrize("kind", KINDS)
# A call that streams both ways has no span at its caller, and no deadline; nor has an upload a deadline.
ENDS = {"ok": "OK", "raise": "UNKNOWN"} | {code.name: code.name for code in StatusCode if code is not StatusCode.OK}


class Ending:
    """Ends calls as their messages want it."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    async def _end(self, how: bytes, context: Any) -> None:
        text = how.decode()
        if text == "wait":
            await self._gate.wait()
        elif text == "raise":
            raise ValueError("a fault of the server")
        elif text in StatusCode.__members__:
            await context.abort(StatusCode[text], "as asked")

    async def unary_unary(self, request: bytes, context: Any) -> bytes:
        """One in, one out."""
        await self._end(request, context)
        return b"done"

    async def unary_stream(self, request: bytes, context: Any) -> None:
        """One in, one of many out."""
        await context.write(b"first")
        await self._end(request, context)

    async def stream_unary(self, requests: Any, context: Any) -> bytes:
        """Many in, one out."""
        async for request in requests:
            await self._end(request, context)
        return b"done"

    async def stream_stream(self, requests: Any, context: Any) -> None:
        """One out for each in."""
        async for request in requests:
            await context.write(b"echo")
            await self._end(request, context)


@pytest.fixture
async def listener(address: str, gate: Gate) -> AsyncIterator[rpc.Listener]:
    """A listener for all types of calls."""
    listener = LocalTransport().listen(address, trusted=True)
    service = Ending(gate)
    listener.add(Handler(method, getattr(service, kind)) for kind, method in METHODS.items())
    listener.bind()
    await listener.start()
    yield listener
    await listener.stop(None)


@pytest.fixture
async def connection(address: str, listener: rpc.Listener) -> AsyncIterator[rpc.Connection]:
    """A connection to it."""
    connection = LocalTransport().connect(address, [METHODS])
    await connection.ready()
    yield connection
    await connection.close()


async def finish(connection: rpc.Connection, kind: str, how: str, timeout: float | None = None) -> str:
    """Make a call, and return the name of its status."""
    name, request = f"{SERVICE}/{kind}", how.encode()

    async def take(_: bytes) -> None: ...

    try:
        if kind == "unary_unary":
            await connection.call(name, request, timeout)
        elif kind == "unary_stream":
            await connection.stream(name, request, take, timeout)
        elif kind == "stream_unary":
            await connection.upload(name, [request])
        else:
            dialogue = connection.bidirectional(name)
            try:
                await dialogue.write(request)
                await dialogue.done_writing()
                while await dialogue.read() is not EOF:
                    pass
            finally:
                dialogue.cancel()
    except RpcError as error:
        return error.code.name
    except asyncio.CancelledError:
        return "CANCELLED"
    return "OK"


async def check(capture: Capture, kind: str, client: str | None, server: str) -> None:
    """Check the spans of one call: statuses, errors, and the system."""
    expected = 0 if client is None or kind == "stream_stream" else 1
    await until(lambda: len(told(capture, kind)[1]) == 1 and len(told(capture, kind)[0]) == expected)
    clients, (by_server,) = told(capture, kind)
    if expected:
        error = None if client == "OK" else client
        assert (clients[0].status, clients[0].error, clients[0].failed) == (client, error, error is not None)
        assert by_server.span.parent is not None
        assert by_server.span.parent.span_id == clients[0].span.context.span_id
    fault = server if server in FAULTS else None
    assert (by_server.status, by_server.error, by_server.failed) == (server, fault, fault is not None)
    for one in (*clients, by_server):
        assert one.span.attributes is not None
        assert one.span.attributes[names.RPC_SYSTEM_NAME] == "ttrpc"


@ALL_KINDS
@pytest.mark.parametrize(("how", "status"), ENDS.items(), ids=ENDS)
async def test_ends(connection: rpc.Connection, capture: Capture, kind: str, how: str, status: str) -> None:
    """Success, errors and every status are the same at both sides."""
    assert await finish(connection, kind, how) == status
    await check(capture, kind, status, status)


@ALL_KINDS
async def test_cancelled(connection: rpc.Connection, capture: Capture, gate: Gate, kind: str) -> None:
    """A call whose caller is cancelled is CANCELLED at both sides, which is no error of the server's."""
    call = asyncio.ensure_future(finish(connection, kind, "wait"))
    await until(gate.reached.is_set)
    call.cancel()
    assert await call == "CANCELLED"
    await check(capture, kind, "CANCELLED", "CANCELLED")


@pytest.mark.parametrize("kind", ["unary_unary", "unary_stream"])
async def test_too_late(connection: rpc.Connection, capture: Capture, kind: str) -> None:
    """A deadline that passes is DEADLINE_EXCEEDED at both sides, though the caller's passes first."""
    assert await finish(connection, kind, "wait", 0.03) == "DEADLINE_EXCEEDED"
    await check(capture, kind, "DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED")


async def test_too_late_in_a_thread(address: str, listener: rpc.Listener, capture: Capture) -> None:
    """So it is for a thread."""
    blocking = LocalTransport().connect_blocking(address, [METHODS])
    with pytest.raises(RpcError) as raised:
        await asyncio.to_thread(blocking.call, f"{SERVICE}/unary_unary", b"wait", 0.03)
    assert raised.value.code is StatusCode.DEADLINE_EXCEEDED
    await check(capture, "unary_unary", "DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED")
    blocking.close()


@ALL_KINDS
async def test_a_deadline_at_the_server(
    address: str, listener: rpc.Listener, capture: Capture, gate: Gate, kind: str
) -> None:
    """A server ends a call whose deadline has passed by itself, if its caller does not."""
    peer = await RawPeer.to(address)
    payload = b"wait" if kind.startswith("unary") else None
    body = frames.request_body(frames.names_of(f"{SERVICE}/{kind}"), payload, 0.02, None)
    await peer.send(HELLO, frame(frames.REQUEST, 1, frames.REMOTE_OPEN if payload is None else 0, body))
    while (answer := await peer.frame())[0] != frames.RESPONSE:
        pass
    with pytest.raises(RpcError) as raised:
        frames.payload_in(answer[3])
    assert raised.value.code is StatusCode.DEADLINE_EXCEEDED
    peer.close()
    await check(capture, kind, None, "DEADLINE_EXCEEDED")


@ALL_KINDS
async def test_the_server_stops(
    connection: rpc.Connection, listener: rpc.Listener, capture: Capture, gate: Gate, kind: str
) -> None:
    """A call in flight when its server stops is UNAVAILABLE, and may have run."""
    call = asyncio.ensure_future(finish(connection, kind, "wait"))
    await until(gate.reached.is_set)
    await listener.stop(None)
    assert await call == "UNAVAILABLE"
    await check(capture, kind, "UNAVAILABLE", "UNAVAILABLE")
