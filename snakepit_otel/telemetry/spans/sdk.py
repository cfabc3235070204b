"""Spans by the OpenTelemetry API alone: right for every provider there is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from snakepit_otel.telemetry._operation import Observation

KINDS = {"internal": SpanKind.INTERNAL, "client": SpanKind.CLIENT, "server": SpanKind.SERVER}


def tracer_of(provider: TracerProvider) -> Tracer:
    """Return the tracer of our scope."""
    return provider.get_tracer("snakepit_otel", VERSION, schema_url=names.SCHEMA_URL)


class PlainLane:
    """Starts and ends spans with the provider's own tracer."""

    def __init__(self, provider: TracerProvider) -> None:
        self._tracer = tracer_of(provider)

    def start(self, passage: Observation, context: Context) -> Context | None:
        """Begin the passage's span and return the context to work in."""
        parent = trace.get_current_span(context).get_span_context()
        if parent.is_valid and not _controls.keeps_trace(parent.trace_id):
            return _left_out(context, parent)
        point = passage.point
        # Samplers and processors may want to see what is known at the start.
        span = self._tracer.start_span(
            passage.span_name,
            context,
            kind=KINDS[point.kind],
            attributes=known_at_start(passage),
            links=[Link(link) for link in passage.links],
        )
        passage.links = []
        made = span.get_span_context()
        if not parent.is_valid and made.is_valid and not _controls.keeps_trace(made.trace_id):
            # Known only now. As it is never ended, nobody gets it.
            return _left_out(context, made)
        if span.is_recording():
            passage.span = span
        return trace.set_span_in_context(span, context)

    def end(self, passage: Observation, _elapsed: int) -> None:
        """End the passage's span with what became known since its start."""
        assert passage.span is not None
        finish(passage.span, passage)


def _left_out(context: Context, of: SpanContext) -> Context:
    """Return the context to work in for a trace that is not in the share to be kept."""
    flags = TraceFlags(of.trace_flags & ~TraceFlags.SAMPLED)
    return trace.set_span_in_context(
        NonRecordingSpan(SpanContext(of.trace_id, of.span_id, False, flags, of.trace_state)), context
    )


def known_at_start(passage: Observation) -> dict[str, Any]:
    """Return the attributes that a span begins with."""
    attributes = {**passage.point.fixed, **passage.labels.values}
    if passage.details is not None:
        attributes.update(passage.details.values)
    return attributes


def finish(span: Span, passage: Observation, end: int | None = None) -> None:
    """End a span with what became known since its start."""
    span.set_attributes({**passage.labels.values, **passage.late})
    for link in passage.links:
        span.add_link(link)
    if passage.failure is not None:
        # A status that is not text would make its whole batch impossible to encode.
        message = passage.message.encode("utf-8", "replace").decode()
        span.set_status(Status(StatusCode.ERROR, message or None))
    span.end(end)
