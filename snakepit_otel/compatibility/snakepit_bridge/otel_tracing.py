"""Spans and correlation ids by the older of the two names that adapters import them by."""

from .telemetry import (
    CORRELATION_HEADER,
    correlation_filter,
    get_correlation_id,
    get_tracer,
    new_correlation_id,
    outgoing_metadata,
    reset_correlation_id,
    set_correlation_id,
    setup_tracing,
)
from .telemetry import otel_span as span

__snakepit_otel__ = True

__all__ = [
    "CORRELATION_HEADER",
    "correlation_filter",
    "get_correlation_id",
    "get_tracer",
    "new_correlation_id",
    "outgoing_metadata",
    "reset_correlation_id",
    "set_correlation_id",
    "setup_tracing",
    "span",
]
