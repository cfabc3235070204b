"""Trace context across gRPC and threads (W3C, by the configured propagators)."""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Iterable
from typing import Any, ParamSpec, TypeVar

from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.trace import format_span_id, format_trace_id

from snakepit_otel.telemetry import switch

P = ParamSpec("P")
R = TypeVar("R")
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


def carried(function: Callable[P, R]) -> Callable[P, R]:
    """Bind `function` to the current context, so that a thread runs it inside the current span."""
    snapshot = contextvars.copy_context()

    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        return snapshot.run(function, *args, **kwargs)

    return run


def current_trace() -> str | None:
    """Return the current span as `<trace id>-<span id>` in hex, or None outside any."""
    if not switch.on:
        return None
    span: Any = trace.get_current_span().get_span_context()
    return f"{format_trace_id(span.trace_id)}-{format_span_id(span.span_id)}" if span.is_valid else None
