"""A caller's side of the bridge, for other programs than the authority itself."""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, Self, Unpack
from urllib.parse import quote

from snakepit_otel.bridge.client.admin import AdminCalls
from snakepit_otel.bridge.client.lease import LeaseHolder
from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb
from snakepit_otel.bridge.proto.snakepit_admin_pb2_grpc import AdminServiceStub
from snakepit_otel.bridge.proto.snakepit_bridge_pb2_grpc import BridgeServiceStub
from snakepit_otel.bridge.proto.snakepit_buffers_pb2_grpc import BufferServiceStub
from snakepit_otel.bridge.proto.snakepit_leases_pb2_grpc import LeaseServiceStub
from snakepit_otel.bridge.wire import codec, methods
from snakepit_otel.bridge.wire.chunk_stream import chunks
from snakepit_otel.bridge.wire.copy_fallback import Copier
from snakepit_otel.bridge.wire.errors import from_wire
from snakepit_otel.bridge.wire.messages import message
from snakepit_otel.bridge.wire.reference_list import Incoming
from snakepit_otel.bridge.wire.request_metadata import checked_metadata
from snakepit_otel.bridge.wire.tool_calls import (
    MessageOptions,
    RequestOptions,
    execute_request,
    listing,
    result_of,
    stream_error,
)
from snakepit_otel.common.call_site import call_site
from snakepit_otel.common.deadline import checked_timeout
from snakepit_otel.errors import (
    AuthorityUnavailable,
    ConfigurationError,
    DeadlineExceeded,
    InvalidSession,
    SessionNotFound,
    SessionQuotaExceeded,
    SnakepitError,
    ToolError,
)
from snakepit_otel.rpc import RpcError, StatusCode, snakepit_error, socket_of, transport_of
from snakepit_otel.rpc.addresses import MAX_MESSAGE_BYTES
from snakepit_otel.rpc.tls import advice, client_credentials
from snakepit_otel.rpc.transports.grpc import rpc_error
from snakepit_otel.sessions._session import checked_owner, checked_ttl
from snakepit_otel.zero_copy._descriptor import Owner, replaced
from snakepit_otel.zero_copy._fd_client import FdClient
from snakepit_otel.zero_copy._fd_server import fd_server_path
from snakepit_otel.zero_copy._scope import Scope
from snakepit_otel.zero_copy._settings import ZeroCopySettings


def _time_left(timeout: Any) -> float | None:
    """Return a call's timeout in seconds; see `checked_timeout`. Raises `DeadlineExceeded` where it is over."""
    seconds = checked_timeout(timeout)
    if seconds == 0:
        # gRPC may let the call through.
        raise DeadlineExceeded("the timeout had passed before the call was made; nothing was sent")
    return seconds


class Client(AdminCalls):
    """Calls a running authority at `unix:PATH` or `HOST:PORT`; an async context manager.

    `root_certificates` and, where the server requires them, `certificate` and `key` are PEM files for TLS, read once.
    The server's certificate must be for the host in `address`, and signed by one of `root_certificates`; without
    those nothing is encrypted.
    On a Unix socket, arrays and tables are passed by shared memory; on TCP their bytes are copied, as far as
    `zero_copy` allows.
    A Unix socket is connected to only if it, its directory and its listener are this user's or root's, and others
    may not write to the directory; if not, making a client raises `UnsafeSocket`, and nothing is sent.
    SNAKEPIT_OTEL_SERVER_USER names one more user whose sockets will do.
    Every request has the client's `metadata`, besides its own; middleware reads them.
    Raises `AuthorityUnavailable` without an answer, `DeadlineExceeded` after a call's `timeout` in
    seconds, and what the tool or the authority raised.
    """

    def __init__(
        self,
        address: str,
        *,
        root_certificates: Path | None = None,
        certificate: Path | None = None,
        key: Path | None = None,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        zero_copy: ZeroCopySettings | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        self.address = address
        self._metadata = checked_metadata(metadata or {})
        self._memory = (zero_copy or ZeroCopySettings()).limits
        shared = socket_of(address) if self._memory.enabled else None
        self._fd_client = None if shared is None else FdClient(fd_server_path(shared.path))
        credentials = client_credentials(root_certificates, certificate, key)
        if credentials is not None and address.startswith("unix:"):
            raise ConfigurationError("TLS is for HOST:PORT; on a Unix socket there is none, and the files are not used")
        self._secure = credentials is not None
        self._connection = transport_of(address).connect(
            address,
            (BridgeServiceStub, AdminServiceStub, BufferServiceStub, LeaseServiceStub),
            max_message_bytes=max_message_bytes,
            credentials=credentials,
            keepalive=True,
        )
        self._copier = Copier(self._connection, max_message_bytes)
        self._leases = LeaseHolder(self._connection, lambda error: self._error(rpc_error(error), ""))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection, and with it end the sessions bound to it."""
        await self._leases.close()
        await self._connection.close()
        if self._fd_client is not None:
            self._fd_client.close()

    async def execute(
        self, tool: str, parameters: Mapping[str, Any] | None = None, **options: Unpack[RequestOptions]
    ) -> Any:
        """Run a tool and return its result; see `RequestOptions` and `Snakepit.execute`."""
        scope, timeout, more = self._begin(tool, options)
        try:
            request = listing(execute_request(tool, parameters, scope=scope, **more))
            await self._copier.send(scope)
            response = await self._call(methods.EXECUTE_TOOL, request, timeout)
            incoming = Incoming.of(scope, response.metadata.get(methods.REFERENCES))
            return await self._fetched(result_of(response, request, incoming.take_unless_copied), scope)
        finally:
            scope.close()

    async def stream(
        self, tool: str, parameters: Mapping[str, Any] | None = None, **options: Unpack[RequestOptions]
    ) -> AsyncGenerator[Any, None]:
        """Run a tool and yield its chunks as they come; leaving early cancels it.

        Use `contextlib.aclosing` to have that happen at once.
        """
        scope, timeout, more = self._begin(tool, options)

        async def decode(chunk: pb.ToolChunk) -> Any:
            incoming = Incoming.of(scope, chunk.metadata.get(methods.REFERENCES))
            return await self._fetched(
                codec.decode_chunk(chunk.data, chunk.metadata, incoming.take_unless_copied), scope
            )

        async def run(take: Any) -> None:
            request = listing(execute_request(tool, parameters, stream=True, scope=scope, **more))
            await self._copier.send(scope)
            try:
                await self._connection.stream(methods.EXECUTE_STREAMING_TOOL, request, take, timeout)
            except RpcError as error:
                raise self._advised(stream_error(error, f"the authority at {self.address}")) from None

        try:
            async with aclosing(chunks(run, decode)) as received:
                async for chunk in received:
                    yield chunk
        finally:
            scope.close()

    async def _fetched(self, value: Any, scope: Scope) -> Any:
        """Return a value with its references replaced whose bytes had to be copied."""
        if not scope.to_fetch:
            return value
        await self._copier.fetch(scope, of_request=False)
        return replaced(value, scope.take)

    def _begin(self, tool: str, options: RequestOptions) -> tuple[Scope, float | None, MessageOptions]:
        session_id = options.get("session_id")
        self._leases.check(session_id)
        timeout = _time_left(options.pop("timeout", None))
        if self._metadata:
            options["metadata"] = {**self._metadata, **(options.get("metadata") or {})}
        no_exchange = "unreachable" if self._memory.enabled else "disabled"
        scope = Scope(
            Owner.ELIXIR, self._fd_client, self._memory, session_id=session_id, tool=tool, no_exchange=no_exchange
        )
        return scope, timeout, options

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
    ) -> None:
        """Create a session, or touch the live one with that id. `ttl` is in seconds.

        One that is `bound` lives for as long as this client is connected, at most; its TTL does not run out
        meanwhile. If the connection breaks, or the session ends otherwise, requests of this client for it raise
        `SessionNotFound`. A client has at most 1 000 bound ones: `SessionQuotaExceeded`.
        """
        site = call_site()
        if bound:
            await self._leases.create(session_id, ttl=ttl, metadata=metadata, owner=owner, call_site=site)
            return
        headers = [(methods.CALL_SITE_HEADER, site.encode("ascii", "replace").decode())]
        if ttl is not None:
            headers.append((methods.TTL_HEADER, repr(checked_ttl(ttl))))
        if owner is not None:
            # Headers are of ASCII, and owners of any letters.
            headers.append((methods.OWNER_HEADER, quote(checked_owner(owner) or "")))
        request = message(pb.InitializeSessionRequest, session_id=session_id, metadata=metadata or {})
        await self._call(methods.INITIALIZE_SESSION, request, None, headers)
        self._leases.forget_loss(session_id)

    async def bind_session(self, session_id: str) -> None:
        """Bind a live session to this client's connection; see `create_session`. Raises `SessionNotFound`."""
        await self._leases.hold(session_id)

    async def release_session(self, session_id: str) -> bool:
        """Bind the session no more: it lives on for its TTL. Say whether it was bound to this client."""
        return await self._leases.release(session_id)

    async def delete_session(self, session_id: str) -> None:
        """Delete a session; it is no error if there is none."""
        self._leases.expect_end(session_id)
        await self._call(methods.CLEANUP_SESSION, message(pb.CleanupSessionRequest, session_id=session_id))

    async def heartbeat(self, session_id: str) -> bool:
        """Extend the session's life; False if it is not live."""
        response = await self._call(methods.HEARTBEAT, message(pb.HeartbeatRequest, session_id=session_id))
        return bool(response.session_valid)

    async def ping(self, timeout: float = 5.0) -> None:
        """Return if the authority answers."""
        await self._call(methods.PING, pb.PingRequest(message="ping"), timeout)

    async def _call(
        self, method: str, request: Any, timeout: float | None = None, headers: list[tuple[str, str]] | None = None
    ) -> Any:
        timeout = _time_left(timeout)
        try:
            return await self._connection.call(method, request, timeout, headers)
        except RpcError as error:
            raise self._error(error, getattr(request, "session_id", "")) from None

    async def _stream(self, method: str, request: Any, take: Callable[[Any], Awaitable[None]]) -> None:
        try:
            await self._connection.stream(method, request, take)
        except RpcError as error:
            raise self._error(error, "") from None

    def _error(self, error: RpcError, session_id: str) -> SnakepitError:
        code, details = error.code, error.details
        if details.startswith("{") or code is StatusCode.NOT_FOUND:
            return from_wire(details) if details.startswith("{") else SessionNotFound(session_id)
        if details.startswith("configuration: "):
            return ConfigurationError(details.removeprefix("configuration: "))
        if code is StatusCode.INVALID_ARGUMENT:
            return InvalidSession(details.removeprefix("invalid_session: "))
        if details.startswith("session_quota_exceeded"):
            quota = SessionQuotaExceeded(0)
            quota.args = (details.partition(": ")[2],)
            return quota
        if code is not StatusCode.UNIMPLEMENTED:
            return self._advised(snakepit_error(error, f"the authority at {self.address}"))
        return ToolError(code.name, f"{self.address} does not offer this; use the authority's Unix socket")

    def _advised(self, error: SnakepitError) -> SnakepitError:
        """Return the error with what to do about it, where it lies in TLS."""
        if not isinstance(error, AuthorityUnavailable) or self.address.startswith("unix:"):
            return error
        found = advice(str(error), secure=self._secure)
        return error if found is None else AuthorityUnavailable(f"{error}; {found}")
