"""A client's calls for sessions, those that are bound to its connection included."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar
from urllib.parse import quote

from snakepit_otel.bridge.client.lease import LeaseHolder
from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb
from snakepit_otel.bridge.wire import methods
from snakepit_otel.bridge.wire.messages import message
from snakepit_otel.common.call_site import call_site
from snakepit_otel.sessions._session import checked_owner, checked_ttl

T = TypeVar("T")


def site_header(site: str) -> tuple[str, str]:
    """Return the header with the call site of a session's creator; headers are ASCII."""
    return methods.CALL_SITE_HEADER, site.encode("ascii", "replace").decode()


class SessionCalls:
    """Calls for sessions; a base of `Client`, which makes them.

    All of them may be repeated: idempotent, they go on when their authority is back. Each takes a `timeout` in seconds.
    """

    _leases: LeaseHolder

    @asynccontextmanager
    async def session(
        self,
        session_id: str | None = None,
        *,
        ttl: float | None = None,
        metadata: Mapping[str, str] | None = None,
        owner: str | None = None,
    ) -> AsyncIterator[str]:
        """Create a session for the length of an `async with` block, and give its id.

        Inside the block its TTL does not run out. It is deleted at the end of the block, and by the authority
        if this process, its machine or the connection is gone before; see `create_session` with `bound`.
        """
        session_id = uuid.uuid4().hex if session_id is None else session_id
        await self.create_session(session_id, ttl=ttl, metadata=metadata, owner=owner, bound=True)
        try:
            yield session_id
        finally:
            await self._leases.end(session_id)

    async def create_session(
        self,
        session_id: str,
        *,
        ttl: float | None = None,
        metadata: Mapping[str, str] | None = None,
        owner: str | None = None,
        bound: bool = False,
        timeout: float | None = None,
    ) -> None:
        """Create a session, or touch the live one with that id. `ttl` and `timeout` are in seconds.

        One that is `bound` lives for as long as this client is connected, at most; its TTL does not run out
        meanwhile. If the connection breaks, or the session ends otherwise, requests of this client for it raise
        `SessionNotFound`. A client has at most 1 000 bound ones: `SessionQuotaExceeded`.
        """
        site = call_site()
        if bound:
            await self._leased(
                lambda: self._leases.create(session_id, ttl=ttl, metadata=metadata, owner=owner, call_site=site),
                timeout,
            )
            return
        headers = [site_header(site)]
        if ttl is not None:
            headers.append((methods.TTL_HEADER, repr(checked_ttl(ttl))))
        if owner is not None:
            # Headers are of ASCII, and owners of any letters.
            headers.append((methods.OWNER_HEADER, quote(checked_owner(owner) or "")))
        request = message(pb.InitializeSessionRequest, session_id=session_id, metadata=metadata or {})
        await self._call(methods.INITIALIZE_SESSION, request, timeout, headers, idempotent=True)
        self._leases.forget_loss(session_id)

    async def bind_session(self, session_id: str, *, timeout: float | None = None) -> None:
        """Bind a live session to this client's connection; see `create_session`. Raises `SessionNotFound`."""
        await self._leased(lambda: self._leases.hold(session_id), timeout)

    async def release_session(self, session_id: str) -> bool:
        """Bind the session no more: it lives on for its TTL. Say whether it was bound to this client."""
        return await self._leases.release(session_id)

    async def delete_session(self, session_id: str, *, timeout: float | None = None) -> None:
        """Delete a session; it is no error if there is none."""
        self._leases.expect_end(session_id)
        request = message(pb.CleanupSessionRequest, session_id=session_id)
        await self._call(methods.CLEANUP_SESSION, request, timeout, idempotent=True)

    async def heartbeat(self, session_id: str, *, timeout: float | None = None) -> bool:
        """Extend the session's life; False if it is not live."""
        request = message(pb.HeartbeatRequest, session_id=session_id)
        response = await self._call(methods.HEARTBEAT, request, timeout, idempotent=True)
        return bool(response.session_valid)

    async def _call(
        self,
        method: str,
        request: Any,
        timeout: float | None = None,
        headers: list[tuple[str, str]] | None = None,
        *,
        idempotent: bool = False,
    ) -> Any:
        """Make a call and return its answer; raises the public error."""
        raise NotImplementedError

    async def _leased(self, operation: Callable[[], Awaitable[T]], timeout: float | None) -> T:
        """Run an operation of the leases, for `timeout` seconds at most; raises the public error."""
        raise NotImplementedError
