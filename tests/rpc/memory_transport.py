"""Transport in memory, for tests: connections and listeners of one process and one event loop."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from snakepit_otel.errors import ConfigurationError
from snakepit_otel.rpc import ConnectionClosed, RpcError, StatusCode
from snakepit_otel.rpc.client_call import ClientCall
from snakepit_otel.rpc.method import method_of
from snakepit_otel.telemetry import _switch, outgoing

SCHEME = "memory:"


class MemoryTransport:
    """Transport for addresses `memory:NAME`."""

    def __init__(self) -> None:
        self.listeners: dict[str, MemoryListener] = {}

    def serves(self, address: str) -> bool:
        """See `Transport`."""
        return address.startswith(SCHEME)

    def connect(self, address: str, services: Iterable[Any], **_: Any) -> MemoryConnection:
        """See `Transport`."""
        return MemoryConnection(self.listeners, address, services)

    def connect_blocking(self, address: str, services: Iterable[Any], **_: Any) -> MemoryBlockingConnection:
        """See `Transport`."""
        return MemoryBlockingConnection(self.connect(address, services), asyncio.get_running_loop())

    def listen(self, address: str, **_: Any) -> MemoryListener:
        """See `Transport`."""
        return MemoryListener(self.listeners, address)


class _Codecs(dict[str, tuple[Any, Any]]):
    """Serializer and parser of each method of a service's client class."""

    def _add(self, path: str, request_serializer: Any, response_deserializer: Any, **_: Any) -> None:
        self[path.removeprefix("/")] = request_serializer, response_deserializer

    unary_unary = unary_stream = stream_unary = stream_stream = _add


class MemoryConnection:
    """Connection to a listener of this process; see `Connection`."""

    def __init__(self, listeners: Mapping[str, MemoryListener], address: str, services: Iterable[Any]) -> None:
        self._listeners, self._address = listeners, address
        self._codecs = _Codecs()
        for service in services:
            service(self._codecs)
        self._calls: set[asyncio.Task[Any]] = set()
        self._closed = False

    async def call(
        self,
        method: str,
        request: Any,
        timeout: float | None = None,
        metadata: Sequence[tuple[str, str]] | None = None,
        *,
        observed: bool = True,
    ) -> Any:
        """See `Connection`."""
        serialize, parse = self._codecs[method]
        return parse(await self._run(method, serialize(request), timeout, metadata, None, observed=observed))

    async def stream(
        self,
        method: str,
        request: Any,
        take: Callable[[Any], Awaitable[None]],
        timeout: float | None = None,
        metadata: Sequence[tuple[str, str]] | None = None,
    ) -> None:
        """See `Connection`."""
        serialize, parse = self._codecs[method]

        failures: list[BaseException] = []

        async def write(raw: bytes) -> None:
            try:
                await take(parse(raw))
            except BaseException as error:
                failures.append(error)
                raise

        try:
            await self._run(method, serialize(request), timeout, metadata, write)
        except RpcError:
            if failures:
                raise failures[0] from None
            raise

    async def upload(self, method: str, messages: Iterable[Any]) -> Any:
        """See `Connection`."""
        serialize, parse = self._codecs[method]
        return parse(await self._run(method, [serialize(message) for message in messages], None, None, None))

    def bidirectional(self, method: str, metadata: Sequence[tuple[str, str]] | None = None) -> Any:
        """See `Connection`."""
        raise NotImplementedError

    def connect(self) -> None:
        """See `Connection`."""

    async def ready(self) -> None:
        """See `Connection`."""

    async def close(self) -> None:
        """See `Connection`."""
        self._closed = True
        for task in self._calls:
            task.cancel()

    async def _run(
        self, method: str, sent: Any, timeout: float | None, metadata: Any, write: Any, *, observed: bool = True
    ) -> Any:
        if not (observed and _switch.enabled):
            return await self._attempt(method, sent, timeout, metadata, write)
        with ClientCall(method_of(method)):
            return await self._attempt(method, sent, timeout, outgoing(metadata), write)

    async def _attempt(self, method: str, sent: Any, timeout: float | None, metadata: Any, write: Any) -> Any:
        if self._closed:
            raise ConnectionClosed
        listener = self._listeners.get(self._address)
        if listener is None or not listener.serving:
            raise RpcError(StatusCode.UNAVAILABLE, f"nobody listens at {self._address}")
        handling = listener.handle(method, sent, _Context(metadata, timeout, write))
        task = asyncio.ensure_future(handling)
        self._calls.add(task)
        try:
            async with asyncio.timeout(timeout):
                return await task
        except TimeoutError:
            raise RpcError(StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded") from None
        finally:
            task.cancel()
            self._calls.discard(task)


class MemoryBlockingConnection:
    """Connection for threads; see `BlockingConnection`."""

    def __init__(self, connection: MemoryConnection, loop: asyncio.AbstractEventLoop) -> None:
        self._connection, self._loop = connection, loop

    def call(self, *arguments: Any, observed: bool = True) -> Any:
        """See `BlockingConnection`."""
        future: Future[Any] = asyncio.run_coroutine_threadsafe(
            self._connection.call(*arguments, observed=observed), self._loop
        )
        return future.result()

    def stub(self, service: Any) -> Any:
        """See `BlockingConnection`."""
        raise NotImplementedError

    def connect(self) -> None:
        """See `BlockingConnection`."""

    def close(self) -> None:
        """See `BlockingConnection`."""


class MemoryListener:
    """Server of this process; see `Listener`."""

    def __init__(self, listeners: dict[str, MemoryListener], address: str) -> None:
        self._listeners, self._address = listeners, address
        self._handlers: dict[str, Any] = {}
        self._calls: set[asyncio.Task[Any]] = set()
        self.serving = False

    def add_generic_rpc_handlers(self, handlers: Sequence[Any]) -> None:
        """See `Listener`."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """See `Listener`."""
        self._handlers.update({f"{service}/{name}": handler for name, handler in handlers.items()})

    def bind(self) -> str:
        """See `Listener`."""
        if self._address in self._listeners:
            raise ConfigurationError(f"cannot listen on {self._address}: it is in use")
        self._listeners[self._address] = self
        return self._address

    async def start(self) -> None:
        """See `Listener`."""
        self.serving = True

    async def stop(self, grace: float | None) -> None:
        """See `Listener`."""
        self.serving = False
        self._listeners.pop(self._address, None)
        if self._calls:
            await asyncio.wait(self._calls, timeout=grace or 0)
        for task in self._calls:
            task.cancel()

    async def handle(self, method: str, sent: Any, context: _Context) -> Any:
        """Serve a call; raise `RpcError` for one that fails."""
        handler = self._handlers.get(method)
        served = handler and (
            handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
        )
        if not inspect.iscoroutinefunction(served):
            raise RpcError(StatusCode.UNIMPLEMENTED, "Method not found!")
        context.serialize = handler.response_serializer
        request: Any
        if isinstance(sent, list):
            request = _each([handler.request_deserializer(raw) for raw in sent])
        else:
            request = handler.request_deserializer(sent)
        task = asyncio.ensure_future(served(request, context))
        self._calls.add(task)
        try:
            response = await task
        except RpcError:
            raise
        except asyncio.CancelledError:
            if task.cancelled() and not self.serving:
                raise RpcError(StatusCode.UNAVAILABLE, "the server stopped") from None
            raise
        except Exception as error:
            raise RpcError(StatusCode.UNKNOWN, f"Unexpected {type(error)}: {error}") from None
        finally:
            task.cancel()
            self._calls.discard(task)
        return None if response is None else handler.response_serializer(response)


async def _each(messages: list[Any]) -> Any:
    for message in messages:
        yield message


class _Context:
    """Call at the server; see `CallContext`."""

    def __init__(self, metadata: Any, timeout: float | None, write: Any) -> None:
        self._metadata = tuple(metadata or ())
        self._due = None if timeout is None else time.monotonic() + timeout
        self._write = write
        self.serialize: Any = None

    def invocation_metadata(self) -> Any:
        """See `CallContext`."""
        return self._metadata

    def time_remaining(self) -> float | None:
        """See `CallContext`."""
        return None if self._due is None else max(0.0, self._due - time.monotonic())

    def peer(self) -> str:
        """See `CallContext`."""
        return "unix:"

    async def write(self, message: Any) -> None:
        """See `CallContext`."""
        await self._write(self.serialize(message))

    async def abort(self, code: Any, details: str = "") -> None:
        """See `CallContext`."""
        raise RpcError(StatusCode[code.name], details)
