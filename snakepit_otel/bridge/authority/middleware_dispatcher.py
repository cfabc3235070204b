"""A dispatcher with users' middleware around every request."""

from __future__ import annotations

import inspect
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from opentelemetry import trace

from snakepit_otel import telemetry
from snakepit_otel.bridge.authority.dispatcher import Dispatcher, _details, _labels, _requests_of_session
from snakepit_otel.bridge.authority.jobs import TakeChunk, describe_response
from snakepit_otel.bridge.authority.tool_error_log import Place
from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb
from snakepit_otel.bridge.wire import codec
from snakepit_otel.bridge.wire.errors import from_wire, to_wire
from snakepit_otel.bridge.wire.failures import failure_in
from snakepit_otel.bridge.wire.identifiers import check_request, where
from snakepit_otel.bridge.wire.json_size import MAX_PARTS, check_parts
from snakepit_otel.bridge.wire.peers import UNIX, Peer
from snakepit_otel.bridge.wire.raw_messages import (
    Chunk,
    LargeRequest,
    LargeResponse,
    ToolRequest,
    ToolResponse,
    json_bytes_of,
    json_of,
)
from snakepit_otel.bridge.wire.request_metadata import checked_metadata, reserved_metadata, user_metadata
from snakepit_otel.errors import MiddlewareFailed, SnakepitError
from snakepit_otel.middleware import Caller, Middleware, MiddlewareRequest, MiddlewareResult
from snakepit_otel.middleware import _current_caller as current_caller
from snakepit_otel.middleware._chain import MiddlewareChain
from snakepit_otel.sessions import Creator
from snakepit_otel.telemetry import names
from snakepit_otel.zero_copy._scope import Scope

_execute = inspect.unwrap(Dispatcher.execute)
_stream = inspect.unwrap(Dispatcher.stream)


class MiddlewareDispatcher(Dispatcher):
    """Runs the authority's middleware inside the request's span, before anything is done for the request."""

    has_middleware = True

    def __init__(self, *args: Any, middleware: MiddlewareChain, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._middleware = middleware

    @telemetry.observed(
        names.REQUEST, labels=_labels, details=_details, result=describe_response, trail=_requests_of_session
    )
    async def execute(
        self,
        request: ToolRequest,
        creator: Creator | None = None,
        timeout: float | None = None,
        scope: Scope | None = None,
        peer: Peer = UNIX,
    ) -> ToolResponse:
        """Run a tool between the middleware's hooks; see `Dispatcher.execute`."""
        call = await _call_of(request, timeout, scope, peer)

        has_begun = False

        async def work() -> ToolResponse:
            nonlocal has_begun
            has_begun = True
            response: ToolResponse = await _execute(
                self, _rewritten(request, call), creator, call.time_remaining(), scope, peer
            )
            return response

        try:
            return await self._middleware.run(call, work, _outcome_of)
        except SnakepitError as error:
            self._on_failure(request, error, has_begun=has_begun)
            raise

    @telemetry.observed(names.REQUEST, labels=_labels, details=_details, trail=_requests_of_session)
    async def stream(
        self,
        request: ToolRequest,
        take: TakeChunk,
        creator: Creator | None = None,
        timeout: float | None = None,
        scope: Scope | None = None,
        peer: Peer = UNIX,
    ) -> None:
        """Stream a tool's result between the middleware's hooks; see `Dispatcher.stream`."""
        call = await _call_of(request, timeout, scope, peer, is_stream=True)
        chunks = 0

        async def count_and_take(chunk: Chunk) -> None:
            nonlocal chunks
            chunks += 1
            await take(chunk)

        has_begun = False

        async def work() -> None:
            nonlocal has_begun
            has_begun = True
            await _stream(self, _rewritten(request, call), count_and_take, creator, call.time_remaining(), scope, peer)

        try:
            await self._middleware.run(call, work, lambda _: MiddlewareResult(chunks=chunks))
        except SnakepitError as error:
            self._on_failure(request, error, has_begun=has_begun)
            raise

    def _on_failure(self, request: ToolRequest, error: SnakepitError, *, has_begun: bool) -> None:
        """Count a request that went no further than its middleware, and log a hook that failed."""
        if not has_begun:
            self.on_refused(request)
        if isinstance(error, MiddlewareFailed) and error.__cause__ is not None:
            tool, session_id = request.tool_name, request.session_id
            failure = failure_in(to_wire(error, where(tool, session_id, phase="middleware")))
            self.own.outcomes.log.add(self.label(tool), failure, Place(tool, "", session_id))


def dispatcher_with(middleware: Sequence[Middleware], *args: Any, **kwargs: Any) -> Dispatcher:
    """Return a dispatcher with this middleware; with none, it is a plain one. The other arguments are its own."""
    if not middleware:
        return Dispatcher(*args, **kwargs)
    return MiddlewareDispatcher(*args, middleware=MiddlewareChain(middleware), **kwargs)


async def _call_of(
    request: ToolRequest, timeout: float | None, scope: Scope | None, peer: Peer, *, is_stream: bool = False
) -> MiddlewareRequest:
    check_request(request)
    is_local = scope is not None
    if not is_local and not peer.is_known and json_bytes_of(request) > MAX_PARTS:
        # Before a hook decodes them.
        await check_parts(json_of(request))
    call = MiddlewareRequest(
        request.tool_name,
        session_id=request.session_id or None,
        metadata=user_metadata(request.metadata),
        caller=Caller() if is_local else current_caller.get(),
        deadline=None if timeout is None else time.monotonic() + timeout,
        is_stream=is_stream,
    )
    call.decoded_by(partial(_decoded, request))
    call.record_attributes(trace.get_current_span().set_attribute)
    return call


def _decoded(request: ToolRequest) -> Mapping[str, Any]:
    whole = request.parsed() if isinstance(request, LargeRequest) else request
    return codec.decode_parameters(whole.parameters, whole.binary_parameters, whole.metadata)


def _rewritten(request: ToolRequest, call: MiddlewareRequest) -> ToolRequest:
    """Return the request as the hooks left it."""
    if not call.has_new_arguments and not call.has_new_metadata:
        return request
    whole = pb.ExecuteToolRequest()
    whole.CopyFrom(request.parsed() if isinstance(request, LargeRequest) else request)
    if call.has_new_arguments:
        parameters, binary = codec.encode_parameters(call.arguments)
        whole.ClearField("parameters")
        whole.ClearField("binary_parameters")
        for name, value in parameters.items():
            whole.parameters[name].CopyFrom(value)
        whole.binary_parameters.update(binary)
    if call.has_new_metadata:
        kept = reserved_metadata(whole.metadata)
        whole.ClearField("metadata")
        whole.metadata.update({**checked_metadata(call.metadata), **kept})
    check_request(whole)
    return whole


def _outcome_of(response: ToolResponse) -> MiddlewareResult | BaseException:
    if not response.success:
        return from_wire(response.error_message)

    def read() -> Any:
        whole = response.parsed() if isinstance(response, LargeResponse) else response
        return codec.decode_result(whole.result, whole.binary_result)

    return MiddlewareResult.decoded_by(read)
