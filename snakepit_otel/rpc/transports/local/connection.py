"""Connection of an event loop to a Unix socket: over ttrpc's frames, or over gRPC where the peer speaks that."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable
from time import monotonic
from typing import Any

from snakepit_otel.rpc.client_call import ClientCall, Peer, UnaryCall
from snakepit_otel.rpc.local_sockets import LocalSocket
from snakepit_otel.rpc.method import CANCELLED, GRPC, LOCAL, Method, error_text, method_of
from snakepit_otel.rpc.services import Methods, RpcMethod
from snakepit_otel.rpc.status import ConnectionClosed, RpcError, StatusCode
from snakepit_otel.rpc.transports.base import EOF, Connection, Dialogue, Metadata
from snakepit_otel.rpc.transports.local import frames
from snakepit_otel.rpc.transports.local.calling import CallingLink, NotRun, read_answer
from snakepit_otel.rpc.transports.local.later_dialogue import LaterDialogue, retrieve
from snakepit_otel.rpc.transports.local.link import Link
from snakepit_otel.rpc.transports.local.sockets import checked_peer, connect_error
from snakepit_otel.telemetry import _switch, outgoing

_FULL_QUEUE_S = 0.005  # between attempts at a listener whose queue is full
_HELLO_TIMEOUT_S = 20.0
_Known = tuple[RpcMethod, Method, bytes]


class LocalConnection:
    """See `Connection`. `over_grpc` makes the connection to a peer that speaks only gRPC."""

    def __init__(
        self,
        local: LocalSocket,
        address: str,
        services: Iterable[Methods],
        *,
        max_message_bytes: int,
        keepalive: bool,
        over_grpc: Callable[[], Connection],
        on_fault: Callable[[str], None],
    ) -> None:
        self._local = local
        self._address = address
        self._max_message_bytes = max_message_bytes
        self._keepalive = keepalive
        self._over_grpc = over_grpc
        self._on_fault = on_fault
        self._peer = Peer(address)
        self._methods: dict[str, _Known] = {
            method.name: (method, method_of(method.name, LOCAL), frames.names_of(method.name))
            for service in services
            for method in service.values()
        }
        self._calling: CallingLink | None = None
        self._left: list[CallingLink] = []  # whose servers are leaving, with calls that have not ended
        self._connecting: asyncio.Task[CallingLink | None] | None = None
        self._grpc: Connection | None = None
        self._is_closed = False

    @property
    def transport(self) -> str | None:
        """See `Connection`."""
        return GRPC if self._grpc is not None else None if self._calling is None else LOCAL

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
        calling = self._calling
        failure = None
        if calling is None or not calling.is_usable:
            due = None if timeout is None else monotonic() + timeout
            failure = await self._prepare(timeout)
            timeout = _left(due)
        if self._grpc is not None:
            return await self._grpc.call(method, request, timeout, metadata, observed=observed)
        known = self._methods[method]
        if not (observed and _switch.enabled):
            return await self._call(known, request, timeout, metadata, failure)
        with UnaryCall(known[1], self._peer):
            return await self._call(known, request, timeout, outgoing(metadata), failure)

    async def stream(
        self,
        method: str,
        request: Any,
        take: Callable[[Any], Awaitable[None]],
        timeout: float | None = None,
        metadata: Metadata | None = None,
    ) -> None:
        """See `Connection`."""
        due = None if timeout is None else monotonic() + timeout
        failure = await self._prepare(timeout)
        timeout = _left(due)
        if self._grpc is not None:
            await self._grpc.stream(method, request, take, timeout, metadata)
            return
        known = self._methods[method]
        if not _switch.enabled:
            await self._stream(known, request, take, timeout, metadata, failure)
            return
        call = ClientCall(known[1], self._peer)
        with call:

            async def take_observed(message: Any) -> None:
                try:
                    await take(message)
                except BaseException as error:
                    # Not the call's failure: it is cancelled here, as by a reader who leaves.
                    call.note(CANCELLED, error_text(error))
                    raise

            await self._stream(known, request, take_observed, timeout, outgoing(metadata), failure)

    async def upload(self, method: str, messages: Iterable[Any]) -> Any:
        """See `Connection`."""
        failure = await self._prepare(None)
        if self._grpc is not None:
            return await self._grpc.upload(method, messages)
        known = self._methods[method]
        if not _switch.enabled:
            return await self._upload(known, messages, None, failure)
        with ClientCall(known[1], self._peer):
            return await self._upload(known, messages, outgoing(None), failure)

    def bidirectional(self, method: str, metadata: Metadata | None = None) -> Dialogue:
        """See `Connection`."""
        if self._grpc is not None:
            return self._grpc.bidirectional(method, metadata)
        if self._calling is not None and self._calling.is_usable:
            known = self._methods[method]
            return self._calling.begin(known[0], known[2], None, None, metadata)

        async def begin() -> Dialogue:
            await self._connected()
            return self.bidirectional(method, metadata)

        return LaterDialogue(begin)

    def connect(self) -> None:
        """See `Connection`."""
        if self._is_closed:
            raise ConnectionClosed
        if self._grpc is not None:
            self._grpc.connect()
        elif self._calling is None or not self._calling.is_usable:
            self._connect()

    async def ready(self) -> None:
        """See `Connection`."""
        wait = _FULL_QUEUE_S
        while True:
            try:
                if await self._connected() is None and self._grpc is not None:
                    await self._grpc.ready()
            except ConnectionClosed:
                raise
            except RpcError:
                # There may be a server in a moment.
                await asyncio.sleep(wait)
                wait = min(2 * wait, 0.1)
            else:
                return

    async def close(self) -> None:
        """See `Connection`."""
        self._is_closed = True
        connecting, over_grpc = self._connecting, self._grpc
        if connecting is not None:
            connecting.cancel()
        for calling in (*self._left, self._calling):
            if calling is not None:
                calling.close()
        if over_grpc is not None:
            await over_grpc.close()

    # The ways of a call.

    async def _call(
        self, known: _Known, request: Any, timeout: float | None, metadata: Any, failure: RpcError | None
    ) -> Any:
        method, _, names = known
        payload = method.write_request(request)
        calling = self._usable(failure)
        due = None if timeout is None else monotonic() + timeout
        try:
            answer = await calling.call(names, payload, timeout, metadata)
        except NotRun as refused:
            if refused.code is not StatusCode.UNAVAILABLE or not calling.is_leaving:
                raise
            # It has left for a successor, which may listen already.
            calling = self._usable(await self._prepare(_left(due)))
            answer = await calling.call(names, payload, _left(due), metadata)
        return read_answer(method, answer)

    async def _stream(
        self,
        known: _Known,
        request: Any,
        take: Callable[[Any], Awaitable[None]],
        timeout: float | None,
        metadata: Any,
        failure: RpcError | None,
    ) -> None:
        method, _, names = known
        payload = method.write_request(request)
        due = None if timeout is None else monotonic() + timeout
        for attempts_left in (1, 0):
            calling = self._usable(failure)
            call = calling.begin(method, names, payload, _left(due), metadata)
            try:
                while (message := await call.read()) is not EOF:
                    await take(message)
            except NotRun as refused:
                if refused.code is not StatusCode.UNAVAILABLE or not calling.is_leaving or not attempts_left:
                    raise
            else:
                return
            finally:
                call.cancel()
            failure = await self._prepare(_left(due))

    async def _upload(self, known: _Known, messages: Iterable[Any], metadata: Any, failure: RpcError | None) -> Any:
        method, _, names = known
        call = self._usable(failure).begin(method, names, None, None, metadata)
        try:
            try:
                for message in messages:
                    await call.write(message)
                await call.done_writing()
            except RpcError:
                # The answer has why.
                if not call.done():
                    raise
            return await call.answer()
        finally:
            call.cancel()

    # Connecting.

    def _usable(self, failure: RpcError | None) -> CallingLink:
        if failure is not None:
            raise failure
        if self._calling is None:
            raise RpcError(StatusCode.UNAVAILABLE, f"failed to connect to {self._address}: the peer speaks gRPC now")
        return self._calling

    async def _prepare(self, timeout: float | None) -> RpcError | None:
        """Connect if need be, and return why that has failed: it is the error of a call, which is recorded."""
        try:
            await self._connected_within(timeout)
        except RpcError as error:
            return error
        return None

    async def _connected_within(self, timeout: float | None) -> CallingLink | None:
        calling = self._calling
        if calling is not None and calling.is_usable:
            return calling
        try:
            async with asyncio.timeout(timeout) as limit:
                return await self._connected()
        except TimeoutError:
            if not limit.expired():
                raise
            raise RpcError(StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded") from None

    async def _connected(self) -> CallingLink | None:
        """Return what makes calls, connected now if it is not; None where the peer speaks gRPC."""
        if self._is_closed:
            raise ConnectionClosed
        if self._grpc is not None:
            return None
        calling = self._calling
        if calling is not None and calling.is_usable:
            return calling
        # One attempt for all who wait; it goes on if one of them leaves.
        try:
            return await asyncio.shield(self._connect())
        except asyncio.CancelledError:
            if self._is_closed:
                raise ConnectionClosed from None
            raise

    def _connect(self) -> asyncio.Task[CallingLink | None]:
        if self._connecting is None or self._connecting.done():
            loop = asyncio.get_running_loop()
            self._connecting = loop.create_task(self._make_link(loop))
            self._connecting.add_done_callback(retrieve)
        return self._connecting

    async def _make_link(self, loop: asyncio.AbstractEventLoop) -> CallingLink | None:
        sock = await self._connected_socket()
        over_grpc = False

        def on_first(data: bytes) -> bool:
            nonlocal over_grpc
            over_grpc = frames.is_http2(data)
            if over_grpc:
                link.close("the peer speaks gRPC")
            return over_grpc

        link = Link(sock, loop, on_first=on_first, on_fault=self._on_fault)
        calling = CallingLink(link, loop, self._max_message_bytes)
        try:
            link.start(calling, keepalive=self._keepalive)
            async with asyncio.timeout(_HELLO_TIMEOUT_S):
                await calling.greet()
        except TimeoutError:
            link.close("no hello")
            raise RpcError(
                StatusCode.UNAVAILABLE, f"failed to connect to {self._address}: the peer does not answer"
            ) from None
        except RpcError:
            if not over_grpc or self._is_closed:
                raise
            self._grpc = self._over_grpc()
            return None
        except BaseException:
            link.close()
            raise
        self._left = [left for left in (*self._left, self._calling) if left is not None and left.link.lost is None]
        self._calling = calling
        return calling

    async def _connected_socket(self) -> socket.socket:
        self._local.look()
        while True:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
            try:
                sock.connect(self._local.connect_path)
                checked_peer(sock, self._address)
            except BlockingIOError:
                sock.close()
                await asyncio.sleep(_FULL_QUEUE_S)
            except OSError as error:
                sock.close()
                raise connect_error(self._address, error) from None
            except BaseException:
                sock.close()
                raise
            else:
                return sock


def _left(due: float | None) -> float | None:
    return None if due is None else max(due - monotonic(), 0.0)
