"""Calls of the authority's own tools: their arguments, runs and results, counted by tool."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, TypeVar

from opentelemetry import trace

from snakepit_otel.adapters import Retry
from snakepit_otel.bridge.authority.jobs import TakeChunk
from snakepit_otel.bridge.authority.live_requests import LiveRequest
from snakepit_otel.bridge.authority.tool_error_log import Place
from snakepit_otel.bridge.authority.tool_registry import AuthorityContext, AuthorityTool, ToolRegistry
from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb
from snakepit_otel.bridge.wire import codec
from snakepit_otel.bridge.wire.errors import from_wire, to_wire
from snakepit_otel.bridge.wire.failures import REFUSALS, FailureKind, failure_in
from snakepit_otel.bridge.wire.identifiers import where
from snakepit_otel.bridge.wire.methods import IDEMPOTENT, REFERENCES, REQUEST_ID, RETRY
from snakepit_otel.bridge.wire.raw_messages import LargeRequest, ToolRequest, json_bytes_of
from snakepit_otel.bridge.wire.reference_list import Incoming
from snakepit_otel.bridge.wire.references import Outgoing
from snakepit_otel.bridge.wire.retries import retry_in
from snakepit_otel.bridge.wire.values import plain_markers
from snakepit_otel.errors import (
    PoolError,
    PoolSaturated,
    QueueTimeout,
    StateRefused,
    ToolRefused,
    ValueRefused,
)
from snakepit_otel.sessions import SessionStore
from snakepit_otel.telemetry import names
from snakepit_otel.telemetry._events import mark
from snakepit_otel.telemetry._request_attributes import receive_request_attributes
from snakepit_otel.zero_copy._current_scope import within
from snakepit_otel.zero_copy._scope import Scope

T = TypeVar("T")
_STATE_OVERHEAD_BYTES = 4 << 10  # of JSON, besides the value that a tool for session state is given
_DID_NOT_RUN = frozenset(kind.__name__ for kind in (PoolSaturated, QueueTimeout, StateRefused, ValueRefused))


class _OwnToolFailed(Exception):
    """A tool of the authority failed; `described` is the error as the wire has it."""

    def __init__(self, described: str) -> None:
        super().__init__(described)
        self.described = described


class OwnTools:
    """Runs the authority's tools for callers; `max_json_bytes` are those that a call of another process may have."""

    def __init__(self, tools: ToolRegistry, sessions: SessionStore, max_json_bytes: int) -> None:
        self.outcomes = tools.outcomes
        self._tools = tools
        self._sessions = sessions
        self._max_json_bytes = max_json_bytes

    def check_size(self, own: AuthorityTool, request: Any) -> None:
        """Raise `StateRefused` or `ValueRefused` for more JSON than the tool accepts, before any of it is decoded."""
        size, tool = json_bytes_of(request), own.tool.name
        if own.takes_references:
            if size > self._max_json_bytes:
                raise ValueRefused(
                    f"the authority's tool {tool!r} was called with {size} bytes of JSON; "
                    f"server.limits.authority_tool_bytes is {self._max_json_bytes}"
                )
        elif size > (budget := self._sessions.settings.max_session_bytes) + _STATE_OVERHEAD_BYTES:
            raise StateRefused(f"{tool} was called with {size} bytes of JSON; max_session_bytes is {budget}")

    async def run_as_stream(
        self,
        own: AuthorityTool,
        request: ToolRequest,
        take: TakeChunk,
        scope: Scope,
        live: LiveRequest,
        *,
        is_local: bool,
    ) -> None:
        """Run a tool of the authority, whose result is the only chunk."""
        run = self._run_and_encode(own, request, scope, live, codec.encode_chunk, is_local=is_local)
        try:
            (data, metadata), outgoing = await run
        except _OwnToolFailed as failure:
            raise from_wire(failure.described) from None
        chunk = pb.ToolChunk(chunk_id=f"{request.tool_name}-1", data=data, is_final=True, metadata=metadata)
        outgoing.list_in(chunk)
        await take(chunk)

    async def run(
        self, own: AuthorityTool, request: ToolRequest, scope: Scope, live: LiveRequest, *, is_local: bool
    ) -> pb.ExecuteToolResponse:
        """Run a tool of the authority and return its result, or its error."""
        started = time.perf_counter()
        run = self._run_and_encode(own, request, scope, live, codec.encode_result, is_local=is_local)
        try:
            (result, binary), outgoing = await run
        except _OwnToolFailed as failure:
            return pb.ExecuteToolResponse(success=False, error_message=failure.described)
        elapsed_ms = round((time.perf_counter() - started) * 1000)
        response = pb.ExecuteToolResponse(
            success=True, result=result, binary_result=binary, execution_time_ms=elapsed_ms
        )
        outgoing.list_in(response)
        return response

    async def _run_and_encode(
        self,
        own: AuthorityTool,
        request: ToolRequest,
        scope: Scope,
        live: LiveRequest,
        encode: Callable[[Any, Callable[[Any], Any]], T],
        *,
        is_local: bool,
    ) -> tuple[T, Outgoing]:
        """Run a tool of the authority, and encode its result. Raises `_OwnToolFailed`."""
        started, about = time.monotonic(), where(request.tool_name, request.session_id, phase="execute")
        try:
            value = await self._value_of_own(own, request, scope, live, is_local=is_local)
            outgoing = Outgoing(scope, plain_markers)
            encoded = await codec.encoded(encode, value, outgoing)
        except asyncio.CancelledError:
            self._count_lost(own)
            raise
        except BaseException as error:  # noqa: BLE001 - whatever user code raises is for the caller
            described = to_wire(error, about)
            self.count_failure(own, described, time.monotonic() - started, _place(request))
            raise _OwnToolFailed(described) from None
        self.count_result(own, time.monotonic() - started)
        return encoded, outgoing

    def count_result(self, own: AuthorityTool, seconds: float) -> None:
        """Count a call that has a result, after so long."""
        if not own.built_in:
            self.outcomes.on_result(own.tool.name, seconds)

    def count_failure(self, own: AuthorityTool, described: str, seconds: float, place: Place) -> None:
        """Count and log a call that ended with an error, as the wire has it."""
        if own.built_in:
            return
        failure = failure_in(described)
        if failure.type in _DID_NOT_RUN:
            failure = failure._replace(kind=FailureKind.REFUSED)
        self.outcomes.on_failure(own.tool.name, failure, seconds, place)

    def _count_lost(self, own: AuthorityTool) -> None:
        if not own.built_in:
            self.outcomes.on_lost(own.tool.name)

    async def _value_of_own(
        self, own: AuthorityTool, request: ToolRequest, scope: Scope, live: LiveRequest, *, is_local: bool
    ) -> Any:
        """Run a tool of the authority and return its result; callers in this process have no limit of size."""
        if not is_local:
            self.check_size(own, request)
        message = request.parsed() if isinstance(request, LargeRequest) else request
        incoming = Incoming.of(scope, request.metadata.get(REFERENCES))
        opened = incoming.receive if own.takes_references else None
        arguments = codec.decode_parameters(message.parameters, message.binary_parameters, message.metadata, opened)
        retry, attempt = _checked_retry(own, request), 0
        receive_request_attributes(trace.get_current_span())
        with within(scope):
            context = AuthorityContext(request.session_id or None, self._sessions)
            while True:
                try:
                    return await self._tools.run(own, context, arguments, live.deadline, live.on_started)
                except Exception as error:
                    if retry is None or not await self._prepared(own, request, retry, error, live, attempt):
                        raise
                    attempt += 1

    async def _prepared(
        self, own: AuthorityTool, request: ToolRequest, retry: Retry, error: Exception, live: LiveRequest, attempt: int
    ) -> bool:
        """Wait before a further run of a request after an error; return False if there is to be none."""
        if attempt >= retry.most or isinstance(error, (*REFUSALS, PoolError)) or not retry.covers(error):
            return False
        wait = retry.wait(attempt)
        if live.deadline is not None and time.monotonic() + wait >= live.deadline:
            return False
        failure = failure_in(to_wire(error, where(request.tool_name, request.session_id, phase="execute")))
        await asyncio.sleep(wait)
        again = f"; it is run again ({attempt + 1} of at most {retry.most} times)"
        self.outcomes.on_retry(own.tool.name, failure, _place(request), again)
        mark({names.SNAKEPIT_REQUEST_ATTEMPTS: attempt + 2})
        return True


def _place(request: ToolRequest) -> Place:
    return Place(request.tool_name, request.metadata[REQUEST_ID], request.session_id)


def _checked_retry(own: AuthorityTool, request: ToolRequest) -> Retry | None:
    """Return when a request may be run again. Raises `ToolRefused` where its caller wants what it may not."""
    metadata = request.metadata
    if RETRY not in metadata:
        return own.tool.retry
    if not own.tool.idempotent and metadata.get(IDEMPOTENT) != "true":
        raise ToolRefused(
            f"the authority's tool {own.tool.name!r} is not called with retry=…, as it might then be carried out "
            "twice: call it with idempotent=True as well, or declare it with @authority_tool(idempotent=True); it did "
            "not run"
        )
    return retry_in(metadata)
