"""Fits an adapter written for Snakepit's own worker: its marks on tools, and the way it is called and answers."""

from __future__ import annotations

import asyncio
import functools
import importlib
import inspect
import logging
import types
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import aclosing
from typing import Any

from snakepit_otel.adapters import tool
from snakepit_otel.common.printable import printable
from snakepit_otel.compatibility.finding import PACKAGE
from snakepit_otel.zero_copy._reference import DescribedReference

_log = logging.getLogger("snakepit_otel.compatibility")
_KEYWORDS = ("tool_name", "arguments", "context")
_END = object()
Loop = asyncio.AbstractEventLoop


def adapted(adapter: type, loop: Loop | None) -> type:
    """Return what is to be loaded in place of an adapter class; `loop` is where its coroutines are to run.

    That is a subclass of the same name, or the class itself, if it takes no calls on its own.
    """
    _mark_tools(adapter)
    execute: Any = getattr(adapter, "execute_tool", None)
    if execute is None:
        return adapter
    body = {
        "__module__": adapter.__module__,
        "__qualname__": adapter.__qualname__,
        "__doc__": adapter.__doc__,
        "execute_tool": _fitted(execute, loop),
    }
    return types.new_class(adapter.__name__, (adapter,), exec_body=lambda names: names.update(body))


def _mark_tools(adapter: type) -> None:
    """Mark as tools, in our way, the methods that upstream's decorator has marked in its own."""
    for attribute in dir(adapter):
        function = inspect.getattr_static(adapter, attribute)
        about = getattr(function, "_tool_metadata", None)
        # What takes all calls is no tool among others, though upstream's decorator may be on it.
        if about is None or not inspect.isfunction(function) or attribute == "execute_tool":
            continue
        mark = tool(
            " ".join(str(getattr(about, "description", "")).split()),
            bool(getattr(about, "supports_streaming", False)),
            [str(variable) for variable in getattr(about, "required_variables", None) or ()],
            name=attribute,
            metadata={"adapter_class": adapter.__name__, "module": adapter.__module__},
        )
        mark(function)


def _fitted(execute: Callable[..., Any], loop: Loop | None) -> Callable[..., Any]:
    """Return `execute_tool` as our worker calls it, around one as upstream's does."""
    by_name = _takes_keywords(execute)

    def call(adapter: Any, given: tuple[Any, ...], named: dict[str, Any]) -> Any:
        if len(given) == len(_KEYWORDS) and not named and by_name:
            given, named = (), dict(zip(_KEYWORDS, given, strict=True))
        if named.keys() >= {"arguments"}:
            named["arguments"] = _received(named["arguments"])
        elif len(given) > 1:
            given = (given[0], _received(given[1]), *given[2:])
        return execute(adapter, *given, **named)

    if inspect.iscoroutinefunction(execute):

        @functools.wraps(execute)
        async def awaited(self: Any, *given: Any, **named: Any) -> Any:
            return _returned(await call(self, given, named))

        return awaited

    if inspect.isasyncgenfunction(execute):

        @functools.wraps(execute)
        async def streamed(self: Any, *given: Any, **named: Any) -> Any:
            async with aclosing(call(self, given, named)) as chunks:
                async for chunk in chunks:
                    yield chunk

        return streamed

    @functools.wraps(execute)
    def called(self: Any, *given: Any, **named: Any) -> Any:
        return _settled(call(self, given, named), loop)

    return called


def _takes_keywords(function: Callable[..., Any]) -> bool:
    try:
        inspect.signature(function).bind(None, **dict.fromkeys(_KEYWORDS))
    except TypeError:
        return False
    return True


def _settled(result: Any, loop: Loop | None) -> Any:
    """Return a plain method's result; what is to be awaited is, on the event loop, while the thread waits for it.

    Upstream awaits whatever a plain `execute_tool` hands on from the method that it has called.
    """
    awaitable, stream = inspect.isawaitable(result), isinstance(result, AsyncIterator)
    if not (awaitable or stream) or loop is None or _on_loop():
        return _later(result) if awaitable else _returned(result)
    if stream:
        return _drained(result, loop)
    return asyncio.run_coroutine_threadsafe(_later(result), loop).result()


def _drained(stream: AsyncIterator[Any], loop: Loop) -> Iterator[Any]:
    def wait_for(step: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(step, loop).result()

    try:
        while (chunk := wait_for(_next(stream))) is not _END:
            yield chunk
    finally:
        if hasattr(stream, "aclose"):
            wait_for(_later(stream.aclose()))


async def _next(stream: AsyncIterator[Any]) -> Any:
    return await anext(stream, _END)


async def _later(awaitable: Any) -> Any:
    return _returned(await awaitable)


def _on_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _received(arguments: Any) -> Any:
    """Return arguments with Elixir's references as upstream has them: `ZeroCopyRef`, or deeper down their JSON."""
    if not isinstance(arguments, Mapping) or not any(_has_reference(value) for value in arguments.values()):
        return arguments
    return {name: _reference(value) if _is(value) else _plain(value) for name, value in arguments.items()}


def _is(value: Any) -> bool:
    return isinstance(value, DescribedReference)


def _has_reference(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_has_reference, value.values()))
    return any(map(_has_reference, value)) if isinstance(value, list) else _is(value)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_plain(part) for part in value]
    return dict(value.payload) if _is(value) else value


def _reference(value: DescribedReference) -> Any:
    try:
        return importlib.import_module(f"{PACKAGE}.zero_copy").ZeroCopyRef.from_payload(dict(value.payload))
    except Exception:  # noqa: BLE001 - a real one may be of any version
        _log.exception("%s.zero_copy cannot be imported; a zero-copy reference stays as our own", printable(PACKAGE))
        return value


def _returned(result: Any) -> Any:
    """Return a result with a `ZeroCopyRef` as the JSON that it travels as."""
    if type(result).__name__ == "ZeroCopyRef" and hasattr(result, "to_payload"):
        return result.to_payload()
    return result
