"""Wrapper of adapters for Snakepit's own worker: marks of tools, arguments and results."""

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
from snakepit_otel.compatibility.module_finder import PACKAGE
from snakepit_otel.zero_copy._reference import DescribedReference

_log = logging.getLogger("snakepit_otel.compatibility")
_KEYWORDS = ("tool_name", "arguments", "context")
_END = object()
Loop = asyncio.AbstractEventLoop


def adapted(adapter: type, loop: Loop | None) -> type:
    """Return a wrapper of an adapter class, whose coroutines run on `loop`.

    The wrapper is a subclass of the same name, or the class itself if it has no `execute_tool`.
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
    """Mark the methods that upstream's decorator has marked as tools of this library."""
    for attribute in dir(adapter):
        function = inspect.getattr_static(adapter, attribute)
        about = getattr(function, "_tool_metadata", None)
        # `execute_tool` takes all calls, and is no tool even with upstream's decorator.
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
    """Return `execute_tool` for this library's worker around one for upstream's."""
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
    """Return a plain method's result; an awaitable is awaited on the event loop while the thread waits.

    Upstream awaits what a plain `execute_tool` returns.
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
    """Return arguments with Elixir's references as `ZeroCopyRef`, or nested ones as their JSON, as upstream does."""
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
    except Exception:  # noqa: BLE001 - upstream's may have any version
        _log.exception(
            "%s.zero_copy cannot be imported; a zero-copy reference keeps this library's type", printable(PACKAGE)
        )
        return value


def _returned(result: Any) -> Any:
    """Return the JSON of a `ZeroCopyRef`, and other results as they are."""
    if type(result).__name__ == "ZeroCopyRef" and hasattr(result, "to_payload"):
        return result.to_payload()
    return result
