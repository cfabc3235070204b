"""Fast spans of one request and of its steps, encoded in one loop when the request ends."""

from __future__ import annotations

from collections.abc import Mapping
from time import perf_counter_ns
from typing import Any

from snakepit_otel.telemetry import _controls
from snakepit_otel.telemetry._attributes import AttributeSet, Details
from snakepit_otel.telemetry._definitions import Point
from snakepit_otel.telemetry.spans.base import Step, StepPlan, StepSource
from snakepit_otel.telemetry.spans.fast import encoding, otlp
from snakepit_otel.telemetry.spans.fast.otlp import child
from snakepit_otel.telemetry.spans.fast.span import FastSpan

_USUAL_HEAD = otlp.trace(0)  # of a trace without state; only its length counts


class FastBatch:
    """Spans below one fast span; see `SpanBatch`."""

    __slots__ = ("_parent", "maker", "span_id")

    def __init__(self, maker: Any, parent: FastSpan) -> None:
        self.maker = maker
        self._parent = parent
        self.span_id = maker.new_span_id()

    def start(self, point: Point, source: StepSource) -> FastSpan:
        maker = self.maker
        span = FastSpan(maker, self._parent.trace, maker.new_span_id(), self.span_id, perf_counter_ns(), source)
        span.point = point
        return span

    def close(self, span: FastSpan) -> Step | None:
        if span.promoted is not None:
            return None
        ended = perf_counter_ns()
        span.end_time = ended + span.trace.clock_offset
        return span.point, span.started, ended, span.span_id  # type: ignore[return-value]

    def attach(self, operation: Any, span_id: int = 0) -> None:
        parent, maker = self._parent, self.maker
        parent_id = parent.span_id if span_id == self.span_id else self.span_id
        span_id = span_id or maker.new_span_id()
        span = FastSpan(maker, parent.trace, span_id, parent_id, operation.started, operation)
        operation.attach_span(span, maker)

    def template(self, point: Point, labels: AttributeSet, details: Details) -> tuple[bytes, bytes]:
        """Return a span's first bytes, and all after its times; empty where OpenTelemetry is to encode the span."""
        known = encoding.common(point, point.span, labels, remote_parent=False)
        encoded = encoding.of_details(details)
        if known is None or encoded is None or not known[1].isdisjoint(details.values):
            return b"", b""
        rest = known[0] + encoded + otlp.NO_STATUS
        return otlp.beginning(_USUAL_HEAD, rest), rest

    def leave_to_call(self, source: StepSource) -> bool:
        parent = self._parent
        if not parent.remote_parent or parent.steps is not None or parent.end_time is not None:
            return False
        if self.maker.take_joined is None or _controls.suppressed:
            return False
        parent.steps = source
        return True

    def record(self, steps: list[Step], plans: Mapping[Point, StepPlan], source: StepSource) -> None:
        of, request_id, suppressed = self._parent.trace, self.span_id, _controls.suppressed
        maker, clock_offset, trace_id, head = self.maker, of.clock_offset, of.trace_id, of.head
        new_span_id, usual = maker.new_span_id, len(head) == len(_USUAL_HEAD)
        encoded = []
        for point, started, ended, known_id in steps:
            add, _, (begin, rest) = plans.get(point) or source.plan(point)
            if point in suppressed:
                add(((ended - started) * 1e-9, ended + clock_offset, trace_id, request_id))
                continue
            # Steps whose spans nothing has seen have no ids yet.
            span_id = known_id or new_span_id()
            add(((ended - started) * 1e-9, ended + clock_offset, trace_id, span_id))
            if rest and usual:
                parent_id = self._parent.span_id if span_id == request_id else request_id
                encoded.append(
                    child(begin, head, span_id, parent_id, started + clock_offset, ended + clock_offset, rest)
                )
            else:
                operation = source.operation_at(point, started)
                self.attach(operation, span_id)
                maker.end(operation, ended - started)
        if encoded and maker.take is not None:
            maker.take(encoded)
