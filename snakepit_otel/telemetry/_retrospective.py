"""Spans of what happened where there is no OpenTelemetry, told when it is over."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Status, StatusCode

from snakepit_otel.telemetry import _controls as controls
from snakepit_otel.telemetry import _guard as faults
from snakepit_otel.telemetry import _switch as switch
from snakepit_otel.telemetry import names
from snakepit_otel.telemetry._definitions import Point
from snakepit_otel.telemetry.spans.sdk import KINDS, tracer_of


def tell(
    point: Point,
    start: int,
    end: int,
    attributes: Mapping[str, Any],
    *,
    context: Context,
    failure: str | None = None,
    draw: Callable[[], float] = random.random,
) -> Context:
    """Make the span of a passage that began and ended at these times, in ns since 1970; return its context.

    The span's parent is that of `context`. Without one it is a trace of its own, and `draw` decides whether
    it is in the share to be kept. `failure` is the error type of a passage that failed. Where there is to be
    no span, `context` is returned. The duration is not recorded.
    """
    if not switch.on or point in controls.unwanted:
        return context
    try:
        parent = trace.get_current_span(context).get_span_context()
        kept = controls.keeps(parent.trace_id) if parent.is_valid else draw() < controls.sampling_rate
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
    except Exception as error:  # noqa: BLE001 - telemetry never raises into the code it observes
        faults.contain(f"telling {point.name}", error)
        return context
