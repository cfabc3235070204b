"""All that callers have the authority hold is charged from its arrival to its end, and bounded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from typing import Any

import grpc
import pytest
from grpc import aio

from snakepit_otel.bridge.authority import limits as limits_module
from snakepit_otel.bridge.authority.admission import _Call
from snakepit_otel.bridge.authority.limits import LimitSettings
from snakepit_otel.bridge.authority.listener import CallerListener
from snakepit_otel.rpc.addresses import split
from snakepit_otel.rpc.services import Handler, RpcMethod
from tests.bridge.raw_http2 import RawClient, message
from tests.waiting import until

MB = 1 << 20
TIGHT = {"anonymous_bytes": 12 * MB, "anonymous_peer_bytes": 12 * MB}
"""Room for a message of four megabytes, which may be held three times."""


class Served:
    """A listener on TCP whose methods wait, answer as much as is asked for, or stream without an end."""

    def __init__(self, limits: LimitSettings) -> None:
        self.budget = limits.budget()
        self.listener = CallerListener("127.0.0.1:0", limits, self.budget, max_message_bytes=100 * MB)
        self.go_on = asyncio.Event()
        self.running = 0
        self.ended: list[BaseException] = []
        self.address = ""
        handlers = {
            "Wait": (self.wait, False, False),
            "Answer": (self.answer, False, False),
            "Stream": (self.stream, False, True),
            "Upload": (self.upload, True, False),
        }
        self.listener.server.add(
            Handler(RpcMethod(f"t.T/{name}", bytes, bytes, bytes, bytes, reads, streams), serve)
            for name, (serve, reads, streams) in handlers.items()
        )

    @property
    def port(self) -> int:
        """The port it listens on."""
        return split(self.address)[1]

    async def wait(self, _request: bytes, _context: Any) -> bytes:
        """Answer when the test says so."""
        self.running += 1
        await self.go_on.wait()
        return b""

    async def answer(self, request: bytes, _context: Any) -> bytes:
        """Answer with as many bytes as the request's text says."""
        return bytes(int(request))

    async def stream(self, _request: bytes, context: Any) -> None:
        """Send without an end."""
        try:
            while True:
                await context.write(bytes(MB))
        except BaseException as error:
            self.ended.append(error)
            raise

    async def upload(self, requests: AsyncIterator[bytes], _context: Any) -> bytes:
        """Answer with the number of bytes that came."""
        return str(sum([len(request) async for request in requests])).encode()

    async def call(self, method: str, request: bytes = b"", **options: Any) -> bytes:
        """Make a call on a connection of its own."""
        unlimited = [("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
        async with aio.insecure_channel(self.address, options=unlimited, **options) as channel:
            answer: bytes = await channel.unary_unary(f"/t.T/{method}")(request, timeout=60, wait_for_ready=True)
            return answer


@asynccontextmanager
async def served(**limits: Any) -> AsyncIterator[Served]:
    """Serve within these limits."""
    server = Served(LimitSettings(**limits))
    server.address = await server.listener.start()
    try:
        yield server
    finally:
        server.go_on.set()
        await server.listener.stop(None)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """Close what a test opens."""
    with ExitStack() as opened:
        yield opened


async def refused(call: Any) -> aio.AioRpcError:
    """Return why a call was refused."""
    with pytest.raises(aio.AioRpcError) as caught:
        await call
    return caught.value


async def test_a_call_is_charged_until_its_end() -> None:
    """A request that waits is charged three times its size, and nothing is held for it once it was answered."""
    async with served(**TIGHT) as server:
        waiting = asyncio.ensure_future(server.call("Wait", bytes(2 * MB)))
        await until(lambda: server.running)
        assert 6 * MB < server.budget.held() < 6.1 * MB
        server.go_on.set()
        await waiting
        await until(lambda: server.budget.held() == 0)


async def test_requests_for_which_there_is_no_room_are_refused() -> None:
    """Of a dozen requests that wait, no more are held than fit; the others are refused, with the reason, at once."""
    async with served(**TIGHT) as server:
        calls = [asyncio.ensure_future(server.call("Wait", bytes(1_500_000))) for _ in range(12)]
        await until(lambda: sum(call.done() for call in calls) >= 10)
        assert server.budget.held() <= 12 * MB
        errors = [call.exception() for call in calls if call.done()]
        assert {error.code() for error in errors if isinstance(error, aio.AioRpcError)} == {
            grpc.StatusCode.RESOURCE_EXHAUSTED
        }
        assert all("budget_exceeded: " in str(error) for error in errors)
        server.go_on.set()
        await asyncio.gather(*calls, return_exceptions=True)
        assert await server.call("Answer", b"1") == b"\0"
        await until(lambda: server.budget.held() == 0)


async def test_messages_that_can_never_fit_are_refused_before_they_arrive(stack: ExitStack) -> None:
    """A message of more than a third of what a peer may have is refused by its first five bytes."""
    async with served(**TIGHT) as server:
        raw = await asyncio.to_thread(lambda: stack.enter_context(RawClient(server.port)))
        stream = raw.call("/t.T/Wait")
        await asyncio.to_thread(raw.send, stream, message(5 * MB, 0))
        await until(lambda: raw.look() or raw.reset)
        assert raw.reset == {stream}


async def test_the_largest_message_may_take_its_time(stack: ExitStack) -> None:
    """A message of all but a third of what a peer may have is taken, though it was charged while it arrived."""
    async with served(**TIGHT) as server:
        raw = await asyncio.to_thread(lambda: stack.enter_context(RawClient(server.port)))
        stream, whole = raw.call("/t.T/Wait"), message(3_900_000)
        await asyncio.to_thread(raw.send, stream, whole[:3_800_000])
        await until(lambda: server.budget.held() > 7_000_000)
        await asyncio.to_thread(raw.send, stream, whole[3_800_000:], end=True)
        await until(lambda: server.running)
        assert server.budget.held() > 3 * 3_900_000


@pytest.mark.parametrize("method", ["Wait", "Upload"])
async def test_half_sent_messages_of_one_connection(stack: ExitStack, method: str) -> None:
    """What one connection has sent of messages that are not complete is bounded, and given back with it."""
    async with served(**TIGHT) as server:

        def attack() -> RawClient:
            raw = stack.enter_context(RawClient(server.port))
            for _ in range(16):
                raw.send(raw.call(f"/t.T/{method}"), message(4 * MB, 3 * MB))
            return raw

        attacking = asyncio.ensure_future(asyncio.to_thread(attack))
        most = 0
        while not attacking.done():
            most = max(most, server.budget.held())
            await asyncio.sleep(0.005)
        raw = await attacking
        assert most <= 12 * MB
        partial_messages = server.listener.admission.partial_messages
        assert partial_messages is not None
        assert partial_messages.refused
        await until(lambda: raw.look() or raw.reset or raw.closed)
        stack.close()
        await until(lambda: server.budget.held() == 0)
        assert await server.call("Answer", b"1") == b"\0"


async def test_half_sent_messages_of_many_connections(stack: ExitStack) -> None:
    """Many connections together may have half-sent no more than one; others are served meanwhile."""
    async with served(**TIGHT) as server:

        def attack() -> list[RawClient]:
            raws = [stack.enter_context(RawClient(server.port)) for _ in range(12)]
            for raw in raws:
                raw.send(raw.call("/t.T/Wait"), message(4 * MB, 5 * MB // 2))
            return raws

        raws = await asyncio.to_thread(attack)
        await until(lambda: [raw.look() for raw in raws] and sum(bool(raw.reset or raw.closed) for raw in raws) >= 8)
        assert server.budget.held() <= 12 * MB
        assert await server.call("Answer", b"1") == b"\0"
        stack.close()
        await until(lambda: server.budget.held() == 0)


async def test_a_request_arrives_in_time_or_not_at_all(stack: ExitStack) -> None:
    """A request that does not arrive within `arrival_timeout` is ended, and so is an upload that stops."""
    async with served(arrival_timeout=200) as server:
        raw = await asyncio.to_thread(lambda: stack.enter_context(RawClient(server.port)))
        streams = {raw.call("/t.T/Wait"), raw.call("/t.T/Upload")}
        for stream in streams:
            await asyncio.to_thread(raw.send, stream, message(MB, 1_000))
        await until(lambda: raw.look() or raw.reset == streams)
        await until(lambda: server.budget.held() == 0)
        assert not server.running


async def test_a_stream_that_nobody_reads_ends(stack: ExitStack) -> None:
    """A caller that takes nothing of its stream for `unread_timeout` loses it, and then its connection."""
    async with served(unread_timeout=200) as server:
        raw = await asyncio.to_thread(lambda: stack.enter_context(RawClient(server.port)))
        await asyncio.to_thread(raw.send, raw.call("/t.T/Stream"), message(1), end=True)
        await until(lambda: server.ended)
        assert "taken nothing" in str(server.ended[0])
        await until(lambda: raw.look() or raw.closed)
        await until(lambda: server.budget.held() == 0)


async def test_answers_that_nobody_reads(stack: ExitStack) -> None:
    """Answers that are not taken are charged, and refused where there is no room."""
    async with served(**TIGHT) as server:
        raw = await asyncio.to_thread(lambda: stack.enter_context(RawClient(server.port)))
        for _ in range(10):
            raw.send(raw.call("/t.T/Answer"), b"\0\0\0\0\x072000000", end=True)
        await until(lambda: server.budget.held() > 10 * MB)
        assert server.budget.held() <= 12 * MB


async def test_a_connection_whose_answers_nobody_reads_ends(stack: ExitStack) -> None:
    """When answers are not taken for `unread_timeout`, their connection is ended, and nothing is held for them."""
    async with served(unread_timeout=200) as server:
        raw = await asyncio.to_thread(lambda: stack.enter_context(RawClient(server.port)))
        raw.send(raw.call("/t.T/Answer"), b"\0\0\0\0\x072000000", end=True)
        await until(lambda: raw.look() or raw.closed)
        await until(lambda: server.budget.held() == 0)


async def test_slow_readers_are_waited_for(stack: ExitStack) -> None:
    """Whoever takes some of a stream within the time goes on having it."""
    async with served(unread_timeout=1_500) as server:
        raw = await asyncio.to_thread(lambda: stack.enter_context(RawClient(server.port)))
        stream = raw.call("/t.T/Stream")
        raw.send(stream, message(1), end=True)
        for _ in range(50):
            raw.take(stream, 64 * 1024)
            raw.look()
            await asyncio.sleep(0.05)
        assert raw.received > MB
        assert not server.ended


async def test_anonymous_callers_do_not_compress() -> None:
    """A compressed message on TCP is refused, whatever it would become."""
    async with served() as server:
        error = await refused(server.call("Answer", b"1", compression=grpc.Compression.Gzip))
        assert error.code() is grpc.StatusCode.UNIMPLEMENTED
        assert "gzip" in str(error.details())


async def test_connections_are_limited(stack: ExitStack) -> None:
    """Beyond `max_connections` they are closed as soon as they are made; when others end, there is room again."""
    async with served(max_connections=3) as server:
        raws = await asyncio.to_thread(lambda: [stack.enter_context(RawClient(server.port)) for _ in range(8)])
        await until(lambda: [raw.look() for raw in raws] and sum(raw.closed for raw in raws) == 5)
        stack.close()
        assert await server.call("Answer", b"1") == b"\0"


async def test_connections_that_say_nothing_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that does not begin to speak HTTP/2 is closed."""
    monkeypatch.setattr(limits_module, "_HANDSHAKE_MS", 200)
    async with served() as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        await asyncio.wait_for(reader.read(), 60)
        writer.close()


async def test_calls_that_are_reset_at_once(stack: ExitStack) -> None:
    """Thousands of calls that are reset as soon as they are made leave nothing behind."""
    async with served() as server:

        def attack() -> None:
            raw = stack.enter_context(RawClient(server.port))
            for number in range(2_000):
                raw.cancel(raw.call("/t.T/Wait"))
                if number % 100 == 0:
                    raw.look()

        await asyncio.to_thread(attack)
        assert await server.call("Answer", b"1") == b"\0"
        await until(lambda: server.budget.held() == 0)


async def test_metadata_is_charged() -> None:
    """The headers of a call are charged as they are when decompressed."""
    async with served(**TIGHT) as server, aio.insecure_channel(server.address) as channel:
        headers = [(f"x-{number}", "v" * 4_000) for number in range(25)]
        call = channel.unary_unary("/t.T/Wait")(b"", metadata=headers)
        await until(lambda: server.running)
        assert server.budget.held() > 64 * 1024 + 100_000
        server.go_on.set()
        await call


@pytest.mark.parametrize(("descriptors", "connections"), [(128, 32), (1_024, 256), (1_000_000, 256), (-1, 256)])
def test_connections_leave_descriptors_for_others(
    monkeypatch: pytest.MonkeyPatch, descriptors: int, connections: int
) -> None:
    """By default connections on TCP may have a quarter of the descriptors that there are."""
    monkeypatch.setattr(limits_module.resource, "getrlimit", lambda _: (descriptors, descriptors))
    assert LimitSettings().max_connections == connections


async def test_callers_that_leave_before_their_answer_are_not_logged(
    stack: ExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    """Peers do not fill the log by not waiting for what they have asked for."""
    async with served() as server:
        raw = await asyncio.to_thread(lambda: stack.enter_context(RawClient(server.port)))
        for _ in range(5):
            raw.send(raw.call("/t.T/Answer"), b"\0\0\0\0\x072000000", end=True)
        await until(lambda: server.budget.held() > 10 * MB)
        stack.close()
        await until(lambda: server.budget.held() == 0)
    assert not [record for record in caplog.records if "ExecuteBatchError" in record.getMessage()]


async def test_a_read_outlives_its_handler() -> None:
    """A read goes on when its handler is cancelled: of one that is cancelled gRPC never frees the message."""
    call, read = _Call.__new__(_Call), asyncio.get_running_loop().create_future()

    class Context:
        async def read(self) -> bytes:
            """Wait for the message."""
            return bytes(await read)

    call._context = Context()
    handler = asyncio.ensure_future(call._next())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    handler.cancel()
    await asyncio.wait([handler])
    assert handler.cancelled()
    assert not read.cancelled()
    read.set_result(b"late")
    await asyncio.sleep(0)
