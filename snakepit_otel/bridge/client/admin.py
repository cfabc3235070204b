"""A client's calls of the admin service, which an authority serves on its Unix socket only."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, Unpack

from snakepit_otel.bridge.proto import snakepit_admin_pb2 as admin_pb
from snakepit_otel.bridge.wire import methods
from snakepit_otel.bridge.wire.messages import message
from snakepit_otel.bridge.wire.request_listing import ListedRequest, RequestList
from snakepit_otel.bridge.wire.restart_report import Replacement, RestartReport
from snakepit_otel.bridge.wire.status import Status
from snakepit_otel.bridge.wire.telemetry_controls import TelemetryChanges
from snakepit_otel.bridge.wire.tool_listing import ListedTool
from snakepit_otel.sessions import SessionGroup


class SessionGroups(NamedTuple):
    """Groups of live sessions, the largest first; `total` counts those beyond the limit, too."""

    groups: list[SessionGroup]
    total: int


class AdminCalls:
    """Calls of the admin service; the base of `Client`, which makes them."""

    async def list_sessions(
        self, after: str = "", limit: int = 1_000, *, owner: str | None = None
    ) -> list[admin_pb.SessionInfo]:
        """Return live sessions in order of id, those above `after`, of one `owner` or of all.

        On the authority's Unix socket only.
        """
        found: list[admin_pb.SessionInfo] = []
        while len(found) < limit:
            # A page may have fewer sessions than requested, by their size; only an empty one is the last.
            request = message(admin_pb.ListSessionsRequest, after=after, limit=limit - len(found), owner=owner)
            page = list((await self._call_admin("ListSessions", request)).sessions)
            if not page:
                break
            found += page
            after = page[-1].id
        return found

    async def show_session(self, session_id: str) -> admin_pb.ShowSessionResponse:
        """Return one session with its state, untouched; on the authority's Unix socket only."""
        request = message(admin_pb.ShowSessionRequest, session_id=session_id)
        response: admin_pb.ShowSessionResponse = await self._call_admin("ShowSession", request)
        return response

    async def remove_session(self, session_id: str) -> bool:
        """Delete a session and return whether there was one; on the authority's Unix socket only."""
        response = await self._call_admin(
            "DeleteSession", message(admin_pb.DeleteSessionRequest, session_id=session_id)
        )
        return bool(response.deleted)

    async def group_sessions(self, by: str = "owner", limit: int = 1_000) -> SessionGroups:
        """Return the largest groups of live sessions by `owner`, `site` or `tool`; on the Unix socket only.

        Call sites are known of sessions that were made in strict mode, tools of those that a request made. Raises
        `ConfigurationError` for another `by`.
        """
        found = await self._call_admin("GroupSessions", message(admin_pb.GroupSessionsRequest, by=by, limit=limit))
        groups = [
            SessionGroup(one.name or None, one.count, one.memory_bytes, one.oldest_seconds) for one in found.groups
        ]
        return SessionGroups(groups, found.total)

    async def delete_sessions(self, *, owner: str, dry_run: bool = False) -> int:
        """Delete the sessions that the owner has now, and return how many; with `dry_run`, only count them.

        On the authority's Unix socket only. Raises `InvalidSession` for an owner that cannot be.
        """
        request = message(admin_pb.DeleteSessionsRequest, owner=owner, dry_run=dry_run)
        return int((await self._call_admin("DeleteSessions", request, 60.0)).count)

    async def set_strict_mode(self, strict_mode: bool) -> bool:
        """Switch strict mode on or off while the authority runs, and return whether it is on; on its Unix socket only.

        Sessions live on. Of those that were made while it was off, reports have the owner and no call site.
        """
        request = message(admin_pb.SetStrictModeRequest, strict_mode=strict_mode)
        return bool((await self._call_admin("SetStrictMode", request)).strict_mode)

    async def stats(self) -> admin_pb.GetStatsResponse:
        """Return the ledger; on the authority's Unix socket only."""
        response: admin_pb.GetStatsResponse = await self._call_admin("GetStats", admin_pb.GetStatsRequest())
        return response

    async def set_telemetry(self, **changes: Unpack[TelemetryChanges]) -> admin_pb.SetTelemetryResponse:
        """Change what the authority and its workers record; return what is in force. On its Unix socket only."""
        fields: dict[str, Any] = {key: value for key, value in changes.items() if value is not None}
        for key in fields.keys() & {"allow", "deny"}:
            fields[key] = message(admin_pb.Patterns, patterns=list(fields[key]))
        request = message(admin_pb.SetTelemetryRequest, **fields)
        response: admin_pb.SetTelemetryResponse = await self._call_admin("SetTelemetry", request)
        return response

    async def status(self, *, timeout: float = 10.0) -> Status:
        """Return the authority's state, within `timeout` seconds; on its Unix socket only."""
        return Status.of_message(await self._call_admin("GetStatus", admin_pb.GetStatusRequest(), timeout))

    async def list_tools(self) -> list[ListedTool]:
        """Return the tools that may be called, those of the authority first; on its Unix socket only."""
        listing = await self._call_admin("ListTools", admin_pb.ListToolsRequest())
        return [ListedTool.of_message(one) for one in listing.tools]

    async def list_requests(self, limit: int = 1_000) -> RequestList:
        """Return the oldest requests that wait or run, at most `limit` and 10 000; on its Unix socket only."""
        found = await self._call_admin("ListRequests", message(admin_pb.ListRequestsRequest, limit=limit))
        return RequestList([ListedRequest.of_message(one) for one in found.requests], found.total)

    async def cancel_request(self, request_id: str) -> bool:
        """Cancel the request of this id, or the only one whose id begins so; return whether there is one.

        Its caller gets `RequestCancelled`. On the authority's Unix socket only. Raises `ConfigurationError` for a
        beginning that is too short, or that several ids share.
        """
        request = message(admin_pb.CancelRequestRequest, id=request_id)
        return bool((await self._call_admin("CancelRequest", request)).cancelled)

    async def restart_workers(
        self, pool: str | None = None, progress: Callable[[Replacement], None] | None = None
    ) -> RestartReport:
        """Replace all workers of a pool, or of every pool, one after another; on the authority's Unix socket only.

        `progress` is called for each when it has been replaced. Once begun, the authority continues, whatever
        becomes of the caller. Raises `PoolNotFound`.
        """
        replacements: list[Replacement] = []

        async def take(one: admin_pb.Replacement) -> None:
            replacements.append(Replacement.of_message(one))
            if progress is not None:
                progress(replacements[-1])

        request = message(admin_pb.RestartWorkersRequest, pool=pool or "")
        await self._stream(f"{methods.ADMIN}/RestartWorkers", request, take)
        return RestartReport(tuple(replacements))

    async def _call_admin(self, method: str, request: Any, timeout: float | None = 10.0) -> Any:
        return await self._call(f"{methods.ADMIN}/{method}", request, timeout)

    async def _call(self, method: str, request: Any, timeout: float | None = None) -> Any:
        """Make a call and return its answer; raises the public error."""
        raise NotImplementedError

    async def _stream(self, method: str, request: Any, take: Callable[[Any], Awaitable[None]]) -> None:
        """Make a call and await `take` for each message of its answer; raises the public error."""
        raise NotImplementedError
