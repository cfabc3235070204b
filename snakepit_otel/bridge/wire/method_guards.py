"""Guards of a server's methods: sizes are checked on the bytes that came, and what cannot be read is refused."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from grpc import aio

from snakepit_otel.bridge.wire.errors import to_status
from snakepit_otel.common.printable import printable
from snakepit_otel.errors import MessageTooLarge, SessionStoreUnavailable, SnakepitError
from snakepit_otel.rpc import Listener

DEFAULT_MAX_BYTES = 1 << 20  # of a request for which its service sets no limit
AUTHORITY_TOOL_BYTES = 1 << 20  # default limit of JSON in one call of an authority's tool
_EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED
_NO_MEMORY = "there is no memory left for this request; it may be tried again, or be smaller"
_Read = Callable[[bytes], Any]


@dataclass(frozen=True)
class Limit:
    """How large a method's requests may be, and how they are read, if not by their message's own parser."""

    most: int = DEFAULT_MAX_BYTES
    read: _Read | None = None
    write: Callable[[Any], bytes] | None = None  # serializer of responses, if not their message's own
    refuse: Callable[[str], Any] | None = None  # response for a request over its limit, from the reason; None: a status


class _UnreadableRequest(DecodeError):
    """A request that is not read: the status's code, and why."""

    def __init__(self, code: grpc.StatusCode, why: str) -> None:
        super().__init__(why)
        self.code = code


class GuardedServer:
    """Stands for an aio server while a service is added to it.

    `limits` are by the method's name; all others have `Limit()`. A request over its limit ends its call with
    RESOURCE_EXHAUSTED, one that is no message with INVALID_ARGUMENT, and one for which there is no memory with
    RESOURCE_EXHAUSTED; in a stream of requests, the reader gets a `DecodeError` with the reason.
    """

    def __init__(self, server: aio.Server | Listener, limits: Mapping[str, Limit] | None = None) -> None:
        self._server = server
        self._limits = limits or {}

    def add_generic_rpc_handlers(self, handlers: Any) -> None:
        """Leave out what comes again by `add_registered_method_handlers`."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """Add the service's methods, each with its guard."""
        guarded = {
            name: _guarded(f"{service}/{name}", handler, self._limits.get(name, _DEFAULT))
            for name, handler in handlers.items()
        }
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, guarded),))
        self._server.add_registered_method_handlers(service, guarded)


_DEFAULT = Limit()


def limited(method: str, parse: _Read, most: int) -> _Read:
    """Return a parser that raises `DecodeError` for more than `most` bytes, before it parses any of them."""
    return _reader(method, Limit(most), parse)


def _guarded(method: str, handler: Any, limit: Limit) -> Any:
    read = _reader(method, limit, handler.request_deserializer)
    serializer = limit.write or handler.response_serializer
    served = handler.stream_stream or handler.stream_unary or handler.unary_stream or handler.unary_unary
    if not inspect.iscoroutinefunction(served) and not inspect.isasyncgenfunction(served):
        # The generated default of a method that is not served here: it would raise in a thread, with a traceback.
        return grpc.stream_stream_rpc_method_handler(_refuse)
    if handler.request_streaming:
        build = (
            grpc.stream_stream_rpc_method_handler
            if handler.response_streaming
            else grpc.stream_unary_rpc_method_handler
        )
        return build(_checking_stream(served), read, serializer)
    build = grpc.unary_stream_rpc_method_handler if handler.response_streaming else grpc.unary_unary_rpc_method_handler
    return build(_checking(served, limit.refuse), _deferring_errors(read), serializer)


def _reader(method: str, limit: Limit, parse: _Read) -> _Read:
    most, parse = limit.most, limit.read or parse
    name = method.rpartition("/")[2]

    def read(raw: bytes) -> Any:
        if len(raw) > most:
            why = f"a request for {name} is larger than max ({len(raw)} vs. {most})"
            raise _UnreadableRequest(_EXHAUSTED, why)
        try:
            return parse(raw)
        except MemoryError:
            raise _UnreadableRequest(_EXHAUSTED, _NO_MEMORY) from None
        except MessageTooLarge as error:
            raise _UnreadableRequest(_EXHAUSTED, str(error)) from None
        except (DecodeError, SnakepitError) as error:
            why = f"a request for {name} cannot be read: {printable(error)}"
            raise _UnreadableRequest(grpc.StatusCode.INVALID_ARGUMENT, why) from None

    return read


def _deferring_errors(read: _Read) -> _Read:
    """Return a parser that gives back what it cannot read: gRPC has no status for a parser that raises."""

    def read_or_return_error(raw: bytes) -> Any:
        try:
            return read(raw)
        except _UnreadableRequest as unread:
            return unread

    return read_or_return_error


def _checking(behaviour: Any, refuse: Callable[[str], Any] | None) -> Any:
    """Return what serves a request, or refuses it where it could not be read."""
    if inspect.isasyncgenfunction(behaviour):

        async def generate(request: Any, context: Any) -> AsyncIterator[Any]:
            await _abort_if_unreadable(request, context)
            async with aclosing(behaviour(request, context)) as responses:
                async for response in responses:
                    yield response

        return generate
    if not inspect.iscoroutinefunction(behaviour):
        return behaviour

    async def serve(request: Any, context: Any) -> Any:
        if refuse is not None and isinstance(request, _UnreadableRequest) and request.code is _EXHAUSTED:
            return refuse(str(request))
        await _abort_if_unreadable(request, context)
        try:
            return await behaviour(request, context)
        except MemoryError:
            await context.abort(_EXHAUSTED, _NO_MEMORY)
        except SessionStoreUnavailable as error:
            # Whatever a method does with sessions, it may happen to it.
            await context.abort(grpc.StatusCode.UNAVAILABLE, to_status(error, {}))

    return serve


def _checking_stream(behaviour: Any) -> Any:
    """Return what serves a stream of requests, and ends its call at one that cannot be read."""
    if not inspect.iscoroutinefunction(behaviour):
        return behaviour

    async def serve(requests: Any, context: Any) -> Any:
        try:
            return await behaviour(requests, context)
        except _UnreadableRequest as unread:
            await context.abort(unread.code, str(unread))
        except MemoryError:
            await context.abort(_EXHAUSTED, _NO_MEMORY)

    return serve


async def _refuse(_requests: Any, context: Any) -> None:
    await context.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not implemented!")


async def _abort_if_unreadable(request: Any, context: Any) -> None:
    if isinstance(request, _UnreadableRequest):
        await context.abort(request.code, str(request))
