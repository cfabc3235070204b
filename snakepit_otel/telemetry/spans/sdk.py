"""Spans by the OpenTelemetry API alone: right for every provider there is."""

from __future__ import annotations

from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    Tracer,
    TracerProvider,
)

from snakepit_otel._version import VERSION
from snakepit_otel.telemetry import _controls, names
from snakepit_otel.telemetry._attributes import AttributeSet
from snakepit_otel.telemetry._definitions import Point
from snakepit_otel.telemetry.spans.base import Exemplar, SpanBatch, SpanOperation

KINDS = {"internal": SpanKind.INTERNAL, "client": SpanKind.CLIENT, "server": SpanKind.SERVER}


def tracer_of(provider: TracerProvider) -> Tracer:
    """Return the tracer of our scope."""
    return provider.get_tracer("snakepit_otel", VERSION, schema_url=names.SCHEMA_URL)


class SdkSpanMaker:
    """Starts and ends spans with the provider's own tracer."""

    kind = "sdk"

    def __init__(self, provider: TracerProvider) -> None:
        self._tracer = tracer_of(provider)

    def is_current(self) -> bool:
        return True

    def start(self, operation: SpanOperation, context: Context) -> Context:
        parent = trace.get_current_span(context).get_span_context()
        if parent.is_valid and not _controls.keeps_trace(parent.trace_id):
            return _without_span(context, parent)
        # Samplers and processors may want to see what is known at the start.
        span = self._tracer.start_span(
            operation.span_name,
            context,
            kind=KINDS[operation.point.kind],
            attributes=attributes_at_start(operation),
            links=[Link(link) for link in operation.links],
        )
        operation.links = []
        started = span.get_span_context()
        if not parent.is_valid and started.is_valid and not _controls.keeps_trace(started.trace_id):
            # The trace id is known only now. A span that is never ended is not exported.
            return _without_span(context, started)
        if span.is_recording():
            operation.span = span
        return trace.set_span_in_context(span, context)

    def start_remote(self, operation: SpanOperation, trace_id: int, parent_id: int, flags: int) -> Context:
        caller = NonRecordingSpan(SpanContext(trace_id, parent_id, True, TraceFlags(flags)))
        return self.start(operation, trace.set_span_in_context(caller, Context()))

    def begin(self, _above: Any, _point: Point, _labels: AttributeSet, _owner: Any) -> None:
        return None

    def finish(self, _span: Any, _ended: int) -> Exemplar | None:
        raise AssertionError("it begins no spans")

    def end_labelled(self, _operation: SpanOperation, _elapsed: int) -> Exemplar | None:
        return None

    def end(self, operation: SpanOperation, _elapsed: int) -> tuple[int, int]:
        assert operation.span is not None
        finish(operation.span, operation)
        context = operation.span.get_span_context()
        return (context.trace_id, context.span_id) if context.trace_flags.sampled else (0, 0)

    def batch(self, _parent: Any) -> SpanBatch | None:
        return None


def _without_span(context: Context, parent: SpanContext) -> Context:
    flags = TraceFlags(parent.trace_flags & ~TraceFlags.SAMPLED)
    return trace.set_span_in_context(
        NonRecordingSpan(SpanContext(parent.trace_id, parent.span_id, False, flags, parent.trace_state)), context
    )


def attributes_at_start(operation: SpanOperation) -> dict[str, Any]:
    """Return the attributes that a span begins with."""
    attributes = {**operation.point.fixed, **operation.labels.values}
    if operation.details is not None:
        attributes.update(operation.details.values)
    return attributes


def finish(span: Span, operation: SpanOperation, end: int | None = None) -> None:
    """End a span with the attributes, links and status that were added since its start; `end` in ns since 1970."""
    span.set_attributes({**operation.labels.values, **operation.late})
    for link in operation.links:
        span.add_link(link)
    if operation.failure is not None:
        # A status that is not text would make its whole batch impossible to encode.
        message = operation.message.encode("utf-8", "replace").decode()
        span.set_status(Status(StatusCode.ERROR, message or None))
    span.end(end)
