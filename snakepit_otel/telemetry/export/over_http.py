"""Exports over HTTP whose answers are bounded, in bytes and in time, and followed nowhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http.cookiejar import DefaultCookiePolicy
from typing import Any

import requests
from opentelemetry.exporter.http.transport._base import BaseHTTPResult, BaseHTTPTransport

from snakepit_otel.common.printable import printable
from snakepit_otel.telemetry.export.answers import MOST_BYTES, SUCCESS, NoAnswer, rejected, seconds_to_wait
from snakepit_otel.telemetry.export.timed_http import go_within_time

_FIRST_REFUSAL = 400


class BoundedTransport(BaseHTTPTransport):
    """Takes the place of an exporter's transport, whose session it uses.

    `on_success` gets the number of items that the receiver has refused of an export it took.
    """

    def __init__(
        self, inner: BaseHTTPTransport, session: requests.Session, signal: str, on_success: Callable[[int], None]
    ) -> None:
        self._inner = inner
        self._session = session
        self._signal = signal
        self._on_success = on_success
        # A jar would keep whatever it is given, and send it back.
        session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        go_within_time(session)

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: dict[str, str] | None = None,
        timeout: float | None = None,
        data: bytes | None = None,
    ) -> BaseHTTPResult:
        """See `BaseHTTPTransport`. What is neither a success nor a refusal is an error."""
        deadline = None if timeout is None else time.monotonic() + timeout
        try:
            response = self._session.request(
                method,
                url,
                # Nothing that is small on the way and large afterwards.
                headers={**(headers or {}), "Accept-Encoding": "identity"},
                data=data,
                timeout=timeout,
                allow_redirects=False,
                stream=True,
            )
        except Exception as error:  # noqa: BLE001 - the exporter takes all of them from here
            return _Result(error=error)
        try:
            return self._taken(response, deadline)
        except Exception as error:  # noqa: BLE001 - as above
            return _Result(error=error)
        finally:
            with suppress(Exception):
                response.close()

    def close(self) -> None:
        """See `BaseHTTPTransport`."""
        self._inner.close()

    def is_connection_error(self, exception: Exception | None) -> bool:
        """See `BaseHTTPTransport`."""
        return self._inner.is_connection_error(exception)

    def _taken(self, response: requests.Response, deadline: float | None) -> BaseHTTPResult:
        status = response.status_code
        if status >= _FIRST_REFUSAL:
            wait = seconds_to_wait(response.headers.get("retry-after"))
            return _Result(status, printable(response.reason), retry_after=wait)
        if status not in SUCCESS:
            raise NoAnswer(f"HTTP {status}, which is no success")
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            raise NoAnswer("an encoded answer, which was not asked for")
        content_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        self._on_success(rejected(self._signal, _body(response, deadline), printable(content_type, 80)))
        return _Result(status, printable(response.reason))


@dataclass(frozen=True, slots=True)
class _Result(BaseHTTPResult):
    retry_after: float | None = None

    def content(self) -> bytes:
        return b""

    def headers(self) -> Mapping[str, str]:
        return {} if self.retry_after is None else {"retry-after": f"{self.retry_after:.3f}"}


def _body(response: requests.Response, deadline: float | None) -> bytes:
    """Read as much as an answer may have, and a byte more."""
    body = b""
    parts: Any = response.iter_content(1 << 12)
    for part in parts:
        body += part
        if len(body) > MOST_BYTES:
            break
        if deadline is not None and time.monotonic() > deadline:
            raise NoAnswer("an answer that did not end in time")
    return body
