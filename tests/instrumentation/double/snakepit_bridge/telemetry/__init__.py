"""Events for Elixir, by whichever backend is set; and upstream's tracing under the same roof."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import Any

from ..otel_tracing import (
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
from ..otel_tracing import span as otel_span
from .manager import get_backend, is_enabled, set_backend

__all__ = [
    "CORRELATION_HEADER",
    "correlation_filter",
    "emit",
    "get_backend",
    "get_correlation_id",
    "get_tracer",
    "is_enabled",
    "new_correlation_id",
    "otel_span",
    "outgoing_metadata",
    "reset_correlation_id",
    "set_backend",
    "set_correlation_id",
    "setup_tracing",
    "span",
]


def emit(
    event: str,
    measurements: dict[str, Any],
    metadata: dict[str, Any] | None = None,
    correlation_id: str | None = None,
) -> None:
    """Hand an event to the backend, if there is one."""
    if backend := get_backend():
        backend.emit(event, measurements, metadata, correlation_id)


@contextmanager
def span(operation: str, metadata: dict[str, Any] | None = None, correlation_id: str | None = None):
    """Emit `.start` before the block, and `.stop` or `.exception` after it, with the nanoseconds it took."""
    began = time.time_ns()
    emit(f"{operation}.start", {"system_time": began}, metadata, correlation_id)
    try:
        yield
        emit(f"{operation}.stop", {"duration": time.time_ns() - began}, metadata, correlation_id)
    except Exception as error:
        what = {**(metadata or {}), "error_type": type(error).__name__, "error_message": str(error)}
        emit(f"{operation}.exception", {"duration": time.time_ns() - began}, what, correlation_id)
        raise
