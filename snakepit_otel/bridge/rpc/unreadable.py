"""Requests that are no messages: refused with a status that says so, before a handler sees them."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

import grpc
from google.protobuf.message import DecodeError

_Behaviour = Callable[[Any, Any], Any]


async def refuse(error: DecodeError, context: Any) -> None:
    """End a call whose request cannot be read. Raises gRPC's own `AbortError`."""
    await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"a request cannot be read: {error}")


def refusing_unreadable(handler: Any) -> Any:
    """Return an aio handler that refuses a request that cannot be read.

    By itself, gRPC has such a call fail with UNKNOWN, as if the server were at fault, and logs a traceback for each.
    Handlers that read a stream of requests by themselves get the `DecodeError`, and are left as they are; so are plain
    functions, which gRPC runs in threads.
    """
    if handler.request_streaming or handler.request_deserializer is None:
        return handler
    behaviour = handler.unary_stream if handler.response_streaming else handler.unary_unary
    if inspect.isasyncgenfunction(behaviour):
        behaviour = _yielding(behaviour)
    elif inspect.iscoroutinefunction(behaviour):
        behaviour = _answering(behaviour)
    else:
        return handler
    made = grpc.unary_stream_rpc_method_handler if handler.response_streaming else grpc.unary_unary_rpc_method_handler
    return made(behaviour, _reading(handler.request_deserializer), handler.response_serializer)


def _reading(deserialize: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def read(raw: bytes) -> Any:
        try:
            return deserialize(raw)
        except DecodeError as error:
            return error

    return read


def _answering(behaviour: _Behaviour) -> Callable[[Any, Any], Awaitable[Any]]:
    async def answer(request: Any, context: Any) -> Any:
        if request.__class__ is DecodeError:
            await refuse(request, context)
        return await behaviour(request, context)

    return answer


def _yielding(behaviour: _Behaviour) -> Callable[[Any, Any], AsyncIterator[Any]]:
    async def answer(request: Any, context: Any) -> AsyncIterator[Any]:
        if request.__class__ is DecodeError:
            await refuse(request, context)
        async with aclosing(behaviour(request, context)) as responses:
            async for response in responses:
                yield response

    return answer
