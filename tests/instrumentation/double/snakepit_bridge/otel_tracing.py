"""Upstream's own tracing: a provider of its own, a span around each call, and correlation ids."""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Iterable, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

try:
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter
except ImportError:
    trace = TracerProvider = BatchSpanProcessor = ConsoleSpanExporter = OTLPSpanExporter = None

CORRELATION_HEADER = "x-snakepit-correlation-id"

_current: ContextVar[str | None] = ContextVar("correlation", default=None)
_tracer = None
_ready = False
_marked = False
_make_record = logging.getLogRecordFactory()


def setup_tracing() -> None:
    """Make a tracer provider and offer it as the global one, once."""
    global _ready, _tracer
    if _ready:
        return
    if trace is not None:
        about = {
            "service.name": os.environ.get("SNAKEPIT_SERVICE_NAME", "snakepit.python.bridge"),
            "service.namespace": "snakepit",
            "service.instance.id": os.environ.get("SNAKEPIT_INSTANCE_ID", uuid.uuid4().hex),
        }
        provider = TracerProvider(resource=Resource.create(about))
        chosen = _exporter()
        if chosen is not None:
            provider.add_span_processor(BatchSpanProcessor(chosen))
        # Refused, with a warning, if there is one already: then the spans are that one's.
        trace.set_tracer_provider(tracer_provider=provider)
        _tracer = trace.get_tracer(instrumenting_module_name="snakepit.bridge")
    _ready = True
    _mark_records()


def get_tracer():
    return _tracer if _ready else None


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
    correlation = _sent_with(context_metadata) or get_correlation_id() or new_correlation_id()
    token = set_correlation_id(correlation)
    tracer = get_tracer()
    if tracer is None:
        try:
            yield None
        finally:
            reset_correlation_id(token)
        return
    with tracer.start_as_current_span(name) as current:
        for key, value in {**(attributes or {}), "snakepit.correlation_id": correlation}.items():
            current.set_attribute(key, value)
        try:
            yield current
        finally:
            reset_correlation_id(token)


def outgoing_metadata(initial: Iterable[tuple[str, str]] | None = None) -> list[tuple[str, str]]:
    """Return what there was, and the correlation id if there is one."""
    current = get_correlation_id()
    return [*(initial or ()), *([(CORRELATION_HEADER, current)] if current else [])]


class _Correlated(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        setattr(record, "correlation_id", get_correlation_id(default="-"))  # noqa: B010
        return True


def correlation_filter() -> logging.Filter:
    return _Correlated()


def _sent_with(metadata: Sequence[tuple[str, str]] | None) -> str | None:
    found = (value for key, value in metadata or () if key.lower() == CORRELATION_HEADER)
    return next(found, None)


def _exporter():
    if endpoint := os.environ.get("SNAKEPIT_OTEL_ENDPOINT"):
        return OTLPSpanExporter(endpoint)
    # On unless somebody says no, which is why instrumented workers' standard output fills with spans.
    wanted = os.environ.get("SNAKEPIT_OTEL_CONSOLE", "true").lower() in {"1", "true", "yes"}
    return ConsoleSpanExporter() if wanted else None


def _mark_records() -> None:
    global _marked
    if _marked:
        return

    def make(*args, **kwargs):
        record = _make_record(*args, **kwargs)
        record.correlation_id = getattr(record, "correlation_id", None) or get_correlation_id("-")
        return record

    logging.setLogRecordFactory(make)
    _marked = True
