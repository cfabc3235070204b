"""File-descriptor server of an authority: peers exchange memory with it over a Unix socket."""

from __future__ import annotations

import logging
import reprlib
import selectors
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any

from snakepit_otel.common.guard import guard
from snakepit_otel.common.printable import printable, printable_error
from snakepit_otel.errors import ConfigurationError, ReferenceRefused, ReferenceReleased, SnakepitError
from snakepit_otel.system.file_ownership import own_users, peer_of
from snakepit_otel.system.socket_files import SocketFile, make_socket
from snakepit_otel.zero_copy import _fd_protocol as protocol
from snakepit_otel.zero_copy._buffer_store import BufferStore
from snakepit_otel.zero_copy._current_scope import pending_scope
from snakepit_otel.zero_copy._descriptor import Description
from snakepit_otel.zero_copy._exchange import ExchangeUnavailable
from snakepit_otel.zero_copy._memory import Buffer

_log = logging.getLogger("snakepit_otel.zero_copy")
_SWEEP_INTERVAL_S = 1.0
_ACCEPT_RETRY_S = 0.05
_MOST_WAKES = 64
_MOST_CONNECTIONS = 4_096


def fd_server_path(socket_path: Path) -> Path:
    return socket_path.with_name(f"{socket_path.name}.memory")


class FdServer:
    """Serves `buffer_store` at a Unix socket, in a thread of its own, to processes of the same user.

    The socket belongs in a directory that only this user can enter. With `is_replaced`, another authority serves there,
    to which callers go: what they publish is copied to it, with their requests. The store is closed with the server,
    unless it `shares_store` with another.
    """

    def __init__(
        self, buffer_store: BufferStore, path: Path, *, replace: bool = False, shares_store: bool = False
    ) -> None:
        self.path = path
        self.is_replaced = False
        self._shares_store = shares_store
        self._replace = replace
        self._buffer_store = buffer_store
        self._selector = selectors.DefaultSelector()
        self._file: SocketFile | None = None
        self._listener: socket.socket | None = None
        self._wake_sender, self._wake_receiver = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="zero-copy fd server", daemon=True)
        self._peers: dict[socket.socket, int] = {}
        self._stopping = False
        self._is_full = False

    def start(self) -> None:
        """Listen. Raises `ConfigurationError` if that is not possible at this path."""
        try:
            self._listen()
        except BaseException:
            self._close_sockets()
            raise
        self._wake_receiver.setblocking(False)
        self._selector.register(self._wake_receiver, selectors.EVENT_READ)
        self._thread.start()

    def ensure_socket(self, path: Path) -> None:
        """Make the socket again if it is no longer at this path; connections stay."""
        self.path = path
        with suppress(OSError):  # as below
            self._wake_sender.send(b"x")

    def close(self) -> None:
        self._stopping = True
        with suppress(OSError):  # the thread has ended already, and closed its sockets
            self._wake_sender.send(b"x")
        self._thread.join()
        if self._file is not None:
            self._file.remove()
        if not self._shares_store:
            self._buffer_store.close()

    def _listen(self) -> None:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)

        def bind(path: str) -> None:
            listener.bind(path)
            listener.listen(128)
            listener.setblocking(False)

        try:
            self._file = make_socket(self.path, bind, socket.SOCK_SEQPACKET, replace=self._replace)
            self._replace = False  # when it is made again, another one's is left
        except BaseException:
            listener.close()
            raise
        self._selector.register(listener, selectors.EVENT_READ)
        self._listener = listener

    def _listen_again(self) -> None:
        if self.is_replaced or (self._file is not None and self._file.path == self.path and self._file.exists):
            return
        before = self._listener
        try:
            self._listen()
        except ConfigurationError as error:
            _log.debug(
                "the file-descriptor server's socket is gone, and cannot be made again: %s", printable_error(error)
            )
            return
        if before is not None:
            self._selector.unregister(before)
            before.close()
        _log.warning("the file-descriptor server's socket %s was gone, and was made again", printable(self.path))

    def _run(self) -> None:
        swept = monotonic()
        while not self._stopping:
            for key, _ in self._selector.select(_SWEEP_INTERVAL_S):
                self._serve(key.fileobj)
            if monotonic() - swept > _SWEEP_INTERVAL_S:
                swept = monotonic()
                self._buffer_store.sweep()
                pending_scope.sweep(swept)
        for connection in list(self._peers):
            self._disconnect(connection)
        self._close_sockets()

    def _close_sockets(self) -> None:
        self._selector.close()
        for own in (self._listener, self._wake_sender, self._wake_receiver):
            if own is not None:
                own.close()

    def _serve(self, ready: Any) -> None:
        if ready is self._listener:
            try:
                self._accept()
            except OSError as error:
                # Out of descriptors: the listener stays ready, so the loop would spin without a pause.
                if not self._is_full:
                    _log.warning(
                        "a connection to the file-descriptor server could not be taken: %s", printable_error(error)
                    )
                self._is_full = True
                time.sleep(_ACCEPT_RETRY_S)
            else:
                self._is_full = False
        elif ready is self._wake_receiver:
            self._wake_receiver.recv(_MOST_WAKES)
            if not self._stopping:
                self._listen_again()
        elif ready in self._peers:
            self._serve_peer(ready)

    def _serve_peer(self, connection: socket.socket) -> None:
        # An error with one peer must not end the server for all.
        with guard("serving a connection of the file-descriptor server", _log) as served:
            try:
                self._answer(connection)
            except OSError as error:
                _log.debug("a connection to the file-descriptor server ended: %s", printable_error(error))
                self._disconnect(connection)
        if served.error is not None:
            self._disconnect(connection)

    def _accept(self) -> None:
        assert self._listener is not None
        connection, _ = self._listener.accept()
        pid, uid = peer_of(connection)
        if uid not in own_users() or len(self._peers) >= _MOST_CONNECTIONS:
            _log.warning("process %d of user %d was turned away from the file-descriptor server", pid, uid)
            connection.close()
            return
        connection.setblocking(False)
        self._peers[connection] = pid
        self._selector.register(connection, selectors.EVENT_READ)

    def _answer(self, connection: socket.socket) -> None:
        peer = self._buffer_store.peer_of(self._peers[connection])
        try:
            received = protocol.receive(connection)
            if received is None:
                self._disconnect(connection)
                return
            answer, buffer = self._handle(peer, *received)
        except BlockingIOError:
            return
        except ExchangeUnavailable as unavailable:
            answer, buffer = {"unavailable": unavailable.reason}, None
        except SnakepitError as error:
            answer, buffer = {"error": protocol.describe(error)}, None
        if buffer is None:
            protocol.send(connection, answer)
            return
        try:
            protocol.send(connection, answer, buffer.fileno())
        finally:
            buffer.close()

    def _handle(
        self, peer: str, message: dict[str, Any], descriptor: int | None
    ) -> tuple[dict[str, Any], Buffer | None]:
        buffer = None if descriptor is None else Buffer.received(descriptor)
        try:
            request, ref = message.get("request"), message.get("ref")
            if not isinstance(request, str | None):
                raise ReferenceRefused("request of a packet must be text")
            operation = message.get("op")
            if operation == "publish" and buffer is not None and isinstance(message.get("reference"), dict):
                description = Description.from_json(message["reference"])
                if self.is_replaced:
                    raise ExchangeUnavailable("unreachable")
                published, buffer = buffer, None
                self._buffer_store.publish(request, description, published, peer)
                return {"ok": True}, None
            if operation == "fetch" and isinstance(ref, str):
                try:
                    held, shared = self._buffer_store.fetch(request, ref, peer)
                except ReferenceReleased:
                    # It may be the other authority's.
                    if self.is_replaced:
                        raise ExchangeUnavailable("unreachable") from None
                    raise
                return {"reference": held.to_json()}, shared
            if operation == "release" and isinstance(ref, str):
                self._buffer_store.release(request, ref, peer)
                return {"ok": True}, None
        finally:
            if buffer is not None:
                buffer.close()
        raise ReferenceRefused(f"unknown operation {reprlib.repr(operation):.40} of the file-descriptor server")

    def _disconnect(self, connection: socket.socket) -> None:
        pid = self._peers.pop(connection, None)
        with suppress(KeyError, ValueError):
            self._selector.unregister(connection)
        connection.close()
        if pid is not None and pid not in self._peers.values():
            peer = self._buffer_store.peer_of(pid)
            if not self._buffer_store.is_worker(peer):
                # The end of a worker is reported by the pool.
                self._buffer_store.remove_peer(peer)
