"""The far end: an exporter of OpenTelemetry's, told apart only by what it can be given."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import requests
from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY, attach, detach, set_value
from opentelemetry.exporter.otlp.proto.grpc import exporter as over_grpc
from opentelemetry.exporter.otlp.proto.grpc.exporter import OTLPExporterMixin
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter as HttpLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as HttpMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpSpanExporter

from snakepit_otel.common.printable import MAX_MESSAGE_CHARACTERS, printable
from snakepit_otel.common.secrets import masked_text
from snakepit_otel.telemetry.export import quiet
from snakepit_otel.telemetry.export.answers import MOST_BYTES, NoAnswer, asks_to_wait, rejected
from snakepit_otel.telemetry.export.direct import direct_options, go_direct
from snakepit_otel.telemetry.export.over_http import BoundedTransport

# By default gRPC waits up to two minutes between attempts to connect, and the exporters of a process share
# that wait, so that none of them is back soon after an outage.
_CHANNEL_OPTIONS = (
    ("grpc.max_receive_message_length", MOST_BYTES),
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
# What our own side says of an answer beyond the limit above.
_ABOUT_ANSWER = re.compile(r"CLIENT: Received message larger|Decompressed message larger")
# gRPC itself is not for this room.
_RpcError: Any = vars(over_grpc)["RpcError"]
_RETRY_INFO = "google.rpc.retryinfo-bin"
_LONGEST_DETAILS = 4_000
_CONTENT_TOO_LARGE = 413
_OVER_HTTP = (HttpSpanExporter, HttpMetricExporter, HttpLogExporter)
_METHODS: Mapping[str, str] = {
    "traces": "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    "metrics": "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
    "logs": "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
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
        quiet.be_quiet()
        if isinstance(exporter, OTLPExporterMixin):
            self._take_over(exporter, signal)
            self.takes_bytes = True
        elif type(exporter) in _OVER_HTTP:
            self.takes_bytes = self._bound(exporter, signal)

    def export(self, data: Any, **options: Any) -> Answer:
        """Export what the exporter exports. Raises what it raises."""
        self._rejected = 0
        with _untold():
            result = self.exporter.export(data, **options)
        return Answer(result is None or getattr(result, "name", "") == "SUCCESS", self._rejected)

    def export_bytes(self, request: bytes) -> Answer:
        """Export an encoded request."""
        if isinstance(self.exporter, OTLPExporterMixin):
            try:
                return self.export(request)
            except _TooLarge:
                return Answer(False, too_large=True)
            except NoAnswer as error:
                quiet.warn("telemetry is lost, since its receiver gave %s", printable(error, MAX_MESSAGE_CHARACTERS))
                return Answer(False)
        self._rejected = 0
        with _untold():
            result = self.exporter._client.export(request)
        return Answer(result.success, self._rejected, result.status_code == _CONTENT_TOO_LARGE)

    def abort(self) -> None:
        """Let an export under way fail soon, and take no more."""
        self.exporter.shutdown()

    def _note(self, count: int) -> None:
        self._rejected = count

    def _bound(self, exporter: Any, signal: str) -> bool:
        """Have an exporter over HTTP take no more of an answer than one may have; False for one of another kind."""
        client = exporter._client
        session = getattr(client._transport, "_session", None)
        if not isinstance(session, requests.Session):
            return False
        client._transport = BoundedTransport(client._transport, session, signal, self._note)
        go_direct(session, exporter._endpoint)
        return True

    def _take_over(self, exporter: OTLPExporterMixin[Any, Any, Any, Any], signal: str) -> None:
        """Put a client of ours in the place of the exporter's, which makes it anew when a connection breaks."""
        translate = exporter._translate_data

        def note(answer: bytes) -> None:
            self._note(rejected(signal, answer))

        def client(channel: Any) -> _GrpcClient:
            return _GrpcClient(channel.unary_unary(_METHODS[signal], _serialized), note, connect_anew)

        def connect_anew() -> None:
            if not replaced._shutdown:
                replaced._channel.close()
                replaced._initialize_channel_and_stub()

        replaced: Any = exporter
        replaced._stub = client
        direct = direct_options(exporter._endpoint)
        replaced._channel_options = (*exporter._channel_options, *_CHANNEL_OPTIONS, *direct)
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
            if not isinstance(error, _RpcError):
                raise
            details = error.details() or ""
            if _ABOUT_ANSWER.search(details):
                raise NoAnswer(f"an answer of more than {MOST_BYTES} bytes") from None
            if code in _CODES_OF_SIZE and _ABOUT_SIZE.search(details[:_LONGEST_DETAILS]):
                raise _TooLarge from None
            # Without the other's words in a traceback.
            raise _Refusal(error) from None
        self._note(answer)
        return answer


class _Refusal(_RpcError):  # type: ignore[misc]
    """An error of gRPC's as the exporter may have it, which logs its details and waits as long as it asks for."""

    def __init__(self, error: Any) -> None:
        self._code = error.code()
        self._details = printable(masked_text((error.details() or "")[:_LONGEST_DETAILS]), MAX_MESSAGE_CHARACTERS)
        super().__init__(f"{self._code.name}: {self._details}")
        self._trailing = tuple(
            (key, value) for key, value in error.trailing_metadata() or () if key == _RETRY_INFO and asks_to_wait(value)
        )

    def code(self) -> Any:
        return self._code

    def details(self) -> str:
        return self._details

    def trailing_metadata(self) -> Any:
        return self._trailing


def _serialized(request: Any) -> bytes:
    return request if isinstance(request, bytes) else request.SerializeToString()


def _count(_data: Any) -> int:
    # Asked for by the exporter's own metrics, which are off; see lanes/adoption.py.
    return 0
