"""Service of a worker: runs each tool call on a fresh adapter."""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
import traceback
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, nullcontext
from functools import lru_cache
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from snakepit_otel.adapters import SessionContext, StreamChunk
from snakepit_otel.adapters._lifecycle import AdapterHost
from snakepit_otel.adapters._request import Outcome, Request
from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb
from snakepit_otel.bridge.wire import codec, methods
from snakepit_otel.bridge.wire.errors import to_status, to_wire
from snakepit_otel.bridge.wire.method_guards import Limit
from snakepit_otel.bridge.wire.reference_list import Incoming
from snakepit_otel.bridge.wire.references import Outgoing
from snakepit_otel.bridge.wire.refusals import code_of, refusal_in
from snakepit_otel.bridge.wire.request_attributes import add_attributes
from snakepit_otel.bridge.wire.unserializable import Unserializable
from snakepit_otel.bridge.worker.authority_client import AuthorityClient
from snakepit_otel.bridge.worker.call_metadata import deadline_of, known_call, request_id_of
from snakepit_otel.bridge.worker.failures import described, reported, where_of
from snakepit_otel.bridge.worker.memory import WorkerMemory
from snakepit_otel.bridge.worker.process_controls import ProcessControls
from snakepit_otel.bridge.worker.supervision import RunningRequests
from snakepit_otel.bridge.worker.telemetry_stream import TelemetryStream
from snakepit_otel.bridge.worker.tool_registration import ToolRegistration
from snakepit_otel.common import deadline
from snakepit_otel.errors import DeadlineExceeded, RequestRefused, ZeroCopyLimitExceeded
from snakepit_otel.middleware import _current_caller as current_caller
from snakepit_otel.rpc import RpcError
from snakepit_otel.rpc.status import StatusCode
from snakepit_otel.rpc.transports.base import CallContext as Context
from snakepit_otel.zero_copy._current_scope import set_current
from snakepit_otel.zero_copy._scope import Scope

_TRUE_VALUES = frozenset({"1", "true", "t", "yes", "y", "on"})
_log = logging.getLogger("snakepit_otel.worker")
_NO_WATCH = nullcontext()
_FIRST_WAIT_S = 0.001
_MAX_WAIT_S = 0.05
_MAX_BYTES_DECODED_ON_LOOP = 256 << 10


def worker_limits(max_message_bytes: int) -> dict[str, Limit]:
    """Return how large the requests of a worker's methods may be, where that is more than most."""
    every = Limit(max_message_bytes)
    # Sessions are the authority's, and so are their limits.
    return dict.fromkeys(("ExecuteTool", "ExecuteStreamingTool", "InitializeSession", "Write"), every)


class WorkerService:
    """Serves tool calls; passes session calls on to the authority, and registers tools there with `register_tools`."""

    def __init__(
        self,
        host: AdapterHost,
        authority: AuthorityClient,
        *,
        worker_id: str,
        register_tools: bool = False,
        on_session: Callable[[str], None] | None = None,
        unserializable: Unserializable | None = None,
        memory: WorkerMemory | None = None,
        running: RunningRequests | None = None,
        context: type[SessionContext] = SessionContext,
        events: TelemetryStream | None = None,
    ) -> None:
        self._host = host
        self._context = context
        self._running = running or RunningRequests()
        self._memory = memory or WorkerMemory()
        self._authority = authority
        self._registration: ToolRegistration | None = None
        if register_tools:
            self._registration = ToolRegistration(authority, host.tools.values(), worker_id, on_session)
        self._unserializable = unserializable or Unserializable()
        self._events = events or TelemetryStream(ProcessControls())

    async def Ping(self, request: pb.PingRequest, context: Context) -> pb.PingResponse:
        """Answer, with the time."""
        now = Timestamp()
        now.GetCurrentTime()
        return pb.PingResponse(message=f"Pong from Python: {request.message}", server_time=now)

    async def ExecuteTool(self, request: pb.ExecuteToolRequest, context: Context) -> pb.ExecuteToolResponse:
        """Run a tool. A tool that fails is an answer, not a failed call."""
        started = time.perf_counter()
        if self._registration is not None:
            self._registration.notice(request.session_id)
        scope = self._memory.open(request, request_id_of(request, context))
        set_current(scope)
        self._running.begin(scope.request)
        try:
            return await self._execute(request, context, scope, started)
        finally:
            # The result and the error of the tool are gone by now: views that are left are held by its code.
            scope.close()
            self._running.end(scope.request)

    async def _execute(
        self, request: pb.ExecuteToolRequest, context: Context, scope: Scope, started: float
    ) -> pb.ExecuteToolResponse:
        job: Request | None = None
        try:
            job = await self._job(request, context, scope)
            if scope.to_fetch:
                await self._authority.copier.fetch(scope)
            outcome = await (self._run_watched(job) if self._is_watched(job) else self._host.run(job))
            outgoing = self._outgoing(scope)
            result, binary = (
                await asyncio.to_thread(codec.encode_result, outcome.result, outgoing)
                if codec.is_large(outcome.result)
                else codec.encode_result(outcome.result, outgoing)
            )
            if scope.to_send:
                await self._memory.send(scope, self._authority)
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - whatever user code raises is for the caller
            if isinstance(error, RequestRefused) and scope.request is None:
                # To our own authority it is an answer, which has room for all of it.
                await context.abort(code_of(error), to_status(error, where_of(request, job)))
            response = pb.ExecuteToolResponse(
                success=False,
                error_message=to_wire(
                    reported(error, job), described(error, request, job, self._host.tools if scope.request else None)
                ),
                execution_time_ms=_milliseconds(started),
            )
            if job is not None and scope.request is not None:
                add_attributes(response, job.attributes)
            _clear_frames(error, scope)
            return response
        finally:
            if job is not None and job.orphaned_work is not None:
                self._running.add_work(scope.request, job.orphaned_work)
        response = pb.ExecuteToolResponse(
            success=True, result=result, binary_result=binary, execution_time_ms=_milliseconds(started)
        )
        outgoing.list_in(response)
        if scope.request is not None:
            add_attributes(response, job.attributes)
        if outcome.cleanup_error is not None:
            response.metadata["cleanup_error"] = to_wire(
                outcome.cleanup_error, {**where_of(request, job), "phase": "cleanup"}
            )
            _clear_frames(outcome.cleanup_error, scope)
        return response

    async def ExecuteStreamingTool(self, request: pb.ExecuteToolRequest, context: Context) -> None:
        """Run a tool and send its chunks as it makes them; end with a final one in any case."""
        if self._registration is not None:
            self._registration.notice(request.session_id)
        scope = self._memory.open(request, request_id_of(request, context))
        set_current(scope)
        self._running.begin(scope.request)
        try:
            failed = await self._stream(request, context, scope)
        finally:
            scope.close()
            self._running.end(scope.request)
        if failed is not None:
            refusal = refusal_in(failed) if scope.request is None else None
            await context.abort(StatusCode.INTERNAL if refusal is None else code_of(refusal), failed)

    async def _stream(self, request: pb.ExecuteToolRequest, context: Context, scope: Scope) -> str | None:
        """Stream, and return the details of the status for an error that ended it early."""
        job: Request | None = None
        number = 0
        finished = False

        async def send_attributes() -> None:
            # In a chunk of their own, without an id, which the authority takes out.
            attributes = pb.ToolChunk()
            if job is not None and scope.request is not None and add_attributes(attributes, job.attributes):
                await context.write(attributes)

        async def send(value: Any) -> None:
            nonlocal number, finished
            number += 1
            # By shape, so that other packages' chunk classes will do.
            if hasattr(value, "data") and hasattr(value, "is_final"):
                value = StreamChunk(value.data, bool(value.is_final), _as_text(getattr(value, "metadata", None)))
                finished = finished or value.is_final
            else:
                value = StreamChunk(value)
            data, metadata, outgoing = await self._encode_chunk(value, scope)
            if scope.to_send:
                await self._memory.send(scope, self._authority)
            await send_attributes()
            chunk_id = f"{request.tool_name}-{number}"
            chunk = pb.ToolChunk(chunk_id=chunk_id, data=data, is_final=value.is_final, metadata=metadata)
            outgoing.list_in(chunk)
            await context.write(chunk)
            # A stream may have no end, and what was sent belongs to the caller by now.
            scope.release_sent()

        try:
            job = await self._job(request, context, scope)
            if scope.to_fetch:
                await self._authority.copier.fetch(scope)
            async with self._watch(job) if self._is_watched(job) else _NO_WATCH:
                await self._host.stream(job, send)
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - whatever user code raises is for the caller
            status = to_status(
                reported(error, job), described(error, request, job, self._host.tools if scope.request else None)
            )
            _clear_frames(error, scope)
            await send_attributes()
            return status
        finally:
            if job is not None and job.orphaned_work is not None:
                self._running.add_work(scope.request, job.orphaned_work)
        await send_attributes()
        if not finished:
            await context.write(pb.ToolChunk(chunk_id=f"{request.tool_name}-{number + 1}", is_final=True))
        return None

    async def StreamTelemetry(self, controls: Any, context: Context) -> None:
        """Send telemetry events for as long as the authority listens, under its controls."""
        await self._events.serve(context)

    def close_stream(self) -> None:
        """End the telemetry stream, which would hold up the end of the worker."""
        self._events.close()

    async def InitializeSession(self, request: Any, context: Context) -> Any:
        """Pass on to the authority."""
        response = await self._forward(methods.INITIALIZE_SESSION, request, context)
        if self._registration is not None and response.success:
            self._registration.sessions.begun(request.session_id)
            self._registration.notice(request.session_id)
        return response

    async def CleanupSession(self, request: Any, context: Context) -> Any:
        """Pass on to the authority."""
        if self._registration is not None:
            self._registration.forget(request.session_id)
        return await self._forward(methods.CLEANUP_SESSION, request, context)

    async def GetSession(self, request: Any, context: Context) -> Any:
        """Pass on to the authority."""
        return await self._forward(methods.GET_SESSION, request, context)

    async def Heartbeat(self, request: Any, context: Context) -> Any:
        """Pass on to the authority."""
        return await self._forward(methods.HEARTBEAT, request, context)

    def _is_watched(self, job: Request) -> bool:
        return self._events.listening or "timeout_ms" in job.context.request_metadata

    async def _run_watched(self, job: Request) -> Outcome:
        async with self._watch(job):
            return await self._host.run(job)

    @asynccontextmanager
    async def _watch(self, job: Request) -> AsyncIterator[None]:
        metadata = job.context.request_metadata
        # The time limit, too, cancels this task.
        job.call = None
        with self._events.tool_execution(job.tool, metadata):
            try:
                left = job.context.time_remaining() if "timeout_ms" in metadata else None
                async with asyncio.timeout(left) as limit:
                    yield
            except TimeoutError:
                if limit.expired():
                    raise DeadlineExceeded("the request's timeout_ms passed while the tool ran") from None
                raise

    async def _encode_chunk(self, chunk: StreamChunk, scope: Scope) -> tuple[bytes, dict[str, str], Outgoing]:
        """Encode a chunk; while the limit of unread references is reached, wait until the caller has read some."""
        outgoing = self._outgoing(scope)
        time_left, wait = scope.settings.unused_ttl / 1000, _FIRST_WAIT_S
        while True:
            try:
                data, metadata = await codec.encoded(codec.encode_chunk, chunk.data, outgoing)
            except ZeroCopyLimitExceeded as full:
                if not full.retryable or time_left <= 0:
                    raise
            else:
                metadata.update(chunk.metadata or {})
                return data, metadata, outgoing
            await asyncio.sleep(wait)
            time_left -= wait
            wait = min(2 * wait, _MAX_WAIT_S)

    def _outgoing(self, scope: Scope) -> Outgoing:
        if scope.request is None:
            return Outgoing(scope, self._unserializable, foreign=True)
        return Outgoing(scope, self._unserializable.for_python)

    async def _job(self, request: pb.ExecuteToolRequest, context: Context, scope: Scope) -> Request:
        given = request.metadata
        # Not by `dict(…)` or `items()`, for which protobuf's maps take ten times as long.
        metadata = {key: given[key] for key in given}
        metadata.pop(methods.REQUEST_ID, None)
        listed = metadata.pop(methods.REFERENCES, None)
        headers = context.invocation_metadata() or ()
        if self._host.has_middleware:
            is_local = (peer := context.peer()).startswith("unix:")
            current_caller.enter("unix" if is_local else peer, headers, is_trusted=is_local)
        due = deadline_of(metadata, context)
        if due is not None:
            deadline.enter(due)
        for key, value in headers:
            if key == methods.CORRELATION_HEADER and isinstance(value, str):
                metadata.setdefault("correlation_id", value)
            elif key == methods.REFERENCES_HEADER and isinstance(value, str):
                listed = value
        opened = scope.receive if scope.request is None else Incoming.of(scope, listed).receive
        parameters = request.parameters
        if codec.is_long(parameters, _MAX_BYTES_DECODED_ON_LOOP):
            # In a thread, so that heartbeats are answered meanwhile.
            self._host.find(request.tool_name)
            arguments = await asyncio.to_thread(
                codec.decode_parameters, parameters, request.binary_parameters, metadata, opened
            )
        else:
            arguments = codec.decode_parameters(parameters, request.binary_parameters, metadata, opened)
        tool = request.tool_name
        on_main_thread = self._host.is_thread_sensitive(tool, arguments) or (
            "thread_sensitive" in metadata and metadata["thread_sensitive"].strip().lower() in _TRUE_VALUES
        )
        session = self._context(
            request.session_id or None,
            self._authority,
            metadata,
            may_block=on_main_thread,
            deadline=due,
            state_id=None if self._registration is None else self._state_id(tool, arguments),
        )
        # Middleware may cancel the task as well, with a time limit of its own.
        call = None if self._host.has_middleware else known_call(context)
        return Request(tool, arguments, session, on_main_thread, call)

    def _state_id(self, tool: str, arguments: dict[str, Any]) -> str | None:
        """Return the session id in the arguments, as Elixir has no field for it; drop one that the tool lacks."""
        state_id = arguments.get("session_id")
        if not isinstance(state_id, str):
            return None
        known = self._host.tools.get(tool)
        if known is not None and not self._host.takes_any and not _takes(known.function, "session_id"):
            del arguments["session_id"]
        return state_id

    async def _forward(self, method: str, request: Any, context: Context) -> Any:
        headers = [
            (key, value)
            for key, value in context.invocation_metadata() or ()
            if key in methods.SESSION_HEADERS and isinstance(value, str)
        ]
        try:
            return await self._authority.forward(method, request, headers)
        except RpcError as error:
            await context.abort(error.code, error.details)


@lru_cache(maxsize=1_000)
def _takes(function: Callable[..., Any], name: str) -> bool:
    parameters = inspect.signature(function).parameters
    return name in parameters or any(one.kind is one.VAR_KEYWORD for one in parameters.values())


def _as_text(metadata: Any) -> dict[str, str] | None:
    return {str(key): str(value) for key, value in metadata.items()} if isinstance(metadata, Mapping) else None


def _clear_frames(error: BaseException, scope: Scope) -> None:
    """Clear the frames of an error, which may hold views of memory that is about to be released."""
    if scope.in_use:
        traceback.clear_frames(error.__traceback__)


def _milliseconds(started: float) -> int:
    return round((time.perf_counter() - started) * 1000)
