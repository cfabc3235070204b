"""OTLP over HTTP: one POST per request, whose response is bounded in bytes and in time, without redirects."""

from __future__ import annotations

import gzip
import time
import zlib
from contextlib import suppress
from http.cookiejar import DefaultCookiePolicy
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter

from snakepit_otel._version import VERSION
from snakepit_otel.common.loopback import leads_here
from snakepit_otel.common.printable import printable, printable_error
from snakepit_otel.telemetry.environment.endpoints import HTTP
from snakepit_otel.telemetry.export.http_deadline import DeadlineAdapter, limit_time
from snakepit_otel.telemetry.export.otlp_responses import (
    MAX_RESPONSE_BYTES,
    SUCCESS_STATUSES,
    InvalidResponse,
    Response,
    rejected_items,
    retry_after_seconds,
)
from snakepit_otel.telemetry.export.otlp_settings import OtlpSettings

_FIRST_ERROR_STATUS = 400
_TOO_LARGE_STATUS = 413
# https://opentelemetry.io/docs/specs/otlp/#retryable-response-codes
_RETRYABLE_STATUSES = frozenset({429, 502, 503, 504})
_CHUNK_BYTES = 1 << 12


class HttpTransport:
    """Sends requests over HTTP, in a session that has no cookies. Raises what credential providers raise."""

    def __init__(self, settings: OtlpSettings) -> None:
        self.endpoint = settings.endpoint
        self._signal = settings.signal
        self._compression = settings.compression
        self._headers = {"content-type": "application/x-protobuf", "user-agent": f"snakepit-otel/{VERSION}"}
        if self._compression in ("gzip", "deflate"):
            self._headers["content-encoding"] = self._compression
        # A response that is small on the wire could be large once it is decoded.
        self._headers |= {**settings.headers, "accept-encoding": "identity"}
        self.session = settings.provided_credentials(HTTP, requests.Session) or requests.Session()
        self.session.verify = settings.certificate or True
        if settings.client_certificate is not None:
            pair = (settings.client_certificate, settings.client_key)
            self.session.cert = pair if settings.client_key is not None else settings.client_certificate
        self.session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        limit_time(self.session)
        bypass_proxy(self.session, self.endpoint)

    def compress(self, request: bytes) -> bytes:
        if self._compression == "gzip":
            return gzip.compress(request)
        return zlib.compress(request) if self._compression == "deflate" else request

    def send(self, body: bytes, timeout: float) -> Response:
        deadline = time.monotonic() + timeout
        try:
            try:
                return self._post(body, deadline)
            except requests.ConnectionError:
                # A kept connection that the receiver has closed since; a new one is made.
                if time.monotonic() >= deadline:
                    raise
                return self._post(body, deadline)
        except (requests.ConnectionError, requests.Timeout) as error:
            return Response(False, retryable=True, message=printable_error(error))
        except (requests.RequestException, OSError, ValueError) as error:
            return Response(False, message=printable_error(error))

    def close(self) -> None:
        self.session.close()

    def _post(self, body: bytes, deadline: float) -> Response:
        response = self.session.request(
            "POST",
            self.endpoint,
            headers=self._headers,
            data=body,
            timeout=max(deadline - time.monotonic(), 0.001),
            allow_redirects=False,
            stream=True,
        )
        try:
            return self._read(response, deadline)
        finally:
            with suppress(Exception):
                response.close()

    def _read(self, response: requests.Response, deadline: float) -> Response:
        status = response.status_code
        if status >= _FIRST_ERROR_STATUS:
            return Response(
                False,
                too_large=status == _TOO_LARGE_STATUS,
                retryable=status in _RETRYABLE_STATUSES,
                retry_after=retry_after_seconds(response.headers.get("retry-after")),
                message=f"HTTP {status} {printable(response.reason)}",
            )
        if status not in SUCCESS_STATUSES:
            raise InvalidResponse(f"HTTP {status}, which is no success")
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            raise InvalidResponse("an encoded response, which was not requested")
        content_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        return Response(True, rejected_items(self._signal, _body(response, deadline), printable(content_type, 80)))


def bypass_proxy(session: requests.Session, url: str) -> None:
    """Keep a session's requests to a URL of this machine from proxies; a session with an adapter of its own stays."""
    if type(session.get_adapter(url)) in (HTTPAdapter, DeadlineAdapter) and leads_here(urlsplit(url).hostname or ""):
        session.mount(f"{urlsplit(url).scheme}://", _DirectAdapter())


class _DirectAdapter(DeadlineAdapter):
    """Sends without a proxy; the rest of what requests takes from the environment stays."""

    def send(self, request: requests.PreparedRequest, *args: Any, **options: Any) -> requests.Response:
        return super().send(request, *args, **{**options, "proxies": None})


def _body(response: requests.Response, deadline: float) -> bytes:
    """Read at most one chunk more than a response may have."""
    body = b""
    chunks: Any = response.iter_content(_CHUNK_BYTES)
    for chunk in chunks:
        body += chunk
        if len(body) > MAX_RESPONSE_BYTES:
            break
        if time.monotonic() > deadline:
            raise InvalidResponse("a response that did not end in time")
    return body
