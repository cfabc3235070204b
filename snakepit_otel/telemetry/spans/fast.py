"""Spans of our own scope with little work, for a provider that is OpenTelemetry's own SDK.

They have the provider's sampler, ids, resource, limits and processors. A span of which others want more
than its context becomes the SDK's own span; of the rest, nothing but the encoding is ever made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from random import getrandbits
from threading import RLock
from time import perf_counter_ns, time_ns
from typing import TYPE_CHECKING, Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, Status, StatusCode, TraceFlags, TraceState
from opentelemetry.util.types import Attributes, AttributeValue

from snakepit_otel.telemetry import _controls
from snakepit_otel.telemetry._attributes import AttributeSet
from snakepit_otel.telemetry._context import SPAN_KEY, with_span
from snakepit_otel.telemetry._definitions import Point
from snakepit_otel.telemetry.spans import otlp
from snakepit_otel.telemetry.spans.sdk import finish

if TYPE_CHECKING:
    from snakepit_otel.telemetry._operation import Observation

_SAMPLED, _RANDOM = 0x01, 0x02
_UNSAMPLED = {flags: TraceFlags(flags) for flags in (0, _RANDOM)}
_MOST_NAMES = 1_000
_MOST_LINKS = 32
"""The limit on links is either larger, or rules the direct way out; see lanes/adoption.py."""
_inflating = RLock()


class Unsampled(NonRecordingSpan):
    """Stands for a request that is not recorded, so that the points inside it need not ask again."""


class Trace:
    """What the spans of one trace in this process have in common."""

    __slots__ = ("flags", "head", "lane", "since", "state", "trace_id")

    def __init__(self, lane: LeanLane, trace_id: int, flags: int, state: TraceState | None) -> None:
        self.lane = lane
        self.trace_id = trace_id
        self.flags = flags
        self.state = state
        self.head = otlp.trace(trace_id, state.to_header() if state else "")
        self.since = time_ns() - perf_counter_ns()
        """Turns the performance counter into the time of day, the same way for the whole trace."""


class LeanSpan(Span):
    """A span that is being recorded; what else is to be known of it, its passage can tell."""

    remote_parent = False
    end_time: int | None = None
    """When it ended, in ns since 1970."""
    point: Point | None = None
    """Of a step; others are told by their passage."""
    whole: Span | None = None
    """The SDK's span in place of this one, once somebody has more to say than we record ourselves."""

    def __init__(
        self, of: Trace, span_id: int, parent_id: int, started: int, tell: Callable[[LeanSpan], Observation]
    ) -> None:
        self.trace = of
        self.span_id = span_id
        self.parent_id = parent_id
        self.started = started
        self.tell = tell
        """Returns the passage that it is the span of."""

    @property
    def start(self) -> int:
        """When it began, in ns since 1970."""
        return self.started + self.trace.since

    def get_span_context(self) -> SpanContext:
        """Return the span's identity."""
        of = self.trace
        return SpanContext(of.trace_id, self.span_id, False, TraceFlags(of.flags), of.state)

    def is_recording(self) -> bool:
        """Say whether the span takes anything more."""
        return self.end_time is None

    def _whole(self) -> Span:
        with _inflating:  # two threads may work in one span
            if self.whole is None:
                self.whole = self.trace.lane.inflate(self) if self.end_time is None else trace.INVALID_SPAN
            return self.whole

    def set_attribute(self, key: str, value: AttributeValue) -> None:
        """See `opentelemetry.trace.Span`."""
        self._whole().set_attribute(key, value)

    def set_attributes(self, attributes: Mapping[str, AttributeValue]) -> None:
        """See `opentelemetry.trace.Span`."""
        self._whole().set_attributes(attributes)

    def add_event(self, name: str, attributes: Attributes = None, timestamp: int | None = None) -> None:
        """See `opentelemetry.trace.Span`."""
        self._whole().add_event(name, attributes, timestamp)

    def add_link(self, context: SpanContext, attributes: Attributes = None) -> None:
        """See `opentelemetry.trace.Span`."""
        self._whole().add_link(context, attributes)

    def update_name(self, name: str) -> None:
        """See `opentelemetry.trace.Span`."""
        self._whole().update_name(name)

    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        """See `opentelemetry.trace.Span`."""
        self._whole().set_status(status, description)

    def record_exception(
        self,
        exception: BaseException,
        attributes: Attributes = None,
        timestamp: int | None = None,
        escaped: bool = False,
    ) -> None:
        """See `opentelemetry.trace.Span`."""
        self._whole().record_exception(exception, attributes, timestamp, escaped)

    def end(self, end_time: int | None = None) -> None:
        """Do nothing: the lifecycle point that began the span ends it."""


def _ask_whole(name: str, span: LeanSpan) -> Any:
    return getattr(span._whole(), name)


# What only the SDK's spans have, and instrumentations look at. Not by `__getattr__`, which would slow down the rest.
for _name in ("attributes", "context", "events", "kind", "links", "name", "parent", "resource", "status"):
    setattr(LeanSpan, _name, property(partial(_ask_whole, _name)))

# Zero is no id; it comes once in ten years to who makes fifty thousand million a second.
_random_span_id = partial(getrandbits, 64)


class LeanLane:
    """Starts and ends lean spans.

    `inflate` makes the SDK's own span of a lean one, for whoever wants more of it. `take` takes the
    encodings of finished spans; None where spans must be objects, for processors that are not ours.
    """

    def __init__(
        self,
        inflate: Callable[[LeanSpan], Span],
        take: Callable[[list[bytes]], None] | None,
        *,
        follows_parent: bool,
        sample_root: Callable[[int], bool],
        new_trace_id: Callable[[], int] | None,
        new_span_id: Callable[[], int] | None,
        random_trace_ids: bool,
    ) -> None:
        self.inflate = inflate
        self.take = take
        self.span_id: Callable[[], int] = _random_span_id if new_span_id is None else new_span_id
        self._follows_parent = follows_parent
        self._sample_root = sample_root
        self._new_trace_id = new_trace_id
        self._root_flags = _SAMPLED | (_RANDOM if random_trace_ids else 0)

    def start(self, passage: Observation, context: Context) -> Context | None:
        """Begin the passage's span, if it is to be recorded, and return the context to work in."""
        parent: Any = context.get(SPAN_KEY)
        if parent.__class__ is LeanSpan:
            span_id = self.span_id()
            span = passage.span = LeanSpan(parent.trace, span_id, parent.span_id, passage.started, passage.tell)
            return with_span(context, span)
        return self._start_here(passage, context, parent)

    def _start_here(self, passage: Observation, context: Context, parent: Span | None) -> Context:
        """Begin a span that has no lean one above it in this process."""
        identity: Any = trace.INVALID_SPAN_CONTEXT if parent is None else parent.get_span_context()
        # All at once, which its properties are not.
        trace_id, parent_id, remote, flags_above, state, valid = identity
        if valid:
            flags = _SAMPLED | (flags_above & _RANDOM)
            sampled = bool(flags_above & _SAMPLED) if self._follows_parent else self._sample_root(trace_id)
        else:
            trace_id = getrandbits(128) or 1 if self._new_trace_id is None else self._new_trace_id()
            parent_id, remote, state, flags = 0, False, None, self._root_flags
            sampled = self._sample_root(trace_id)
        return with_span(
            context, self._begin(passage, trace_id, parent_id, flags, state, remote=remote, sampled=sampled)
        )

    def continue_from(self, passage: Observation, trace_id: int, parent_id: int, flags: int) -> Context:
        """Begin the span of a call whose caller sent this and nothing else, and return the context to work in."""
        sampled = bool(flags & _SAMPLED) if self._follows_parent else self._sample_root(trace_id)
        flags = _SAMPLED | (flags & _RANDOM)
        span = self._begin(passage, trace_id, parent_id, flags, None, remote=True, sampled=sampled)
        return Context({SPAN_KEY: span})

    def _begin(
        self,
        passage: Observation,
        trace_id: int,
        parent_id: int,
        flags: int,
        state: TraceState | None,
        *,
        remote: bool,
        sampled: bool,
    ) -> Span:
        span_id = self.span_id()
        if not sampled or not _controls.keeps_trace(trace_id):
            return Unsampled(SpanContext(trace_id, span_id, False, _UNSAMPLED[flags & _RANDOM], state))
        span = passage.span = LeanSpan(
            Trace(self, trace_id, flags, state), span_id, parent_id, passage.started, passage.tell
        )
        if remote:
            span.remote_parent = True
        return span

    def end_well(self, passage: Observation, span: LeanSpan, elapsed: int) -> bool:
        """End the span of a passage that has labels and no more to tell; False if that takes `end`."""
        remote = span.remote_parent
        kept = passage.labels.spans.get((passage.point, passage.span_name, remote) if remote else passage.point)
        if kept is None or self.take is None or span.whole is not None or passage.details is not None:
            return False
        of = span.trace
        start = passage.started + of.since
        span.end_time = end = start + elapsed
        self.take([otlp.span(of.head, span.span_id, span.parent_id, start, end, kept[0])])
        return True

    def end(self, passage: Observation, elapsed: int) -> None:
        """End the passage's span with all that is known of it by now."""
        span: Any = passage.span
        of = span.trace
        start = passage.started + of.since
        end = start + elapsed
        take = self.take
        rest = None if take is None or span.whole is not None else _rest(passage, span)
        if take is None or rest is None:
            finish(span.whole or self.inflate(span), passage, end)
        else:
            tail = otlp.NO_STATUS if passage.failure is None else b""
            take([otlp.span(of.head, span.span_id, span.parent_id, start, end, rest, tail)])
        span.end_time = end


def prepared(
    point: Point, name: str, labels: AttributeSet, *, remote_parent: bool
) -> tuple[bytes, frozenset[str]] | None:
    """Return what all spans of a point with these attributes share, encoded, and their keys.

    None if OpenTelemetry is to encode them.
    """
    # One place to look for nearly every span: the point, where its name is its own.
    key = (point, name, remote_parent) if remote_parent or name is not point.span else point
    kept: tuple[bytes, frozenset[str]] | None = labels.spans.get(key)
    if kept is None:
        if labels.encoded is None or not labels.values.keys().isdisjoint(point.fixed):
            return None
        common = otlp.identity(name, point.kind, remote_parent=remote_parent)
        common += (otlp.attributes(point.fixed) or b"") + labels.encoded
        kept = (common, frozenset((*point.fixed, *labels.values)))
        if len(labels.spans) < _MOST_NAMES:
            labels.spans[key] = kept
    return kept


def _rest(passage: Observation, span: LeanSpan) -> bytes | None:
    """Return all of a span but its ids and times; None if some of it is not for our own encoder."""
    kept = prepared(passage.point, passage.span_name, passage.labels, remote_parent=span.remote_parent)
    if kept is None:
        return None
    rest, taken = kept
    # Where one key has two values the later one counts, which we leave to OpenTelemetry.
    details = passage.details
    if details is not None:
        if details.encoded is None or not taken.isdisjoint(details.values):
            return None
        rest += details.encoded
    if passage.late:
        late = otlp.attributes(passage.late)
        if late is None or not taken.isdisjoint(passage.late):
            return None
        if details is not None and not details.values.keys().isdisjoint(passage.late):
            return None
        rest += late
    if passage.links:
        if len(passage.links) > _MOST_LINKS or not all(link and link.is_valid for link in passage.links):
            return None
        for link in passage.links:
            rest += otlp.link(link.trace_id, link.span_id, remote=link.is_remote)
    return rest if passage.failure is None else rest + otlp.error_status(passage.message)
