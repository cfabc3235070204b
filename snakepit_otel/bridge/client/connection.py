"""A client's connection to its authority, whose failures are errors of the same kinds as in the authority's process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from snakepit_otel.bridge.wire.errors import from_wire
from snakepit_otel.errors import (
    AuthorityUnavailable,
    ClientClosed,
    ConfigurationError,
    InvalidSession,
    SessionNotFound,
    SnakepitError,
    ToolError,
)
from snakepit_otel.rpc import Connection, ConnectionClosed, RpcError, StatusCode, snakepit_error
from snakepit_otel.rpc.transports.base import Metadata

_ADVICE = (
    ("No such file or directory", "there is no such socket"),
    ("Connection refused", "nothing listens there"),
    ("errors resolving", "no machine has that name"),
    ("Permission denied", "this user may not use it"),
)
_WHAT_TO_DO = (
    "start the authority ('snakepit-otel serve'), or name the one that runs: Client(address), SNAKEPIT_OTEL_ADDRESS, "
    "or server.socket of ./snakepit.toml"
)
_CLOSED = "this client is closed; nothing was sent. Make another one, or close it later"


class AuthorityConnection:
    """Connection to the authority at `address`, made by `connect` in the event loop that first uses it.

    `call` and `stream` raise public errors. The rest is as of `Connection`, for parts of the client that translate
    themselves. `has_answered` once the authority has answered a call, `is_closed` for good after `close`.
    """

    def __init__(self, address: str, connect: Callable[[], Connection], *, is_secure: bool) -> None:
        self.address = address
        self.has_answered = False
        self.is_closed = False
        self._connect = connect
        self._is_secure = is_secure
        self._made: Connection | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def opened(self) -> Connection:
        """Return the connection, made now if there is none. Raises `ClientClosed`; `RuntimeError` in another loop."""
        loop = asyncio.get_running_loop()
        if loop is self._loop and self._made is not None:
            return self._made
        if self.is_closed:
            raise ClientClosed(_CLOSED)
        if self._loop is not None:
            raise ClientClosed(
                "this client belongs to another event loop, in which it was first used; make one for each"
            )
        self._made, self._loop = self._connect(), loop
        return self._made

    async def call(
        self, method: str, request: Any, timeout: float | None = None, headers: Metadata | None = None
    ) -> Any:
        """Send one message and return the answer."""
        try:
            answer = await self.opened().call(method, request, timeout, headers)
        except RpcError as error:
            raise self.public(error, getattr(request, "session_id", "")) from None
        except asyncio.CancelledError:
            self._raise_if_closed()
            raise
        self.has_answered = True
        return answer

    async def stream(
        self,
        method: str,
        request: Any,
        take: Callable[[Any], Awaitable[None]],
        timeout: float | None = None,
        headers: Metadata | None = None,
    ) -> None:
        """Send one message and await `take` for each message of the answer."""
        try:
            await self.opened().stream(method, request, take, timeout, headers)
        except RpcError as error:
            raise self.public(error, getattr(request, "session_id", "")) from None
        except asyncio.CancelledError:
            self._raise_if_closed()
            raise
        self.has_answered = True

    async def close(self) -> None:
        """Close the connection; calls that it has raise `ClientClosed`, as later ones do."""
        self.is_closed = True
        made, self._made = self._made, None
        if made is not None:
            await made.close()

    def public(self, error: RpcError, session_id: str = "") -> SnakepitError:
        """Return the public error for a call that failed."""
        details = error.details
        if details.startswith("{"):
            self.has_answered = True
            return from_wire(details)
        if isinstance(error, ConnectionClosed):
            return ClientClosed(_CLOSED)
        return _described(error, session_id, self.address) or self._with_advice(
            snakepit_error(error, f"the authority at {self.address}")
        )

    def _with_advice(self, error: SnakepitError) -> SnakepitError:
        """Return the error with what to do about it."""
        if not isinstance(error, AuthorityUnavailable):
            return error
        error.address, text = self.address, str(error)
        is_new = not self.has_answered and not self.address.startswith("unix:")
        found = _advice(text, is_secure=self._is_secure) if is_new else None
        if found is None and not error.may_have_run:
            why = next((f"{meaning}: " for words, meaning in _ADVICE if words in text), "")
            found = f"{why}{_WHAT_TO_DO}"
        if found is not None:
            error.args = (f"{text}; {found}",)
        return error

    def _raise_if_closed(self) -> None:
        """Raise for a call that ended with the connection, which gRPC has as the cancellation of its caller."""
        task = asyncio.current_task()
        if self.is_closed and (task is None or not task.cancelling()):
            raise ClientClosed(
                "this client was closed while the call ran; the request may have run", may_have_run=True
            ) from None


def _advice(text: str, *, is_secure: bool) -> str | None:
    # Imported late: it takes gRPC along, which a connection on TCP has already.
    from snakepit_otel.rpc.tls import advice

    return advice(text, secure=is_secure)


def _described(error: RpcError, session_id: str, address: str) -> SnakepitError | None:
    """Return the error that a peer which is no authority of this version has in plain words; None for another one."""
    code, details = error.code, error.details
    if code is StatusCode.NOT_FOUND:
        return SessionNotFound(session_id)
    if details.startswith("configuration: "):
        return ConfigurationError(details.removeprefix("configuration: "))
    if details.startswith("invalid_session: "):
        return InvalidSession(details.removeprefix("invalid_session: "))
    if code is StatusCode.UNIMPLEMENTED:
        return ToolError(code.name, f"{address} does not offer this; use the authority's Unix socket")
    return None


class RawConnection:
    """The same connection with the transport's own errors, for the parts of a client that translate them."""

    def __init__(self, authority: AuthorityConnection) -> None:
        self._authority = authority

    async def call(
        self,
        method: str,
        request: Any,
        timeout: float | None = None,
        metadata: Metadata | None = None,
        *,
        observed: bool = True,
    ) -> Any:
        """See `Connection`."""
        return await self._authority.opened().call(method, request, timeout, metadata, observed=observed)

    async def stream(
        self,
        method: str,
        request: Any,
        take: Callable[[Any], Awaitable[None]],
        timeout: float | None = None,
        metadata: Metadata | None = None,
    ) -> None:
        """See `Connection`."""
        await self._authority.opened().stream(method, request, take, timeout, metadata)

    async def upload(self, method: str, messages: Iterable[Any]) -> Any:
        """See `Connection`."""
        return await self._authority.opened().upload(method, messages)

    def bidirectional(self, method: str, metadata: Metadata | None = None) -> Any:
        """See `Connection`."""
        return self._authority.opened().bidirectional(method, metadata)

    @property
    def transport(self) -> str | None:
        """See `Connection`."""
        return self._authority.opened().transport

    def connect(self) -> None:
        """See `Connection`."""
        self._authority.opened().connect()

    async def ready(self) -> None:
        """See `Connection`."""
        await self._authority.opened().ready()

    async def close(self) -> None:
        """See `Connection`."""
        await self._authority.close()
