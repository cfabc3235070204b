"""Calls that do not come to their end: cancelled, too late, cut off, dropped, unread."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import pytest
from grpc import aio

from snakepit_otel import rpc
from snakepit_otel.rpc.grpc_server_call import AioServerCall
from snakepit_otel.telemetry import _guard
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
    aio_channel,
    aio_ends,
    aio_finish,
    aio_serving,
    blocking_call,
    blocking_ends,
    blocking_finish,
    blocking_serving,
    both,
    measured,
    told,
    until_in_thread,
)
from tests.waiting import until

pytestmark = pytest.mark.usefixtures("nothing_is_left")

STREAMS = [kind for kind in KINDS if kind.endswith("stream")]
SERVICES = pytest.mark.parametrize("service", [AioEnding, WritingEnding])
ALL_KINDS = pytest.mark.parametrize("kind", KINDS)


def check(capture: Capture, kind: str, found: Any, client: str, server: str) -> None:
    """See what both ends tell of one call, in spans and in durations."""
    (by_client,), (by_server,) = found
    assert (by_client.status, by_client.error, by_client.failed) == (client, client, True)
    fault = server if server == "DEADLINE_EXCEEDED" else None
    assert (by_server.status, by_server.error, by_server.failed) == (server, fault, fault is not None)
    assert measured(capture, kind) == {
        "rpc.client.call.duration": {(client, client): 1},
        "rpc.server.call.duration": {(server, fault): 1},
    }


@ALL_KINDS
@SERVICES
async def test_cancelled(capture: Capture, gate: Gate, service: Any, kind: str) -> None:
    """A call that its client cancels is CANCELLED on both ends, which is no error of the server's."""
    async with aio_ends(service(gate)) as channel:
        call = aio_call(channel, kind, "wait", 30.0)
        reading = asyncio.ensure_future(aio_finish(call, kind))
        await until(gate.reached.is_set)
        call.cancel()
        assert await reading is grpc.StatusCode.CANCELLED
        check(capture, kind, await until(both(capture, kind)), "CANCELLED", "CANCELLED")


@pytest.mark.parametrize("kind", ["unary_unary", "stream_unary"])
async def test_whoever_waits_is_cancelled(capture: Capture, gate: Gate, kind: str) -> None:
    """So is a call whose task is cancelled."""
    async with aio_ends(AioEnding(gate)) as channel:
        reading = asyncio.ensure_future(aio_finish(aio_call(channel, kind, "wait"), kind))
        await until(gate.reached.is_set)
        reading.cancel()
        await asyncio.wait([reading])
        check(capture, kind, await until(both(capture, kind)), "CANCELLED", "CANCELLED")


@ALL_KINDS
def test_cancelled_on_blocking_ends(capture: Capture, gate: Gate, kind: str) -> None:
    """The same on blocking ends, where the handler is told and goes by itself."""
    with blocking_ends(BlockingEnding(gate)) as channel:
        call = blocking_call(channel, kind, "wait", 30.0)
        until_in_thread(gate.reached.is_set)
        call.cancel()
        assert blocking_finish(call, kind) is grpc.StatusCode.CANCELLED
        check(capture, kind, until_in_thread(both(capture, kind)), "CANCELLED", "CANCELLED")


@ALL_KINDS
@SERVICES
async def test_too_late(capture: Capture, gate: Gate, service: Any, kind: str) -> None:
    """A deadline that passes is DEADLINE_EXCEEDED on both ends, and an error on both."""
    async with aio_ends(service(gate)) as channel:
        assert await aio_finish(aio_call(channel, kind, "wait", 0.1), kind) is grpc.StatusCode.DEADLINE_EXCEEDED
        check(capture, kind, await until(both(capture, kind)), "DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED")


@ALL_KINDS
def test_too_late_on_blocking_ends(capture: Capture, gate: Gate, kind: str) -> None:
    """The same on blocking ends."""
    with blocking_ends(BlockingEnding(gate)) as channel:
        code = blocking_finish(blocking_call(channel, kind, "wait", 0.1), kind)
        assert code is grpc.StatusCode.DEADLINE_EXCEEDED
        check(capture, kind, until_in_thread(both(capture, kind)), "DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED")


async def test_too_late_in_a_thread_of_an_aio_server(capture: Capture, gate: Gate) -> None:
    """A function in a thread of an aio server that returns when its deadline has passed was too late."""

    class Late:
        def handle(self, request: Any, context: Any) -> bytes:
            until_in_thread(lambda: context.time_remaining() == 0)
            gate.release.wait(20)
            return b"too late"

        unary_unary = unary_stream = stream_unary = stream_stream = handle

    async with aio_ends(Late()) as channel:
        code = await aio_finish(aio_call(channel, "unary_unary", "", 0.05), "unary_unary")
        assert code is grpc.StatusCode.DEADLINE_EXCEEDED
        gate.release.set()
        found = await until(both(capture, "unary_unary"))
        check(capture, "unary_unary", found, "DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED")


def test_a_handler_that_goes_on_regardless(capture: Capture) -> None:
    """A cancelled call is CANCELLED, though its deadline has passed, too, by the time its handler returns."""

    class Deaf:
        def __init__(self) -> None:
            self.gate = Gate()

        def handle(self, request: Any, context: Any) -> bytes:
            self.gate.reached.set()
            until_in_thread(lambda: not context.is_active())
            until_in_thread(lambda: context.time_remaining() == 0)
            return b"nobody reads this"

        unary_unary = unary_stream = stream_unary = stream_stream = handle

    service = Deaf()
    with blocking_ends(service) as channel:
        call = blocking_call(channel, "unary_unary", "", 0.4)
        until_in_thread(service.gate.reached.is_set)
        call.cancel()
        check(capture, "unary_unary", until_in_thread(both(capture, "unary_unary")), "CANCELLED", "CANCELLED")


@ALL_KINDS
async def test_the_server_stops(capture: Capture, gate: Gate, kind: str) -> None:
    """A server that stops in the middle of a call has cancelled it; the client tells what it was told."""
    async with aio_serving(AioEnding(gate)) as (server, address), aio_channel(address) as channel:
        reading = asyncio.ensure_future(aio_finish(aio_call(channel, kind, "wait"), kind))
        await until(gate.reached.is_set)
        await server.stop(None)
        code = await reading
        assert code is not grpc.StatusCode.OK
        check(capture, kind, await until(both(capture, kind)), code.name, "CANCELLED")


@ALL_KINDS
def test_a_blocking_server_stops(capture: Capture, gate: Gate, kind: str) -> None:
    """So does a blocking server."""
    with blocking_serving(BlockingEnding(gate)) as (server, address), rpc.blocking_channel(address) as plain:
        channel = grpc.intercept_channel(plain, rpc.BlockingClientInterceptor(address))
        call = blocking_call(channel, kind, "wait")
        until_in_thread(gate.reached.is_set)
        server.stop(None)
        code = blocking_finish(call, kind)
        assert code is not grpc.StatusCode.OK
        check(capture, kind, until_in_thread(both(capture, kind)), code.name, "CANCELLED")


@pytest.fixture
def process() -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server in a process of its own, and its address."""
    command = [sys.executable, "-m", "tests.rpc.serve_ending"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as started:
        assert started.stdout is not None
        yield started, f"127.0.0.1:{started.stdout.readline().strip()}"
        started.kill()


async def test_the_server_is_killed(capture: Capture, process: tuple[subprocess.Popen[str], str]) -> None:
    """Calls in the middle of which the server's process dies are UNAVAILABLE, on all kinds of channels."""
    server, address = process
    assert server.stdout is not None
    with rpc.blocking_channel(address) as plain:
        blocking = grpc.intercept_channel(plain, rpc.BlockingClientInterceptor(address))
        async with aio_channel(address) as channel:
            reading = [
                *(asyncio.ensure_future(aio_finish(aio_call(channel, kind, "wait"), kind)) for kind in KINDS),
                *(
                    asyncio.ensure_future(
                        asyncio.to_thread(blocking_finish, blocking_call(blocking, kind, "wait"), kind)
                    )
                    for kind in KINDS
                ),
            ]
            for _ in reading:
                assert (await asyncio.to_thread(server.stdout.readline)) == "reached\n"
            server.kill()
            assert set(await asyncio.gather(*reading)) == {grpc.StatusCode.UNAVAILABLE}
            for kind in KINDS:
                await until(lambda kind=kind: len(told(capture, kind)[0]) == 2)
                for client in told(capture, kind)[0]:
                    assert (client.status, client.error, client.failed) == ("UNAVAILABLE", "UNAVAILABLE", True)


async def test_nobody_is_there(capture: Capture) -> None:
    """A call that finds no server is UNAVAILABLE, at its client alone."""
    async with aio_channel("127.0.0.1:1") as channel:
        assert await aio_finish(aio_call(channel, "unary_unary", ""), "unary_unary") is grpc.StatusCode.UNAVAILABLE
    (client,), servers = told(capture, "unary_unary")
    assert (client.status, servers) == ("UNAVAILABLE", [])


@pytest.mark.parametrize("how", ["wait", "more"])
async def test_a_stream_that_is_cancelled_early(capture: Capture, gate: Gate, how: str) -> None:
    """Who reads a stream no further and says so has cancelled it."""
    async with aio_ends(AioEnding(gate)) as channel:
        call = aio_call(channel, "unary_stream", how)
        async for _ in call:
            break
        call.cancel()
        check(capture, "unary_stream", await until(both(capture, "unary_stream")), "CANCELLED", "CANCELLED")


@pytest.mark.parametrize("close", [True, False])
@pytest.mark.parametrize("kind", STREAMS)
async def test_a_stream_that_is_dropped(capture: Capture, gate: Gate, kind: str, close: bool) -> None:
    """A stream of grpc.aio that is merely dropped goes on until its channel is closed, and is told when it ends."""
    async with aio_ends(AioEnding(gate)) as channel:
        responses = aiter(aio_call(channel, kind, "wait"))
        await anext(responses)
        if close:
            await responses.aclose()
        del responses
        gc.collect()
        assert told(capture, kind) == ([], [])
    check(capture, kind, await until(both(capture, kind)), "CANCELLED", "CANCELLED")


@pytest.mark.parametrize("how", ["wait", "more"])
@pytest.mark.parametrize("cancel", [True, False])
def test_a_blocking_stream_that_is_left_early(capture: Capture, gate: Gate, how: str, cancel: bool) -> None:
    """The same on blocking ends; a stream that is dropped is cancelled at once, as it is without us."""
    with blocking_ends(BlockingEnding(gate)) as channel:
        call = blocking_call(channel, "unary_stream", how)
        for _ in call:
            break
        if cancel:
            call.cancel()
        del call
        check(capture, "unary_stream", until_in_thread(both(capture, "unary_stream")), "CANCELLED", "CANCELLED")


async def test_a_dropped_generator_cleans_up_inside_its_call(capture: Capture, gate: Gate) -> None:
    """What a handler does when its stream is closed is still a part of the call."""

    class Cleaning(AioEnding):
        async def unary_stream(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
            try:
                while True:
                    yield b"more"
            finally:
                await self._end(b"ok", context)

    async with aio_ends(Cleaning(gate)) as channel:
        call = aio_call(channel, "unary_stream", "")
        await anext(aiter(call))
        call.cancel()
        _, (server,) = await until(both(capture, "unary_stream"))
    (child,) = capture.spans(CHILD)
    assert int(child.parent_id or "", 16) == server.span.context.span_id
    assert child.end <= (server.span.end_time or 0)


async def _one_and_then_nothing() -> AsyncIterator[bytes]:
    yield b"ok"
    await asyncio.Event().wait()


async def _one_and_then_an_error() -> AsyncIterator[bytes]:
    yield b"ok"
    raise ValueError("the client's own")


@pytest.mark.parametrize(
    ("requests", "status"),
    [(_one_and_then_nothing, "DEADLINE_EXCEEDED"), (_one_and_then_an_error, "CANCELLED")],
)
@pytest.mark.parametrize("kind", ["stream_unary", "stream_stream"])
async def test_a_client_that_stops_sending(capture: Capture, gate: Gate, kind: str, requests: Any, status: str) -> None:
    """A client that never ends its requests runs into its deadline; one that fails at them cancels."""
    async with aio_ends(AioEnding(gate)) as channel:
        call = getattr(channel, kind)(f"/{SERVICE}/{kind}")(requests(), timeout=0.302)
        assert await aio_finish(call, kind) is grpc.StatusCode[status]
        check(capture, kind, await until(both(capture, kind)), status, status)


async def test_requests_that_are_written(capture: Capture, gate: Gate) -> None:
    """Calls whose requests are written and whose responses are read are observed as others are."""
    async with aio_ends(AioEnding(gate)) as channel:
        call = channel.stream_stream(f"/{SERVICE}/stream_stream")()
        await call.write(b"ok")
        assert await call.read() == b"echo"
        await call.done_writing()
        assert await call.code() is grpc.StatusCode.OK
        (client,), (server,) = await until(both(capture, "stream_stream"))
    assert client.status == server.status == "OK"


class Answering(aio.UnaryUnaryClientInterceptor):
    """An interceptor that answers by itself."""

    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return b"from a cache"


class BlockingAnswering(grpc.UnaryStreamClientInterceptor):
    """One that gives a mere iterator for a stream."""

    def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return iter([b"from a cache"])


async def test_an_interceptor_further_in_that_answers(capture: Capture) -> None:
    """Whatever other interceptors give in place of a call goes to the caller, and ends the call for us."""
    interceptors = [*rpc.client_interceptors(), Answering()]
    async with rpc.aio_channel("127.0.0.1:1", interceptors=interceptors) as channel:
        assert await aio_call(channel, "unary_unary", "") == b"from a cache"
    (client,), _ = told(capture, "unary_unary")
    assert client.status == "OK"
    with rpc.blocking_channel("127.0.0.1:1") as plain:
        channel = grpc.intercept_channel(plain, rpc.BlockingClientInterceptor(), BlockingAnswering())
        assert list(blocking_call(channel, "unary_stream", "")) == [b"from a cache"]
    (client,), _ = told(capture, "unary_stream")
    assert client.status is None


async def test_a_fault_of_ours_is_not_the_callers(
    capture: Capture, gate: Gate, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A call goes its way though we fail at telling of it, and the fault is counted."""
    monkeypatch.setattr(AioServerCall, "status", None)
    before = _guard.fault_count
    with caplog.at_level("CRITICAL", "snakepit_otel"):
        async with aio_ends(AioEnding(gate)) as channel:
            assert await aio_finish(aio_call(channel, "unary_unary", "ok"), "unary_unary") is grpc.StatusCode.OK
            await until(both(capture, "unary_unary"))
    assert _guard.fault_count == before + 1
