"""OTLP over gRPC: one unary call per request, on a channel that is made anew when a connection breaks."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import grpc

from snakepit_otel._version import VERSION
from snakepit_otel.common.loopback import leads_here
from snakepit_otel.common.printable import printable
from snakepit_otel.common.secrets import masked_text
from snakepit_otel.telemetry.environment.endpoints import GRPC
from snakepit_otel.telemetry.export.otlp_responses import (
    MAX_RESPONSE_BYTES,
    InvalidResponse,
    Response,
    rejected_items,
    retry_info_seconds,
)
from snakepit_otel.telemetry.export.otlp_settings import OtlpSettings

_METHODS: Mapping[str, str] = {
    "traces": "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    "metrics": "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
    "logs": "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
}
_CHANNEL_OPTIONS = (
    ("grpc.primary_user_agent", f"snakepit-otel/{VERSION}"),
    ("grpc.max_receive_message_length", MAX_RESPONSE_BYTES),
    # By default gRPC waits up to two minutes between attempts to connect, and the channels of a process share that
    # wait, so that no exporter would be back soon after an outage.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 500),
    ("grpc.min_reconnect_backoff_ms", 5_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
)
# https://opentelemetry.io/docs/specs/otlp/#failures
_RETRYABLE = frozenset(
    {"CANCELLED", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "ABORTED", "OUT_OF_RANGE", "UNAVAILABLE", "DATA_LOSS"}
)
# A connection that a device on its way dropped silently would stay silent for a quarter of an hour.
_RECONNECTED = frozenset({"DEADLINE_EXCEEDED", "UNAVAILABLE"})
_TOO_LARGE_CODES = frozenset({"RESOURCE_EXHAUSTED", "OUT_OF_RANGE", "INVALID_ARGUMENT", "INTERNAL", "UNKNOWN"})
# Messages of servers in several languages for a request beyond their limit; the code alone could mean a quota.
TOO_LARGE: Final = re.compile(
    r"larger than|too large|too big|(message|request|body|payload|content)\b.*\bexceed|\b413\b", re.IGNORECASE
)
# gRPC's own message for a response beyond the limit above.
_RESPONSE_TOO_LARGE = re.compile(r"CLIENT: Received message larger|Decompressed message larger")
_RETRY_INFO = "google.rpc.retryinfo-bin"
_MAX_DETAILS = 4_000


class GrpcTransport:
    """Sends requests over gRPC. Raises what files of certificates and credential providers raise."""

    def __init__(self, settings: OtlpSettings) -> None:
        url = urlsplit(settings.endpoint) if "://" in settings.endpoint else None
        self.endpoint = (url.netloc if url is not None else "") or settings.endpoint
        scheme = url.scheme if url is not None else ""
        self._credentials = None if settings.is_insecure(scheme) else _credentials(settings)
        self._signal = settings.signal
        self._metadata = tuple(settings.headers.items())
        self._compression = grpc.Compression.Gzip if settings.compression == "gzip" else grpc.Compression.NoCompression
        self._options = (*_CHANNEL_OPTIONS, *proxy_options(self.endpoint))
        self._lock = threading.Lock()
        self._closed = False
        self._channel: grpc.Channel
        self._call: Any
        self._connect()

    def compress(self, request: bytes) -> bytes:
        """See `OtlpTransport`; gRPC compresses by itself."""
        return request

    def send(self, body: bytes, timeout: float) -> Response:
        try:
            response = self._call(body, metadata=self._metadata, timeout=timeout)
        except grpc.RpcError as raised:
            return self._failed(raised)
        return Response(True, rejected_items(self._signal, response))

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._channel.close()

    def _connect(self) -> None:
        if self._credentials is None:
            self._channel = grpc.insecure_channel(self.endpoint, self._options, self._compression)
        else:
            self._channel = grpc.secure_channel(self.endpoint, self._credentials, self._options, self._compression)
        self._call = self._channel.unary_unary(_METHODS[self._signal])

    def _reconnect(self) -> None:
        with self._lock:
            if not self._closed:
                self._channel.close()
                self._connect()

    def _failed(self, error: Any) -> Response:
        code = error.code().name
        details = error.details() or ""
        if code in _RECONNECTED:
            self._reconnect()
        if _RESPONSE_TOO_LARGE.search(details):
            raise InvalidResponse(f"a response of more than {MAX_RESPONSE_BYTES} bytes") from None
        details = details[:_MAX_DETAILS]
        if code in _TOO_LARGE_CODES and TOO_LARGE.search(details):
            return Response(False, too_large=True)
        waits = [retry_info_seconds(value) for key, value in error.trailing_metadata() or () if key == _RETRY_INFO]
        return Response(
            False,
            retryable=code in _RETRYABLE,
            retry_after=waits[-1] if waits else None,
            message=f"{code}: {printable(masked_text(details))}",
        )


def proxy_options(endpoint: str) -> tuple[tuple[str, Any], ...]:
    """Return the channel options that keep calls to this machine from the proxies that the environment names."""
    return (("grpc.enable_http_proxy", 0),) if leads_here(endpoint) else ()


def _credentials(settings: OtlpSettings) -> grpc.ChannelCredentials:
    provided = settings.provided_credentials(GRPC, grpc.ChannelCredentials)
    if provided is not None:
        return provided  # type: ignore[no-any-return]
    if settings.certificate is None:
        # As OpenTelemetry's exporter does, which takes a client's certificate only together with an authority's.
        return grpc.ssl_channel_credentials()
    return grpc.ssl_channel_credentials(
        _content(settings.certificate), _content(settings.client_key), _content(settings.client_certificate)
    )


def _content(path: str | None) -> bytes | None:
    return None if path is None else Path(path).read_bytes()
