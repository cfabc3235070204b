"""Guards of a server's methods: sizes are checked on the bytes that came, and what cannot be read is refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from google.protobuf.message import DecodeError

from snakepit_otel.bridge.wire.errors import to_status
from snakepit_otel.common.printable import printable
from snakepit_otel.errors import MessageTooLarge, SessionStoreUnavailable, SnakepitError
from snakepit_otel.rpc.services import Handler, Methods, handlers_of
from snakepit_otel.rpc.status import StatusCode

DEFAULT_MAX_BYTES = 1 << 20  # of a request for which its service sets no limit
AUTHORITY_TOOL_BYTES = 1 << 20  # default limit of JSON in one call of an authority's tool
_EXHAUSTED = StatusCode.RESOURCE_EXHAUSTED
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

    def __init__(self, code: StatusCode, why: str) -> None:
        super().__init__(why)
        self.code = code


def guarded(methods: Methods, service: object, limits: Mapping[str, Limit] | None = None) -> list[Handler]:
    """Return handlers for the methods that a service has, each with its guard.

    `limits` are by the method's name; all others have `Limit()`. A request over its limit ends its call with
    RESOURCE_EXHAUSTED, one that is no message with INVALID_ARGUMENT, and one for which there is no memory with
    RESOURCE_EXHAUSTED; in a stream of requests, the reader gets a `DecodeError` with the reason.
    """
    limits = limits or {}
    names = {method.name: name for name, method in methods.items()}
    return [
        _guarded(handler, limits.get(names[handler.method.name], _DEFAULT)) for handler in handlers_of(methods, service)
    ]


_DEFAULT = Limit()


def limited(method: str, parse: _Read, most: int) -> _Read:
    """Return a parser that raises `DecodeError` for more than `most` bytes, before it parses any of them."""
    return _reader(method, Limit(most), parse)


def _guarded(handler: Handler, limit: Limit) -> Handler:
    method = handler.method
    read = _reader(method.name, limit, method.read_request)
    write = limit.write or method.write_response
    if method.client_streams:
        return Handler(replace(method, read_request=read, write_response=write), _checking_stream(handler.serve))
    read = _deferring_errors(read)
    return Handler(replace(method, read_request=read, write_response=write), _checking(handler.serve, limit.refuse))


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
            raise _UnreadableRequest(StatusCode.INVALID_ARGUMENT, why) from None

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
            await context.abort(StatusCode.UNAVAILABLE, to_status(error, {}))

    return serve


def _checking_stream(behaviour: Any) -> Any:
    """Return what serves a stream of requests, and ends its call at one that cannot be read."""

    async def serve(requests: Any, context: Any) -> Any:
        try:
            return await behaviour(requests, context)
        except _UnreadableRequest as unread:
            await context.abort(unread.code, str(unread))
        except MemoryError:
            await context.abort(_EXHAUSTED, _NO_MEMORY)

    return serve


async def _abort_if_unreadable(request: Any, context: Any) -> None:
    if isinstance(request, _UnreadableRequest):
        await context.abort(request.code, str(request))
