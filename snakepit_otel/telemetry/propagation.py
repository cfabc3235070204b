"""Trace context across gRPC (W3C, by the configured propagators)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.trace import format_span_id, format_trace_id

from snakepit_otel.telemetry import switch

Metadata = Iterable[tuple[str, str | bytes]]


def outgoing(metadata: Metadata | None = None) -> tuple[tuple[str, str | bytes], ...]:
    """Return gRPC metadata with the current trace context added."""
    if not switch.on:
        return tuple(metadata or ())
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return (*(metadata or ()), *carrier.items())


def incoming(metadata: Metadata | None) -> Context:
    """Return the trace context that gRPC metadata carry."""
    return propagate.extract({key: value for key, value in metadata or () if isinstance(value, str)})


def current_trace() -> str | None:
    """Return the current span as `<trace id>-<span id>` in hex, or None outside any."""
    if not switch.on:
        return None
    span: Any = trace.get_current_span().get_span_context()
    return f"{format_trace_id(span.trace_id)}-{format_span_id(span.span_id)}" if span.is_valid else None
