"""Propagation of trace context in gRPC metadata (W3C, by the configured propagators)."""

from __future__ import annotations

from binascii import unhexlify
from collections.abc import Iterable
from struct import Struct
from typing import Any

from opentelemetry import baggage, propagate, trace
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, format_span_id, format_trace_id
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from snakepit_otel.telemetry import _context, _guard, _switch
from snakepit_otel.telemetry._context import SPAN_KEY

Metadata = Iterable[tuple[str, str | bytes]]

_PARENT, _STATE, _BAGGAGE = "traceparent", "tracestate", "baggage"
_MAX_BAGGAGE_BYTES = 8_192  # as many as W3C requires to be passed on
_MAX_STATE_BYTES = 8_192  # W3C requires 512
# Nearly every caller sends `00-`, and ids and flags as lower-case hexadecimal; others are left to the propagators.
_PARENT_CHARACTERS = 55
_fields = Struct("3s32ss16ss2s").unpack
_numbers = Struct(">QQQB").unpack
_NO_PARENT = (0, 0, 0)
_FLAGS = [TraceFlags(flags) for flags in range(256)]
# The key of baggage in a context, by public means.
_BAGGAGE_KEY = next(iter(baggage.set_baggage("key", "value", Context())))
_propagator: Any = None
_propagator_is_default = False


def outgoing(metadata: Metadata | None = None) -> tuple[tuple[str, str | bytes], ...]:
    """Return gRPC metadata with the current trace context added."""
    given = tuple(metadata or ())
    if not _switch.enabled:
        return given
    try:
        if _has_default_propagators():
            context = _context.get()
            span: Any = context.get(SPAN_KEY)
            if span is not None and (len(context) == 1 or not context.get(_BAGGAGE_KEY)):
                traceparent = getattr(span, "traceparent", None)
                parent = None if traceparent is None else traceparent()
                if parent is not None:
                    return (*given, (_PARENT, parent))
                trace_id, span_id, _, flags, state, valid = span.get_span_context()
                if valid and not state:
                    return (*given, (_PARENT, f"00-{trace_id:032x}-{span_id:016x}-{flags:02x}"))
        carrier: dict[str, str] = {}
        propagate.inject(carrier)
        _limit_baggage(carrier)
    except Exception as error:
        _guard.contain("passing trace context on", error)
        return given
    # gRPC takes lower-case keys only.
    return (*given, *((key.lower(), value) for key, value in carrier.items()))


def incoming(metadata: Metadata | None) -> Context:
    """Return the trace context that gRPC metadata carry."""
    given = tuple(metadata or ())
    try:
        found = plain_parent(given)
        if found is not None:
            trace_id, span_id, flags = found
            if not trace_id:
                return Context()
            identity = SpanContext(trace_id, span_id, True, _FLAGS[flags])
            return Context({SPAN_KEY: NonRecordingSpan(identity)})
        carrier = {key: value for key, value in given if isinstance(value, str)}
        _limit_baggage(carrier)
        if len(carrier.get(_STATE, "")) > _MAX_STATE_BYTES:
            del carrier[_STATE]
        return propagate.extract(carrier)
    except Exception as error:
        _guard.contain("reading trace context", error)
        return Context()


def _limit_baggage(carrier: dict[str, str]) -> None:
    """Drop the last members of baggage that is too long, so that the request does not fail."""
    header = carrier.get(_BAGGAGE, "")
    if len(header) <= _MAX_BAGGAGE_BYTES:
        return
    kept = header[: _MAX_BAGGAGE_BYTES + 1].rpartition(",")[0]
    if kept:
        carrier[_BAGGAGE] = kept
    else:
        del carrier[_BAGGAGE]
    lost = header.count(",") - kept.count(",") + (not kept)
    _guard.contain("passing baggage on", ValueError(f"{len(header)} bytes are too many: {lost} members were dropped"))


def plain_parent(metadata: Metadata) -> tuple[int, int, int] | None:
    """Return the caller's trace, span and flags, zeros if it sent none; None if a propagator has to read them."""
    if not _has_default_propagators():
        return None
    parent: Any = None
    for key, value in metadata:
        if key == _PARENT:
            parent = value
        elif key in (_STATE, _BAGGAGE):
            return None
    return _NO_PARENT if parent is None else _parsed(parent)


def _parsed(parent: Any) -> tuple[int, int, int] | None:
    if parent.__class__ is not str or len(parent) != _PARENT_CHARACTERS:
        return None
    try:
        # Not by slices, of which each takes as long as all of this.
        version, trace_id, first, span_id, second, flags = _fields(parent.encode("ascii"))
        if version != b"00-" or first != b"-" or second != b"-" or parent.lower() != parent:
            return None
        high, low, span, known = _numbers(unhexlify(trace_id + span_id + flags))
    except ValueError:
        return None
    trace_number = high << 64 | low
    return (trace_number, span, known) if trace_number and span else None


def _has_default_propagators() -> bool:
    global _propagator, _propagator_is_default
    propagator = propagate.get_global_textmap()
    if propagator is not _propagator:
        parts = getattr(propagator, "_propagators", ())
        _propagator_is_default = type(propagator) is CompositePropagator and [type(part) for part in parts] == [
            TraceContextTextMapPropagator,
            W3CBaggagePropagator,
        ]
        _propagator = propagator
    return _propagator_is_default


def current_trace() -> str | None:
    """Return the current span as `<trace id>-<span id>` in hex, or None where none is recorded."""
    if not _switch.enabled:
        return None
    span: Any = trace.get_current_span().get_span_context()
    if not span.trace_flags.sampled:
        return None
    return f"{format_trace_id(span.trace_id)}-{format_span_id(span.span_id)}"
