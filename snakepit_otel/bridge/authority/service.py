"""The authority's side of the bridge: sessions, its tools, and calls for its workers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, TypeVar
from urllib.parse import unquote

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.timestamp_pb2 import Timestamp

from snakepit_otel.bridge.authority.byte_budget import Charge
from snakepit_otel.bridge.authority.call_times import in_time, time_of
from snakepit_otel.bridge.authority.dispatcher import SESSIONS, Dispatcher
from snakepit_otel.bridge.authority.fencing import FencingTokens
from snakepit_otel.bridge.authority.tool_error_log import Place
from snakepit_otel.bridge.authority.tool_registry import AuthorityContext
from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb
from snakepit_otel.bridge.wire import codec, methods
from snakepit_otel.bridge.wire.errors import to_status, to_wire
from snakepit_otel.bridge.wire.identifiers import check_call_back, where
from snakepit_otel.bridge.wire.method_guards import Limit
from snakepit_otel.bridge.wire.peers import UNIX, peer_of
from snakepit_otel.bridge.wire.raw_messages import (
    Chunk,
    LargeChunk,
    LargeResponse,
    ToolRequest,
    ToolResponse,
    read_call_back,
    read_request,
    serialized,
)
from snakepit_otel.bridge.wire.reference_list import Incoming
from snakepit_otel.bridge.wire.reference_scan import labelled_as_copies
from snakepit_otel.bridge.wire.references import Outgoing
from snakepit_otel.bridge.wire.refusals import code_of, refusal_in
from snakepit_otel.bridge.wire.values import plain_markers
from snakepit_otel.errors import (
    BudgetExceeded,
    DeadlineExceeded,
    InvalidSession,
    MessageTooLarge,
    PoolError,
    ReferenceReleased,
    RequestCancelled,
    RequestRefused,
    SessionNotFound,
    SessionQuotaExceeded,
    SessionStoreFull,
    SnakepitError,
    ToolError,
    ToolRefused,
    WorkerFenced,
    ZeroCopyLimitExceeded,
)
from snakepit_otel.middleware import _current_caller as current_caller
from snakepit_otel.rpc.status import StatusCode
from snakepit_otel.rpc.transports.base import CallContext as Context
from snakepit_otel.sessions import Creator
from snakepit_otel.sessions._session import MAX_OWNER
from snakepit_otel.zero_copy._current_scope import within
from snakepit_otel.zero_copy._descriptor import Owner
from snakepit_otel.zero_copy._scope import Scope

T = TypeVar("T", bound=ToolResponse)
_SESSION_OVERHEAD_BYTES = 64 << 10  # of a request to begin a session, besides the session's metadata
_UPLOAD_MESSAGE_BYTES = 4 << 20  # of one message of an upload; our own have 1 MiB

_CODES: tuple[tuple[type[SnakepitError], StatusCode], ...] = (
    (InvalidSession, StatusCode.INVALID_ARGUMENT),
    (SessionNotFound, StatusCode.NOT_FOUND),
    (SessionStoreFull, StatusCode.RESOURCE_EXHAUSTED),
    (SessionQuotaExceeded, StatusCode.RESOURCE_EXHAUSTED),
    (MessageTooLarge, StatusCode.RESOURCE_EXHAUSTED),
    (BudgetExceeded, StatusCode.RESOURCE_EXHAUSTED),
    (ZeroCopyLimitExceeded, StatusCode.RESOURCE_EXHAUSTED),
    (DeadlineExceeded, StatusCode.DEADLINE_EXCEEDED),
    (RequestCancelled, StatusCode.CANCELLED),
    (WorkerFenced, StatusCode.PERMISSION_DENIED),
    (PoolError, StatusCode.UNAVAILABLE),
    (ToolError, StatusCode.INTERNAL),
)


def authority_limits(max_message_bytes: int, max_session_bytes: int) -> dict[str, Limit]:
    """Return how large the requests of an authority's methods may be, where that is more than most."""
    return {
        "ExecuteTool": Limit(max_message_bytes, read_request, serialized),
        "ExecuteStreamingTool": Limit(max_message_bytes, read_request, serialized),
        "ExecuteElixirTool": Limit(max_message_bytes, read_call_back),
        # With the metadata that a session may have.
        "InitializeSession": Limit(max_session_bytes + _SESSION_OVERHEAD_BYTES),
        # A session of such an id is none.
        "Heartbeat": Limit(refuse=lambda _: pb.HeartbeatResponse(server_time=_timestamp(time.time()))),
        "RegisterTools": Limit(refuse=lambda why: pb.RegisterToolsResponse(error_message=why)),
        # A request over a session's limit is refused; one far over it ends the stream.
        "Hold": Limit(4 * max_session_bytes + _SESSION_OVERHEAD_BYTES),
        "Write": Limit(_UPLOAD_MESSAGE_BYTES),
    }


class AuthorityService:
    """Serves workers, our own and upstream's, and other gRPC clients.

    With `fencing_tokens`, a call of one of our own workers must have its token.
    """

    def __init__(self, dispatcher: Dispatcher, fencing_tokens: FencingTokens | None = None) -> None:
        self._dispatcher = dispatcher
        self._fencing_tokens = fencing_tokens
        self._sessions = dispatcher.sessions
        self._tools = dispatcher.tools

    async def Ping(self, request: pb.PingRequest, context: Context) -> pb.PingResponse:
        """Answer, with the time."""
        return pb.PingResponse(message=f"pong: {request.message}", server_time=_timestamp(time.time()))

    async def InitializeSession(
        self, request: pb.InitializeSessionRequest, context: Context
    ) -> pb.InitializeSessionResponse:
        """Create the session, or touch the live one with that id."""
        headers = _headers(context)
        try:
            self._check(context)
            async with in_time(headers, context):
                await self._sessions.create(
                    request.session_id,
                    ttl=_ttl(headers.get(methods.TTL_HEADER)),
                    metadata=dict(request.metadata),
                    owner=_owner(headers),
                    creator=_creator(context, headers, "InitializeSession"),
                    charge=Charge(self._dispatcher.lasting, peer_of(context), 0, SESSIONS),
                )
        except SnakepitError as error:
            await _abort(context, error)
        specs = {spec.name: spec for spec in self._tools.specs(exposed_only=True)}
        return pb.InitializeSessionResponse(success=True, available_tools=specs)

    async def CleanupSession(self, request: pb.CleanupSessionRequest, context: Context) -> pb.CleanupSessionResponse:
        """Delete the session; one that is not there is as good as deleted."""
        try:
            self._check(context)
            async with in_time(_headers(context), context):
                await self._sessions.delete(request.session_id)
        except SnakepitError as error:
            await _abort(context, error)
        return pb.CleanupSessionResponse(success=True, resources_cleaned=1)

    async def GetSession(self, request: pb.GetSessionRequest, context: Context) -> pb.GetSessionResponse:
        """Return the session; NOT_FOUND if it is not live."""
        try:
            self._check(context)
            session = await self._sessions.get(request.session_id)
        except SnakepitError as error:
            await _abort(context, error)
        return pb.GetSessionResponse(
            session_id=session.id,
            metadata=session.metadata,
            created_at=_timestamp(session.created_at),
            tool_count=self._tools.foreign_count(session.id),
        )

    async def Heartbeat(self, request: pb.HeartbeatRequest, context: Context) -> pb.HeartbeatResponse:
        """Touch the session, and return whether it is live."""
        try:
            self._check(context)
            async with in_time(_headers(context), context):
                await self._sessions.get(request.session_id)
        except (SessionNotFound, InvalidSession):
            valid = False
        except (WorkerFenced, DeadlineExceeded) as error:
            await _abort(context, error)
        else:
            valid = True
        return pb.HeartbeatResponse(server_time=_timestamp(time.time()), session_valid=valid)

    async def ExecuteTool(self, request: ToolRequest, context: Context) -> ToolResponse:
        """Run a tool, of the authority or of a worker's adapter."""
        headers = _headers(context)
        creator = _creator(context, headers, request.tool_name) if self._sessions.strict_mode else None
        if self._dispatcher.has_middleware:
            _enter_caller(context)
        needs_labels = methods.REFERENCES not in request.metadata and not _shares_memory(context)
        try:
            timeout = time_of(headers, context)
            response = await self._dispatcher.execute(request, creator, timeout, peer=peer_of(context))
        except SnakepitError as error:
            about = where(request.tool_name, request.session_id, phase="dispatch")
            if isinstance(error, RequestRefused):
                await context.abort(code_of(error), to_status(error, about))
            failed = pb.ExecuteToolResponse(success=False, error_message=to_wire(error, about))
            return self._with_strict_mode(failed)
        if self._sessions.strict_mode:
            self._with_strict_mode(response)
        if not response.success and (refusal := refusal_in(response.error_message)) is not None:
            await context.abort(code_of(refusal), to_status(refusal, where(request.tool_name, request.session_id)))
        if not needs_labels or methods.REFERENCES not in response.metadata:
            return response
        if isinstance(response, LargeResponse):
            response = response.parsed()
        response.result.value = await labelled_as_copies(response.result.value)
        return response

    async def ExecuteStreamingTool(self, request: ToolRequest, context: Context) -> None:
        """Run a tool of a worker's adapter and pass its chunks on."""
        headers = _headers(context)
        creator = _creator(context, headers, request.tool_name) if self._sessions.strict_mode else None
        if self._dispatcher.has_middleware:
            _enter_caller(context)
        needs_labels = methods.REFERENCES not in request.metadata and not _shares_memory(context)

        async def take(chunk: Chunk) -> None:
            if needs_labels and methods.REFERENCES in chunk.metadata:
                if isinstance(chunk, LargeChunk):
                    chunk = chunk.parsed()
                chunk.data = await labelled_as_copies(chunk.data)
            await context.write(chunk)

        try:
            await self._dispatcher.stream(request, take, creator, time_of(headers, context), peer=peer_of(context))
        except SnakepitError as error:
            about = where(request.tool_name, request.session_id, phase="dispatch")
            await context.abort(_code(error), to_status(error, about))

    async def RegisterTools(self, request: pb.RegisterToolsRequest, context: Context) -> pb.RegisterToolsResponse:
        """Register a worker's tools for a session, all or none."""
        try:
            self._check(context)
            await self._sessions.get(request.session_id)
            charge = Charge(self._dispatcher.lasting, peer_of(context), 0, "registered tools")
            ids = self._tools.register_foreign(request.session_id, request.tools, charge)
        except SessionNotFound:
            return pb.RegisterToolsResponse(success=False, error_message="not_found")
        except (ToolRefused, InvalidSession, WorkerFenced, BudgetExceeded) as error:
            return pb.RegisterToolsResponse(success=False, error_message=str(error))
        return pb.RegisterToolsResponse(success=True, tool_ids=ids)

    async def GetExposedElixirTools(
        self,
        request: pb.GetExposedElixirToolsRequest,
        context: Context,
    ) -> pb.GetExposedElixirToolsResponse:
        """Return the authority's tools that adapters may call."""
        return pb.GetExposedElixirToolsResponse(tools=self._tools.specs(exposed_only=True))

    async def ExecuteElixirTool(
        self,
        request: pb.ExecuteElixirToolRequest,
        context: Context,
    ) -> pb.ExecuteElixirToolResponse:
        """Run a tool of the authority for an adapter; one that fails is an answer, not a failed call."""
        started, tool, own = time.perf_counter(), None, self._dispatcher.own
        try:
            self._check(context, request.metadata.get(methods.REQUEST_ID))
            check_call_back(request)
            tool = self._tools.exposed(request.tool_name)
            own.check_size(tool, request)
            with self._references(request) as scope:
                opened = None
                if tool.takes_references:
                    listed = request.metadata.get(methods.REFERENCES)
                    opened = Incoming.of(scope, listed).receive if scope.request else scope.receive
                arguments = codec.decode_parameters(request.parameters, opened=opened)
                caller = AuthorityContext(request.session_id or None, self._sessions)
                value = await self._tools.run(tool, caller, arguments, _deadline(context))
                # A worker without request ids gets arrays as JSON.
                outgoing = Outgoing(scope, plain_markers) if scope.request else None
                encoded, binary = await codec.encoded(_encode_result, value, outgoing or plain_markers)
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - whatever user code raises is for the caller
            described = to_wire(error, where(request.tool_name, request.session_id))
            if tool is not None:
                place = Place(request.tool_name, request.metadata[methods.REQUEST_ID], request.session_id)
                own.count_failure(tool, described, time.perf_counter() - started, place)
            return pb.ExecuteElixirToolResponse(success=False, error_message=described)
        own.count_result(tool, time.perf_counter() - started)
        response = pb.ExecuteElixirToolResponse(
            success=True,
            result=encoded.get("result"),
            binary_result=binary.get("result", b""),
            execution_time_ms=round((time.perf_counter() - started) * 1000),
        )
        if outgoing is not None:
            outgoing.list_in(response)
        return response

    def _with_strict_mode(self, response: T) -> T:
        """Mark a response for clients of ours, which then send the call sites of their requests."""
        if self._sessions.strict_mode:
            response.metadata[methods.STRICT_MODE] = "true"
        return response

    def _check(self, context: Context, request_id: str | None = None) -> None:
        """Raise `WorkerFenced` for a call of one of our own workers that is not permitted."""
        if self._fencing_tokens is None:
            return
        headers = _headers(context)
        worker_id = headers.get(methods.WORKER_HEADER)
        if worker_id is not None:
            self._fencing_tokens.check(worker_id, headers.get(methods.FENCING_HEADER, ""), request_id)

    @contextmanager
    def _references(self, request: pb.ExecuteElixirToolRequest) -> Iterator[Scope]:
        """Give a call-back the scope of the request that it is a part of."""
        request_id = request.metadata.get(methods.REQUEST_ID)
        scope: Scope | None = None
        if request_id:
            # One that has ended has no references any more, but its clean-up may run on, and call back.
            with suppress(ReferenceReleased):
                scope = self._dispatcher.buffer_store.join(request_id, request.session_id or None)
        if scope is None:
            # The request has ended, or the worker has no request ids.
            yield Scope(
                Owner.ELIXIR, None, self._dispatcher.buffer_store.settings, no_exchange="foreign_peer", foreign=True
            )
            return
        try:
            with within(scope):
                yield scope
        finally:
            scope.close()


def _encode_result(value: Any, default: Callable[[Any], Any]) -> tuple[dict[str, AnyMessage], dict[str, bytes]]:
    return codec.encode_parameters({"result": value}, default)


def _shares_memory(context: Context) -> bool:
    return context.peer().startswith("unix:")


def _headers(context: Context) -> dict[str, str]:
    return {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}


def _enter_caller(context: Context) -> None:
    peer = peer_of(context)
    subject = peer.name if peer.is_known and peer != UNIX else None
    current_caller.enter(peer.name, context.invocation_metadata() or (), is_trusted=peer.is_known, tls_subject=subject)


def _creator(context: Context, headers: dict[str, str], what: str) -> Creator:
    site = headers.get(methods.CALL_SITE_HEADER) or f"{what} from {context.peer().partition(':')[0]} client"
    return Creator(site[:200], owner=_owner(headers))


def _owner(headers: Mapping[str, str]) -> str | None:
    """Return the owner of a call; headers are ASCII, so other letters are percent-encoded."""
    owner = headers.get(methods.OWNER_HEADER)
    return None if owner is None else unquote(owner[: 9 * MAX_OWNER])


def _deadline(context: Context) -> float | None:
    left = context.time_remaining()
    return None if left is None else time.monotonic() + left


def _ttl(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        return float(text)
    except ValueError:
        raise InvalidSession(f"{methods.TTL_HEADER} is {text[:40]!r}; it must be a number of seconds") from None


def _code(error: SnakepitError) -> StatusCode:
    if isinstance(error, RequestRefused):
        return code_of(error)
    return next((code for kind, code in _CODES if isinstance(error, kind)), StatusCode.INTERNAL)


async def _abort(context: Context, error: SnakepitError) -> Any:
    if _headers(context).get(methods.ERRORS_HEADER) == "json":
        await context.abort(_code(error), to_status(error, {}))
    await context.abort(_code(error), f"{error.reason}: {error}" if error.reason else str(error))


def _timestamp(seconds: float) -> Timestamp:
    stamp = Timestamp()
    stamp.FromNanoseconds(int(seconds * 1e9))
    return stamp
