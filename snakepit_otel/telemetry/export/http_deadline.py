"""HTTP connections on which a request and its response share one deadline, and a response has a size limit.

A timeout of `requests` limits each read, so that a server which sends a byte every few seconds is never late; it does
not limit interim responses, and hardly the headers.
"""

from __future__ import annotations

import io
import time
from http.client import HTTPResponse
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

_SEND_BYTES = 64 << 10
# Of a whole response: interim responses, headers and the body, which has a lower limit elsewhere.
_MAX_RESPONSE_BYTES = 256 << 10
_MIN_SECONDS = 0.001


class DeadlineAdapter(HTTPAdapter):
    """The adapter of `requests`, with connections that have a deadline."""

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, *args: Any, **options: Any) -> Any:
        manager = super().proxy_manager_for(*args, **options)
        manager.pool_classes_by_scheme = _POOLS
        return manager


def limit_time(session: requests.Session) -> None:
    """Mount `DeadlineAdapter` where a session has the adapter of `requests`; other adapters stay."""
    for prefix, adapter in list(session.adapters.items()):
        if type(adapter) is HTTPAdapter:
            session.mount(prefix, DeadlineAdapter())


class _DeadlineResponse(HTTPResponse):
    """Reads until the socket's timeout has passed once, instead of for that long at each read."""

    def __init__(self, sock: Any, *args: Any, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        timeout = sock.gettimeout()
        if timeout is not None:
            # What `http.client` reads from is a buffer around a reader of the socket.
            self.fp: Any = io.BufferedReader(_DeadlineReader(self.fp.detach(), sock, time.monotonic() + timeout))


class _DeadlineReader(io.RawIOBase):
    def __init__(self, reader: Any, sock: Any, deadline: float) -> None:
        self._reader = reader
        self._socket = sock
        self._deadline = deadline
        self._bytes_left = _MAX_RESPONSE_BYTES

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        # A socket closed on our side has no timeout; reading raises the error.
        if self._socket.fileno() >= 0:
            self._socket.settimeout(left)
        if self._bytes_left <= 0:
            raise ConnectionError(f"a response of more than {_MAX_RESPONSE_BYTES} bytes")
        count: int | None = self._reader.readinto(buffer)
        self._bytes_left -= count or 0
        return count

    def close(self) -> None:
        self._reader.close()
        super().close()


class _DeadlineConnection:
    """A mixin of urllib3's connections."""

    response_class: Any = _DeadlineResponse
    timeout: Any
    sock: Any
    _deadline: float | None = None

    def request(self, *args: Any, **options: Any) -> None:
        timeout = self.timeout
        self._deadline = time.monotonic() + timeout if isinstance(timeout, int | float) else None
        super().request(*args, **options)  # type: ignore[misc]

    def send(self, data: Any) -> None:
        if self._deadline is None or not isinstance(data, bytes | bytearray):
            super().send(data)  # type: ignore[misc]
            return
        view = memoryview(data)
        for at in range(0, len(view), _SEND_BYTES):
            self._set_timeout(self._deadline)
            super().send(view[at : at + _SEND_BYTES])  # type: ignore[misc]

    def getresponse(self) -> Any:
        if self._deadline is not None:
            self.timeout = self._set_timeout(self._deadline)
        return super().getresponse()  # type: ignore[misc]

    def _set_timeout(self, deadline: float) -> float:
        left = max(deadline - time.monotonic(), _MIN_SECONDS)
        if self.sock is not None:
            self.sock.settimeout(left)
        return left


class _Connection(_DeadlineConnection, HTTPConnection):
    pass


class _SecureConnection(_DeadlineConnection, HTTPSConnection):
    pass


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


_POOLS = {"http": _Pool, "https": _SecurePool}
