"""Sends one span, one data point and one log record as the stock exporters send them, and keeps what was answered."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any

import grpc
import requests
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

from snakepit_otel._version import VERSION
from snakepit_otel.cli.doctor.target import SIGNALS, Target
from snakepit_otel.telemetry import names
from snakepit_otel.telemetry.environment import Environment, applied
from snakepit_otel.telemetry.export.answers import MOST_BYTES
from snakepit_otel.telemetry.export.direct import direct_options, go_direct
from snakepit_otel.telemetry.export.timed_http import go_within_time

SPAN_NAME = LOG_NAME = "snakepit-otel doctor"
METRIC_NAME = names.METRIC_DOCTOR_CANARY.name
_SCOPE = "snakepit_otel.doctor"
_RESPONSES = {
    "traces": (ExportTraceServiceResponse, "rejected_spans"),
    "metrics": (ExportMetricsServiceResponse, "rejected_data_points"),
    "logs": (ExportLogsServiceResponse, "rejected_log_records"),
}


@dataclass(frozen=True)
class Outcome:
    """What became of one canary."""

    grpc_code: str = ""
    """The name of the status, where gRPC gave one: the peer's own word, or what gRPC made of a failure."""
    http_status: int = 0
    said: str = ""
    """The status message, the body, or the error, as it came."""
    rejected: int = 0
    message: str = ""
    """The message of a partial success."""
    content_type: str = ""
    location: str = ""
    proxy_said: bool = False
    timed_out: bool = False
    unbuildable: bool = False
    """The exporter could not even be made; `said` has why."""


class Canary:
    """Telemetry with one random id: the trace id, the `service.instance.id`, and in the log record's body."""

    def __init__(self, read: Environment) -> None:
        self.id = os.urandom(16).hex()
        self._read = read
        # Nothing but standard names: any backend can look for a trace and for service.instance.id.
        attributes = {"service.version": VERSION, "service.instance.id": self.id}
        # Of the detectors only the one that reads the environment: others ask the cloud, and may take their time.
        attributes["service.name"] = read.given("OTEL_SERVICE_NAME") or "snakepit-doctor"
        with applied(read.texts()):
            resource = OTELResourceDetector().detect().merge(Resource(attributes))
            self._data: dict[str, Any] = {
                "traces": _span(resource, int(self.id, 16)),
                "metrics": _point(resource),
                "logs": _record(resource, self.id),
            }

    def send(self, target: Target, timeout: float) -> Outcome:
        """Send the canary of a signal in at most about `timeout` seconds."""
        heard = _Heard()
        try:
            with applied(self._read.texts(target.signal)):
                exporter = _exporter(target, timeout, heard)
        except Exception as error:  # noqa: BLE001 - whatever keeps an exporter from being made is what we are to tell
            return Outcome(said=f"{type(error).__name__}: {error}", unbuildable=True)
        try:
            worker = threading.Thread(target=_export, args=(exporter, self._data[target.signal], heard), daemon=True)
            worker.start()
            heard.done.wait(timeout)
            return heard.outcome(target)
        finally:
            with suppress(Exception):
                exporter.shutdown()


class _Heard:
    """What came back first."""

    def __init__(self) -> None:
        self.done = threading.Event()
        self.response: Any = None
        self.error: Exception | None = None

    def take(self, response: Any = None, error: Exception | None = None) -> None:
        if not self.done.is_set():
            self.response, self.error = response, error
            self.done.set()

    def outcome(self, target: Target) -> Outcome:
        if not self.done.is_set():
            return Outcome(timed_out=True)
        if self.error is not None:
            return _failed(self.error)
        if isinstance(self.response, requests.Response):
            return _answered(self.response, target.signal)
        if self.response is None:
            return Outcome(said="the exporter gave up before it sent anything")
        return _counted(self.response, target.signal, Outcome(grpc_code="OK"))


def _export(exporter: Any, data: Any, heard: _Heard) -> None:
    try:
        exporter.export(data)
    except Exception as error:  # noqa: BLE001 - told to the user
        heard.take(error=error)
    heard.take()


def _exporter(target: Target, timeout: float, heard: _Heard) -> Any:
    name = "otlp_proto_grpc" if target.is_grpc else "otlp_proto_http"
    (found,) = entry_points(group=f"opentelemetry_{target.signal}_exporter", name=name)
    if target.is_grpc:
        # With no code worth a retry, the first answer is the answer.
        exporter = found.load()(
            timeout=timeout,
            retryable_error_codes=(grpc.StatusCode.OK,),
            channel_options=(("grpc.max_receive_message_length", MOST_BYTES), *direct_options(target.url)),
        )
        exporter._client = _ListeningStub(exporter._client, heard)
        return exporter
    return found.load()(timeout=timeout, session=_listening_session(target, heard))


class _ListeningStub:
    """A stub that keeps what is answered."""

    def __init__(self, stub: Any, heard: _Heard) -> None:
        self._stub = stub
        self._heard = heard

    def Export(self, *arguments: Any, **options: Any) -> Any:  # noqa: N802 - gRPC's name
        try:
            response = self._stub.Export(*arguments, **options)
        except grpc.RpcError as error:
            self._heard.take(error=error)
            raise
        self._heard.take(response)
        return response


def _listening_session(target: Target, heard: _Heard) -> requests.Session:
    session = _given_session(target) or requests.Session()
    go_within_time(session)
    go_direct(session, target.url)
    request: Callable[..., requests.Response] = session.request

    def listening(*arguments: Any, **options: Any) -> requests.Response:
        try:
            response = _read(request(*arguments, **{**options, "stream": True}))
        except Exception as error:
            heard.take(error=error)
            raise
        heard.take(response)
        return response

    session.request = listening  # type: ignore[method-assign]
    return session


def _read(response: requests.Response) -> requests.Response:
    """Read as much of an answer as there is to be shown of one."""
    body = b""
    for part in response.iter_content(1 << 12):
        body += part
        if len(body) > MOST_BYTES:
            break
    response.close()
    response._content = body[: MOST_BYTES + 1]
    return response


def _given_session(target: Target) -> requests.Session | None:
    # A session of ours takes the place of the one that these variables name, so it is to be theirs.
    common = "OTEL_PYTHON_EXPORTER_OTLP_HTTP_CREDENTIAL_PROVIDER"
    named = os.environ.get(common) or os.environ.get(common.replace("HTTP_", f"HTTP_{target.signal.upper()}_"))
    if not named:
        return None
    found = list(entry_points(group="opentelemetry_otlp_credential_provider", name=named))
    if not found:
        raise RuntimeError(f"no installed package provides the credential provider {named!r}")
    made = found[0].load()()
    if not isinstance(made, requests.Session):
        raise TypeError(f"the credential provider {named!r} makes no requests.Session")
    return made


def _failed(error: Exception) -> Outcome:
    if isinstance(error, grpc.RpcError):
        code: grpc.StatusCode = error.code()
        details = error.details() or ""
        return Outcome(grpc_code=code.name, said=details, timed_out=code is grpc.StatusCode.DEADLINE_EXCEEDED)
    return Outcome(
        said=f"{type(error).__name__}: {error}",
        timed_out=isinstance(error, requests.Timeout),
        proxy_said=isinstance(error, requests.exceptions.ProxyError),
        unbuildable=isinstance(error, (requests.exceptions.InvalidSchema, requests.exceptions.InvalidURL, ValueError)),
    )


def _answered(response: requests.Response, signal: str) -> Outcome:
    content_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    outcome = Outcome(
        http_status=response.status_code,
        said=f"{response.status_code} {response.reason}",
        content_type=content_type,
        location=response.headers.get("location", ""),
    )
    made = _RESPONSES[signal][0]()
    try:
        if content_type == "application/x-protobuf" and response.ok:
            made.ParseFromString(response.content)
            return _counted(made, signal, outcome)
    except Exception:  # noqa: BLE001 - whatever cannot be read is none of OTLP's
        return Outcome(**{**vars(outcome), "content_type": f"{content_type} that cannot be read"})
    body = "" if content_type == "application/x-protobuf" else response.text[:400]
    return Outcome(**{**vars(outcome), "said": f"{outcome.said} {body}".strip()})


def _counted(response: Any, signal: str, outcome: Outcome) -> Outcome:
    partial = response.partial_success
    # There was one item to refuse.
    rejected = min(max(getattr(partial, _RESPONSES[signal][1]), 0), 1)
    return Outcome(**{**vars(outcome), "rejected": rejected, "message": partial.error_message})


class _Ids(RandomIdGenerator):
    def __init__(self, trace_id: int) -> None:
        self._trace_id = trace_id

    def generate_trace_id(self) -> int:
        return self._trace_id


def _span(resource: Resource, trace_id: int) -> Any:
    kept = InMemorySpanExporter()
    # Whatever sampler is configured, the canary is to be sent.
    provider = TracerProvider(ALWAYS_ON, resource, shutdown_on_exit=False, id_generator=_Ids(trace_id))
    provider.add_span_processor(SimpleSpanProcessor(kept))
    provider.get_tracer(_SCOPE, VERSION).start_span(SPAN_NAME).end()
    return kept.get_finished_spans()


def _point(resource: Resource) -> Any:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], resource, shutdown_on_exit=False)
    metric = names.METRIC_DOCTOR_CANARY
    provider.get_meter(_SCOPE, VERSION).create_counter(metric.name, metric.unit, metric.description).add(1)
    return reader.get_metrics_data()


def _record(resource: Resource, canary_id: str) -> Any:
    kept = InMemoryLogRecordExporter()
    provider = LoggerProvider(resource, shutdown_on_exit=False)
    provider.add_log_record_processor(SimpleLogRecordProcessor(kept))
    body = f"{LOG_NAME} {canary_id}"
    provider.get_logger(_SCOPE, VERSION).emit(LogRecord(severity_number=SeverityNumber.INFO, body=body))
    return kept.get_finished_logs()


@contextmanager
def hushed() -> Iterator[None]:
    """Keep the exporters' and gRPC's own complaints from the terminal; some have headers in them."""
    for name in ("opentelemetry", "urllib3"):
        logging.getLogger(name).addHandler(logging.NullHandler())
        logging.getLogger(name).propagate = False
    # gRPC's C core writes to descriptor 2, and reads GRPC_VERBOSITY when it is imported, long before us.
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


assert set(_RESPONSES) == set(SIGNALS)
