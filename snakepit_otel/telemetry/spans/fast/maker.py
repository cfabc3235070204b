"""Span maker of fast spans: they have the sampler, ids, resource, limits and processors of the SDK's provider."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import getrandbits
from time import perf_counter_ns
from typing import Any

from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanContext, TraceFlags, TraceState

from snakepit_otel.telemetry import _controls
from snakepit_otel.telemetry._attributes import AttributeSet
from snakepit_otel.telemetry._context import SPAN_KEY, only_span, with_span
from snakepit_otel.telemetry._definitions import Point
from snakepit_otel.telemetry.spans.base import Exemplar, SpanOperation, Unsampled
from snakepit_otel.telemetry.spans.fast import encoding, otlp, whole
from snakepit_otel.telemetry.spans.fast.batch import FastBatch
from snakepit_otel.telemetry.spans.fast.span import FastSpan, Trace
from snakepit_otel.telemetry.spans.sdk import finish

_SAMPLED, _RANDOM = 0x01, 0x02
_UNSAMPLED = {flags: TraceFlags(flags) for flags in (0, _RANDOM)}

# Zero is no id; it comes once in ten years at fifty thousand million ids a second.
_random_span_id = partial(getrandbits, 64)


class FastSpanMaker:
    """Starts and ends fast spans.

    `promote` makes the SDK's own span of a fast one. `take` takes the encodings of finished spans, `take_joined` those
    of several in one, with their number; None where spans must be objects, for processors that are not ours.
    """

    kind = "fast"

    def __init__(
        self,
        promote: Callable[[FastSpan], Span],
        take: Callable[[list[bytes]], None] | None,
        take_joined: Callable[[bytes, int], None] | None = None,
        *,
        is_current: Callable[[], bool],
        follows_parent: bool,
        sample_root: Callable[[int], bool],
        new_trace_id: Callable[[], int] | None,
        new_span_id: Callable[[], int] | None,
        random_trace_ids: bool,
    ) -> None:
        self.promote = promote
        self.take = take
        self.take_joined = take_joined
        self.is_current = is_current
        self.new_span_id: Callable[[], int] = _random_span_id if new_span_id is None else new_span_id
        self._follows_parent = follows_parent
        self._sample_root = sample_root
        self._new_trace_id = new_trace_id
        self._root_flags = _SAMPLED | (_RANDOM if random_trace_ids else 0)

    def start(self, operation: SpanOperation, context: Context) -> Context:
        parent: Any = context.get(SPAN_KEY)
        if parent.__class__ is FastSpan:
            span = operation.span = FastSpan(
                self, parent.trace, self.new_span_id(), parent.span_id, operation.started, operation
            )
            return with_span(context, span)
        return with_span(context, self._started(operation, self._first(operation.started, parent, operation)))

    @staticmethod
    def _started(operation: SpanOperation, span: Span) -> Span:
        if span.__class__ is FastSpan:
            operation.span = span
        return span

    def begin(self, above: Any, point: Point, labels: AttributeSet, owner: Any) -> Any:
        if self.take is None:
            return None
        if above.__class__ is FastSpan:
            span = FastSpan(self, above.trace, self.new_span_id(), above.span_id, perf_counter_ns(), owner)
        else:
            span = self._first(perf_counter_ns(), above, owner)  # type: ignore[assignment]
            if span.__class__ is not FastSpan:
                return span
        span.point = point
        span.labels = labels
        return span

    def _first(self, started: int, parent: Span | None, owner: Any) -> Span:
        valid = False
        if parent is not None:
            # All at once, which its properties are not.
            identity: Any = parent.get_span_context()
            trace_id, parent_id, remote, parent_flags, state, valid = identity
        if valid:
            flags = _SAMPLED | (parent_flags & _RANDOM)
            sampled = bool(parent_flags & _SAMPLED) if self._follows_parent else self._sample_root(trace_id)
        else:
            trace_id = getrandbits(128) or 1 if self._new_trace_id is None else self._new_trace_id()
            parent_id, remote, state, flags = 0, False, None, self._root_flags
            sampled = self._sample_root(trace_id)
        return self._new_span(started, owner, trace_id, parent_id, flags, state, remote=remote, sampled=sampled)

    def start_remote(self, operation: SpanOperation, trace_id: int, parent_id: int, flags: int) -> Context:
        sampled = flags & _SAMPLED if self._follows_parent else self._sample_root(trace_id)
        flags = _SAMPLED | (flags & _RANDOM)
        if not sampled or (_controls.sampling_rate < 1.0 and not _controls.keeps_trace(trace_id)):
            return only_span(self._unsampled(trace_id, flags, None))
        started, of = operation.started, Trace(trace_id, flags, None)
        span = operation.span = FastSpan(self, of, self.new_span_id(), parent_id, started, operation)
        span.remote_parent = True
        return only_span(span)

    def _unsampled(self, trace_id: int, flags: int, state: TraceState | None) -> Span:
        return Unsampled(SpanContext(trace_id, self.new_span_id(), False, _UNSAMPLED[flags & _RANDOM], state))

    def _new_span(
        self,
        started: int,
        owner: Any,
        trace_id: int,
        parent_id: int,
        flags: int,
        state: TraceState | None,
        *,
        remote: bool,
        sampled: bool,
    ) -> Span:
        if not sampled or not _controls.keeps_trace(trace_id):
            return self._unsampled(trace_id, flags, state)
        span = FastSpan(self, Trace(trace_id, flags, state), self.new_span_id(), parent_id, started, owner)
        if remote:
            span.remote_parent = True
        return span

    def end_labelled(self, operation: SpanOperation, elapsed: int) -> Exemplar | None:
        span: Any = operation.span
        remote = span.remote_parent
        known = operation.labels.span_cache.get(
            (operation.point, operation.span_name, remote) if remote else operation.point
        ) or encoding.common(operation.point, operation.span_name, operation.labels, remote_parent=remote)
        if known is None or self.take is None or span.promoted is not None or operation.details is not None:
            return None
        of, rest = span.trace, known[0]
        start = operation.started + of.clock_offset
        span.end_time = end = start + elapsed
        steps = span.steps
        if steps is not None:
            span.steps = None
            spans = whole.encoded(span, steps, rest, start, end)
            if spans is not None:
                self.take_joined(*spans)  # type: ignore[misc]
                return end, of.trace_id, span.span_id
            steps.record()
        self.take([otlp.span(of.head, span.span_id, span.parent_id, start, end, rest)])
        return end, of.trace_id, span.span_id

    def finish(self, span: FastSpan, ended: int) -> Exemplar | None:
        take, labels, details, remote = self.take, span.labels, span.details, span.remote_parent
        point: Any = span.point
        name = span.span_name
        known = labels.span_cache.get((point, name or point.span, remote) if remote or name else point)
        if known is None:
            known = encoding.common(point, name or point.span, labels, remote_parent=remote)
        if known is None or take is None or span.promoted is not None or span.steps is not None:
            return None
        rest, keys = known
        if details is not None:
            form = details.span_form
            if form.__class__ is not bytes:
                form = encoding.of_details(details)
            if form is None or not keys.isdisjoint(details.values):
                return None
            rest += form
        if span.linked:
            links = encoding.of_links(span.linked)
            if links is None:
                return None
            rest += links
        of, span_id = span.trace, span.span_id
        offset = of.clock_offset
        span.end_time = end = ended + offset
        take([otlp.succeeded(of.head, span_id, span.parent_id, span.started + offset, end, rest)])
        return end, of.trace_id, span_id

    def end(self, operation: SpanOperation, elapsed: int) -> tuple[int, int]:
        span: Any = operation.span
        if span.steps is not None:
            steps, span.steps = span.steps, None
            steps.record()
        of = span.trace
        start = operation.started + of.clock_offset
        end = start + elapsed
        take = self.take
        rest = None
        if take is not None and span.promoted is None:
            rest = encoding.after_times(operation, remote_parent=span.remote_parent)
        if take is None or rest is None:
            finish(span.promoted or self.promote(span), operation, end)
        else:
            tail = otlp.NO_STATUS if operation.failure is None else b""
            take([otlp.span(of.head, span.span_id, span.parent_id, start, end, rest, tail)])
        span.end_time = end
        return of.trace_id, span.span_id

    def batch(self, parent: FastSpan) -> FastBatch | None:
        return None if self.take is None else FastBatch(self, parent)
