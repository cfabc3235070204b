"""The far end: an exporter of OpenTelemetry's, told apart only by what it can be given."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import requests
from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY, attach, detach, set_value
from opentelemetry.exporter.otlp.proto.grpc.exporter import OTLPExporterMixin
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter as HttpLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as HttpMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpSpanExporter
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

from snakepit_otel.telemetry.export.direct import direct_options, go_direct

# By default gRPC waits up to two minutes between attempts to connect, and the exporters of a process share
# that wait, so that none of them is back soon after an outage.
_RECONNECTING = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 500),
    ("grpc.min_reconnect_backoff_ms", 5_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
)
# What servers in several languages say of a request beyond their limit; by the code alone it might be a quota.
_CODES_OF_SIZE = frozenset({"RESOURCE_EXHAUSTED", "OUT_OF_RANGE", "INVALID_ARGUMENT", "INTERNAL", "UNKNOWN"})
_ABOUT_SIZE = re.compile(
    r"larger than|too large|too big|(message|request|body|payload|content)\b.*\bexceed|\b413\b", re.IGNORECASE
)
_CONTENT_TOO_LARGE = 413
_OVER_HTTP = (HttpSpanExporter, HttpMetricExporter, HttpLogExporter)
_SERVICES: Mapping[str, tuple[str, Any, str]] = {
    "traces": (
        "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
        trace_service_pb2.ExportTraceServiceResponse,
        "rejected_spans",
    ),
    "metrics": (
        "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
        metrics_service_pb2.ExportMetricsServiceResponse,
        "rejected_data_points",
    ),
    "logs": (
        "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
        logs_service_pb2.ExportLogsServiceResponse,
        "rejected_log_records",
    ),
}


class Answer(NamedTuple):
    """What the peer made of an export."""

    accepted: bool
    rejected: int = 0
    """Items that it refused of an export it accepted."""
    too_large: bool = False
    """Whether it refused all of them since they are more bytes than it takes."""


class _TooLarge(Exception):
    """Ends an export that the exporter would repeat, although it can only be refused again."""


class Peer:
    """An exporter, with its own endpoint, credentials, headers, compression, time limit and retries.

    Over OTLP it tells how many items the collector refused of a batch it took, which the exporter alone
    would count as delivered. `takes_bytes` says that items may be given as an encoded request.
    """

    def __init__(self, exporter: Any, signal: str) -> None:
        self.exporter = exporter
        self._rejected = 0
        self.takes_bytes = False
        if isinstance(exporter, OTLPExporterMixin):
            self._take_over(exporter, signal)
            self.takes_bytes = True
        elif type(exporter) in _OVER_HTTP:
            self._listen_in(exporter, signal)
            self.takes_bytes = True

    def export(self, data: Any, **options: Any) -> Answer:
        """Export what the exporter exports. Raises what it raises."""
        self._rejected = 0
        with _untold():
            result = self.exporter.export(data, **options)
        return Answer(result is None or result.name == "SUCCESS", self._rejected)

    def export_bytes(self, request: bytes) -> Answer:
        """Export an encoded request."""
        if isinstance(self.exporter, OTLPExporterMixin):
            try:
                return self.export(request)
            except _TooLarge:
                return Answer(False, too_large=True)
        self._rejected = 0
        with _untold():
            result = self.exporter._client.export(request)
        return Answer(result.success, self._rejected, result.status_code == _CONTENT_TOO_LARGE)

    def abort(self) -> None:
        """Let an export under way fail soon, and take no more."""
        self.exporter.shutdown()

    def _listen_in(self, exporter: Any, signal: str) -> None:
        """Have a look at the answers that an exporter over HTTP gets, of which it minds only the status."""
        _, response, rejected = _SERVICES[signal]
        transport = exporter._client._transport
        if isinstance(session := getattr(transport, "_session", None), requests.Session):
            go_direct(session, exporter._endpoint)
        request = transport.request

        def look(*args: Any, **kwargs: Any) -> Any:
            answer = request(*args, **kwargs)
            if answer.status_code == 200:
                with suppress(Exception):  # not protobuf, as the answers of some peers are not
                    self._rejected += getattr(response.FromString(answer.content()).partial_success, rejected)
            return answer

        transport.request = look

    def _take_over(self, exporter: OTLPExporterMixin[Any, Any, Any, Any], signal: str) -> None:
        """Put a client of ours in the place of the exporter's, which makes it anew when a connection breaks."""
        path, response, rejected = _SERVICES[signal]
        translate = exporter._translate_data

        def note(answer: Any) -> None:
            self._rejected += getattr(answer.partial_success, rejected)

        def client(channel: Any) -> _GrpcClient:
            return _GrpcClient(channel.unary_unary(path, _serialized, response.FromString), note, connect_anew)

        def connect_anew() -> None:
            if not replaced._shutdown:
                replaced._channel.close()
                replaced._initialize_channel_and_stub()

        replaced: Any = exporter
        replaced._stub = client
        direct = direct_options(exporter._endpoint)
        replaced._channel_options = (*exporter._channel_options, *_RECONNECTING, *direct)
        connect_anew()
        replaced._translate_data = lambda data: data if isinstance(data, bytes) else translate(data)
        replaced._count_data = _count


@contextmanager
def _untold() -> Iterator[None]:
    """Keep instrumentations of gRPC and HTTP from telling exports, each of which would be one more to export."""
    token = attach(set_value(_SUPPRESS_INSTRUMENTATION_KEY, True))
    try:
        yield
    finally:
        detach(token)


class _GrpcClient:
    """Has what the exporter calls of its client."""

    def __init__(self, call: Any, note: Any, connect_anew: Any) -> None:
        self._call = call
        self._note = note
        self._connect_anew = connect_anew

    def Export(self, request: Any, metadata: Any = None, timeout: float | None = None) -> Any:  # noqa: N802 - the exporter's name for it
        try:
            answer = self._call(request, metadata=metadata, timeout=timeout)
        except Exception as raised:
            error: Any = raised
            code = error.code().name if hasattr(error, "code") else ""
            # A connection that something on its way dropped without a word would stay silent for a quarter of an hour.
            if code == "DEADLINE_EXCEEDED":
                self._connect_anew()
            if code in _CODES_OF_SIZE and _ABOUT_SIZE.search(error.details() or ""):
                raise _TooLarge from error
            raise
        self._note(answer)
        return answer


def _serialized(request: Any) -> bytes:
    return request if isinstance(request, bytes) else request.SerializeToString()


def _count(_data: Any) -> int:
    # Asked for by the exporter's own metrics, which are off; see lanes/adoption.py.
    return 0
