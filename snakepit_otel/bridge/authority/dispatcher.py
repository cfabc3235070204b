"""Dispatch of a request inside the authority: its session, then its tool, here or in a worker."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Iterable
from contextlib import suppress
from types import TracebackType
from typing import Any

from snakepit_otel import telemetry
from snakepit_otel.bridge.authority.byte_budget import Budget, Charge
from snakepit_otel.bridge.authority.fencing import FencingTokens
from snakepit_otel.bridge.authority.jobs import Job, TakeChunk, Workers, describe_response
from snakepit_otel.bridge.authority.live_requests import LiveRequest, LiveRequests
from snakepit_otel.bridge.authority.own_tools import OwnTools
from snakepit_otel.bridge.authority.tool_registry import ToolRegistry
from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb
from snakepit_otel.bridge.wire.identifiers import check_request
from snakepit_otel.bridge.wire.json_size import MAX_PARTS, check_parts
from snakepit_otel.bridge.wire.method_guards import AUTHORITY_TOOL_BYTES
from snakepit_otel.bridge.wire.methods import (
    ATTRIBUTES,
    CREATE_SESSION,
    IDEMPOTENT,
    OWNER,
    POOL,
    REFERENCES,
    REQUEST_ID,
    RETRY,
)
from snakepit_otel.bridge.wire.peers import UNIX, Peer
from snakepit_otel.bridge.wire.raw_messages import (
    LARGE_BYTES,
    Chunk,
    LargeChunk,
    LargeRequest,
    LargeResponse,
    ToolRequest,
    ToolResponse,
    json_bytes_of,
    json_of,
)
from snakepit_otel.bridge.wire.reference_list import UNLISTED, listed_ids
from snakepit_otel.bridge.wire.reference_scan import has_marks, ids_in
from snakepit_otel.bridge.wire.references import has_references
from snakepit_otel.bridge.wire.request_attributes import taking_attributes, without_attributes
from snakepit_otel.bridge.wire.retries import retry_in
from snakepit_otel.errors import (
    SessionStoreUnavailable,
    SessionWorkerUnavailable,
    SnakepitError,
)
from snakepit_otel.sessions import Creator, SessionStore
from snakepit_otel.sessions._session import is_id
from snakepit_otel.telemetry import names
from snakepit_otel.telemetry._labels import LabelSets
from snakepit_otel.zero_copy._buffer_store import BufferStore
from snakepit_otel.zero_copy._scope import Scope

SESSIONS = "sessions"


def _labels(dispatcher: Dispatcher, request: ToolRequest, *_: Any, **__: Any) -> telemetry.AttributeSet:
    return dispatcher.labels.of(dispatcher.label(request.tool_name))


def _details(_dispatcher: Dispatcher, request: ToolRequest, *_: Any, **__: Any) -> telemetry.Details | None:
    session_id = request.session_id
    return telemetry.Details.of_text(names.SESSION_ID, session_id) if session_id and is_id(session_id) else None


def _trail(_dispatcher: Dispatcher, request: ToolRequest, *_: Any, **__: Any) -> str:
    session_id = request.session_id
    return session_id if session_id and is_id(session_id) else ""


_requests_of_session = telemetry.Trail(_trail)


class Dispatcher:
    """Takes requests from callers in this process and over gRPC alike.

    A request that names a session which is not live creates it, as upstream's workers do, with the
    default TTL, unless it or `session_store.create_on_request` says not to; one that names none belongs to no session.
    """

    has_middleware = False

    def __init__(
        self,
        sessions: SessionStore,
        tools: ToolRegistry,
        workers: Workers,
        buffer_store: BufferStore | None = None,
        fencing_tokens: FencingTokens | None = None,
        *,
        budget: Budget | None = None,
        authority_tool_bytes: int = AUTHORITY_TOOL_BYTES,
    ) -> None:
        self.sessions = sessions
        self.budget = budget or Budget()
        self.lasting = self.budget.half()  # for what outlives a call: sessions, and the tools registered for them
        self.buffer_store = buffer_store or BufferStore()
        self.fencing_tokens = fencing_tokens or FencingTokens()
        self.tools = tools
        self._workers = workers
        self.labels = LabelSets(names.SNAKEPIT_TOOL_NAME)
        self.own = OwnTools(tools, sessions, authority_tool_bytes)
        self.live_requests = LiveRequests(self._pool_of)
        sessions.on_ended(tools.forget)

    def _pool_of(self, tool: str) -> str | None:
        return None if self.tools.find(tool) else self._workers.pool_of(tool)

    def label(self, tool: str) -> str:
        """Return the tool's name as an attribute of metrics, which callers cannot make up."""
        return tool if self.tools.find(tool) else self._workers.label(tool)

    def on_refused(self, request: ToolRequest) -> None:
        """Count a request that was refused before a worker was looked for."""
        if self.tools.find(request.tool_name) is not None:
            self.own.outcomes.on_refused(request.tool_name)
        else:
            self._workers.on_refused(request.tool_name, request.metadata.get(POOL))

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
        """Run a tool. Raises what sessions and workers raise; a tool that fails is an answer.

        `timeout` is in seconds, for all that is to be done, waiting and call-backs included. `scope` is that of the
        request's references, for callers in this process; others' get one here. `peer` is for whom things are held.
        """
        check_request(request)
        references = scope or self.buffer_store.request(request.session_id or None, request.tool_name)
        with _Served(self, request, references, timeout, is_local=scope is not None) as live:
            try:
                if scope is None:
                    await self._claim_references(request, references, peer)
                prefer = await self._session(request, creator, peer) if live.session_id else None
            except SnakepitError:
                self.on_refused(request)
                raise
            own = self.tools.find(request.tool_name)
            response: ToolResponse
            if own is not None:
                response = await self.own.run(own, request, references, live, is_local=scope is not None)
            else:
                try:
                    response = await self._workers.execute(self._job(request, prefer, live, peer))
                except SessionWorkerUnavailable:
                    await self._forget_worker(request.session_id)
                    raise
            if ATTRIBUTES in response.metadata:
                response = without_attributes(response)
            if scope is None and REFERENCES in response.metadata:
                await self._offer_results(response, references, peer)
            return response

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
        """Run a tool and hand each chunk of its result to `take`; see `execute`."""
        check_request(request)
        references = scope or self.buffer_store.request(request.session_id or None, request.tool_name)
        with _Served(self, request, references, timeout, is_local=scope is not None) as live:

            async def offer_and_forward(chunk: Chunk) -> None:
                if REFERENCES in chunk.metadata:
                    await self._offer_results(chunk, references, peer)
                await take(chunk)

            forward = taking_attributes(offer_and_forward if scope is None else take)
            try:
                if scope is None:
                    await self._claim_references(request, references, peer)
                prefer = await self._session(request, creator, peer) if live.session_id else None
            except SnakepitError:
                self.on_refused(request)
                raise
            own = self.tools.find(request.tool_name)
            if own is not None:
                await self.own.run_as_stream(own, request, forward, references, live, is_local=scope is not None)
                return
            try:
                await self._workers.stream(self._job(request, prefer, live, peer), forward)
            except SessionWorkerUnavailable:
                await self._forget_worker(request.session_id)
                raise

    async def _claim_references(self, request: ToolRequest, scope: Scope, peer: Peer) -> None:
        """Give the request the references that its caller, another process, has placed for it."""
        if not peer.is_known and json_bytes_of(request) > MAX_PARTS:
            await check_parts(json_of(request))
        ids: Iterable[str] | None = listed_ids(request.metadata.get(REFERENCES))
        if ids is None:
            ids = await self._scan_for_references(request)
        for ref in ids:
            self.buffer_store.claim(scope.request or "", ref)

    async def _scan_for_references(self, request: ToolRequest) -> set[str]:
        """Return the ids of the references of a request whose caller sends no list.

        An id that is not found, such as one written with escapes, is claimed once the worker fetches it.
        """
        found: set[str] = set()
        for raw in _values_of(request):
            if await has_marks(raw) if len(raw) > LARGE_BYTES else has_references(raw):
                request.metadata[REFERENCES] = UNLISTED
                found |= await ids_in(raw)
        return found

    async def _offer_results(self, message: ToolResponse | Chunk, scope: Scope, peer: Peer) -> None:
        """Let a caller in another process fetch the results that this message lists, for a while after its end too."""
        ids: Iterable[str] | None = listed_ids(message.metadata[REFERENCES])
        if ids is None:
            ids = await ids_in(_raw_result(message))
        for ref in ids:
            self.buffer_store.offer(scope.request or "", ref, self.budget.for_references(peer))

    async def _session(self, request: ToolRequest, creator: Creator | None, peer: Peer) -> str | None:
        session_id = request.session_id
        try:
            if request.metadata.get(CREATE_SESSION) == "false" or not self.sessions.settings.create_on_request:
                return self.sessions.worker_of(await self.sessions.get(session_id))
            charge = Charge(self.lasting, peer, 0, SESSIONS)
            owner = request.metadata.get(OWNER) or None
            session = await self.sessions.create(
                session_id, owner=owner, creator=creator, tool=request.tool_name, charge=charge
            )
        except SessionStoreUnavailable as error:
            # The session may have been created, but the tool was not called.
            error.may_have_run = False
            raise
        return self.sessions.worker_of(session)

    async def _forget_worker(self, session_id: str) -> None:
        """Release a session from a strict affinity to a worker that is gone."""
        with suppress(SnakepitError):
            await self.sessions.assign_worker(session_id, "")

    def _job(self, request: ToolRequest, prefer: str | None, live: _Served, peer: Peer) -> Job:
        metadata = request.metadata
        live.last_worker = prefer
        return Job(
            request,
            request.tool_name,
            live.session_id,
            live.id,
            prefer or None,
            live.on_assigned,
            live.deadline,
            metadata.get(POOL) or None,
            metadata.get(IDEMPOTENT) == "true",
            RETRY in metadata and retry_in(metadata) is not None,
            peer,
            listing=live,
        )


class _Served(LiveRequest):
    """A live request with the scope of its references and its worker, for as long as its block runs."""

    __slots__ = ("_dispatcher", "_is_local", "_references", "last_worker", "session_id")

    def __init__(
        self, dispatcher: Dispatcher, request: ToolRequest, references: Scope, timeout: float | None, *, is_local: bool
    ) -> None:
        request_id = references.request or ""
        # In place of the caller's own: callers cannot choose the id of their request.
        request.metadata[REQUEST_ID] = request_id
        super().__init__(
            dispatcher.live_requests.by_id, request_id, request, None if timeout is None else time.monotonic() + timeout
        )
        self._dispatcher = dispatcher
        self._references = references
        self._is_local = is_local
        self.session_id = request.session_id
        self.last_worker: str | None = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            super().__exit__(kind, error, trace)
        except BaseException as raised:
            error = raised
            raise
        finally:
            self._dispatcher.fencing_tokens.release(self.id)
            # A local caller closes its scope itself.
            if not self._is_local:
                self._references.__exit__(None, error, None)

    def on_assigned(self, worker_id: str) -> Awaitable[None] | None:
        """Give a worker what it needs to run the request; see `Job`."""
        self.worker, self.is_running = worker_id, True
        dispatcher = self._dispatcher
        dispatcher.buffer_store.assign_worker(self.id, worker_id)
        dispatcher.fencing_tokens.assign(self.id, worker_id)
        if not self.session_id or worker_id == self.last_worker:
            return None
        self.last_worker = worker_id
        return dispatcher.sessions.assign_worker(self.session_id, worker_id)


def _values_of(request: ToolRequest) -> Iterable[bytes]:
    if isinstance(request, LargeRequest):
        return (request.raw,)
    return [message.value for message in request.parameters.values()]


def _raw_result(message: ToolResponse | Chunk) -> bytes:
    """Return the bytes in which a response, or a chunk, has its references."""
    if isinstance(message, LargeResponse | LargeChunk):
        return message.raw
    return message.data if isinstance(message, pb.ToolChunk) else message.result.value
