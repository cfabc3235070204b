"""Proof, at the start of a process, that our encoding of spans is that of the OpenTelemetry release in use."""

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
from snakepit_otel.telemetry.spans.fast import LeanLane, LeanSpan, Trace

_VALUES = {"text": "é", "empty": "", "true": True, "false": False, "number": -(2**40), "half": 0.5}
_REMOTE = SpanContext(2**120 + 7, 2**60 + 5, True, TraceFlags(1), TraceState([("vendor", "1")]))
LaneOf = Callable[[Callable[[list[bytes]], None] | None, Callable[[ReadableSpan], None]], LeanLane]


def differs(lane_of: LaneOf) -> str | None:
    """Say how our encoding of a span differs from OpenTelemetry's; None if it does not.

    `lane_of` makes a lane that gives encoded spans to its first argument, or objects to its second.
    """
    encoded: list[bytes] = []
    objects: list[ReadableSpan] = []
    for failure in (None, "ValueError"):
        for remote in (False, True):
            for take in (encoded.extend, None):
                _end(lane_of(take, objects.append), failure, remote=remote)
    ours = ScopeSpans.FromString(b"".join(encoded)).spans
    theirs = [span for scope in encode_spans(objects).resource_spans[0].scope_spans for span in scope.spans]
    for mine, reference in zip(ours, theirs, strict=True):
        for one in (mine, reference):
            # Their order has no meaning.
            one.attributes.sort(key=lambda attribute: attribute.key)
        if mine != reference:
            return f"{mine} is not {reference}"
    return None


def _end(lane: LeanLane, failure: str | None, *, remote: bool) -> None:
    """End a span in a lane, always the same but for these. It was never started: no sampler is asked for it."""
    passage: Any = SimpleNamespace(
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
    of = Trace(lane, _REMOTE.trace_id, _REMOTE.trace_flags, _REMOTE.trace_state if remote else None)
    of.since = 1 << 60
    passage.span = LeanSpan(of, 1 << 63, _REMOTE.span_id if remote else 0, passage.started, lambda _: passage)
    passage.span.remote_parent = remote
    lane.end(passage, 1_000)
