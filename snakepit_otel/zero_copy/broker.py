"""The authority's end of the socket on which descriptors change hands."""

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

from snakepit_otel.errors import ReferenceRefused, SnakepitError
from snakepit_otel.ownership import own_users, peer_of
from snakepit_otel.printable import printable_error
from snakepit_otel.zero_copy import packets
from snakepit_otel.zero_copy.current import loose
from snakepit_otel.zero_copy.description import Description
from snakepit_otel.zero_copy.exchange import ExchangeUnavailable
from snakepit_otel.zero_copy.holdings import Holdings
from snakepit_otel.zero_copy.memory import Buffer

_log = logging.getLogger("snakepit_otel.zero_copy")
_BETWEEN_SWEEPS = 1.0
_WHEN_FULL = 0.05
_MOST_CONNECTIONS = 4_096


def broker_path(socket_path: Path) -> Path:
    """Return where the broker listens of an authority that listens at `socket_path`."""
    return socket_path.with_name(f"{socket_path.name}.memory")


class Broker:
    """Serves `holdings` at a Unix socket, in a thread of its own, to processes of the same user.

    The socket belongs in a directory that only this user can enter.
    """

    def __init__(self, holdings: Holdings, path: Path) -> None:
        self.path = path
        self._holdings = holdings
        self._selector = selectors.DefaultSelector()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._wake, self._woken = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="zero-copy broker", daemon=True)
        self._peers: dict[socket.socket, int] = {}
        self._stopping = False

    def start(self) -> None:
        """Listen. Raises `OSError` if that is not possible at this path."""
        try:
            if self.path.is_socket():
                self.path.unlink()
            self._listener.bind(str(self.path))
            self.path.chmod(0o600)
            self._listener.listen(128)
        except OSError:
            self._close_sockets()
            raise
        for listening in (self._listener, self._woken):
            listening.setblocking(False)
            self._selector.register(listening, selectors.EVENT_READ)
        self._thread.start()

    def close(self) -> None:
        """Stop listening, and let go of everything that is held."""
        self._stopping = True
        with suppress(OSError):  # the thread has seen it by itself, and has closed its sockets
            self._wake.send(b"x")
        self._thread.join()
        self.path.unlink(missing_ok=True)
        self._holdings.close()

    def _run(self) -> None:
        swept = monotonic()
        while not self._stopping:
            for key, _ in self._selector.select(_BETWEEN_SWEEPS):
                self._serve(key.fileobj)
            if monotonic() - swept > _BETWEEN_SWEEPS:
                swept = monotonic()
                self._holdings.sweep()
                loose.sweep(swept)
        for connection in list(self._peers):
            self._forget(connection)
        self._close_sockets()

    def _close_sockets(self) -> None:
        self._selector.close()
        for mine in (self._listener, self._wake, self._woken):
            mine.close()

    def _serve(self, ready: Any) -> None:
        if ready is self._listener:
            try:
                self._accept()
            except OSError as error:
                # Out of descriptors: it stays ready, and would be asked about at once, again and again.
                _log.warning("a connection to the broker could not be taken: %s", printable_error(error))
                time.sleep(_WHEN_FULL)
        elif ready in self._peers:
            try:
                self._answer(ready)
            except OSError as error:
                _log.debug("a connection to the broker ended: %s", printable_error(error))
                self._forget(ready)
            except Exception:  # noqa: BLE001 - whatever it is
                # One peer must not end it for all.
                _log.exception("a connection to the broker is closed, because it could not be served")
                self._forget(ready)

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        pid, uid = peer_of(connection)
        if uid not in own_users() or len(self._peers) >= _MOST_CONNECTIONS:
            _log.warning("process %d of user %d was turned away from the broker", pid, uid)
            connection.close()
            return
        connection.setblocking(False)
        self._peers[connection] = pid
        self._selector.register(connection, selectors.EVENT_READ)

    def _answer(self, connection: socket.socket) -> None:
        peer = self._holdings.peer_of(self._peers[connection])
        try:
            received = packets.receive(connection)
            if received is None:
                self._forget(connection)
                return
            answer, buffer = self._handle(peer, *received)
        except BlockingIOError:
            return
        except ExchangeUnavailable as unavailable:
            answer, buffer = {"unavailable": unavailable.reason}, None
        except SnakepitError as error:
            answer, buffer = {"error": packets.describe(error)}, None
        if buffer is None:
            packets.send(connection, answer)
            return
        try:
            packets.send(connection, answer, buffer.fileno())
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
            asked = message.get("op")
            if asked == "publish" and buffer is not None and isinstance(message.get("reference"), dict):
                description = Description.from_json(message["reference"])
                published, buffer = buffer, None
                self._holdings.publish(request, description, published, peer)
                return {"ok": True}, None
            if asked == "fetch" and isinstance(ref, str):
                held, shared = self._holdings.fetch(request, ref, peer)
                return {"reference": held.to_json()}, shared
            if asked == "release" and isinstance(ref, str):
                self._holdings.release(request, ref, peer)
                return {"ok": True}, None
        finally:
            if buffer is not None:
                buffer.close()
        raise ReferenceRefused(f"the broker does not know what to do with {reprlib.repr(asked):.40}")

    def _forget(self, connection: socket.socket) -> None:
        pid = self._peers.pop(connection, None)
        with suppress(KeyError, ValueError):
            self._selector.unregister(connection)
        connection.close()
        if pid is not None and pid not in self._peers.values():
            peer = self._holdings.peer_of(pid)
            if not self._holdings.is_worker(peer):
                # Of a worker it is the pool that knows when it is gone.
                self._holdings.lose(peer)
