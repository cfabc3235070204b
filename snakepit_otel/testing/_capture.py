"""Telemetry of this process, kept in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from opentelemetry import _logs, metrics, trace
from opentelemetry.sdk import _logs as sdk_logs
from opentelemetry.sdk._logs import export
from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider, ObservableCounter
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.trace import StatusCode, format_span_id, format_trace_id

from snakepit_otel.testing._spans import Span


@dataclass(frozen=True)
class Event:
    """An event as it was logged."""

    name: str
    body: Any
    attributes: dict[str, Any]
    trace_id: str | None


@dataclass(frozen=True)
class Point:
    """One data point of a metric: a sum or a gauge's value, or a histogram's sum with its count."""

    value: float
    count: int
    attributes: dict[str, Any]


class Capture:
    """In-memory exporters for the whole process; make one, once, before anything is emitted.

    Counters and histograms are given as what was added since the last look. `ids` makes the ids of traces and
    spans, random ones by default.
    """

    def __init__(self, ids: IdGenerator | None = None) -> None:
        self._spans = InMemorySpanExporter()
        tracing = TracerProvider(id_generator=ids)
        tracing.add_span_processor(SimpleSpanProcessor(self._spans))
        trace.set_tracer_provider(tracing)
        delta = AggregationTemporality.DELTA
        self._metrics = InMemoryMetricReader(
            preferred_temporality={Counter: delta, Histogram: delta, ObservableCounter: delta}
        )
        metrics.set_meter_provider(MeterProvider([self._metrics]))
        self._logs = export.InMemoryLogRecordExporter()
        logging_provider = sdk_logs.LoggerProvider()
        logging_provider.add_log_record_processor(export.SimpleLogRecordProcessor(self._logs))
        _logs.set_logger_provider(logging_provider)

    def clear(self) -> None:
        """Forget everything so far."""
        self._spans.clear()
        self._logs.clear()
        self._metrics.get_metrics_data()

    def spans(self, name: str | None = None) -> list[Span]:
        """Return the finished spans in order of their end, or those of one name."""
        found = [_span(span) for span in self._spans.get_finished_spans()]
        return [span for span in found if name is None or span.name == name]

    def events(self, name: str | None = None) -> list[Event]:
        """Return the events in order, or those of one name."""
        found = []
        for entry in self._logs.get_finished_logs():
            record = entry.log_record
            trace_id = format_trace_id(record.trace_id) if record.trace_id else None
            found.append(Event(record.event_name or "", record.body, dict(record.attributes or {}), trace_id))
        return [event for event in found if name is None or event.name == name]

    def points(self, name: str) -> list[Point]:
        """Return the data points of one metric. Looking at one looks at all: ask for each in turn after `clear`."""
        return self.metrics().get(name, [])

    def metrics(self) -> dict[str, list[Point]]:
        """Return every metric's data points."""
        found: dict[str, list[Point]] = {}
        data = self._metrics.get_metrics_data()
        for resource in data.resource_metrics if data else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    for point in metric.data.data_points:
                        value = getattr(point, "value", None)
                        found.setdefault(metric.name, []).append(
                            Point(
                                value if value is not None else point.sum,  # type: ignore[union-attr]
                                getattr(point, "count", 1),
                                dict(point.attributes or {}),
                            )
                        )
        return found


def _span(span: ReadableSpan) -> Span:
    context = span.get_span_context()
    assert context is not None
    return Span(
        span.name,
        format_trace_id(context.trace_id),
        format_span_id(context.span_id),
        format_span_id(span.parent.span_id) if span.parent else None,
        span.start_time or 0,
        span.end_time or 0,
        dict(span.attributes or {}),
        span.status.status_code is not StatusCode.ERROR,
        str(span.resource.attributes.get("service.name", "")),
        tuple(format_span_id(link.context.span_id) for link in span.links),
    )
