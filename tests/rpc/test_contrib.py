"""Next to OpenTelemetry's own instrumentation of gRPC: every call of ours is told once, by us."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import aio

from snakepit_otel import rpc
from snakepit_otel.adapters import BaseAdapter, tool
from snakepit_otel.bridge.client.client import Client
from snakepit_otel.testing import Capture
from tests.bridge.parts import authority
from tests.rpc.ends import (
    KINDS,
    OPTIONS,
    AioEnding,
    BlockingEnding,
    Gate,
    aio_call,
    aio_ends,
    aio_finish,
    blocking_call,
    blocking_ends,
    blocking_finish,
    both,
    handlers,
    until_in_thread,
)
from tests.waiting import until

pytestmark = pytest.mark.usefixtures("nothing_is_left")

contrib = pytest.importorskip("opentelemetry.instrumentation.grpc")
ALL_KINDS = pytest.mark.parametrize("kind", KINDS)
OURS = "snakepit_otel"


class Remembering(BaseAdapter):
    """An adapter that calls back, from threads and from the loop."""

    @tool
    def remember(self, word: str) -> None:
        self.session_context.state["word"] = word

    @tool
    async def words(self) -> Any:
        yield await asyncio.to_thread(self.session_context.state.get, "word")


@pytest.fixture(autouse=True)
def instrumented() -> Iterator[None]:
    """Let contrib instrument all there is."""
    instrumentors = [
        contrib.GrpcInstrumentorClient(),
        contrib.GrpcInstrumentorServer(),
        contrib.GrpcAioInstrumentorClient(),
        contrib.GrpcAioInstrumentorServer(),
    ]
    for instrumentor in instrumentors:
        instrumentor.instrument()
    yield
    for instrumentor in instrumentors:
        instrumentor.uninstrument()


def scopes(capture: Capture) -> list[str]:
    """Return who made each span of a call."""
    return [
        span.instrumentation_scope.name
        for span in capture._spans.get_finished_spans()
        if span.instrumentation_scope is not None and span.kind.name in ("CLIENT", "SERVER")
    ]


async def test_contrib_does_tell_calls(capture: Capture, gate: Gate) -> None:
    """Channels and servers that are made by gRPC's functions are contrib's to tell; else these tests prove nothing."""
    server = aio.server(options=OPTIONS)
    server.add_generic_rpc_handlers((handlers(AioEnding(gate)),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        await aio_finish(aio_call(channel, "unary_unary", "ok"), "unary_unary")
    await server.stop(None)
    assert len(scopes(capture)) == 2
    assert OURS not in scopes(capture)


@ALL_KINDS
async def test_aio(capture: Capture, gate: Gate, kind: str) -> None:
    """An aio channel and an aio server of ours have one span each."""
    async with aio_ends(AioEnding(gate)) as channel:
        await aio_finish(aio_call(channel, kind, "set:NOT_FOUND"), kind)
        (client,), (server,) = await until(both(capture, kind))
    assert scopes(capture) == [OURS, OURS]
    assert client.status == server.status == "NOT_FOUND"


@ALL_KINDS
def test_blocking(capture: Capture, gate: Gate, kind: str) -> None:
    """So have a blocking channel and a blocking server."""
    with blocking_ends(BlockingEnding(gate)) as channel:
        blocking_finish(blocking_call(channel, kind, "set:NOT_FOUND"), kind)
        until_in_thread(both(capture, kind))
    assert scopes(capture) == [OURS, OURS]


@ALL_KINDS
def test_our_interceptor_on_a_channel_of_theirs(capture: Capture, gate: Gate, kind: str) -> None:
    """A blocking channel that contrib made, and that has our interceptor, has one client span: ours."""
    with ThreadPoolExecutor(2) as threads:
        server = rpc.blocking_server(threads, options=OPTIONS)
        server.add_generic_rpc_handlers((handlers(BlockingEnding(gate)),))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        with grpc.insecure_channel(f"127.0.0.1:{port}") as theirs:
            channel = grpc.intercept_channel(theirs, rpc.BlockingClientInterceptor())
            blocking_finish(blocking_call(channel, kind, "ok"), kind)
            until_in_thread(lambda: scopes(capture))
        server.stop(None).wait()
    assert scopes(capture) == [OURS]


async def test_a_request_through_the_bridge(capture: Capture, short_path: Path) -> None:
    """A request's way, from a client over the authority to a worker and back to the authority, is told by us."""
    async with authority(short_path, Remembering) as ours, Client(ours.address) as client:
        await client.execute("remember", {"word": "blue"}, session_id="s-1")
        assert [word async for word in client.stream("words", {}, session_id="s-1")] == ["blue"]
        await client.delete_session("s-1")
    found = scopes(capture)
    assert len(found) >= 14
    assert set(found) == {OURS}
