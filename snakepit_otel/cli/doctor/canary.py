"""Canaries: one span, one data point and one log record, sent by OpenTelemetry's own exporters."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc
import requests
from opentelemetry import _logs, trace
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.sdk import _logs as sdk_logs
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from snakepit_otel._version import VERSION
from snakepit_otel.cli.doctor.target import Target
from snakepit_otel.telemetry import names
from snakepit_otel.telemetry.environment import Environment, applied
from snakepit_otel.telemetry.environment.endpoints import HTTP
from snakepit_otel.telemetry.export.http_deadline import limit_time
from snakepit_otel.telemetry.export.otlp_grpc import proxy_options
from snakepit_otel.telemetry.export.otlp_http import bypass_proxy
from snakepit_otel.telemetry.export.otlp_responses import MAX_RESPONSE_BYTES, SUCCESS_STATUSES

METRIC_NAME = names.METRIC_DOCTOR_CANARY.name
_NAME = "snakepit-otel doctor"
_SCOPE = InstrumentationScope("snakepit_otel.doctor", VERSION)
_OTLP_TYPES = ("", "application/x-protobuf", "application/json")
# The most of an answer's body that is shown, in characters.
_LONGEST_BODY = 400


@dataclass(frozen=True)
class Outcome:
    """Outcome of one canary; `status` is gRPC's code or HTTP's number, empty where no receiver answered."""

    status: str
    text: str = ""  # the receiver's message, or the library's error
    rejected: bool = False
    timed_out: bool = False

    @property
    def accepted(self) -> bool:
        """Whether the receiver answered with OTLP's success."""
        return self.status == "OK"


class Canary:
    """Telemetry with one random id: the trace id, the `service.instance.id`, and in the log record's body."""

    def __init__(self, environment: Environment) -> None:
        self.id = os.urandom(16).hex()
        self._environment = environment
        # Standard names only: every backend can search for a trace id and for service.instance.id.
        attributes = {"service.version": VERSION, "service.instance.id": self.id}
        # Only the detector that reads the environment: others call cloud services, which may take long.
        attributes["service.name"] = environment.given("OTEL_SERVICE_NAME") or "snakepit-doctor"
        with applied(environment.texts()):
            resource = OTELResourceDetector().detect().merge(Resource(attributes))
            self._data: dict[str, Any] = {
                "traces": _span(resource, int(self.id, 16)),
                "metrics": _point(resource),
                "logs": _record(resource, self.id),
            }

    def send(self, target: Target, timeout: float) -> Outcome:
        """Send the canary of a signal, in about `timeout` seconds. Raises what the making of the exporter raises."""
        answer: Future[Outcome] = Future()
        with applied(self._environment.texts(target.signal)):
            exporter = _exporter(target, timeout, answer)
        with suppress(_Answered):
            exporter.export(self._data[target.signal])
        with suppress(Exception):
            exporter.shutdown()
        return answer.result(0) if answer.done() else Outcome("", "the exporter gave up before it sent anything")


class _Answered(Exception):
    """End of the exporter's attempts: the first answer is the one that counts."""


def _exporter(target: Target, timeout: float, answer: Future[Outcome]) -> Any:
    (found,) = entry_points(group=f"opentelemetry_{target.signal}_exporter", name=target.exporter)
    if target.is_grpc:
        authority = urlsplit(target.endpoint).netloc or target.endpoint
        limits = (("grpc.max_receive_message_length", MAX_RESPONSE_BYTES), *proxy_options(authority))
        exporter = found.load()(timeout=timeout, channel_options=limits)
        exporter._client = _RecordingStub(exporter._client, answer)
        return exporter
    return found.load()(timeout=timeout, session=_recording_session(target, answer))


class _RecordingStub:
    """Stub of an OTLP service that keeps the first answer."""

    def __init__(self, stub: Any, answer: Future[Outcome]) -> None:
        self._export = stub.Export
        self._answer = answer

    def __getattr__(self, name: str) -> Callable[..., None]:
        return self._record

    def _record(self, *arguments: Any, **options: Any) -> None:
        try:
            response = self._export(*arguments, **options)
        except grpc.RpcError as error:
            code = error.code()
            text = f"{code.name} {error.details() or ''}"
            self._answer.set_result(Outcome(code.name, text, timed_out=code is grpc.StatusCode.DEADLINE_EXCEEDED))
        else:
            self._answer.set_result(_success(response))
        raise _Answered


def _recording_session(target: Target, answer: Future[Outcome]) -> requests.Session:
    # The exporter takes either a session of ours or the one that the variables name.
    session: requests.Session = target.settings.provided_credentials(HTTP, requests.Session) or requests.Session()
    limit_time(session)
    bypass_proxy(session, target.endpoint)
    request: Callable[..., requests.Response] = session.request

    def record(*arguments: Any, **options: Any) -> requests.Response:
        try:
            with request(*arguments, **{**options, "stream": True, "allow_redirects": False}) as response:
                body = b""
                for part in response.iter_content(1 << 12):
                    body += part
                    if len(body) > MAX_RESPONSE_BYTES:
                        break
            answer.set_result(_http_outcome(response, body[:MAX_RESPONSE_BYTES]))
        except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema) as error:
            answer.set_exception(error)
        except (OSError, ValueError) as error:
            text = f"{type(error).__name__}: {error}"
            answer.set_result(Outcome("", text, timed_out=isinstance(error, requests.Timeout)))
        raise _Answered

    session.request = record  # type: ignore[method-assign]
    return session


def _http_outcome(response: requests.Response, body: bytes) -> Outcome:
    content_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    status = str(response.status_code)
    if response.status_code in SUCCESS_STATUSES and content_type in _OTLP_TYPES:
        with suppress(Exception):
            is_json = content_type == "application/json"
            # The answers for metrics and logs have the same fields by number.
            return _success(ExportTraceServiceResponse.FromString(b"" if is_json else body))
    location = response.headers.get("location", "")
    shown = "" if content_type == "application/x-protobuf" else body.decode(errors="replace")[:_LONGEST_BODY]
    parts = (status, response.reason, content_type if response.ok else "", location and f"to {location}", shown)
    return Outcome(status, " ".join(filter(None, parts)))


def _success(response: Any) -> Outcome:
    partial = response.partial_success
    rejected = any(field.number == 1 and value > 0 for field, value in partial.ListFields())
    return Outcome("OK", partial.error_message, rejected)


def _span(resource: Resource, trace_id: int) -> Any:
    sampled = trace.TraceFlags(trace.TraceFlags.SAMPLED)
    context = trace.SpanContext(trace_id, int.from_bytes(os.urandom(8)), is_remote=False, trace_flags=sampled)
    now = time.time_ns()
    return (
        ReadableSpan(_NAME, context, resource=resource, instrumentation_scope=_SCOPE, start_time=now, end_time=now),
    )


def _point(resource: Resource) -> Any:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], resource, shutdown_on_exit=False)
    metric = names.METRIC_DOCTOR_CANARY
    provider.get_meter(_SCOPE.name, VERSION).create_counter(metric.name, metric.unit, metric.description).add(1)
    return reader.get_metrics_data()


def _record(resource: Resource, canary_id: str) -> Any:
    record = _logs.LogRecord(severity_number=_logs.SeverityNumber.INFO, body=f"{_NAME} {canary_id}", attributes={})
    return (sdk_logs.ReadableLogRecord(record, resource, _SCOPE),)


@contextmanager
def silenced() -> Iterator[None]:
    """Keep the exporters' and gRPC's own logs from the terminal; some have headers in them."""
    for name in ("opentelemetry", "urllib3"):
        logging.getLogger(name).addHandler(logging.NullHandler())
        logging.getLogger(name).propagate = False
    # gRPC's C core writes to descriptor 2, and has read GRPC_VERBOSITY long before.
    kept = os.dup(2)
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
