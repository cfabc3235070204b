"""Events for Elixir, by the stream that a server sets; and upstream's tracing."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import Any

from ..otel_tracing import (
    CORRELATION_HEADER,
    get_correlation_id,
    new_correlation_id,
    outgoing_metadata,
    reset_correlation_id,
    set_correlation_id,
    setup_tracing,
)
from ..otel_tracing import span as otel_span

__all__ = [
    "CORRELATION_HEADER",
    "emit",
    "get_correlation_id",
    "new_correlation_id",
    "otel_span",
    "outgoing_metadata",
    "reset_correlation_id",
    "set_correlation_id",
    "setup_tracing",
    "span",
]
_backend: Any = None


def _set_backend(stream: Any) -> None:
    global _backend
    _backend = stream


def emit(
    event: str,
    measurements: dict[str, Any],
    metadata: dict[str, Any] | None = None,
    correlation_id: str | None = None,
) -> None:
    """Pass an event to the stream, if there is one."""
    if _backend is not None:
        _backend.emit(event, measurements, metadata, correlation_id)


@contextmanager
def span(operation: str, metadata: dict[str, Any] | None = None, correlation_id: str | None = None):
    """Emit `.start` before the block, and `.stop` or `.exception` after it, with its nanoseconds."""
    started = time.time_ns()
    emit(f"{operation}.start", {"system_time": started}, metadata, correlation_id)
    try:
        yield
        emit(f"{operation}.stop", {"duration": time.time_ns() - started}, metadata, correlation_id)
    except Exception as error:
        failure = {**(metadata or {}), "error_type": type(error).__name__, "error_message": str(error)}
        emit(f"{operation}.exception", {"duration": time.time_ns() - started}, failure, correlation_id)
        raise
