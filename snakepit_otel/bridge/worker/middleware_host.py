"""An adapter's host with users' middleware around every request."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Collection
from typing import Any

from opentelemetry import trace

from snakepit_otel import telemetry
from snakepit_otel.adapters._lifecycle import AdapterHost, _details, _labels
from snakepit_otel.adapters._request import Emit, Outcome, Request
from snakepit_otel.adapters._tool_threads import ToolThreads
from snakepit_otel.bridge.wire.request_metadata import checked_metadata, reserved_metadata, user_metadata
from snakepit_otel.middleware import MiddlewareRequest, MiddlewareResult
from snakepit_otel.middleware import _current_caller as current_caller
from snakepit_otel.middleware._chain import MiddlewareChain
from snakepit_otel.telemetry import names

_run: Callable[..., Awaitable[Outcome]] = inspect.unwrap(AdapterHost.run)
_stream: Callable[..., Awaitable[Outcome]] = inspect.unwrap(AdapterHost.stream)


class MiddlewareHost(AdapterHost):
    """Runs the worker's middleware inside the request's span, before the arguments are checked."""

    has_middleware = True

    def __init__(
        self, adapter: type, threads: ToolThreads, sensitive: Collection[str] = (), *, middleware: MiddlewareChain
    ) -> None:
        super().__init__(adapter, threads, sensitive)
        self._middleware = middleware

    @telemetry.request(names.ADAPTER_REQUEST, _labels, _details)
    async def run(self, request: Request) -> Outcome:
        """Run one request between the middleware's hooks; see `AdapterHost.run`."""
        call = _call_of(request)
        return await self._middleware.run(
            call, lambda: _run(self, _rewritten(request, call)), lambda outcome: MiddlewareResult(outcome.result)
        )

    @telemetry.request(names.ADAPTER_REQUEST, _labels, _details)
    async def stream(self, request: Request, emit: Emit) -> Outcome:
        """Stream one request between the middleware's hooks; see `AdapterHost.stream`."""
        call = _call_of(request, is_stream=True)
        chunks = 0

        async def count_and_emit(chunk: Any) -> None:
            nonlocal chunks
            chunks += 1
            await emit(chunk)

        return await self._middleware.run(
            call,
            lambda: _stream(self, _rewritten(request, call), count_and_emit),
            lambda _: MiddlewareResult(chunks=chunks),
        )


def _call_of(request: Request, *, is_stream: bool = False) -> MiddlewareRequest:
    request.phase = "middleware"
    context = request.context
    call = MiddlewareRequest(
        request.tool,
        request.arguments,
        session_id=context.session_id,
        metadata=user_metadata(context.request_metadata),
        caller=current_caller.get(),
        deadline=context.deadline,
        side="worker",
        is_stream=is_stream,
    )
    details, span = request.details, trace.get_current_span()

    def record(key: str, value: Any) -> None:
        if request.steps is None:
            span.set_attribute(key, value)
        else:
            # The span is made at the end of the request, of what is known by then.
            known = details.values if details is not None else {}
            request.details = telemetry.Details({**known, **call.attributes})

    call.record_attributes(record)
    return call


def _rewritten(request: Request, call: MiddlewareRequest) -> Request:
    request.phase = "build"
    if call.has_new_arguments:
        request.arguments = dict(call.arguments)
    if call.has_new_metadata:
        metadata = request.context.request_metadata
        request.context.request_metadata = {**reserved_metadata(metadata), **checked_metadata(call.metadata)}
    return request
