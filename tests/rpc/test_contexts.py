"""Trace context of calls: current inside, gone after, and trusted or not by a server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import pytest
from opentelemetry import baggage, context, trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from snakepit_otel import rpc, telemetry
from snakepit_otel.rpc import method as rpc_method
from snakepit_otel.telemetry import _switch, names
from snakepit_otel.testing import Capture
from tests.rpc.ends import (
    CHILD,
    KINDS,
    SERVICE,
    AioEnding,
    BlockingEnding,
    Gate,
    WritingEnding,
    aio_call,
    aio_ends,
    aio_finish,
    aio_serving,
    blocking_call,
    blocking_ends,
    blocking_finish,
    blocking_serving,
    both,
    current_is_nothing,
    measured,
    told,
    until_in_thread,
)
from tests.waiting import until

pytestmark = pytest.mark.usefixtures("nothing_is_left")

ALL_KINDS = pytest.mark.parametrize("kind", KINDS)
TRACE, SPAN = 0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331


def check_children(capture: Capture, kind: str, server: Any) -> None:
    """See that what the handler did is inside the call."""
    children = capture.spans(CHILD)
    assert children
    assert {int(child.parent_id or "", 16) for child in children} == {server.span.context.span_id}


@ALL_KINDS
@pytest.mark.parametrize("service", [AioEnding, WritingEnding, BlockingEnding])
async def test_one_trace(capture: Capture, gate: Gate, service: Any, kind: str) -> None:
    """The caller's span, the client's, the server's and the handler's are one above the other."""
    async with aio_ends(service(gate)) as channel:
        with telemetry.Operation(names.SESSION_CREATE) as around:
            assert around.span is not None
            above = around.span.get_span_context().span_id
            assert await aio_finish(aio_call(channel, kind, "ok"), kind) is grpc.StatusCode.OK
        (client,), (server,) = await until(both(capture, kind))
    assert client.span.parent is not None
    assert client.span.parent.span_id == above
    check_children(capture, kind, server)


@ALL_KINDS
def test_one_trace_on_blocking_ends(capture: Capture, gate: Gate, kind: str) -> None:
    """The same on blocking ends."""
    with blocking_ends(BlockingEnding(gate)) as channel:
        with telemetry.Operation(names.SESSION_CREATE) as around:
            assert around.span is not None
            above = around.span.get_span_context().span_id
            assert blocking_finish(blocking_call(channel, kind, "ok"), kind) is grpc.StatusCode.OK
        (client,), (server,) = until_in_thread(both(capture, kind))
    assert client.span.parent is not None
    assert client.span.parent.span_id == above
    check_children(capture, kind, server)


async def test_nothing_is_current_between_the_responses(capture: Capture) -> None:
    """While gRPC sends what a handler yielded, and while a client looks at it, the call is not current."""
    seen: list[bool] = []

    class Watching(AioEnding):
        async def unary_stream(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
            for _ in range(3):
                seen.append(current_is_nothing())
                yield b"look"

    async with aio_ends(Watching(Gate())) as channel:
        async for _ in aio_call(channel, "unary_stream", ""):
            assert current_is_nothing()
        await until(both(capture, "unary_stream"))
    assert seen == [False, False, False]


def test_an_iterator_that_is_no_generator(capture: Capture, gate: Gate) -> None:
    """A function that returns any iterator has its stream observed to the end, and its own failure, too."""

    class Listing(BlockingEnding):
        def unary_stream(self, request: bytes, context: Any) -> Iterator[bytes]:
            self._end(request, context)
            return iter([b"one", b"two"])

    with blocking_ends(Listing(gate)) as channel:
        assert list(blocking_call(channel, "unary_stream", "ok")) == [b"one", b"two"]
        assert blocking_finish(blocking_call(channel, "unary_stream", "abort:NOT_FOUND"), "unary_stream") is (
            grpc.StatusCode.NOT_FOUND
        )
        _, servers = until_in_thread(both(capture, "unary_stream", 2))
    assert [server.status for server in servers] == ["OK", "NOT_FOUND"]
    assert len(capture.spans(CHILD)) == 2


async def test_the_server_is_told_on_client_spans(capture: Capture, gate: Gate) -> None:
    """A client's span has the address of its server, and its duration has not."""
    async with aio_serving(AioEnding(gate)) as (_, address):
        host, _, port = address.rpartition(":")
        async with rpc.aio_channel(address, interceptors=rpc.client_interceptors(address)) as channel:
            await aio_finish(aio_call(channel, "unary_unary", "ok"), "unary_unary")
            (client,), (server,) = await until(both(capture, "unary_unary"))
    assert client.span.attributes is not None
    assert client.span.attributes["server.address"] == host
    assert client.span.attributes["server.port"] == int(port)
    assert "server.address" not in (server.span.attributes or {})
    assert len(measured(capture, "unary_unary")) == 2


@pytest.mark.parametrize(
    ("target", "address", "port"),
    [
        ("localhost:50051", "localhost", 50051),
        ("dns:///localhost:50051", "localhost", 50051),
        ("dns://8.8.8.8/host.example:1", "host.example", 1),
        ("ipv4:127.0.0.1:50051", "127.0.0.1", 50051),
        ("[::1]:50051", "::1", 50051),
        ("ipv6:[::1]:50051", "::1", 50051),
        ("ipv6:::1", "::1", None),
        ("host.example", "host.example", None),
        ("unix:/run/s.sock", "/run/s.sock", None),
        ("unix:///run/s.sock", "/run/s.sock", None),
        ("unix-abstract:name", "name", None),
        ("", "", None),
    ],
)
def test_addresses(target: str, address: str, port: int | None) -> None:
    """Targets of every form that gRPC takes are told apart into address and port."""
    expected: dict[str, Any] = {"server.address": address}
    if port is not None:
        expected["server.port"] = port
    assert rpc.Peer(target).attributes().values == expected


@pytest.mark.parametrize("blocking", [False, True])
async def test_methods_that_nobody_serves(capture: Capture, gate: Gate, blocking: bool) -> None:
    """What callers make up is UNIMPLEMENTED under one name, in spans and in durations of the server."""

    async def ask(address: str, name: str) -> None:
        async with rpc.aio_channel(address) as channel:
            await aio_finish(channel.unary_unary(f"/made.up/{name}")(b""), "unary_unary")

    async def ask_twice(address: str) -> None:
        await ask(address, "One")
        await ask(address, "Two")
        await until(lambda: len(capture.spans("_OTHER")) == 2)

    if blocking:
        with blocking_serving(BlockingEnding(gate)) as (_, address):
            await ask_twice(address)
    else:
        async with aio_serving(AioEnding(gate)) as (_, address):
            await ask_twice(address)
    (point,) = capture.points("rpc.server.call.duration")
    assert point.count == 2
    assert point.attributes[names.RPC_METHOD] == "_OTHER"
    assert point.attributes[names.RPC_RESPONSE_STATUS_CODE] == "UNIMPLEMENTED"
    assert "made.up" not in str([span.attributes for span in capture.spans()])


def test_methods_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """A method has one set of attributes, however its name is written; beyond a thousand, all are `_OTHER`."""
    monkeypatch.setattr(rpc_method, "_methods", {"grpc": {}})
    assert rpc_method.method_of("/a/B") is rpc_method.method_of("a/B") is rpc_method.method_of(b"/a/B")
    made = [rpc_method.method_of(f"/a/{number}") for number in range(2_000)]
    assert made[0].name == "a/0"
    assert made[-1].name == "_OTHER"
    assert len(rpc_method._methods["grpc"]) <= 1_002


def headers(flags: int = 1) -> list[tuple[str, str]]:
    """Return what a caller says of its trace."""
    return [("traceparent", f"00-{TRACE:032x}-{SPAN:016x}-{flags:02x}"), ("baggage", "who=me")]


@pytest.mark.parametrize("flags", [0, 1])
@pytest.mark.parametrize("blocking", [False, True])
async def test_callers_that_are_not_trusted(capture: Capture, gate: Gate, blocking: bool, flags: int) -> None:
    """Whom a server does not trust can neither join a trace nor decide on its sampling: ours links to theirs."""
    seen: list[Any] = []

    def look(request: bytes, context: Any) -> bytes:
        seen.append(baggage.get_all())
        return b""

    class Service:
        unary_unary = unary_stream = stream_unary = stream_stream = staticmethod(look)

    async def ask(address: str) -> None:
        async with rpc.aio_channel(address) as channel:
            await channel.unary_unary(f"/{SERVICE}/unary_unary")(b"", metadata=headers(flags))
            await channel.unary_unary(f"/{SERVICE}/unary_unary")(b"")
        await until(lambda: len(told(capture, "unary_unary")[1]) == 2)

    if blocking:
        with blocking_serving(Service(), trusted=False) as (_, address):
            await ask(address)
    else:
        async with aio_serving(Service(), trusted=False) as (_, address):
            await ask(address)
    linked, alone = (server.span for server in told(capture, "unary_unary")[1])
    assert linked.parent is alone.parent is None
    assert linked.context.trace_id != TRACE
    assert [(link.context.trace_id, link.context.span_id) for link in linked.links] == [(TRACE, SPAN)]
    assert list(alone.links) == []
    assert seen == [{}, {}]


@ALL_KINDS
async def test_unsampled(capture: Capture, gate: Gate, kind: str) -> None:
    """A trace that is not sampled stays unsampled to the handler and has no spans, and all durations."""
    seen: list[SpanContext] = []

    class Looking(AioEnding):
        async def _end(self, how: bytes, context: Any) -> None:
            seen.append(trace.get_current_span().get_span_context())

    identity = SpanContext(TRACE, SPAN, False, TraceFlags(0))
    token = context.attach(trace.set_span_in_context(NonRecordingSpan(identity)))
    try:
        async with aio_ends(Looking(gate)) as channel:
            assert await aio_finish(aio_call(channel, kind, "ok"), kind) is grpc.StatusCode.OK
    finally:
        context.detach(token)
    assert {(found.trace_id, found.trace_flags) for found in seen} == {(TRACE, 0)}
    assert capture.spans() == []
    assert measured(capture, kind) == {
        "rpc.client.call.duration": {("OK", None): 1},
        "rpc.server.call.duration": {("OK", None): 1},
    }


@ALL_KINDS
@pytest.mark.parametrize("blocking", [False, True])
async def test_switched_off(capture: Capture, gate: Gate, blocking: bool, kind: str) -> None:
    """With telemetry off, calls work, and nothing is passed on or emitted."""
    seen: list[Any] = []

    class Aio(AioEnding):
        async def unary_unary(self, request: bytes, context: Any) -> bytes:
            seen.append([key for key, _ in context.invocation_metadata()])
            return b""

    _switch.set_enabled(False)
    try:
        if blocking:
            with blocking_ends(BlockingEnding(gate)) as plain:
                assert blocking_finish(blocking_call(plain, kind, "ok"), kind) is grpc.StatusCode.OK
        else:
            async with aio_ends(Aio(gate)) as channel:
                assert await aio_finish(aio_call(channel, kind, "ok"), kind) is grpc.StatusCode.OK
    finally:
        _switch.set_enabled(True)
    assert "traceparent" not in str(seen)
    assert told(capture, kind) == ([], [])
    assert measured(capture, kind) == {}


async def test_handlers_are_left_alone_when_off() -> None:
    """With telemetry off, gRPC is given the very handler of the service."""
    handler = grpc.unary_unary_rpc_method_handler(lambda request, context: b"")

    class Details:
        method, invocation_metadata = "/a/B", ()

    async def proceed(_: Any) -> Any:
        return handler

    _switch.set_enabled(False)
    try:
        assert await rpc.ServerInterceptor().intercept_service(proceed, Details()) is handler
        assert rpc.BlockingServerInterceptor().intercept_service(lambda _: handler, Details()) is handler
    finally:
        _switch.set_enabled(True)
