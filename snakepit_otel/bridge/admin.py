"""What the command line asks of a running authority; on its Unix socket only."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from grpc import aio

from snakepit_otel.bridge.proto import snakepit_admin_pb2 as pb
from snakepit_otel.bridge.proto.snakepit_admin_pb2_grpc import AdminServiceServicer
from snakepit_otel.bridge.recording import Controls
from snakepit_otel.clock import Clock, SystemClock
from snakepit_otel.errors import ConfigurationError, InvalidSession, PoolNotStarted, SessionNotFound
from snakepit_otel.sessions import Session, SessionStore

Context = aio.ServicerContext[Any, Any]
_MAX_PAGE = 10_000


class AdminService(AdminServiceServicer):
    """Looks at sessions without touching them, deletes them, and turns telemetry up and down.

    `set_telemetry` takes what is to change, as `Controls.changed` does, and returns what is in force.
    """

    def __init__(
        self,
        sessions: SessionStore,
        clock: Clock | None = None,
        *,
        set_telemetry: Callable[..., Awaitable[Controls]] | None = None,
    ) -> None:
        self._sessions = sessions
        self._clock = clock or SystemClock()
        self._set_telemetry = set_telemetry

    async def ListSessions(self, request: pb.ListSessionsRequest, context: Context) -> pb.ListSessionsResponse:
        """Return a page of live sessions in order of id."""
        limit = min(request.limit or 1_000, _MAX_PAGE)
        sessions = await self._sessions.list(after=request.after or None, limit=limit)
        return pb.ListSessionsResponse(sessions=[self._info(session) for session in sessions])

    async def ShowSession(self, request: pb.ShowSessionRequest, context: Context) -> pb.ShowSessionResponse:
        """Return one session with its state."""
        try:
            session = await self._sessions.get(request.session_id, touch=False)
            view = await self._sessions.read(request.session_id, touch=False)
        except (SessionNotFound, InvalidSession) as error:
            await context.abort(grpc.StatusCode.NOT_FOUND, str(error))
        entries = [pb.StateEntry(key=key, json=entry.raw, version=entry.version) for key, entry in view.entries.items()]
        return pb.ShowSessionResponse(session=self._info(session), state=entries)

    async def DeleteSession(self, request: pb.DeleteSessionRequest, context: Context) -> pb.DeleteSessionResponse:
        """Delete one session."""
        try:
            deleted = await self._sessions.delete(request.session_id)
        except InvalidSession as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        return pb.DeleteSessionResponse(deleted=deleted)

    async def GetStats(self, request: pb.GetStatsRequest, context: Context) -> pb.GetStatsResponse:
        """Return the ledger."""
        stats = await self._sessions.stats()
        return pb.GetStatsResponse(**stats._asdict(), max_sessions=self._sessions.settings.max_sessions)

    async def SetTelemetry(self, request: pb.SetTelemetryRequest, context: Context) -> pb.SetTelemetryResponse:
        """Change what is recorded, as far as the request says, and return what is in force."""
        if self._set_telemetry is None:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "there is no telemetry to set")
        values: dict[str, Any] = {}
        for name in ("level", "sampling", "allow", "deny"):
            if request.HasField(name):
                value = getattr(request, name)
                values[name] = tuple(value.patterns) if isinstance(value, pb.Patterns) else value
        try:
            now = await self._set_telemetry(**values)
        except ConfigurationError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"configuration: {error}")
        except PoolNotStarted as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
        return pb.SetTelemetryResponse(level=now.level, sampling=now.sampling, allow=now.allow, deny=now.deny)

    def _info(self, session: Session) -> pb.SessionInfo:
        idle = self._clock.monotonic() - session.last_accessed
        return pb.SessionInfo(
            id=session.id,
            ttl_seconds=session.ttl,
            created_at=session.created_at,
            idle_seconds=idle,
            expires_in_seconds=max(0.0, session.ttl - idle),
            metadata=session.metadata,
            owner=session.owner or "",
            last_worker_id=session.last_worker_id or "",
            version=session.version,
            memory_bytes=session.memory_bytes,
        )
