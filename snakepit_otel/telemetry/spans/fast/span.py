"""Fast spans: recorded with little work, and promoted to the SDK's own span where user code asks for more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from threading import RLock
from time import perf_counter_ns, time_ns
from typing import Any, Protocol

from opentelemetry import trace
from opentelemetry.trace import Span, SpanContext, Status, StatusCode, TraceFlags, TraceState
from opentelemetry.util.types import Attributes, AttributeValue

from snakepit_otel.telemetry._attributes import NONE, AttributeSet, Details
from snakepit_otel.telemetry._definitions import Point
from snakepit_otel.telemetry.spans.base import SpanOperation, StepSource
from snakepit_otel.telemetry.spans.fast import otlp

_HEAD = b"\x0a\x10"  # see `otlp.trace`
_promotion_lock = RLock()  # two threads may work in one span
_FLAGS = [TraceFlags(flags) for flags in range(256)]
_FLAG_TEXTS = [f"{flags:02x}" for flags in range(256)]


class Trace:
    """Parts that the spans of one trace in this process share."""

    __slots__ = ("clock_offset", "flags", "head", "state", "trace_id")

    def __init__(self, trace_id: int, flags: int, state: TraceState | None) -> None:
        self.trace_id = trace_id
        self.flags = flags
        self.state = state
        self.head = otlp.trace(trace_id, state.to_header()) if state else _HEAD + trace_id.to_bytes(16, "big")
        # Added to the performance counter, it gives the time of day; one for the whole trace.
        self.clock_offset = time_ns() - perf_counter_ns()


class Owner(Protocol):
    """An operation or a request's steps."""

    def operation_for(self, span: Any) -> SpanOperation: ...


class FastSpan(Span):
    """A span that is being recorded, whose attributes are in its operation.

    `promoted` is the SDK's span in place of this one, once user code changes or reads more than the context.
    """

    remote_parent = False
    end_time: int | None = None  # ns since 1970
    point: Point | None = None  # of a step, or of a call by `SpanMaker.begin`, which has no operation yet
    labels: AttributeSet = NONE
    details: Details | None = None
    linked: Sequence[SpanContext] = ()
    span_name: str | None = None  # where it is not the point's
    promoted: Span | None = None
    steps: StepSource | None = None  # of the request that came with this call, to be recorded with it

    def __init__(self, maker: Any, of: Trace, span_id: int, parent_id: int, started: int, owner: Owner) -> None:
        self.maker = maker
        self.trace = of
        self.span_id = span_id
        self.parent_id = parent_id
        self.started = started
        self.owner = owner

    @property
    def start(self) -> int:
        """Start time in ns since 1970."""
        return self.started + self.trace.clock_offset

    def get_span_context(self) -> SpanContext:
        of = self.trace
        return SpanContext(of.trace_id, self.span_id, False, _FLAGS[of.flags], of.state)

    def traceparent(self) -> str | None:
        """Return the W3C header of that name; None where there is a trace state as well."""
        of = self.trace
        return None if of.state else f"00-{of.head[2:18].hex()}-{self.span_id:016x}-{_FLAG_TEXTS[of.flags]}"

    def is_recording(self) -> bool:
        return self.end_time is None

    def _sdk_span(self) -> Span:
        with _promotion_lock:
            if self.promoted is None:
                self.promoted = self.maker.promote(self) if self.end_time is None else trace.INVALID_SPAN
            return self.promoted

    def set_attribute(self, key: str, value: AttributeValue) -> None:
        self._sdk_span().set_attribute(key, value)

    def set_attributes(self, attributes: Mapping[str, AttributeValue]) -> None:
        self._sdk_span().set_attributes(attributes)

    def add_event(self, name: str, attributes: Attributes = None, timestamp: int | None = None) -> None:
        self._sdk_span().add_event(name, attributes, timestamp)

    def add_link(self, context: SpanContext, attributes: Attributes = None) -> None:
        self._sdk_span().add_link(context, attributes)

    def update_name(self, name: str) -> None:
        self._sdk_span().update_name(name)

    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        self._sdk_span().set_status(status, description)

    def record_exception(
        self,
        exception: BaseException,
        attributes: Attributes = None,
        timestamp: int | None = None,
        escaped: bool = False,
    ) -> None:
        self._sdk_span().record_exception(exception, attributes, timestamp, escaped)

    def end(self, end_time: int | None = None) -> None:
        """Do nothing: the lifecycle point that began the span ends it."""


def _sdk_attribute(name: str, span: FastSpan) -> Any:
    return getattr(span._sdk_span(), name)


# Only the SDK's spans have these, and instrumentations read them. Not by `__getattr__`, which would slow down the rest.
for _name in ("attributes", "context", "events", "kind", "links", "name", "parent", "resource", "status"):
    setattr(FastSpan, _name, property(partial(_sdk_attribute, _name)))
