"""Upstream's own tracing: a provider of its own, a span around each call, and correlation ids."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter

CORRELATION_HEADER = "x-snakepit-correlation-id"

_current: ContextVar[str | None] = ContextVar("correlation", default=None)
_tracer = None


def setup_tracing() -> None:
    """Make a tracer provider and offer it as the global one, once."""
    global _tracer
    if _tracer is not None:
        return
    attributes = {"service.name": "snakepit.python.bridge", "service.instance.id": uuid.uuid4().hex}
    provider = TracerProvider(resource=Resource.create(attributes))
    exporter = _exporter()
    if exporter is not None:
        provider.add_span_processor(BatchSpanProcessor(exporter))
    # Refused, with a warning, if there is one already: then the spans are that one's.
    trace.set_tracer_provider(tracer_provider=provider)
    _tracer = trace.get_tracer(instrumenting_module_name="snakepit.bridge")


def new_correlation_id() -> str:
    return uuid.uuid4().hex


def set_correlation_id(value: str):
    return _current.set(value)


def reset_correlation_id(token) -> None:
    if token is not None:
        _current.reset(token)


def get_correlation_id(default: str | None = None) -> str | None:
    found = _current.get()
    return default if found is None else found


@contextmanager
def span(
    name: str,
    *,
    context_metadata: Sequence[tuple[str, str]] | None = None,
    attributes: dict | None = None,
):
    """Set the correlation id for the block, and put a span around it if there is a tracer."""
    sent = (value for key, value in context_metadata or () if key.lower() == CORRELATION_HEADER)
    correlation = next(sent, None) or get_correlation_id() or new_correlation_id()
    token = set_correlation_id(correlation)
    try:
        if _tracer is None:
            yield None
        else:
            attributes = {**(attributes or {}), "snakepit.correlation_id": correlation}
            with _tracer.start_as_current_span(name, attributes=attributes) as current:
                yield current
    finally:
        reset_correlation_id(token)


def outgoing_metadata(initial: Iterable[tuple[str, str]] | None = None) -> list[tuple[str, str]]:
    """Return what there was, and the correlation id if there is one."""
    current = get_correlation_id()
    return [*(initial or ()), *([(CORRELATION_HEADER, current)] if current else [])]


def _exporter():
    if endpoint := os.environ.get("SNAKEPIT_OTEL_ENDPOINT"):
        return OTLPSpanExporter(endpoint)
    # On unless somebody says no, which is why instrumented workers' standard output fills with spans.
    wanted = os.environ.get("SNAKEPIT_OTEL_CONSOLE", "true").lower() in {"1", "true", "yes"}
    return ConsoleSpanExporter() if wanted else None
