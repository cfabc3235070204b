"""Exporters of the pipelines: OTLP requests with a deadline and retries, and exporters of other packages."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple, Protocol

from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY, attach, detach, set_value

from snakepit_otel.common.printable import printable_error
from snakepit_otel.telemetry.export import rate_limited_log
from snakepit_otel.telemetry.export.otlp_responses import InvalidResponse, Response

_MAX_ATTEMPTS = 6
_FAILED = "%s are not exported to %s: %s"
_RETRIED = "%s are exported to %s again in %.2f s: %s"


class ExportResult(NamedTuple):
    """The outcome of an export. `rejected` counts items of an accepted export; `too_large`: too many bytes."""

    accepted: bool
    rejected: int = 0
    too_large: bool = False


class OtlpTransport(Protocol):
    """A way to send one encoded request to one endpoint."""

    endpoint: str

    def compress(self, request: bytes) -> bytes:
        """Return the request's body, which every attempt sends."""

    def send(self, body: bytes, timeout: float) -> Response:
        """Send a body, and wait at most `timeout` seconds. Raises `InvalidResponse`."""

    def close(self) -> None:
        """Fail a `send` under way soon, and every later one. May be called from any thread, more than once."""


class OtlpExporter:
    """Exports encoded requests over OTLP; `timeout` seconds limit an export with all its attempts."""

    takes_bytes: Literal[True] = True

    def __init__(self, signal: str, transport: OtlpTransport, timeout: float = 10.0) -> None:
        self._signal = signal
        self._transport = transport
        self._timeout = timeout
        self._aborted = threading.Event()
        # A jitter keeps the workers of a pool from retrying at the same moment.
        self._draw_jitter = random.uniform

    def export_bytes(self, request: bytes) -> ExportResult:
        """Export an encoded request; log why it was not accepted."""
        deadline = time.monotonic() + self._timeout
        try:
            with _no_instrumentation():
                return self._export(self._transport.compress(request), deadline)
        except InvalidResponse as error:
            return self._failed(printable_error(error))
        except Exception as error:
            if not self._aborted.is_set():
                raise
            return self._failed(printable_error(error))

    def abort(self) -> None:
        """Fail the export under way soon, and every later one."""
        self._aborted.set()
        self._transport.close()

    def _export(self, body: bytes, deadline: float) -> ExportResult:
        for attempt in range(_MAX_ATTEMPTS):
            if self._aborted.is_set():
                return self._failed("the exporter is shut down")
            response = self._transport.send(body, max(deadline - time.monotonic(), 0.0))
            if response.accepted:
                return ExportResult(True, response.rejected)
            if response.too_large:
                return ExportResult(False, too_large=True)
            backoff = response.retry_after or 2**attempt * self._draw_jitter(0.8, 1.2)
            is_last = attempt + 1 == _MAX_ATTEMPTS or backoff > deadline - time.monotonic()
            if not response.retryable or is_last or self._aborted.is_set():
                return self._failed(response.message)
            rate_limited_log.warning(_RETRIED, self._signal, self._transport.endpoint, backoff, response.message)
            self._aborted.wait(backoff)
        return self._failed("the exporter is shut down")

    def _failed(self, message: str) -> ExportResult:
        rate_limited_log.error(_FAILED, self._signal, self._transport.endpoint, message)
        return ExportResult(False)


class ObjectExporter:
    """Exports the SDK's objects by another package's exporter, whose own time limits and retries hold."""

    takes_bytes: Literal[False] = False

    def __init__(self, exporter: Any) -> None:
        self._exporter = exporter

    def export(self, data: Any, **options: Any) -> ExportResult:
        """Export what the exporter takes. Raises what the exporter raises."""
        with _no_instrumentation():
            result = self._exporter.export(data, **options)
        return ExportResult(result is None or getattr(result, "name", "") == "SUCCESS")

    def abort(self) -> None:
        self._exporter.shutdown()


Exporter = OtlpExporter | ObjectExporter


@contextmanager
def _no_instrumentation() -> Iterator[None]:
    """Keep instrumentations of gRPC and HTTP from making spans of exports, which would be exported in turn."""
    token = attach(set_value(_SUPPRESS_INSTRUMENTATION_KEY, True))
    try:
        yield
    finally:
        detach(token)
