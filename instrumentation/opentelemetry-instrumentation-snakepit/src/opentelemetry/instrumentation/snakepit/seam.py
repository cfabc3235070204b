"""Where the program's own code is called from ours: nothing gets through from here but what the program itself raises.

What is ours is done by `quietly`, so that a fault in it is contained; only what calls the program is not.
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


def contain(what: str, error: Exception) -> None:
    """Count a fault, and report it once for its kind and place."""
    _guard.contain(f"the instrumentation of snakepit, {what}", error)


def quietly(what: str, act: Callable[..., T], /, *args: Any, **kwargs: Any) -> T | None:
    """Do something of ours and return what it returns; None if it raised."""
    try:
        return act(*args, **kwargs)
    except Exception as error:  # noqa: BLE001 - telemetry never raises into the code it observes
        contain(what, error)
        return None


class Observed(Protocol):
    """Something that the program does, in steps: a request, or a phase of it."""

    def enter(self) -> Any:
        """Make it current, and return what `leave` takes to undo that."""

    def leave(self, token: Any) -> None:
        """Make current what was before `enter`."""

    def end(self, error: BaseException | None = None) -> None:
        """Note that it is over. The second time, there is nothing to note."""


class ObservedRequest(Observed, Protocol):
    """A request, of which the messages that answer it are seen, too."""

    def answer(self, message: Any) -> None:
        """See what is sent to the caller."""


class Step:
    """A block of the program's in which something observed is current."""

    def __init__(self, observed: Observed) -> None:
        self._observed = observed
        self._token: Any = None

    def __enter__(self) -> None:
        self._token = quietly("entering", self._observed.enter)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace_back: TracebackType | None
    ) -> None:
        if self._token is not None:
            quietly("leaving", self._observed.leave, self._token)


def call(observed: Observed, function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call a function and return what it returns; what it raises ends what is observed."""
    try:
        with Step(observed):
            return function(*args, **kwargs)
    except BaseException as error:
        quietly("ending", observed.end, error)
        raise


def to_its_end(observed: Observed, returned: Any, *, streams: bool) -> Any:
    """Return what was returned; what stands for it, where what is observed goes on as it is awaited or iterated."""
    kind = type(returned)
    if inspect.isawaitable(returned):
        return _awaited(observed, returned, streams=streams)
    # In the order in which upstream asks, which takes whatever can be iterated.
    if streams and hasattr(kind, "__aiter__"):
        return AsyncChunks(observed, returned)
    # What has a length, a list for one, has all of its chunks already.
    if streams and hasattr(kind, "__iter__") and (hasattr(kind, "__next__") or not hasattr(kind, "__len__")):
        return Chunks(observed, returned)
    quietly("ending", observed.end)
    return returned


async def _awaited(observed: Observed, awaitable: Any, *, streams: bool) -> Any:
    try:
        with Step(observed):
            returned = await awaitable
    except BaseException as error:
        quietly("ending", observed.end, error)
        raise
    return to_its_end(observed, returned, streams=streams)


class _Closable:
    """What stands for a tool's chunks; it can be closed if they can, and has what else they have."""

    def __init__(self, observed: Observed, chunks: Any) -> None:
        self._observed = observed
        self._chunks = chunks
        self._steps = chunks
        """What is asked for the next chunk: what `iter` or `aiter` made of them, which need not be themselves."""

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._chunks, name)
        act = {"close": self._close, "aclose": self._aclose}.get(name)
        return found if act is None else partial(act, found)

    def _close(self, close: Function) -> Any:
        try:
            with Step(self._observed):
                return close()
        finally:
            quietly("ending", self._observed.end, GeneratorExit())

    async def _aclose(self, aclose: Function) -> Any:
        try:
            with Step(self._observed):
                return await aclose()
        finally:
            quietly("ending", self._observed.end, GeneratorExit())


class Chunks(_Closable, Iterator[Any]):
    """A tool's chunks, current in each step; what is observed lasts until they end."""

    def __iter__(self) -> Iterator[Any]:
        self._steps = call(self._observed, iter, (self._chunks,), {})
        return self

    def __next__(self) -> Any:
        try:
            with Step(self._observed):
                return next(self._steps)
        except StopIteration:
            quietly("ending", self._observed.end)
            raise
        except BaseException as error:
            quietly("ending", self._observed.end, error)
            raise


class AsyncChunks(_Closable, AsyncIterator[Any]):
    """The same for what is iterated asynchronously."""

    def __aiter__(self) -> AsyncIterator[Any]:
        self._steps = call(self._observed, aiter, (self._chunks,), {})
        return self

    async def __anext__(self) -> Any:
        try:
            with Step(self._observed):
                return await anext(self._steps)
        except StopAsyncIteration:
            quietly("ending", self._observed.end)
            raise
        except BaseException as error:
            quietly("ending", self._observed.end, error)
            raise


async def serve(request: ObservedRequest, handler: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Have a request answered."""
    try:
        with Step(request):
            response = await handler(*args, **kwargs)
    except BaseException as error:
        quietly("ending a request", request.end, error)
        raise
    quietly("telling of a response", request.answer, response)
    quietly("ending a request", request.end)
    return response


async def pour(
    request: ObservedRequest, handler: Function, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> AsyncIterator[Any]:
    """Have a request answered by a stream."""
    responses = handler(*args, **kwargs)
    raised: BaseException | None = None
    try:
        while True:
            # Current for each step, and not while gRPC sends what was yielded.
            with Step(request):
                try:
                    response = await anext(responses)
                except StopAsyncIteration:
                    break
            quietly("telling of a chunk", request.answer, response)
            yield response
    except BaseException as error:
        raised = error
        raise
    finally:
        try:
            with Step(request):
                await responses.aclose()
        finally:
            quietly("ending a request", request.end, raised)
