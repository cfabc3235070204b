"""Calls of the observed program's code, which raise only what the program itself raises.

The instrumentation's own work is `guarded`, so that its faults are contained.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from types import TracebackType
from typing import Any, Protocol, TypeVar

from snakepit_otel.telemetry import _guard

T = TypeVar("T")
Function = Callable[..., Any]


def contain(action: str, error: Exception) -> None:
    """Count a fault, and log it once per kind and action."""
    _guard.contain(f"the instrumentation of snakepit, {action}", error)


def guarded(action: str, function: Callable[..., T], /, *args: Any, **kwargs: Any) -> T | None:
    """Call a function of the instrumentation and return its result; None if it raised."""
    try:
        return function(*args, **kwargs)
    except Exception as error:  # noqa: BLE001 - on the way of each request
        contain(action, error)
        return None


class Observed(Protocol):
    """Work of the program that is activated and deactivated: a request, or a phase of it."""

    def enter(self) -> Any:
        """Activate the work, and return the token for `leave`."""

    def leave(self, token: Any) -> None:
        """Undo `enter`."""

    def end(self, error: BaseException | None = None) -> None:
        """End the work; a second call has no effect."""


class ObservedRequest(Observed, Protocol):
    """A request, with its responses."""

    def on_response(self, message: Any) -> None:
        """Called with the response or the chunk that is sent to the caller."""


class Activation:
    """A block of the program's code in which observed work is active."""

    def __init__(self, observed: Observed) -> None:
        self._observed = observed
        self._token: Any = None

    def __enter__(self) -> None:
        self._token = guarded("entering", self._observed.enter)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace_back: TracebackType | None
    ) -> None:
        if self._token is not None:
            guarded("leaving", self._observed.leave, self._token)


def call(observed: Observed, function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call a function and return its result; an error ends the observed work."""
    try:
        with Activation(observed):
            return function(*args, **kwargs)
    except BaseException as error:
        guarded("ending", observed.end, error)
        raise


def complete(observed: Observed, returned: Any, *, streams: bool) -> Any:
    """End the work and return its result, or a proxy that ends it once it has been awaited or iterated."""
    kind = type(returned)
    if inspect.isawaitable(returned):
        return _awaited(observed, returned, streams=streams)
    # In the order of upstream, which accepts any iterable.
    if streams and hasattr(kind, "__aiter__"):
        return AsyncChunks(observed, returned)
    # An object with a length, such as a list, has all of its chunks already.
    if streams and hasattr(kind, "__iter__") and (hasattr(kind, "__next__") or not hasattr(kind, "__len__")):
        return Chunks(observed, returned)
    guarded("ending", observed.end)
    return returned


async def _awaited(observed: Observed, awaitable: Any, *, streams: bool) -> Any:
    try:
        with Activation(observed):
            returned = await awaitable
    except BaseException as error:
        guarded("ending", observed.end, error)
        raise
    return complete(observed, returned, streams=streams)


class _ChunkProxy:
    """A proxy of a tool's chunks, with their own attributes, among them `close` and `aclose`."""

    def __init__(self, observed: Observed, chunks: Any) -> None:
        self._observed = observed
        self._chunks = chunks
        self._iterator = chunks  # replaced by what `iter` or `aiter` returns

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._chunks, name)
        close = {"close": self._close, "aclose": self._aclose}.get(name)
        return attribute if close is None else partial(close, attribute)

    def _close(self, close: Function) -> Any:
        try:
            with Activation(self._observed):
                return close()
        finally:
            guarded("ending", self._observed.end, GeneratorExit())

    async def _aclose(self, aclose: Function) -> Any:
        try:
            with Activation(self._observed):
                return await aclose()
        finally:
            guarded("ending", self._observed.end, GeneratorExit())


class Chunks(_ChunkProxy, Iterator[Any]):
    """A tool's chunks; the work is active for each, and ends with them."""

    def __iter__(self) -> Iterator[Any]:
        self._iterator = call(self._observed, iter, (self._chunks,), {})
        return self

    def __next__(self) -> Any:
        try:
            with Activation(self._observed):
                return next(self._iterator)
        except StopIteration:
            guarded("ending", self._observed.end)
            raise
        except BaseException as error:
            guarded("ending", self._observed.end, error)
            raise


class AsyncChunks(_ChunkProxy, AsyncIterator[Any]):
    """A tool's asynchronous chunks; see `Chunks`."""

    def __aiter__(self) -> AsyncIterator[Any]:
        self._iterator = call(self._observed, aiter, (self._chunks,), {})
        return self

    async def __anext__(self) -> Any:
        try:
            with Activation(self._observed):
                return await anext(self._iterator)
        except StopAsyncIteration:
            guarded("ending", self._observed.end)
            raise
        except BaseException as error:
            guarded("ending", self._observed.end, error)
            raise


async def serve_unary(
    request: ObservedRequest, handler: Function, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Serve a request by its handler."""
    try:
        with Activation(request):
            response = await handler(*args, **kwargs)
    except BaseException as error:
        guarded("ending a request", request.end, error)
        raise
    guarded("observing a response", request.on_response, response)
    guarded("ending a request", request.end)
    return response


async def serve_stream(
    request: ObservedRequest, handler: Function, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> AsyncIterator[Any]:
    """Serve a request by a handler that yields chunks."""
    responses = handler(*args, **kwargs)
    raised: BaseException | None = None
    try:
        while True:
            # Not active while gRPC sends the chunk.
            with Activation(request):
                try:
                    response = await anext(responses)
                except StopAsyncIteration:
                    break
            guarded("observing a chunk", request.on_response, response)
            yield response
    except BaseException as error:
        raised = error
        raise
    finally:
        try:
            with Activation(request):
                await responses.aclose()
        finally:
            guarded("ending a request", request.end, raised)
