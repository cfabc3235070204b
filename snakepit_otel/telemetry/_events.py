"""Documented events: a log record with an event name, and a metric for every measurement."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from opentelemetry import _logs, trace
from opentelemetry.context import Context

from snakepit_otel._version import VERSION
from snakepit_otel.common.secrets import masked_text
from snakepit_otel.telemetry import _switch, names
from snakepit_otel.telemetry._attributes import MAX_CHARACTERS, copied
from snakepit_otel.telemetry._definitions import Event
from snakepit_otel.telemetry._exception_text import formatted, message_of
from snakepit_otel.telemetry._guard import guard
from snakepit_otel.telemetry._instruments import record

_MAX_EVENT_CHARACTERS = 10_000  # of a text: an exception's traceback is the longest
_SEVERITIES = _logs.SeverityNumber.__members__
_logger = _logs.get_logger("snakepit_otel", VERSION, schema_url=names.SCHEMA_URL)

_NO_ATTRIBUTES: Mapping[str, Any] = {}
_request_attributes: ContextVar[Mapping[str, Any]] = ContextVar("request_attributes", default=_NO_ATTRIBUTES)


@contextmanager
def event_attributes(attributes: Mapping[str, Any]) -> Iterator[None]:
    """Add attributes to the events that are emitted in a block, as the mapping is at their time."""
    token = _request_attributes.set(attributes)
    try:
        yield
    finally:
        _request_attributes.reset(token)


def emit(
    event: Event,
    attributes: Mapping[str, Any],
    measurements: Mapping[str, float] | None = None,
    *,
    body: str | None = None,
    timestamp: int | None = None,
    context: Context | None = None,
) -> None:
    """Emit `event` in the current context, or in `context`: the log record, then its metrics.

    `attributes` are the event's documented metadata; those its metrics allow go there too.
    `body` is one line for people. `timestamp` is when it happened, in ns since 1970, if not now.
    """
    if not _switch.enabled:
        return
    measurements = measurements or {}
    with guard(f"emitting {event.name}"):
        _logger.emit(
            event_name=event.name,
            timestamp=timestamp,
            context=context,
            severity_number=_SEVERITIES[event.severity],
            severity_text=event.severity,
            body=body if body is None else body[:_MAX_EVENT_CHARACTERS],
            attributes={**_cut(_request_attributes.get()), **measurements, **_cut(attributes)},
        )
    if event.marks:
        mark({key: attributes[key] for key in event.marks if attributes.get(key)})
    for key, value in measurements.items():
        metric = event.measurements[key]
        record(metric, value, {k: v for k, v in attributes.items() if k in metric.attributes})


def _cut(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: value[:_MAX_EVENT_CHARACTERS] if isinstance(value, str) else value for key, value in attributes.items()
    }


def mark(attributes: Mapping[str, Any]) -> None:
    """Set attributes of the current span."""
    span = trace.get_current_span()
    if attributes and span.is_recording():
        span.set_attributes(copied(attributes))


def emit_exception(error: BaseException, session_id: str | None = None) -> None:
    """Emit an exception as an event, by the conventions for exceptions in logs."""
    kind = type(error)
    module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
    session = {} if session_id is None else {names.SESSION_ID: session_id}
    emit(
        names.EVENT_ADAPTER_EXCEPTION,
        {
            **session,
            names.EXCEPTION_TYPE: f"{module}{kind.__qualname__}"[:MAX_CHARACTERS],
            names.EXCEPTION_MESSAGE: masked_text(message_of(error)[:_MAX_EVENT_CHARACTERS]),
            names.EXCEPTION_STACKTRACE: masked_text(formatted(error, error.__traceback__)[-_MAX_EVENT_CHARACTERS:]),
        },
    )
