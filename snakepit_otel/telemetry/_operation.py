"""Operations: the work of a lifecycle point, with its span, duration and outcome."""

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
from snakepit_otel.telemetry.spans import select
from snakepit_otel.telemetry.spans.base import SpanMaker, Unsampled

_MAX_MASKED_CHARACTERS = 2_000
_NOTHING: dict[str, Any] = {}
Describe = Callable[..., Details | Mapping[str, Any] | None]
_MAX_MESSAGE_CHARACTERS = 500
_MAX_TYPE_CHARACTERS = 200
CANCELLED = "cancelled"  # the `error.type` of work whose caller no longer waits


def error_type(error: BaseException) -> str:
    """Return an error's `error.type`: its own attribute of that name if it has one, else its class."""
    own = None
    with suppress(BaseException):  # a user's exception may have any attributes
        own = getattr(error, "error_type", None)
    if isinstance(own, str):
        return own
    return CANCELLED if isinstance(error, asyncio.CancelledError) else type(error).__qualname__


class Operation:
    """A context manager around the work of one lifecycle point.

    The span is current inside it. Enter and leave it in one task, and never across a `yield`: work that is not
    one block, as the life of a stream, uses `current` around each part, then `end`.

    `labels` are attributes with few values, for the span and, as far as it allows them, for the duration metric.
    `details` is called for a span that is recorded, and returns attributes for the span only, such as ids.
    `parent` is the context to work in, if not the current one.
    """

    details: Details | None = None
    late: Mapping[str, Any] = _NOTHING
    links: Sequence[SpanContext] = ()
    failure: str | None = None
    message = ""
    span: Span | None = None
    _within: Context | None = None
    _token: Token[Context] | None = None
    _maker: SpanMaker | None = None

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
        if links:
            self.links = list(links)
        try:
            context = _context.get() if parent is None else parent
            above: Any = context.get(SPAN_KEY)
            if above.__class__ is not Unsampled and point not in _controls.suppressed:
                maker = self._maker = getattr(above, "maker", None) or select.span_maker()
                if maker is not None:
                    if details is not None:
                        self.details = _described(details, args, kwargs)
                    self._within = maker.start(self, context)
                else:
                    self._within = parent
            elif parent is not None:
                self._within = parent
        except Exception as error:
            _guard.contain(f"starting {self.span_name}", error)

    @classmethod
    def from_start(cls, point: Point, labels: AttributeSet, details: Details | None, started: int) -> Operation:
        """Create an operation from a start time; `attach_span` adds its span."""
        operation = cls.__new__(cls)
        operation.point = point
        operation.labels = labels
        operation.span_name = point.span
        operation.details = details
        operation.started = started
        return operation

    @classmethod
    def unsampled(cls, point: Point, labels: AttributeSet, within: Context) -> Operation:
        """Create an operation of a request that is not recorded, to work in this context."""
        operation = cls.from_start(point, labels, None, perf_counter_ns())
        operation._within = within
        return operation

    def start_remote(self, metadata: Metadata) -> None:
        """Start with a call from another process that has this metadata; the span is current until the task ends."""
        self.started = perf_counter_ns()
        try:
            caller = plain_parent(metadata)
            maker = self._maker = select.span_maker()
            if maker is None or self.point in _controls.suppressed:
                _context.attach(incoming(metadata))
            elif caller and caller[0]:
                _context.attach(maker.start_remote(self, *caller))
            else:
                _context.attach(maker.start(self, incoming(metadata)))
        except Exception as error:
            _guard.contain(f"starting {self.span_name}", error)

    def operation_for(self, _span: Any) -> Operation:
        return self

    def attach_span(self, span: Span, maker: SpanMaker) -> None:
        self.span = span
        self._maker = maker

    def set(self, attributes: Mapping[str, Any]) -> None:
        """Add attributes to the span and, as far as it allows them, to the duration metric."""
        self.late = {**self.late, **copied(attributes)}

    def link(self, context: SpanContext) -> None:
        self.links = [*self.links, context]

    def fail(self, kind: str, message: str = "") -> None:
        """Mark the operation as failed; `kind` is its `error.type`, whatever else is raised through it."""
        self.failure = kind[:_MAX_TYPE_CHARACTERS]
        self.message = _shown(message) if message else ""

    def __enter__(self) -> Operation:
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

    def end_labelled(self) -> None:
        """End an operation that succeeded with labels only: `end`, with less work."""
        elapsed = perf_counter_ns() - self.started
        span: Any = self.span
        cell = self.labels.metric_cache.get(self.point)
        try:
            if cell is not None and self.late is _NOTHING and not self.links:
                if span is None:
                    cell.record(elapsed * 1e-9)
                    return
                exemplar = self._maker.end_labelled(self, elapsed)  # type: ignore[union-attr]
                if exemplar is not None:
                    end_time, trace_id, span_id = exemplar
                    cell.record(elapsed * 1e-9, end_time, trace_id, span_id)
                    self.span = None
                    return
        except Exception as fault:
            _guard.contain(f"ending {self.span_name}", fault)
            return
        self.end()

    def end(self, error: BaseException | None = None) -> None:
        """End the operation; `error` is what was raised through it, if anything was."""
        elapsed = perf_counter_ns() - self.started
        try:
            if error is not None:
                self._set_failure(error)
            if self.failure is not None:
                self.late = {**self.late, names.ERROR_TYPE: self.failure}
            span = self.span
            cell = None if self.late else self.labels.metric_cache.get(self.point)
            if cell is None:
                cell = _instruments.cell_for(self.point, self.labels, self.late)
            if span is None:
                cell.record(elapsed * 1e-9)
            else:
                trace_id = span_id = 0
                try:
                    trace_id, span_id = self._maker.end(self, elapsed)  # type: ignore[union-attr]
                    # The span refers to its operation; without this the two would be a cycle for the collector.
                    self.span = None
                finally:
                    cell.record(elapsed * 1e-9, time_ns(), trace_id, span_id)
        except Exception as fault:
            _guard.contain(f"ending {self.span_name}", fault)

    def _set_failure(self, error: BaseException) -> None:
        if self.failure is None:
            self.failure = error_type(error)[:_MAX_TYPE_CHARACTERS]
        if not self.message:
            self.message = _shown(message_of(error))
        if self.point.exceptions and self.failure != CANCELLED:
            details = {} if self.details is None else self.details.values
            _events.emit_exception(error, details.get(names.SESSION_ID))


def _described(describe: Describe, args: Iterable[Any], kwargs: Mapping[str, Any]) -> Details | None:
    try:
        found = describe(*args, **kwargs)
        return found if found is None or isinstance(found, Details) else Details(found)
    except Exception as error:
        _guard.contain(f"describing {getattr(describe, '__qualname__', describe)!r}", error)
        return None


def count(point: Point, labels: AttributeSet, started: int) -> None:
    """Record an operation without a span, of a request that is not sampled."""
    elapsed = perf_counter_ns() - started
    try:
        cell = labels.metric_cache.get(point)
        if cell is None:
            cell = _instruments.cell_for(point, labels, _NOTHING)
        cell.record(elapsed * 1e-9)
    except Exception as fault:
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
    """Record an operation that failed, of a request that is not sampled."""
    operation = Operation(point, labels, details, args, kwargs)
    operation.started = started
    operation.end(error)


def _shown(message: str) -> str:
    return masked_text(message[:_MAX_MASKED_CHARACTERS])[:_MAX_MESSAGE_CHARACTERS]
