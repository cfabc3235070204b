"""The decorator that turns a function into a lifecycle point."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from types import MethodType
from typing import Any, ParamSpec, TypeVar, cast

import wrapt

from snakepit_otel.telemetry import faults, names, switch
from snakepit_otel.telemetry.definitions import Point
from snakepit_otel.telemetry.observation import Observation

P = ParamSpec("P")
R = TypeVar("R")
Describe = Callable[..., dict[str, Any]]
DescribeResult = Callable[[Any], dict[str, Any]]


def observed(
    point: Point, attributes: Describe | None = None, result: DescribeResult | None = None
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Give a function or coroutine function the span, duration and counts of `point`.

    `attributes` is called with the arguments of the call and `result` with what it returned; both
    return attributes. An `error.type` from `result` marks the passage as failed.
    A generator is refused: its span would be current in its consumer.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError(
                f"{function.__qualname__} is a generator; a lifecycle point must not hold its context "
                "across a yield: push to a callback instead"
            )
        kind = _AsyncPoint if inspect.iscoroutinefunction(function) else _SyncPoint
        return cast("Callable[P, R]", kind(function, point, attributes, result))

    return decorate


class _Point(wrapt.FunctionWrapper[..., Any]):
    """A wrapt function wrapper whose own call is short.

    wrapt's stock call builds a bound wrapper for each method access; a plain bound method does
    without, and leaves introspection and unwrapping as they are.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        point: Point,
        attributes: Describe | None,
        result: DescribeResult | None,
    ) -> None:
        super().__init__(function, _unused)
        self._self_function = function
        self._self_point = point
        self._self_attributes = attributes
        self._self_result = result

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        if instance is None:
            return self
        # Switched off, the method is the plain one.
        return MethodType(self if switch.on else self._self_function, instance)

    def _self_observation(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Observation:
        return Observation(self._self_point, _described(self._self_attributes, args, kwargs))

    def _self_note(self, observation: Observation, returned: Any) -> None:
        if self._self_result is None:
            return
        attributes = _described(self._self_result, (returned,), {})
        # What is returned may itself be a failure, as answers over the bridge are.
        failure = attributes.pop(names.ERROR_TYPE, None)
        if failure is not None:
            observation.fail(failure)
        observation.set(attributes)


class _SyncPoint(_Point):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not switch.on:
            return self._self_function(*args, **kwargs)
        with self._self_observation(args, kwargs) as observation:
            returned = self._self_function(*args, **kwargs)
            self._self_note(observation, returned)
            return returned


class _AsyncPoint(_Point):
    def __call__(self, *args: Any, **kwargs: Any) -> Awaitable[Any]:
        if not switch.on:
            return cast("Awaitable[Any]", self._self_function(*args, **kwargs))
        return self._self_run(args, kwargs)

    async def _self_run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        with self._self_observation(args, kwargs) as observation:
            returned = await self._self_function(*args, **kwargs)
            self._self_note(observation, returned)
            return returned


def _described(describe: Describe | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    if describe is None:
        return {}
    try:
        return describe(*args, **kwargs)
    except Exception as error:  # noqa: BLE001 - telemetry never raises into the code it observes
        faults.contain(f"describing {getattr(describe, '__qualname__', describe)!r}", error)
        return {}


def _unused(*_: Any) -> None:
    raise AssertionError("the wrapper's own call is used")
