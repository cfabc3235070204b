"""Connection of threads to a Unix socket: over ttrpc's frames, or over gRPC where the peer speaks that."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from snakepit_otel.rpc.client_call import ClientCall, Peer
from snakepit_otel.rpc.local_sockets import LocalSocket
from snakepit_otel.rpc.method import LOCAL, Method, method_of
from snakepit_otel.rpc.services import Methods, RpcMethod
from snakepit_otel.rpc.status import ConnectionClosed, RpcError, StatusCode
from snakepit_otel.rpc.transports.base import BlockingConnection, Metadata
from snakepit_otel.rpc.transports.local import frames
from snakepit_otel.rpc.transports.local.blocking_link import BlockingLink
from snakepit_otel.rpc.transports.local.calling import NotRun, read_answer
from snakepit_otel.rpc.transports.local.frames import HEADER, MalformedFrame
from snakepit_otel.rpc.transports.local.sockets import checked_peer, connect_error
from snakepit_otel.telemetry import _switch, outgoing

_HELLO_TIMEOUT_S = 20.0


class LocalBlockingConnection:
    """See `BlockingConnection`. `over_grpc` makes the connection to a peer that speaks only gRPC."""

    def __init__(
        self,
        local: LocalSocket,
        address: str,
        services: Iterable[Methods],
        *,
        max_message_bytes: int,
        over_grpc: Callable[[], BlockingConnection],
        on_fault: Callable[[str], None],
    ) -> None:
        self._local = local
        self._address = address
        self._max_message_bytes = max_message_bytes
        self._over_grpc = over_grpc
        self._on_fault = on_fault
        self._peer = Peer(address)
        self._methods: dict[str, tuple[RpcMethod, Method, bytes]] = {
            method.name: (method, method_of(method.name, LOCAL), frames.names_of(method.name))
            for service in services
            for method in service.values()
        }
        self._lock = threading.Lock()
        self._link: BlockingLink | None = None
        self._left: list[BlockingLink] = []  # whose servers are leaving, with calls that have not ended
        self._grpc: BlockingConnection | None = None
        self._is_closed = False

    def call(
        self,
        method: str,
        request: Any,
        timeout: float | None = None,
        metadata: Metadata | None = None,
        *,
        observed: bool = True,
    ) -> Any:
        """See `BlockingConnection`."""
        if self._grpc is not None:
            return self._grpc.call(method, request, timeout, metadata, observed=observed)
        known = self._methods[method]
        if not (observed and _switch.enabled):
            return self._call(known, request, timeout, metadata)
        with ClientCall(known[1], self._peer):
            return self._call(known, request, timeout, outgoing(metadata))

    def stub(self, service: Callable[[Any], Any]) -> Any:
        """See `BlockingConnection`."""
        with self._lock:
            if self._grpc is None:
                self._grpc = self._over_grpc()
        return self._grpc.stub(service)

    def connect(self) -> None:
        """See `BlockingConnection`."""
        try:
            self._connected(time.monotonic() + _HELLO_TIMEOUT_S)
        except RpcError:
            # The next call makes another attempt, and has its error.
            return

    def close(self) -> None:
        """See `BlockingConnection`."""
        with self._lock:
            self._is_closed = True
            links, over_grpc = [*self._left, self._link], self._grpc
        for link in links:
            if link is not None:
                link.close(ConnectionClosed())
        if over_grpc is not None:
            over_grpc.close()

    def _call(self, known: tuple[RpcMethod, Method, bytes], request: Any, timeout: float | None, metadata: Any) -> Any:
        method, _, names = known
        payload = method.write_request(request)
        if len(payload) > self._max_message_bytes:
            why = f"Sent message larger than max ({len(payload)} vs. {self._max_message_bytes})"
            raise RpcError(StatusCode.RESOURCE_EXHAUSTED, why)
        due = None if timeout is None else time.monotonic() + timeout
        for attempts_left in (1, 0):
            link = self._connected(due)
            if link is None:
                assert self._grpc is not None
                return self._grpc.call(method.name, request, timeout, metadata, observed=False)
            try:
                answer = link.call(frames.request_body(names, payload, _left(due), metadata), due)
                return read_answer(method, answer)
            except NotRun as refused:
                if refused.code is not StatusCode.UNAVAILABLE or link.is_usable or not attempts_left:
                    raise
        raise AssertionError("the last attempt returns or raises")

    def _connected(self, due: float | None) -> BlockingLink | None:
        link = self._link
        if link is not None and link.is_usable:
            return link
        left = _left(due)
        if not self._lock.acquire(timeout=-1 if left is None else left):
            # Another thread has not connected by then.
            raise _too_late()
        try:
            if self._is_closed:
                raise ConnectionClosed
            if self._grpc is not None:
                return None
            if self._link is None or not self._link.is_usable:
                self._left = [link for link in (*self._left, self._link) if link is not None and not link.is_lost]
                self._link = None
                self._link = self._make_link(due)
                if self._link is None:
                    self._grpc = self._over_grpc()
            return self._link
        finally:
            self._lock.release()

    def _make_link(self, due: float | None) -> BlockingLink | None:
        left = _left(due)
        timeout = _HELLO_TIMEOUT_S if left is None else min(left, _HELLO_TIMEOUT_S)
        self._local.look()
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            sock.settimeout(max(timeout, 0.001))
            sock.connect(self._local.connect_path)
            checked_peer(sock, self._address)
            hello = frames.hello_body()
            sock.sendall(HEADER.pack(len(hello), 0, frames.HELLO, 0) + hello)
            first = b""
            while len(first) < HEADER.size + len(hello):
                data = sock.recv(HEADER.size + len(hello) - len(first))
                if not data:
                    raise ConnectionResetError(0, "the peer has closed the connection")
                first += data
                if frames.is_http2(first):
                    sock.close()
                    return None
            if HEADER.unpack_from(first)[2] != frames.HELLO:
                raise ConnectionResetError(0, "the peer says no hello")
            frames.window_in_hello(first[HEADER.size :])
        except TimeoutError:
            sock.close()
            if timeout < _HELLO_TIMEOUT_S:
                raise _too_late() from None
            raise RpcError(
                StatusCode.UNAVAILABLE, f"failed to connect to {self._address}: the peer does not answer"
            ) from None
        except MalformedFrame as error:
            sock.close()
            raise RpcError(StatusCode.UNAVAILABLE, f"failed to connect to {self._address}: {error}") from None
        except OSError as error:
            sock.close()
            raise connect_error(self._address, error) from None
        except BaseException:
            sock.close()
            raise
        return BlockingLink(sock, self._max_message_bytes, self._on_fault)


def _left(due: float | None) -> float | None:
    return None if due is None else max(due - time.monotonic(), 0.0)


def _too_late() -> RpcError:
    return RpcError(StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")
