"""Service for the command line of a running authority, on the authority's Unix socket only."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from typing import Any

from snakepit_otel.bridge.authority.live_requests import LiveRequests
from snakepit_otel.bridge.proto import snakepit_admin_pb2 as pb
from snakepit_otel.bridge.wire.errors import to_status
from snakepit_otel.bridge.wire.restart_report import Replacement, Restart, RestartReport
from snakepit_otel.bridge.wire.status import Status
from snakepit_otel.bridge.wire.telemetry_controls import Controls
from snakepit_otel.bridge.wire.tool_listing import ListedTool, to_listing
from snakepit_otel.common.printable import MAX_MESSAGE_CHARACTERS, printable
from snakepit_otel.errors import (
    ConfigurationError,
    HandOverRefused,
    InvalidSession,
    PoolNotFound,
    PoolNotStarted,
    SessionNotFound,
    SnakepitError,
)
from snakepit_otel.rpc.status import StatusCode
from snakepit_otel.rpc.transports.base import CallContext as Context
from snakepit_otel.sessions import Session, SessionStore

_MAX_PAGE = 10_000
_MAX_PAGE_BYTES = 1 << 20
_log = logging.getLogger("snakepit_otel.admin")


class AdminService:
    """Looks at sessions without touching them, deletes them, turns telemetry up and down, and replaces workers.

    `set_telemetry` takes what is to change, as `Controls.changed` does, and returns what is in force. What is
    None is not offered.
    """

    def __init__(
        self,
        sessions: SessionStore,
        *,
        set_telemetry: Callable[..., Awaitable[Controls]] | None = None,
        set_strict_mode: Callable[[bool], Awaitable[None]] | None = None,
        status: Callable[[], Awaitable[Status]] | None = None,
        restart: Restart | None = None,
        tools: Callable[[], list[ListedTool]] | None = None,
        requests: LiveRequests | None = None,
        hand_over: Callable[[int, bool], Awaitable[tuple[str, int]]] | None = None,
    ) -> None:
        self._sessions = sessions
        self._set_telemetry = set_telemetry
        self._set_strict_mode = set_strict_mode
        self._status = status
        self._restart = restart
        self._tools = tools
        self._requests = requests
        self._hand_over = hand_over
        self._rolls: set[asyncio.Future[RestartReport]] = set()

    async def ListSessions(self, request: pb.ListSessionsRequest, context: Context) -> pb.ListSessionsResponse:
        """Return a page of live sessions in order of id: at least one, and no more than 1 MiB of others."""
        limit = min(request.limit or 1_000, _MAX_PAGE)
        owner = request.owner if request.HasField("owner") else None
        sessions = await self._sessions.list(after=request.after or None, limit=limit, owner=owner)
        page: list[pb.SessionInfo] = []
        size = 0
        for session in sessions:
            info = self._info(session)
            size += info.ByteSize()
            if page and size > _MAX_PAGE_BYTES:
                # Sessions may have much metadata: the caller asks for further pages.
                break
            page.append(info)
        return pb.ListSessionsResponse(sessions=page)

    async def ShowSession(self, request: pb.ShowSessionRequest, context: Context) -> pb.ShowSessionResponse:
        """Return one session with its state."""
        try:
            session = await self._sessions.get(request.session_id, touch=False)
            view = await self._sessions.read(request.session_id, touch=False)
        except (SessionNotFound, InvalidSession) as error:
            await context.abort(StatusCode.NOT_FOUND, to_status(error, {}))
        entries = [pb.StateEntry(key=key, json=entry.raw, version=entry.version) for key, entry in view.entries.items()]
        return pb.ShowSessionResponse(session=self._info(session), state=entries)

    async def DeleteSession(self, request: pb.DeleteSessionRequest, context: Context) -> pb.DeleteSessionResponse:
        """Delete one session."""
        try:
            deleted = await self._sessions.delete(request.session_id)
        except InvalidSession as error:
            await context.abort(StatusCode.INVALID_ARGUMENT, to_status(error, {}))
        return pb.DeleteSessionResponse(deleted=deleted)

    async def GroupSessions(self, request: pb.GroupSessionsRequest, context: Context) -> pb.GroupSessionsResponse:
        """Return the largest groups of live sessions by owner, call site or tool."""
        try:
            groups = await self._sessions.group(request.by)
        except ValueError:
            await context.abort(StatusCode.INVALID_ARGUMENT, "configuration: by must be owner, site or tool")
        shown = groups[: min(request.limit or 1_000, _MAX_PAGE)]
        return pb.GroupSessionsResponse(
            groups=[
                pb.SessionGroup(
                    name=group.name or "",
                    count=group.count,
                    memory_bytes=group.memory_bytes,
                    oldest_seconds=group.oldest_seconds,
                )
                for group in shown
            ],
            total=len(groups),
        )

    async def DeleteSessions(self, request: pb.DeleteSessionsRequest, context: Context) -> pb.DeleteSessionsResponse:
        """Delete the sessions of an owner, or count them."""
        try:
            count = await self._sessions.delete_owned(request.owner, dry_run=request.dry_run)
        except InvalidSession as error:
            await context.abort(StatusCode.INVALID_ARGUMENT, to_status(error, {}))
        return pb.DeleteSessionsResponse(count=count)

    async def SetStrictMode(self, request: pb.SetStrictModeRequest, context: Context) -> pb.SetStrictModeResponse:
        """Switch strict mode on or off, and return whether it is on."""
        try:
            await (self._set_strict_mode or self._sessions.set_strict_mode)(request.strict_mode)
        except PoolNotStarted as error:
            await context.abort(StatusCode.UNAVAILABLE, str(error))
        return pb.SetStrictModeResponse(strict_mode=self._sessions.strict_mode)

    async def GetStats(self, request: pb.GetStatsRequest, context: Context) -> pb.GetStatsResponse:
        """Return the ledger."""
        stats = await self._sessions.stats()
        settings = self._sessions.settings
        return pb.GetStatsResponse(
            **stats._asdict(),
            max_sessions=settings.max_sessions,
            max_sessions_per_owner=settings.max_sessions_per_owner,
            store=self._sessions.name,
        )

    async def SetTelemetry(self, request: pb.SetTelemetryRequest, context: Context) -> pb.SetTelemetryResponse:
        """Change the telemetry controls that the request has, and return the controls in force."""
        if self._set_telemetry is None:
            await context.abort(StatusCode.UNIMPLEMENTED, "there is no telemetry to set")
        values: dict[str, Any] = {}
        for name in ("level", "sampling", "allow", "deny"):
            if request.HasField(name):
                value = getattr(request, name)
                values[name] = tuple(value.patterns) if isinstance(value, pb.Patterns) else value
        try:
            now = await self._set_telemetry(**values)
        except ConfigurationError as error:
            await context.abort(StatusCode.INVALID_ARGUMENT, to_status(error, {}))
        except PoolNotStarted as error:
            await context.abort(StatusCode.UNAVAILABLE, to_status(error, {}))
        return pb.SetTelemetryResponse(level=now.level, sampling=now.sampling, allow=now.allow, deny=now.deny)

    async def GetStatus(self, request: pb.GetStatusRequest, context: Context) -> pb.GetStatusResponse:
        """Return how server, sessions, pools and workers are."""
        if self._status is None:
            await context.abort(StatusCode.UNIMPLEMENTED, "there is no status to tell")
        try:
            return (await self._status()).to_message()
        except PoolNotStarted as error:
            await context.abort(StatusCode.UNAVAILABLE, to_status(error, {}))

    async def ListTools(self, request: pb.ListToolsRequest, context: Context) -> pb.ListToolsResponse:
        """Return the tools that callers may call."""
        if self._tools is None:
            await context.abort(StatusCode.UNIMPLEMENTED, "there are no tools to list")
        try:
            return to_listing(self._tools())
        except PoolNotStarted as error:
            await context.abort(StatusCode.UNAVAILABLE, str(error))

    async def ListRequests(self, request: pb.ListRequestsRequest, context: Context) -> pb.ListRequestsResponse:
        """Return the oldest of the requests that wait or run."""
        if self._requests is None:
            await context.abort(StatusCode.UNIMPLEMENTED, "there are no requests to list")
        found = self._requests.list(min(request.limit or 1_000, _MAX_PAGE))
        return pb.ListRequestsResponse(requests=[one.to_message() for one in found.requests], total=found.total)

    async def CancelRequest(self, request: pb.CancelRequestRequest, context: Context) -> pb.CancelRequestResponse:
        """Cancel one request, whose caller gets `RequestCancelled`."""
        if self._requests is None:
            await context.abort(StatusCode.UNIMPLEMENTED, "there are no requests to cancel")
        try:
            return pb.CancelRequestResponse(cancelled=self._requests.cancel(request.id))
        except ConfigurationError as error:
            await context.abort(StatusCode.INVALID_ARGUMENT, f"configuration: {error}")

    async def RestartWorkers(self, request: pb.RestartWorkersRequest, context: Context) -> None:
        """Replace the workers of one pool or of all, and send each replacement; go on if the caller leaves."""
        if self._restart is None:
            await context.abort(StatusCode.UNIMPLEMENTED, "there are no workers to restart")
        replacements: asyncio.Queue[Replacement | None] = asyncio.Queue()
        # In a task of its own: half a restart would leave two versions of an adapter side by side.
        roll = asyncio.ensure_future(self._restart(request.pool or None, replacements.put_nowait))
        self._rolls.add(roll)
        roll.add_done_callback(self._rolled)
        roll.add_done_callback(lambda _: replacements.put_nowait(None))
        while (replacement := await replacements.get()) is not None:
            await context.write(replacement.to_message())
        try:
            roll.result()
        except SnakepitError as error:
            await context.abort(_code(error), to_status(error, {}))

    async def HandOver(self, request: pb.HandOverRequest, context: Context) -> pb.HandOverResponse:
        """Let a process take the addresses; once it listens there, stop."""
        if self._hand_over is None:
            await context.abort(StatusCode.UNIMPLEMENTED, "there are no addresses to hand over")
        try:
            listen, sessions = await self._hand_over(request.pid, request.listening)
        except (HandOverRefused, PoolNotStarted) as error:
            await context.abort(StatusCode.FAILED_PRECONDITION, str(error))
        return pb.HandOverResponse(pid=os.getpid(), listen=listen, sessions=sessions)

    def _rolled(self, roll: asyncio.Future[RestartReport]) -> None:
        self._rolls.discard(roll)
        # Retrieved here, since the caller may have left.
        if not roll.cancelled() and (error := roll.exception()) is not None:
            _log.warning("the rolling restart ended early: %s", printable(error, MAX_MESSAGE_CHARACTERS))

    def _info(self, session: Session) -> pb.SessionInfo:
        return pb.SessionInfo(
            id=session.id,
            ttl_seconds=session.ttl,
            created_at=session.created_at,
            idle_seconds=session.idle,
            expires_in_seconds=max(0.0, session.ttl - session.idle),
            metadata=session.metadata,
            owner=session.owner or "",
            last_worker_id=session.last_worker_id or "",
            version=session.version,
            memory_bytes=session.memory_bytes,
        )


def _code(error: SnakepitError) -> StatusCode:
    if isinstance(error, PoolNotFound):
        return StatusCode.NOT_FOUND
    return StatusCode.UNAVAILABLE if isinstance(error, PoolNotStarted) else StatusCode.INTERNAL
