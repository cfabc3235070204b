"""A service without messages of its own, on aio and blocking servers, whose calls end as they ask."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, cast

import grpc
from grpc import aio
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind, StatusCode

from snakepit_otel import rpc, telemetry
from snakepit_otel.telemetry import names
from snakepit_otel.testing import Capture

SERVICE = "test.ProcessExit"
KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")
OPTIONS = [("grpc.so_reuseport", 0)]
CHILD = names.SESSION_UPDATE.span
"""The span that every handler makes."""


class Gate:
    """Where handlers wait, for a test to see that they have come so far, and to let them go."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.release = threading.Event()
        self.left = threading.Event()

    async def wait(self) -> None:
        """Wait on the loop until cancelled, or let go."""
        self.reached.set()
        try:
            while not self.release.is_set():
                await asyncio.sleep(0.002)
        finally:
            self.left.set()

    def wait_in_thread(self, context: Any) -> None:
        """Wait in a thread until let go, or until nobody waits for the answer."""
        self.reached.set()
        while not self.release.wait(0.002) and context.is_active():
            pass
        self.left.set()


def _child() -> None:
    with telemetry.Operation(names.SESSION_UPDATE):
        pass


def _refuse(how: str, context: Any) -> bool:
    if how == "raise":
        raise ValueError("a fault of the server")
    if how == "raise_rpc":
        raise aio.AioRpcError(grpc.StatusCode.NOT_FOUND, details="from further on")
    way, _, code = how.partition(":")
    if way in ("set", "set_raise"):
        context.set_code(grpc.StatusCode[code])
        context.set_details("as asked")
    if way == "set_raise":
        raise ValueError("after setting the code")
    return way == "abort"


class AioEnding:
    """Handlers for an aio server: coroutines and async generators."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    async def _end(self, how: bytes, context: Any) -> None:
        _child()
        text = how.decode()
        if text == "wait":
            await self._gate.wait()
        elif _refuse(text, context):
            await context.abort(grpc.StatusCode[text.partition(":")[2]], "as asked")

    async def unary_unary(self, request: bytes, context: Any) -> bytes:
        await self._end(request, context)
        return b"done"

    async def unary_stream(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        yield b"first"
        if request == b"more":
            for number in range(10_000):
                yield b"%d" % number
        await self._end(request, context)

    async def stream_unary(self, requests: Any, context: Any) -> bytes:
        async for request in requests:
            await self._end(request, context)
        return b"done"

    async def stream_stream(self, requests: Any, context: Any) -> AsyncIterator[bytes]:
        async for request in requests:
            yield b"echo"
            await self._end(request, context)


class WritingEnding(AioEnding):
    """The same with `context.write` and `context.read` in place of generators."""

    async def unary_stream(self, request: bytes, context: Any) -> None:  # type: ignore[override]
        await context.write(b"first")
        await self._end(request, context)

    async def stream_stream(self, requests: Any, context: Any) -> None:  # type: ignore[override]
        while (request := await context.read()) is not aio.EOF:
            await context.write(b"echo")
            await self._end(request, context)


class BlockingEnding:
    """Handlers in threads: functions and generators."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    def _end(self, how: bytes, context: Any) -> None:
        _child()
        text = how.decode()
        if text == "wait":
            self._gate.wait_in_thread(context)
        elif _refuse(text, context):
            context.abort(grpc.StatusCode[text.partition(":")[2]], "as asked")

    def unary_unary(self, request: bytes, context: Any) -> bytes:
        self._end(request, context)
        return b"done"

    def unary_stream(self, request: bytes, context: Any) -> Iterator[bytes]:
        yield b"first"
        if request == b"more":
            for number in range(10_000):
                yield b"%d" % number
        self._end(request, context)

    def stream_unary(self, requests: Any, context: Any) -> bytes:
        for request in requests:
            self._end(request, context)
        return b"done"

    def stream_stream(self, requests: Any, context: Any) -> Iterator[bytes]:
        for request in requests:
            yield b"echo"
            self._end(request, context)


def handlers(service: Any) -> grpc.GenericRpcHandler:
    """Return a generic handler with a method for each kind of call, named for it."""
    made = {kind: getattr(grpc, f"{kind}_rpc_method_handler")(getattr(service, kind)) for kind in KINDS}
    return grpc.method_handlers_generic_handler(SERVICE, made)


@asynccontextmanager
async def aio_serving(service: Any, *, trusted: bool = True, make: Callable[..., Any] = rpc.aio_server) -> Any:
    """Serve on an aio server, observed, and yield it with its address."""
    server = make(interceptors=[rpc.ServerInterceptor(trusted=trusted)], options=OPTIONS)
    server.add_generic_rpc_handlers((handlers(service),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield server, f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


@contextmanager
def blocking_serving(
    service: Any, *, trusted: bool = True, make: Callable[..., Any] = rpc.blocking_server
) -> Iterator[tuple[grpc.Server, str]]:
    """Serve on a blocking server, observed, and yield it with its address."""
    with ThreadPoolExecutor(4) as threads:
        server = make(threads, interceptors=[rpc.BlockingServerInterceptor(trusted=trusted)], options=OPTIONS)
        server.add_generic_rpc_handlers((handlers(service),))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield server, f"127.0.0.1:{port}"
        finally:
            server.stop(None).wait()


def aio_channel(address: str) -> aio.Channel:
    """Make a channel that is observed."""
    return rpc.aio_channel(address, interceptors=rpc.client_interceptors(address))


@asynccontextmanager
async def aio_ends(service: Any) -> AsyncIterator[aio.Channel]:
    """Serve on an aio server and yield a channel to it, both observed."""
    async with aio_serving(service) as (_, address), aio_channel(address) as channel:
        yield channel


@contextmanager
def blocking_ends(service: Any) -> Iterator[grpc.Channel]:
    """Serve on a blocking server and yield a channel to it, both observed."""
    with blocking_serving(service) as (_, address), rpc.blocking_channel(address) as channel:
        yield grpc.intercept_channel(channel, rpc.BlockingClientInterceptor(address))


def aio_call(channel: aio.Channel, kind: str, how: str, timeout: float | None = None) -> Any:
    """Begin a call of one kind that asks to end so."""
    method = getattr(channel, kind)(f"/{SERVICE}/{kind}")
    return method(_requests(how) if kind.startswith("stream") else how.encode(), timeout=timeout)


async def _requests(how: str) -> AsyncIterator[bytes]:
    yield how.encode()


async def aio_finish(call: Any, kind: str) -> grpc.StatusCode:
    """Read a call to its end and return its status."""
    try:
        if kind.endswith("stream"):
            async for _ in call:
                pass
        else:
            await call
    except aio.AioRpcError as error:
        return error.code()
    except asyncio.CancelledError:
        return grpc.StatusCode.CANCELLED
    return grpc.StatusCode.OK


def blocking_call(channel: grpc.Channel, kind: str, how: str, timeout: float | None = None) -> Any:
    """Begin a call of one kind that asks to end so: a future, or a stream."""
    method = getattr(channel, kind)(f"/{SERVICE}/{kind}")
    if kind.endswith("unary"):
        method = method.future
    return method(iter([how.encode()]) if kind.startswith("stream") else how.encode(), timeout=timeout)


def blocking_finish(call: Any, kind: str) -> grpc.StatusCode:
    """Read a call to its end and return its status."""
    try:
        if kind.endswith("stream"):
            for _ in call:
                pass
        else:
            call.result()
    except grpc.RpcError as error:
        return error.code()
    except grpc.FutureCancelledError:
        return grpc.StatusCode.CANCELLED
    return grpc.StatusCode.OK


@dataclass(frozen=True)
class Told:
    """What a span says of a call."""

    status: str | None
    error: str | None
    failed: bool
    message: str | None
    span: ReadableSpan


def told(capture: Capture, kind: str) -> tuple[list[Told], list[Told]]:
    """Return what the clients' and the servers' spans say so far of one kind of call."""
    found: dict[SpanKind, list[Told]] = {SpanKind.CLIENT: [], SpanKind.SERVER: []}
    for span in capture._spans.get_finished_spans():
        if span.name == f"{SERVICE}/{kind}":
            assert span.attributes is not None
            assert span.attributes[names.RPC_METHOD] == span.name
            status, error = (
                cast("str | None", span.attributes.get(key))
                for key in (names.RPC_RESPONSE_STATUS_CODE, names.ERROR_TYPE)
            )
            failed = span.status.status_code is StatusCode.ERROR
            found[span.kind].append(Told(status, error, failed, span.status.description, span))
    return found[SpanKind.CLIENT], found[SpanKind.SERVER]


def measured(capture: Capture, kind: str) -> dict[str, dict[tuple[str | None, str | None], int]]:
    """Return how many calls of one kind the durations have, by metric, status and error."""
    found: dict[str, dict[tuple[str | None, str | None], int]] = {}
    for name, points in capture.metrics().items():
        for point in points:
            if name.startswith("rpc.") and point.attributes[names.RPC_METHOD] == f"{SERVICE}/{kind}":
                assert point.attributes.keys() <= names.METRIC_RPC_CLIENT_CALL_DURATION.attributes
                key = (point.attributes.get(names.RPC_RESPONSE_STATUS_CODE), point.attributes.get(names.ERROR_TYPE))
                found.setdefault(name, {})[key] = point.count
    return found


def until_in_thread(condition: Callable[[], Any]) -> Any:
    """Return what `condition` gives once that is true, as `waiting.until` does on a loop."""
    give_up = time.monotonic() + 20
    while not (found := condition()):
        assert time.monotonic() < give_up
        time.sleep(0.002)
    return found


def both(capture: Capture, kind: str, count: int = 1) -> Callable[[], tuple[list[Told], list[Told]] | None]:
    """Return a condition: that so many calls of one kind have ended on both ends, and no more."""

    def look() -> tuple[list[Told], list[Told]] | None:
        clients, servers = told(capture, kind)
        assert max(len(clients), len(servers)) <= count
        return (clients, servers) if len(clients) == len(servers) == count else None

    return look


def current_is_nothing() -> bool:
    """Say whether no span is current."""
    return not trace.get_current_span().get_span_context().is_valid
