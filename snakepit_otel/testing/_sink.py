"""A receiver for OTLP over gRPC that keeps what it gets: telemetry of many processes in one place."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Self

import grpc
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as logs_pb
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2_grpc as logs_grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics_pb
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc as metrics_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as trace_pb
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as trace_grpc

from snakepit_otel.testing._spans import Span

_ERROR = 2


@dataclass(frozen=True)
class SeenEvent:
    """An event as it arrived."""

    name: str
    body: str
    attributes: dict[str, Any]
    service: str
    trace_id: str | None = None
    span_id: str | None = None


@dataclass(frozen=True)
class SeenPoint:
    """The latest data point of one series of one process: a value, or a histogram's sum and count."""

    metric: str
    unit: str
    attributes: tuple[tuple[str, Any], ...]
    value: float
    count: int | None
    service: str
    instance: str
    role: str


class OtlpSink:
    """Listens on a free loopback port; `endpoint` is for OTEL_EXPORTER_OTLP_ENDPOINT. A context manager."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.events: list[SeenEvent] = []
        self._points: dict[tuple[Any, ...], SeenPoint] = {}
        self._server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
        trace_grpc.add_TraceServiceServicer_to_server(
            _Service(self._take_spans, trace_pb.ExportTraceServiceResponse), self._server
        )
        metrics_grpc.add_MetricsServiceServicer_to_server(
            _Service(self._take_metrics, metrics_pb.ExportMetricsServiceResponse), self._server
        )
        logs_grpc.add_LogsServiceServicer_to_server(
            _Service(self._take_logs, logs_pb.ExportLogsServiceResponse), self._server
        )
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self.endpoint = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(None).wait()

    @property
    def environment(self) -> dict[str, str]:
        """Variables by which a program exports here, over gRPC and soon: every 50 ms, metrics every 500 ms."""
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.endpoint,
            "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
            "OTEL_BSP_SCHEDULE_DELAY": "50",
            "OTEL_BLRP_SCHEDULE_DELAY": "50",
            "OTEL_METRIC_EXPORT_INTERVAL": "500",
        }

    @property
    def points(self) -> list[SeenPoint]:
        """The latest data point of every series."""
        return list(self._points.values())

    async def wait_for(self, condition: Callable[[Self], Any], timeout: float = 10.0) -> Any:
        """Return what `condition` makes of the sink once that is true; raise `TimeoutError` if it never is."""
        async with asyncio.timeout(timeout):
            while not (found := condition(self)):
                await asyncio.sleep(0.02)
            return found

    def _take_spans(self, request: Any) -> None:
        for resource in request.resource_spans:
            service = _attributes(resource.resource.attributes).get("service.name", "")
            for scope in resource.scope_spans:
                self.spans += [
                    Span(
                        span.name,
                        span.trace_id.hex(),
                        span.span_id.hex(),
                        span.parent_span_id.hex() or None,
                        span.start_time_unix_nano,
                        span.end_time_unix_nano,
                        _attributes(span.attributes),
                        span.status.code != _ERROR,
                        service,
                        tuple(link.span_id.hex() for link in span.links),
                    )
                    for span in scope.spans
                ]

    def _take_metrics(self, request: Any) -> None:
        for resource in request.resource_metrics:
            about = _attributes(resource.resource.attributes)
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    kind = metric.WhichOneof("data")
                    for point in getattr(metric, kind).data_points:
                        seen = SeenPoint(
                            metric.name,
                            metric.unit,
                            tuple(sorted(_attributes(point.attributes).items())),
                            point.sum if kind == "histogram" else point.as_double or point.as_int,
                            point.count if kind == "histogram" else None,
                            about.get("service.name", ""),
                            about.get("service.instance.id", ""),
                            about.get("snakepit.role", ""),
                        )
                        self._points[seen.metric, seen.attributes, seen.instance] = seen

    def _take_logs(self, request: Any) -> None:
        for resource in request.resource_logs:
            service = _attributes(resource.resource.attributes).get("service.name", "")
            for scope in resource.scope_logs:
                self.events += [
                    SeenEvent(
                        record.event_name,
                        record.body.string_value,
                        _attributes(record.attributes),
                        service,
                        record.trace_id.hex() or None,
                        record.span_id.hex() or None,
                    )
                    for record in scope.log_records
                ]


class _Service:
    def __init__(self, take: Callable[[Any], None], response: Callable[[], Any]) -> None:
        self._take = take
        self._response = response

    def Export(self, request: Any, context: Any) -> Any:
        self._take(request)
        return self._response()


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(item) for item in value.array_value.values]
    return getattr(value, kind) if kind else None
