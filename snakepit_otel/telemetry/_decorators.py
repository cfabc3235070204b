"""The decorator that turns a function into a lifecycle point."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import wraps
from time import perf_counter_ns
from types import MethodType
from typing import Any, ParamSpec, TypeVar, cast

import wrapt
from opentelemetry.context import Context
from opentelemetry.trace import SpanContext

from snakepit_otel.telemetry import _context, _guard, _switch, names
from snakepit_otel.telemetry._attributes import NONE, AttributeSet, Details, interned
from snakepit_otel.telemetry._context import SPAN_KEY
from snakepit_otel.telemetry._definitions import Point
from snakepit_otel.telemetry._lean_spans import begin, finish
from snakepit_otel.telemetry._links import Trail
from snakepit_otel.telemetry._operation import Describe, Operation, count, count_failed
from snakepit_otel.telemetry.spans.base import Unsampled

P = ParamSpec("P")
R = TypeVar("R")
Labels = Callable[..., AttributeSet | Mapping[str, Any]]
DescribeResult = Callable[[Any], AttributeSet | Mapping[str, Any]]
LinksOfResult = Callable[[Any], Iterable[SpanContext]]


def observed(
    point: Point,
    *,
    labels: Labels | None = None,
    details: Describe | None = None,
    result: DescribeResult | None = None,
    trail: Trail | None = None,
    result_links: LinksOfResult | None = None,
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Give a function or coroutine function the span, duration and counts of `point`.

    `labels` and `details` are called with the arguments of the call. `labels` returns attributes with few values, for
    the span and the duration; `details` returns attributes for the span only, and is not called without a span.
    `result` is called with the returned value, and returns more of both; an `error.type` in a mapping from it marks
    the operation as failed. `trail` links the span to the previous one with the same key, a session's for instance;
    `result_links` returns links from the returned value. A generator is refused: its span would be current in its
    consumer.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError(
                f"{function.__qualname__} is a generator; a lifecycle point must not hold its context "
                "across a yield: push to a callback instead"
            )
        options = PointOptions(point, labels, details, result, trail, result_links)
        wrap = _observing_async if inspect.iscoroutinefunction(function) else _observing
        return cast("Callable[P, R]", LifecyclePoint(function, wrap(function, options)))

    return decorate


@dataclass(frozen=True)
class PointOptions:
    """Options of a lifecycle point's decorator."""

    point: Point
    labels: Labels | None
    details: Describe | None
    result: DescribeResult | None
    trail: Trail | None
    result_links: LinksOfResult | None


class LifecyclePoint(wrapt.FunctionWrapper[..., Any]):
    """A wrapt function wrapper that binds the observing function itself.

    wrapt's stock call builds a bound wrapper for each method access; a plain bound method does
    without, and leaves introspection and unwrapping as they are.
    """

    def __init__(self, function: Callable[..., Any], observing: Callable[..., Any]) -> None:
        super().__init__(function, _unused)
        self._self_function = function
        self._self_observing = observing

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        if instance is None:
            return self
        # Switched off, the method is the plain one.
        return MethodType(self._self_observing if _switch.enabled else self._self_function, instance)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return (self._self_observing if _switch.enabled else self._self_function)(*args, **kwargs)


def _observing(function: Callable[..., Any], options: PointOptions) -> Callable[..., Any]:
    point, labels, has_outcome = options.point, options.labels, _has_outcome(options)

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        few = NONE
        if labels is not None:
            try:
                few = labels(*args, **kwargs)  # type: ignore[assignment]
                if few.__class__ is not AttributeSet:
                    few = interned(few)  # type: ignore[arg-type]
            except Exception as error:
                few = _not_described(labels, error)
        context = _context.get()
        above: Any = context.get(SPAN_KEY)
        if above.__class__ is Unsampled and not has_outcome:
            started = perf_counter_ns()
            try:
                returned = function(*args, **kwargs)
            except BaseException as error:
                count_failed(point, few, started, error, options.details, args, kwargs)
                raise
            count(point, few, started)
            return returned
        span = _begin(options, few, above, args, kwargs)
        if span is None or span.__class__ is Unsampled:
            with _operation(options, few, context, span, args, kwargs) as operation:
                returned = function(*args, **kwargs)
                if has_outcome:
                    _add_outcome(operation, options, returned)
                return returned
        token = _context.attach(_context.with_span(context, span))
        try:
            returned = function(*args, **kwargs)
        except BaseException as error:
            span.owner.operation_for(span).end(error)
            raise
        else:
            _finish(options, span, returned)
            return returned
        finally:
            _context.detach(token)

    return call


def _observing_async(function: Callable[..., Any], options: PointOptions) -> Callable[..., Any]:
    # The same with an await in it.
    point, labels, has_outcome = options.point, options.labels, _has_outcome(options)

    @wraps(function)
    async def call(*args: Any, **kwargs: Any) -> Any:
        few = NONE
        if labels is not None:
            try:
                few = labels(*args, **kwargs)  # type: ignore[assignment]
                if few.__class__ is not AttributeSet:
                    few = interned(few)  # type: ignore[arg-type]
            except Exception as error:
                few = _not_described(labels, error)
        context = _context.get()
        above: Any = context.get(SPAN_KEY)
        if above.__class__ is Unsampled and not has_outcome:
            started = perf_counter_ns()
            try:
                returned = await function(*args, **kwargs)
            except BaseException as error:
                count_failed(point, few, started, error, options.details, args, kwargs)
                raise
            count(point, few, started)
            return returned
        span = _begin(options, few, above, args, kwargs)
        if span is None or span.__class__ is Unsampled:
            with _operation(options, few, context, span, args, kwargs) as operation:
                returned = await function(*args, **kwargs)
                if has_outcome:
                    _add_outcome(operation, options, returned)
                return returned
        token = _context.attach(_context.with_span(context, span))
        try:
            returned = await function(*args, **kwargs)
        except BaseException as error:
            span.owner.operation_for(span).end(error)
            raise
        else:
            _finish(options, span, returned)
            return returned
        finally:
            _context.detach(token)

    return call


def _begin(options: PointOptions, few: AttributeSet, above: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Start the span of a call that needs no operation while all goes well; else None, or `Unsampled`."""
    span = begin(options.point, few, above, _POINT_SPANS)
    if span is None or span.__class__ is Unsampled:
        return span
    details = options.details
    if details is not None:
        try:
            found = details(*args, **kwargs)
            span.details = found if found is None or isinstance(found, Details) else Details(found)
        except Exception as error:
            _not_described(details, error)
    if options.trail is not None:
        before = _step(options, span, args, kwargs)
        if before is not None:
            span.linked = (before,)
    return span


class _PointSpans:
    """Owner of spans of calls that have no operation; makes one where a span needs it."""

    def operation_for(self, span: Any) -> Operation:
        operation = Operation.from_start(span.point, span.labels, span.details, span.started)
        operation.attach_span(span, span.maker)
        operation.links = span.linked
        span.owner = operation
        return operation


_POINT_SPANS = _PointSpans()


def _operation(
    options: PointOptions,
    few: AttributeSet,
    context: Context,
    unsampled: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Operation:
    """Return the operation of a call whose span was not begun, or is not recorded."""
    if unsampled is not None:
        return Operation.unsampled(options.point, few, _context.with_span(context, unsampled))
    operation = Operation(options.point, few, options.details, args, kwargs)
    if options.trail is not None and operation.span is not None and operation.span.is_recording():
        before = _step(options, operation.span, args, kwargs)
        if before is not None:
            operation.link(before)
    return operation


def _finish(options: PointOptions, span: Any, returned: Any) -> None:
    """End the span of a call that returned, and record its duration."""
    try:
        if options.result_links is not None:
            has_more = True
        elif options.result is None:
            has_more = False
        else:
            more = options.result(returned)
            if more and more.__class__ is AttributeSet:
                span.labels = span.labels.plus(more)
                has_more = False
            else:
                has_more = bool(more)
        if has_more or not finish(span):
            operation = span.owner.operation_for(span)
            if has_more:
                _add_outcome(operation, options, returned)
            operation.end()
    except Exception as error:
        _guard.contain(f"ending {options.point.span}", error)


def _not_described(describe: Callable[..., Any], error: Exception) -> AttributeSet:
    _guard.contain(f"describing {getattr(describe, '__qualname__', describe)!r}", error)
    return NONE


def _has_outcome(options: PointOptions) -> bool:
    return options.result is not None or options.trail is not None or options.result_links is not None


def _step(options: PointOptions, span: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> SpanContext | None:
    """Return the span before this one on the trail."""
    try:
        key = options.trail.key(*args, **kwargs)  # type: ignore[union-attr]
        return options.trail.step(key, span) if key else None  # type: ignore[union-attr]
    except Exception as error:
        _guard.contain(f"linking {options.point.name}", error)
        return None


def _add_outcome(operation: Operation, options: PointOptions, returned: Any) -> None:
    try:
        if options.result is not None:
            found = options.result(returned)
            attributes = found.values if isinstance(found, AttributeSet) else found
            if names.ERROR_TYPE in attributes:
                # What is returned may itself be a failure, as answers over the bridge are.
                attributes = dict(attributes)
                operation.fail(attributes.pop(names.ERROR_TYPE))
            if attributes:
                operation.set(attributes)
        if options.result_links is not None and operation.span is not None:
            for link in options.result_links(returned):
                operation.link(link)
    except Exception as error:
        _guard.contain(f"describing the result of {options.point.name}", error)


def _unused(*_: Any) -> None:
    raise AssertionError("the wrapper's own call is used")
