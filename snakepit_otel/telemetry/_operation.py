"""One passage through a lifecycle point: its span, its duration and how it ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import Token
from time import perf_counter_ns, time_ns
from types import TracebackType
from typing import Any

from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanContext

from snakepit_otel.common.secrets import masked_text
from snakepit_otel.telemetry import _context, _controls, _events, _guard, _instruments, names
from snakepit_otel.telemetry._attributes import NONE, AttributeSet, Details, copied
from snakepit_otel.telemetry._context import SPAN_KEY
from snakepit_otel.telemetry._definitions import Point
from snakepit_otel.telemetry._exception_text import message_of
from snakepit_otel.telemetry._propagation import Metadata, incoming, plain_parent
from snakepit_otel.telemetry.spans import select as choosing
from snakepit_otel.telemetry.spans.fast import LeanLane, LeanSpan, Unsampled

_MOST_TEXT = 2_000
"""Characters of a message that are looked at."""
_NOTHING: dict[str, Any] = {}
Describe = Callable[..., Details | Mapping[str, Any] | None]
_MOST_MESSAGE = 500
"""Characters of it that are recorded."""
_MOST_TYPE = 200
CANCELLED = "cancelled"
"""`error.type` of work that ended because nobody waits for it any more, which is nobody's error."""


def error_type(error: BaseException) -> str:
    """What `error.type` says of an error: its own word if it has one, else its class."""
    own = None
    with suppress(BaseException):  # a user's exception may have any attributes
        own = getattr(error, "error_type", None)
    if isinstance(own, str):
        return own
    return CANCELLED if isinstance(error, asyncio.CancelledError) else type(error).__qualname__


class Observation:
    """A context manager around the work of one lifecycle point.

    The span is current inside it. Enter and leave it in one task, and never across a `yield`: what is not
    one block, as the life of a stream, calls `begin`, then `current` around each step, then `end`.

    `labels` are the few and recurring attributes, for the span and, as far as it allows them, for the
    duration metric. `details` is called for a span that is recorded, and returns what only it has, ids
    for instance. `parent` is the context to work in, if not the current one.
    """

    details: Details | None = None
    late: Mapping[str, Any] = _NOTHING
    links: Sequence[SpanContext] = ()
    failure: str | None = None
    message = ""
    span: Span | None = None
    _within: Context | None = None
    _token: Token[Context] | None = None

    def __init__(
        self,
        point: Point,
        labels: AttributeSet = NONE,
        details: Describe | None = None,
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] = _NOTHING,
        *,
        span_name: str | None = None,
        parent: Context | None = None,
        links: Iterable[SpanContext] = (),
    ) -> None:
        self.point = point
        self.labels = labels
        self.span_name = span_name or point.span
        self.started = perf_counter_ns()
        """When it began, by the performance counter."""
        if links:
            self.links = list(links)
        try:
            context = _context.get() if parent is None else parent
            above: Any = context.get(SPAN_KEY)
            kind = above.__class__
            if kind is not Unsampled and point not in _controls.suppressed:
                lane = self._lane = above.trace.lane if kind is LeanSpan else choosing.lane()
                if lane is not None:
                    if details is not None:
                        self.details = _described(details, args, kwargs)
                    self._within = lane.start(self, context)
                else:
                    self._within = parent
            elif parent is not None:
                self._within = parent
        except Exception as error:  # noqa: BLE001 - telemetry never raises into the code it observes
            _guard.contain(f"starting {self.span_name}", error)

    @classmethod
    def resumed(cls, point: Point, labels: AttributeSet, details: Details | None, started: int) -> Observation:
        """Return the passage that began then, whose span, if it has one, it is given by `take_span`."""
        passage = cls.__new__(cls)
        passage.point = point
        passage.labels = labels
        passage.span_name = point.span
        passage.details = details
        passage.started = started
        return passage

    def arrive(self, metadata: Metadata) -> None:
        """Begin with a call from outside that has this metadata, in a task that is the call's own.

        The span stays current until the task ends.
        """
        self.started = perf_counter_ns()
        try:
            caller = plain_parent(metadata)
            lane = self._lane = choosing.lane()
            if caller and caller[0] and lane.__class__ is LeanLane and self.point not in _controls.suppressed:
                _context.attach(lane.continue_from(self, *caller))
                return
            context = incoming(metadata)
            if lane is None or self.point in _controls.suppressed:
                _context.attach(context)
            else:
                _context.attach(lane.start(self, context) or context)
        except Exception as error:  # noqa: BLE001 - telemetry never raises into the code it observes
            _guard.contain(f"starting {self.span_name}", error)

    def tell(self, _span: LeanSpan) -> Observation:
        """Return itself; what a span has to ask of its passage."""
        return self

    def take_span(self, span: LeanSpan) -> None:
        """Take this for the span."""
        self.span = span
        self._lane = span.trace.lane

    def set(self, attributes: Mapping[str, Any]) -> None:
        """Add attributes that only became known inside; those the duration metric allows go there, too."""
        self.late = {**self.late, **copied(attributes)}

    def link(self, context: SpanContext) -> None:
        """Link the span to another."""
        self.links = [*self.links, context]

    def fail(self, kind: str, message: str = "") -> None:
        """Mark the passage as failed; `kind` is its `error.type`, whatever else is raised through it."""
        self.failure = kind[:_MOST_TYPE]
        self.message = _shown(message) if message else ""

    def __enter__(self) -> Observation:
        if self._within is not None:
            self._token = _context.attach(self._within)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace_back: TracebackType | None
    ) -> None:
        self.end(error)
        if self._token is not None:
            _context.detach(self._token)

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make the span current for one step of the work."""
        if self._within is None:
            yield
            return
        token = _context.attach(self._within)
        try:
            yield
        finally:
            _context.detach(token)

    def end_well(self) -> None:
        """End a passage of which there is nothing to say but its labels: `end`, with less work."""
        elapsed = perf_counter_ns() - self.started
        span: Any = self.span
        cell = self.labels.cells.get(self.point)
        try:
            if cell is not None and self.late is _NOTHING and not self.links:
                if span is None:
                    cell.record(elapsed * 1e-9)
                    return
                if span.__class__ is LeanSpan and self._lane.end_well(self, span, elapsed):  # type: ignore[union-attr]
                    cell.record(elapsed * 1e-9, span.end_time, span.trace.trace_id, span.span_id)
                    self.span = None
                    return
        except Exception as fault:  # noqa: BLE001 - telemetry never raises into the code it observes
            _guard.contain(f"ending {self.span_name}", fault)
            return
        self.end()

    def end(self, error: BaseException | None = None) -> None:
        """End the passage; `error` is what was raised through it, if anything was."""
        elapsed = perf_counter_ns() - self.started
        try:
            if error is not None:
                self._note(error)
            if self.failure is not None:
                self.late = {**self.late, names.ERROR_TYPE: self.failure}
            span = self.span
            cell = None if self.late else self.labels.cells.get(self.point)
            if cell is None:
                cell = _instruments.cell_for(self.point, self.labels, self.late)
            if span is None:
                cell.record(elapsed * 1e-9)
            else:
                trace_id, span_id = _ids_of(span)
                cell.record(elapsed * 1e-9, time_ns(), trace_id, span_id)
                self._lane.end(self, elapsed)  # type: ignore[union-attr]
                # The span knows its passage; without this the two would be a cycle for the collector.
                self.span = None
        except Exception as fault:  # noqa: BLE001 - telemetry never raises into the code it observes
            _guard.contain(f"ending {self.span_name}", fault)

    def _note(self, error: BaseException) -> None:
        if self.failure is None:
            self.failure = error_type(error)[:_MOST_TYPE]
        if not self.message:
            self.message = _shown(message_of(error))
        if self.point.exceptions and self.failure != CANCELLED:
            details = {} if self.details is None else self.details.values
            _events.emit_exception(error, details.get(names.SESSION_ID))


def _described(describe: Describe, args: Iterable[Any], kwargs: Mapping[str, Any]) -> Details | None:
    try:
        found = describe(*args, **kwargs)
        return found if found is None or isinstance(found, Details) else Details(found)
    except Exception as error:  # noqa: BLE001 - telemetry never raises into the code it observes
        _guard.contain(f"describing {getattr(describe, '__qualname__', describe)!r}", error)
        return None


def _ids_of(span: Span) -> tuple[int, int]:
    """Return the ids of a span that is exported; else zeros."""
    if span.__class__ is LeanSpan:
        return span.trace.trace_id, span.span_id
    identity = span.get_span_context()
    return (identity.trace_id, identity.span_id) if identity.trace_flags.sampled else (0, 0)


def count(point: Point, labels: AttributeSet, started: int) -> None:
    """Record a passage that has no span: the request it belongs to is not sampled."""
    elapsed = perf_counter_ns() - started
    try:
        cell = labels.cells.get(point)
        if cell is None:
            cell = _instruments.cell_for(point, labels, _NOTHING)
        cell.record(elapsed * 1e-9)
    except Exception as fault:  # noqa: BLE001 - telemetry never raises into the code it observes
        _guard.contain(f"counting {point.name}", fault)


def count_failed(
    point: Point,
    labels: AttributeSet,
    started: int,
    error: BaseException,
    details: Describe | None,
    args: Iterable[Any],
    kwargs: Mapping[str, Any],
) -> None:
    """Record a passage that failed, and that was not observed while it went well."""
    passage = Observation(point, labels, details, args, kwargs)
    passage.started = started
    passage.end(error)


def _shown(message: str) -> str:
    """Return what is recorded of a message."""
    return masked_text(message[:_MOST_TEXT])[:_MOST_MESSAGE]
