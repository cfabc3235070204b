"""HTTP connections on which a request and its answer have one time limit.

A limit of `requests` is one on each part that is read, so that who sends a byte every few seconds is never late.
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

_PART = 64 << 10
_LEAST = 0.001


class TimedAdapter(HTTPAdapter):
    """The adapter of `requests`, with such connections."""

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        """See `HTTPAdapter`."""
        super().init_poolmanager(*args, **options)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, *args: Any, **options: Any) -> Any:
        """See `HTTPAdapter`."""
        manager = super().proxy_manager_for(*args, **options)
        manager.pool_classes_by_scheme = _POOLS
        return manager


def go_within_time(session: requests.Session) -> None:
    """Have a session use such connections; adapters of other kinds than requests' own are left alone."""
    for prefix, adapter in list(session.adapters.items()):
        if type(adapter) is HTTPAdapter:
            session.mount(prefix, TimedAdapter())


class _TimedResponse(HTTPResponse):
    """Reads until the socket's time is over, instead of that long at each read."""

    def __init__(self, sock: Any, *args: Any, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        timeout = sock.gettimeout()
        if timeout is not None:
            # What `http.client` reads from is a buffer around a reader of the socket.
            self.fp: Any = io.BufferedReader(_Until(self.fp.detach(), sock, time.monotonic() + timeout))


class _Until(io.RawIOBase):
    def __init__(self, reader: Any, sock: Any, deadline: float) -> None:
        self._reader = reader
        self._socket = sock
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        # Closed on our side, it has no time to be set; reading says what there is to be said.
        if self._socket.fileno() >= 0:
            self._socket.settimeout(left)
        return self._reader.readinto(buffer)  # type: ignore[no-any-return]

    def close(self) -> None:
        self._reader.close()
        super().close()


class _Timed:
    """What both kinds of connections have in common."""

    response_class: Any = _TimedResponse
    timeout: Any
    sock: Any
    _ends: float | None = None

    def request(self, *args: Any, **options: Any) -> None:
        timeout = self.timeout
        self._ends = time.monotonic() + timeout if isinstance(timeout, int | float) else None
        super().request(*args, **options)  # type: ignore[misc]

    def send(self, data: Any) -> None:
        if self._ends is None or not isinstance(data, bytes | bytearray):
            super().send(data)  # type: ignore[misc]
            return
        view = memoryview(data)
        for at in range(0, len(view), _PART):
            self._set_time(self._ends)
            super().send(view[at : at + _PART])  # type: ignore[misc]

    def getresponse(self) -> Any:
        if self._ends is not None:
            self.timeout = self._set_time(self._ends)
        return super().getresponse()  # type: ignore[misc]

    def _set_time(self, ends: float) -> float:
        left = max(ends - time.monotonic(), _LEAST)
        if self.sock is not None:
            self.sock.settimeout(left)
        return left


class _Connection(_Timed, HTTPConnection):
    pass


class _SecureConnection(_Timed, HTTPSConnection):
    pass


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


_POOLS = {"http": _Pool, "https": _SecurePool}
