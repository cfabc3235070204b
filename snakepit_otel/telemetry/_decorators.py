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
from opentelemetry.trace import SpanContext

from snakepit_otel.telemetry import _context, _guard, _switch, names
from snakepit_otel.telemetry._attributes import NONE, AttributeSet, interned
from snakepit_otel.telemetry._context import SPAN_KEY
from snakepit_otel.telemetry._definitions import Point
from snakepit_otel.telemetry._links import Trail
from snakepit_otel.telemetry._operation import Describe, Operation, count, count_failed
from snakepit_otel.telemetry.spans.base import Unsampled

P = ParamSpec("P")
R = TypeVar("R")
Labels = Callable[..., AttributeSet | Mapping[str, Any]]
DescribeResult = Callable[[Any], dict[str, Any]]
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
    `result` is called with the returned value, and returns more of both; an `error.type` from it marks the operation
    as failed. `trail` links the span to the previous one with the same key, a session's for instance; `result_links`
    returns links from the returned value. A generator is refused: its span would be current in its consumer.
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
    point, labels, details, has_outcome = options.point, options.labels, options.details, _has_outcome(options)

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        few = NONE if labels is None else _labels(labels, args, kwargs)
        if not has_outcome and _context.get().get(SPAN_KEY).__class__ is Unsampled:
            started = perf_counter_ns()
            try:
                returned = function(*args, **kwargs)
            except BaseException as error:
                count_failed(point, few, started, error, details, args, kwargs)
                raise
            count(point, few, started)
            return returned
        with Operation(point, few, details, args, kwargs) as operation:
            if has_outcome:
                _link_to_previous(operation, options, args, kwargs)
            returned = function(*args, **kwargs)
            if has_outcome:
                _add_outcome(operation, options, returned)
            return returned

    return call


def _observing_async(function: Callable[..., Any], options: PointOptions) -> Callable[..., Any]:
    # The same with an await in it.
    point, labels, details, has_outcome = options.point, options.labels, options.details, _has_outcome(options)

    @wraps(function)
    async def call(*args: Any, **kwargs: Any) -> Any:
        few = NONE if labels is None else _labels(labels, args, kwargs)
        if not has_outcome and _context.get().get(SPAN_KEY).__class__ is Unsampled:
            started = perf_counter_ns()
            try:
                returned = await function(*args, **kwargs)
            except BaseException as error:
                count_failed(point, few, started, error, details, args, kwargs)
                raise
            count(point, few, started)
            return returned
        with Operation(point, few, details, args, kwargs) as operation:
            if has_outcome:
                _link_to_previous(operation, options, args, kwargs)
            returned = await function(*args, **kwargs)
            if has_outcome:
                _add_outcome(operation, options, returned)
            return returned

    return call


def _labels(describe: Labels, args: tuple[Any, ...], kwargs: dict[str, Any]) -> AttributeSet:
    try:
        found = describe(*args, **kwargs)
        return found if found.__class__ is AttributeSet else interned(found)  # type: ignore[arg-type]
    except Exception as error:
        _guard.contain(f"describing {getattr(describe, '__qualname__', describe)!r}", error)
        return NONE


def _has_outcome(options: PointOptions) -> bool:
    return options.result is not None or options.trail is not None or options.result_links is not None


def _link_to_previous(
    operation: Operation, options: PointOptions, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    if options.trail is None or operation.span is None or not operation.span.is_recording():
        return
    try:
        key = options.trail.key(*args, **kwargs)
        before = options.trail.step(key, operation.span) if key else None
        if before is not None:
            operation.link(before)
    except Exception as error:
        _guard.contain(f"linking {options.point.name}", error)


def _add_outcome(operation: Operation, options: PointOptions, returned: Any) -> None:
    try:
        if options.result is not None:
            attributes = options.result(returned)
            if names.ERROR_TYPE in attributes:
                # What is returned may itself be a failure, as answers over the bridge are.
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
