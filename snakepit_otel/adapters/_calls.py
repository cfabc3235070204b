"""Calls of an adapter's methods: on the event loop, or in a thread without one; and the reading of their iterators."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from typing import Any, TypeVar, cast

from snakepit_otel.adapters import _forks as forks
from snakepit_otel.adapters._cancellation import request_is_cancelled
from snakepit_otel.adapters._completion import run_isolated
from snakepit_otel.adapters._request import Emit, Request
from snakepit_otel.errors import ToolRefused

T = TypeVar("T")
Call = Callable[..., Awaitable[Any]]
_END = object()


async def call_on_loop(function: Callable[..., T], *args: Any) -> T:
    return await run_isolated(call_directly(function, *args))


async def call_directly(function: Callable[..., T], *args: Any) -> T:
    """Call a function; in a coroutine, StopIteration, which no future can hold, becomes RuntimeError."""
    return function(*args)


async def call_without_loop(function: Callable[..., T], *args: Any) -> T:
    result = function(*args)
    if inspect.isawaitable(result):
        if inspect.iscoroutine(result):
            result.close()
        raise ToolRefused("a plain method returned something to await, which a thread cannot; make it async")
    return result


def finish(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never has to wait, to its end, without an event loop."""
    try:
        coroutine.send(None)
    except StopIteration as finished:
        return cast("T", finished.value)
    coroutine.close()
    raise ToolRefused("a plain method gave something to await, which a thread cannot; make it async")


def is_stream(result: Any) -> bool:
    # By its methods, because the abstract classes' own check takes longer than everything around it.
    kind = type(result)
    return hasattr(kind, "__next__") or hasattr(kind, "__anext__")


async def stream_result(request: Request, result: Any, call: Call, emit: Emit) -> None:
    """Emit the chunks of a result; one that does not stream is one chunk."""
    if isinstance(result, AsyncIterator):
        await run_isolated(_stream_async(request, result, emit))
    elif isinstance(result, Iterator):
        try:
            while (chunk := await call(next, result, _END)) is not _END:
                forks.exit_if_child()
                await emit(chunk)
        finally:
            if hasattr(result, "close"):
                await call(result.close)
    else:
        await emit(result)


async def _stream_async(request: Request, chunks: AsyncIterator[Any], emit: Emit) -> None:
    try:
        async for chunk in chunks:
            forks.exit_if_child()
            await emit(chunk)
    except asyncio.CancelledError:
        # Before the iterator is closed, which runs the end of the tool.
        if request_is_cancelled():
            request.context.abandon()
        raise
    finally:
        await close(chunks)


async def close(iterator: Any) -> None:
    if hasattr(iterator, "aclose"):
        await iterator.aclose()
    elif hasattr(iterator, "close"):
        iterator.close()
