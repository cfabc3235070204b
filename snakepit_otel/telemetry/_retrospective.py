"""Spans recorded after their end, of work in processes without OpenTelemetry."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Status, StatusCode

from snakepit_otel.telemetry import _controls, _switch, names
from snakepit_otel.telemetry._definitions import Point
from snakepit_otel.telemetry._guard import guard
from snakepit_otel.telemetry.spans.sdk import KINDS, tracer_of


def record_span(
    point: Point,
    start: int,
    end: int,
    attributes: Mapping[str, Any],
    *,
    context: Context,
    failure: str | None = None,
    draw: Callable[[], float] = random.random,
) -> Context:
    """Record a finished span from explicit start and end times, in ns since 1970; return its context.

    The span's parent is that of `context`. Without one the span begins a trace, and `draw` decides whether the trace
    is in the sampled share. `failure` is the error type of a failed operation. Without a span, `context` is
    returned. The duration is not recorded.
    """
    if not _switch.enabled or point in _controls.suppressed:
        return context
    with guard(f"recording {point.name}"):
        parent = trace.get_current_span(context).get_span_context()
        kept = _controls.keeps_trace(parent.trace_id) if parent.is_valid else draw() < _controls.sampling_rate
        if not kept:
            return context
        span = tracer_of(trace.get_tracer_provider()).start_span(
            point.span,
            context,
            kind=KINDS[point.kind],
            attributes={**point.fixed, **attributes},
            start_time=start,
        )
        if failure is not None:
            span.set_attribute(names.ERROR_TYPE, failure)
            span.set_status(Status(StatusCode.ERROR))
        span.end(end)
        return trace.set_span_in_context(span, context)
    return context
