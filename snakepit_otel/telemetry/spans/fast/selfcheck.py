"""Check, at the start of a process, of our encoding of spans against the OpenTelemetry release in use."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext, TraceFlags, TraceState

from snakepit_otel.telemetry import names
from snakepit_otel.telemetry._attributes import AttributeSet
from snakepit_otel.telemetry.spans.fast.maker import FastSpanMaker
from snakepit_otel.telemetry.spans.fast.span import FastSpan, Trace

_VALUES = {"text": "é", "empty": "", "true": True, "false": False, "number": -(2**40), "half": 0.5}
_REMOTE = SpanContext(2**120 + 7, 2**60 + 5, True, TraceFlags(1), TraceState([("vendor", "1")]))
MakerFor = Callable[[Callable[[list[bytes]], None] | None, Callable[[ReadableSpan], None]], FastSpanMaker]


def difference(maker_for: MakerFor) -> str | None:
    """Return how our encoding of a span differs from OpenTelemetry's; None if it does not.

    `maker_for` returns a span maker that gives encoded spans to its first argument, or objects to its second.
    """
    encoded: list[bytes] = []
    objects: list[ReadableSpan] = []
    for failure in (None, "ValueError"):
        for remote in (False, True):
            for take in (encoded.extend, None):
                _end(maker_for(take, objects.append), failure, remote=remote)
    actual = ScopeSpans.FromString(b"".join(encoded)).spans
    expected = [span for scope in encode_spans(objects).resource_spans[0].scope_spans for span in scope.spans]
    for one, reference in zip(actual, expected, strict=True):
        for span in (one, reference):
            # Their order has no meaning.
            span.attributes.sort(key=lambda attribute: attribute.key)
        if one != reference:
            return f"{one} is not {reference}"
    return None


def _end(maker: FastSpanMaker, failure: str | None, *, remote: bool) -> None:
    """End a span, always the same but for these arguments. It was never started: no sampler is asked for it."""
    operation: Any = SimpleNamespace(
        point=names.ADAPTER_EXECUTE,
        span_name=names.ADAPTER_EXECUTE.span,
        labels=AttributeSet(_VALUES),
        details=AttributeSet({names.SESSION_ID: "s"}),
        late={names.ERROR_TYPE: failure} if failure else {},
        links=[_REMOTE],
        failure=failure,
        message="no",
        span=None,
        started=1_000,
    )
    operation.operation_for = lambda _: operation
    of = Trace(_REMOTE.trace_id, _REMOTE.trace_flags, _REMOTE.trace_state if remote else None)
    of.clock_offset = 1 << 60
    operation.span = FastSpan(maker, of, 1 << 63, _REMOTE.span_id if remote else 0, operation.started, operation)
    operation.span.remote_parent = remote
    maker.end(operation, 1_000)
