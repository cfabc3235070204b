"""Client of the file-descriptor server: a worker, or a caller in another process, exchanges memory with it."""

from __future__ import annotations

import os
import socket
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from snakepit_otel.errors import ReferenceRefused
from snakepit_otel.system.file_ownership import callable_users, peer_of
from snakepit_otel.zero_copy import _fd_protocol as protocol
from snakepit_otel.zero_copy._descriptor import Description
from snakepit_otel.zero_copy._exchange import ExchangeUnavailable
from snakepit_otel.zero_copy._memory import Buffer

_TIMEOUT_S = 5.0  # for an answer, which takes the server about ten microseconds


class FdClient:
    """A connection to the file-descriptor server at `path`, made when it is first needed; see `Exchange`.

    Safe to use from several threads. A call waits at most five seconds for its answer.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._connection: socket.socket | None = None

    def publish(self, request: str | None, description: Description, buffer: Buffer) -> None:
        if not buffer.shared:
            raise ExchangeUnavailable("no_memory")
        message = {"op": "publish", "request": request, "reference": description.to_json()}
        self._send(message, buffer.fileno())

    def fetch(self, request: str | None, ref: str) -> tuple[Description, Buffer]:
        answer, descriptor = self._call({"op": "fetch", "request": request, "ref": ref})
        if descriptor is None:
            raise ExchangeUnavailable("unreachable")
        buffer = Buffer.received(descriptor)
        try:
            return Description.from_json(answer.get("reference")), buffer
        except ReferenceRefused:
            buffer.close()
            raise

    def release(self, request: str | None, ref: str) -> None:
        """Take back what was published, as far as the file-descriptor server can be reached."""
        with suppress(ExchangeUnavailable):
            self._send({"op": "release", "request": request, "ref": ref})

    def has(self, _ref: str) -> bool:
        """Return False: the references are in the server's process."""
        return False

    def close(self) -> None:
        with self._lock:
            self._disconnect()

    def _send(self, message: dict[str, Any], descriptor: int | None = None) -> None:
        _, got = self._call(message, descriptor)
        _close(got)

    def _call(self, message: dict[str, Any], descriptor: int | None = None) -> tuple[dict[str, Any], int | None]:
        with self._lock:
            try:
                connection = self._connection or self._connect()
                protocol.send(connection, message, descriptor)
                received = protocol.receive(connection)
            except OSError:
                self._disconnect()
                raise ExchangeUnavailable("unreachable") from None
            if received is None:
                self._disconnect()
                raise ExchangeUnavailable("unreachable")
        answer, got = received
        if "unavailable" in answer:
            _close(got)
            raise ExchangeUnavailable(str(answer["unavailable"]))
        if "error" in answer:
            _close(got)
            raise protocol.rebuild(answer["error"])
        return answer, got

    def _connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            connection.settimeout(_TIMEOUT_S)
            connection.connect(str(self.path))
            _, uid = peer_of(connection)
            if uid not in callable_users():
                raise PermissionError(f"the file-descriptor server at {self.path} belongs to user {uid}")
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _close(descriptor: int | None) -> None:
    if descriptor is not None:
        os.close(descriptor)
