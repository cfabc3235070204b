"""A caller's side of the bridge, for other programs than the authority itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any, Self, TypeVar, Unpack

from snakepit_otel.bridge.client.address import authority_address
from snakepit_otel.bridge.client.admin import AdminCalls
from snakepit_otel.bridge.client.connection import AuthorityConnection, RawConnection
from snakepit_otel.bridge.client.lease import LeaseHolder
from snakepit_otel.bridge.client.restarts import REPEATED, Repetition, Restarts
from snakepit_otel.bridge.client.sessions import SessionCalls, site_header
from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb
from snakepit_otel.bridge.wire import codec, methods
from snakepit_otel.bridge.wire.authority_services import ADMIN, LEASES
from snakepit_otel.bridge.wire.chunk_stream import chunks
from snakepit_otel.bridge.wire.copy_fallback import Copier
from snakepit_otel.bridge.wire.raw_messages import LARGE_BYTES
from snakepit_otel.bridge.wire.reference_list import Incoming
from snakepit_otel.bridge.wire.request_metadata import checked_metadata
from snakepit_otel.bridge.wire.services import BRIDGE, BUFFERS
from snakepit_otel.bridge.wire.tool_calls import (
    MessageOptions,
    RequestOptions,
    execute_request,
    listing,
    result_of,
)
from snakepit_otel.common.call_site import call_site
from snakepit_otel.common.deadline import checked_timeout
from snakepit_otel.errors import (
    AuthorityUnavailable,
    ConfigurationError,
    DeadlineExceeded,
)
from snakepit_otel.rpc import Connection, socket_of, transport_of
from snakepit_otel.rpc.addresses import MAX_MESSAGE_BYTES
from snakepit_otel.zero_copy._descriptor import Owner, replaced
from snakepit_otel.zero_copy._fd_client import FdClient
from snakepit_otel.zero_copy._fd_server import fd_server_path
from snakepit_otel.zero_copy._scope import Scope
from snakepit_otel.zero_copy._settings import ZeroCopySettings

T = TypeVar("T")
_ANSWER_TIME_S = 0.5
_LEAST_S = 0.001
_JSON_ERRORS = (methods.ERRORS_HEADER, "json")


def _time_left(timeout: Any) -> float | None:
    """Return a call's timeout in seconds; see `checked_timeout`. Raises `DeadlineExceeded` where it is over."""
    seconds = checked_timeout(timeout)
    if seconds == 0:
        # gRPC may let the call through.
        raise DeadlineExceeded("the timeout had passed before the call was made; nothing was sent", may_have_run=False)
    return seconds


def _call_options(timeout: float | None) -> tuple[float | None, list[tuple[str, str]] | None]:
    """Return a call's deadline in seconds, and its headers with that of its request, which the authority keeps to.

    The call's is a little later: the authority has the reason for which a request was not done in time.
    """
    if timeout is None:
        return None, None
    return timeout + _ANSWER_TIME_S, [(methods.TIMEOUT_HEADER, repr(timeout))]


def _credentials(root_certificates: Path | None, certificate: Path | None, key: Path | None) -> Any:
    """Return what makes a connection secure; None where no file is given. Raises `ConfigurationError`."""
    if root_certificates is None and certificate is None and key is None:
        return None
    # Imported late: it takes gRPC along.
    from snakepit_otel.rpc.tls import client_credentials

    return client_credentials(root_certificates, certificate, key)


class Client(SessionCalls, AdminCalls):
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
        address: str | None = None,
        *,
        root_certificates: Path | None = None,
        certificate: Path | None = None,
        key: Path | None = None,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        zero_copy: ZeroCopySettings | None = None,
        metadata: Mapping[str, str] | None = None,
        wait_for_server: float | None = None,
    ) -> None:
        self.address = address = authority_address(address)
        self._metadata = checked_metadata(metadata or {})
        self._memory = (zero_copy or ZeroCopySettings()).limits
        self._restarts = Restarts(wait_for_server)
        self._sends_call_site = True
        # Also where it is not used: another user's socket is refused now, and not with the first call.
        shared = socket_of(address)
        self._fd_client = None if shared is None or not self._memory.enabled else FdClient(fd_server_path(shared.path))
        credentials = _credentials(root_certificates, certificate, key)
        if credentials is not None and address.startswith("unix:"):
            raise ConfigurationError("TLS is for HOST:PORT; on a Unix socket there is none, and the files are not used")

        def connect() -> Connection:
            return transport_of(address).connect(
                address,
                (BRIDGE, ADMIN, BUFFERS, LEASES),
                max_message_bytes=max_message_bytes,
                credentials=credentials,
                keepalive=True,
            )

        self._authority = AuthorityConnection(address, connect, is_secure=credentials is not None)
        raw = RawConnection(self._authority)
        self._copier = Copier(raw, max_message_bytes)
        self._leases = LeaseHolder(raw, self._authority.public)

    @property
    def repeated(self) -> int:
        """Calls that were made again, since the authority was not there or was lost."""
        return self._restarts.repeated

    async def __aenter__(self) -> Self:
        self._authority.opened()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection, and with it end the sessions bound to it; a closed client stays closed.

        Calls that run raise `ClientClosed`; their requests may have run.
        """
        await self._leases.close()
        await self._authority.close()
        if self._fd_client is not None:
            self._fd_client.close()

    async def execute(
        self, tool: str, parameters: Mapping[str, Any] | None = None, **options: Unpack[RequestOptions]
    ) -> Any:
        """Run a tool and return its result; see `RequestOptions` and `Snakepit.execute`."""
        timeout, started = _time_left(options.pop("timeout", None)), time.monotonic()
        try:
            return await self._execute(tool, parameters, timeout, options)
        except REPEATED as error:
            repetition = self._repetition(timeout, started, options)
            return await repetition.repeat(lambda left: self._execute(tool, parameters, left, options), error)

    async def _execute(
        self, tool: str, parameters: Mapping[str, Any] | None, timeout: float | None, options: MessageOptions
    ) -> Any:
        scope, options = self._begin(tool, options)
        try:
            request = listing(execute_request(tool, parameters, scope=scope, **options))
            if scope.to_send:
                timeout = await self._send(scope, timeout)
            longest, headers = _call_options(timeout)
            if (has_session := options.get("session_id") is not None) and self._sends_call_site:
                headers = [*(headers or ()), site_header(call_site())]
            response = await self._authority.call(methods.EXECUTE_TOOL, request, longest, headers)
            if has_session:
                self._note_strict_mode(response)
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
        timeout, started = _time_left(options.pop("timeout", None)), time.monotonic()
        left, repetition, has_begun = timeout, None, False
        site = call_site() if options.get("session_id") is not None else None
        while True:
            scope, more = self._begin(tool, options)
            try:
                async with aclosing(self._chunks(tool, parameters, scope, left, more, site)) as received:
                    async for chunk in received:
                        has_begun = True
                        yield chunk
                break
            except REPEATED as error:
                if has_begun:
                    raise
                repetition = repetition or self._repetition(timeout, started, options)
                if not await repetition.again(error):
                    raise
                left = repetition.time_left()
            finally:
                scope.close()

    def _chunks(
        self,
        tool: str,
        parameters: Mapping[str, Any] | None,
        scope: Scope,
        timeout: float | None,
        options: MessageOptions,
        site: str | None,
    ) -> AsyncGenerator[Any, None]:
        """Make one attempt at a stream."""

        async def decode(chunk: pb.ToolChunk) -> Any:
            incoming = Incoming.of(scope, chunk.metadata.get(methods.REFERENCES))
            return await self._fetched(
                codec.decode_chunk(chunk.data, chunk.metadata, incoming.take_unless_copied), scope
            )

        async def run(take: Any) -> None:
            request = listing(execute_request(tool, parameters, stream=True, scope=scope, **options))
            longest, headers = _call_options(await self._send(scope, timeout) if scope.to_send else timeout)
            if site is not None:
                headers = [*(headers or ()), site_header(site)]
            await self._authority.stream(methods.EXECUTE_STREAMING_TOOL, request, take, longest, headers)

        return chunks(run, decode)

    def _note_strict_mode(self, response: pb.ExecuteToolResponse) -> None:
        """Send the call sites of further requests if the authority reports them; the first request sends its own."""
        if methods.STRICT_MODE in response.metadata:
            self._sends_call_site = True
        elif self._sends_call_site:
            # A large response is passed on as it came, and says nothing about that.
            self._sends_call_site = response.ByteSize() > LARGE_BYTES

    async def _send(self, scope: Scope, timeout: float | None) -> float | None:
        """Copy the bytes of a request's references to the authority, and return the seconds that are left for it."""
        started = time.monotonic()
        try:
            async with asyncio.timeout(timeout):
                await self._copier.send(scope)
        except TimeoutError:
            late = f"the deadline passed while the request's arrays and tables were sent to {self.address}"
            raise DeadlineExceeded(f"{late}; it did not run", may_have_run=False) from None
        except AuthorityUnavailable as error:
            error.address, error.may_have_run = self.address, False
            raise
        return None if timeout is None else max(timeout - (time.monotonic() - started), _LEAST_S)

    async def _fetched(self, value: Any, scope: Scope) -> Any:
        """Return a value with its references replaced whose bytes had to be copied."""
        if not scope.to_fetch:
            return value
        await self._copier.fetch(scope, of_request=False)
        return replaced(value, scope.take)

    def _begin(self, tool: str, options: MessageOptions) -> tuple[Scope, MessageOptions]:
        """Return the scope of an attempt's references, and the options of its message."""
        session_id = options.get("session_id")
        self._leases.check(session_id)
        if self._metadata:
            options = {**options, "metadata": {**self._metadata, **(options.get("metadata") or {})}}
        no_exchange = "unreachable" if self._memory.enabled else "disabled"
        scope = Scope(
            Owner.ELIXIR, self._fd_client, self._memory, session_id=session_id, tool=tool, no_exchange=no_exchange
        )
        return scope, options

    def _repetition(self, timeout: float | None, started: float, options: MessageOptions) -> Repetition:
        idempotent = options.get("idempotent", False)
        left = None if timeout is None else timeout - (time.monotonic() - started)
        return self._restarts.call(left, idempotent=idempotent, has_answered=self._authority.has_answered)

    async def ping(self, timeout: float = 5.0) -> None:
        """Return if the authority answers."""
        await self._call(methods.PING, pb.PingRequest(message="ping"), timeout)

    async def _call(
        self,
        method: str,
        request: Any,
        timeout: float | None = None,
        headers: list[tuple[str, str]] | None = None,
        *,
        idempotent: bool = False,
    ) -> Any:
        timeout, started = _time_left(timeout), time.monotonic()
        longest, more = _call_options(timeout)
        headers = [_JSON_ERRORS, *(more or ()), *(headers or ())]
        try:
            return await self._authority.call(method, request, longest, headers)
        except REPEATED as error:
            repetition = self._repetition(timeout, started, {"idempotent": idempotent})
            return await repetition.repeat(
                lambda left: self._authority.call(method, request, _call_options(left)[0], headers), error
            )

    async def _leased(self, operation: Callable[[], Awaitable[T]], timeout: float | None) -> T:
        """Run an operation of the leases, which may be repeated, for `timeout` seconds at most."""
        timeout, started = _time_left(timeout), time.monotonic()

        async def attempt(left: float | None) -> T:
            try:
                async with asyncio.timeout(left):
                    return await operation()
            except TimeoutError:
                late = f"the authority at {self.address} did not answer in time; the call may have run"
                raise DeadlineExceeded(late) from None
            except AuthorityUnavailable as error:
                error.address = self.address
                raise

        try:
            return await attempt(timeout)
        except REPEATED as error:
            return await self._repetition(timeout, started, {"idempotent": True}).repeat(attempt, error)

    async def _stream(self, method: str, request: Any, take: Callable[[Any], Awaitable[None]]) -> None:
        await self._authority.stream(method, request, take)
