"""Requests are answered whatever trace context their callers have them carry."""

from __future__ import annotations

from contextlib import aclosing

import pytest
from grpc import aio
from opentelemetry import baggage, context, trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState

from snakepit_otel import Client, Snakepit
from snakepit_otel.bridge.proto.snakepit_bridge_pb2_grpc import BridgeServiceStub
from snakepit_otel.bridge.wire.tool_calls import execute_request
from snakepit_otel.telemetry import _guard, incoming
from tests.adapters_for_tests import Useful

SIZES = (0, 4 << 10, 8 << 10, 16 << 10, 64 << 10)
TRIES = 8
"""Between two limits of its own, gRPC refuses a call or does not, by chance."""


def carrying(size: int) -> context.Context:
    """A context with a span, its state near the limit, and about that many bytes of baggage."""
    state = TraceState([(f"vendor{number}", "s" * 110) for number in range(4)])
    around = trace.set_span_in_context(NonRecordingSpan(SpanContext(1, 2, True, TraceFlags(1), state)))
    for number in range(size // 128):
        around = baggage.set_baggage(f"key-{number:04}", "v" * 118, around)
    return around


@pytest.mark.parametrize("wire", ["unix", "tcp"])
async def test_long_baggage_fails_no_request(wire: str) -> None:
    """Calls, streams, call-backs, sessions and leases are answered at any size of it, and other clients' calls."""
    async with Snakepit(Useful, workers=1, server={"listen": "127.0.0.1:0"}) as pit:
        address = pit.socket if wire == "unix" else pit.address
        assert address is not None
        total = 0
        for size in SIZES:
            token = context.attach(carrying(size))
            try:
                async with Client(address) as client:
                    for attempt in range(TRIES):
                        total += 1
                        assert await client.execute("echo_async", {"value": size}) == size
                        assert await client.execute("add", {"amount": 1}, session_id="s") == total
                        async with aclosing(client.stream("count_async", {"to": 2})) as chunks:
                            assert [chunk async for chunk in chunks] == [{"number": 1}, {"number": 2}]
                        async with client.session(f"bound-{size}-{attempt}", owner="somebody", metadata={"a": "b"}):
                            assert await client.heartbeat(f"bound-{size}-{attempt}")
                        await client.create_session("free", owner="somebody")
                        assert await pit.execute("echo", {"value": size}) == size
            finally:
                context.detach(token)
            # Others' clients have no limit of their own.
            headers = (("baggage", ",".join(f"key-{number:04}={'v' * 118}" for number in range(size // 128))),)
            async with aio.insecure_channel(str(pit.address)) as channel:
                request = execute_request("echo", {"value": size}, None)
                for _ in range(TRIES):
                    response = await BridgeServiceStub(channel).ExecuteTool(request, metadata=headers, timeout=20)
                    assert response.success


def test_what_is_too_long_is_left_out_and_counted() -> None:
    """Of baggage over W3C's limit whole members are kept, and the loss is counted; shorter baggage is as it was."""
    members = [f"key-{number:04}={'v' * 118}" for number in range(100)]

    def read(*given: str) -> set[str]:
        found = baggage.get_all(incoming([("baggage", ",".join(given))]))
        return {f"{key}={value}" for key, value in found.items()}

    before = _guard.fault_count
    assert read(*members[:60]) == {*members[:60]}
    assert _guard.fault_count == before
    assert read(*members) == {*members[: 8_193 // 128]}
    assert _guard.fault_count == before + 1
    assert read(f"one={'v' * 9_000}") == set()
    assert _guard.fault_count == before + 2
