"""Events and spans of adapters, and the correlation id of the request that runs."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import Token
from typing import Any

from opentelemetry import trace

from snakepit_otel.compatibility import correlation
from snakepit_otel.telemetry import names

from .manager import get_backend, is_enabled, set_backend

__snakepit_otel__ = True

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

CORRELATION_HEADER = "x-snakepit-correlation-id"


def emit(
    event: str,
    measurements: Mapping[str, Any],
    metadata: Mapping[str, Any] | None = None,
    correlation_id: str | None = None,
) -> None:
    """Emit an event, for Elixir and for OpenTelemetry."""
    backend = get_backend()
    if backend is not None:
        backend.emit(event, measurements, metadata, correlation_id)


@contextmanager
def span(
    operation: str, metadata: Mapping[str, Any] | None = None, correlation_id: str | None = None
) -> Iterator[None]:
    """Emit `<operation>.start` and then `stop` or `exception` around a block, with its duration in nanoseconds."""
    emit(f"{operation}.start", {"system_time": time.time_ns()}, metadata, correlation_id)
    started = time.perf_counter_ns()
    try:
        yield
    except Exception as error:
        about = {**(metadata or {}), "error_type": type(error).__name__, "error_message": str(error)}
        emit(f"{operation}.exception", {"duration": time.perf_counter_ns() - started}, about, correlation_id)
        raise
    emit(f"{operation}.stop", {"duration": time.perf_counter_ns() - started}, metadata, correlation_id)


def setup_tracing() -> None:
    """Do nothing: the worker has set OpenTelemetry up."""


def get_tracer() -> trace.Tracer:
    """Return the tracer for spans of adapters."""
    return trace.get_tracer("snakepit.bridge")


@contextmanager
def otel_span(
    name: str,
    *,
    context_metadata: Sequence[tuple[str, str]] | None = None,
    attributes: Mapping[str, Any] | None = None,
) -> Iterator[trace.Span]:
    """Make a block a span of OpenTelemetry, with the correlation id that metadata carry, or the current one."""
    carried = (value for key, value in context_metadata or () if key.lower() == CORRELATION_HEADER)
    correlation = next(carried, None) or get_correlation_id() or new_correlation_id()
    token = set_correlation_id(correlation)
    try:
        with get_tracer().start_as_current_span(name) as made:
            made.set_attributes({**(attributes or {}), names.SNAKEPIT_CORRELATION_ID: correlation})
            yield made
    finally:
        reset_correlation_id(token)


def new_correlation_id() -> str:
    """Return a new id."""
    return uuid.uuid4().hex


def set_correlation_id(value: str) -> Token[str | None]:
    """Set the id of the current context, and return what `reset_correlation_id` takes."""
    return correlation.current.set(value)


def reset_correlation_id(token: Token[str | None] | None) -> None:
    """Set the id back to what it was."""
    if token is not None:
        correlation.current.reset(token)


def get_correlation_id(default: str | None = None) -> str | None:
    """Return the id of the current context."""
    value = correlation.current.get()
    return default if value is None else value


def outgoing_metadata(initial: Iterable[tuple[str, str]] | None = None) -> list[tuple[str, str]]:
    """Return gRPC metadata with the current id."""
    metadata = list(initial or ())
    correlation = get_correlation_id()
    return [*metadata, (CORRELATION_HEADER, correlation)] if correlation else metadata


class _CorrelationFilter(logging.Filter):
    """Gives log records the current id."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.correlation_id = get_correlation_id("-")
        return True


def correlation_filter() -> logging.Filter:
    """Return a filter that gives log records `correlation_id`."""
    return _CorrelationFilter()
