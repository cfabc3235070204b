"""Lifecycle points that are the steps of one request, recorded together at its end.

A request and its steps share their attributes, and follow one another. So each step only keeps its start and end, and
one loop at the end of the request records durations and spans. For a worker's request that halves the cost of
telemetry (see `benchmarks.instructions`). Where the span maker has no batches, and for steps that fail or whose spans
are changed by user code, each step is an operation of its own.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from time import perf_counter_ns
from typing import Any, ParamSpec, TypeVar, cast

from snakepit_otel.telemetry import _context, _controls, _guard, _instruments, _request_attributes
from snakepit_otel.telemetry._attributes import NONE, AttributeSet, Details
from snakepit_otel.telemetry._context import SPAN_KEY, with_span
from snakepit_otel.telemetry._decorators import LifecyclePoint
from snakepit_otel.telemetry._definitions import Point
from snakepit_otel.telemetry._metric_cells import FOLD_SIZE
from snakepit_otel.telemetry._operation import Operation
from snakepit_otel.telemetry.spans.base import SpanBatch, Step, StepPlan, Unsampled

P = ParamSpec("P")
R = TypeVar("R")
_NOTHING: dict[str, Any] = {}
_NO_DETAILS = Details({})
_WITHOUT_SUBJECT = 2  # parameters of a step that takes nothing but the request
_UNSAMPLED_DETAILS = Details({})  # apart, since plans are kept with details, and those without a batch have no template


class Stepped:
    """Base of requests with steps: holds their telemetry while they run."""

    labels: AttributeSet = NONE
    details: Details | None = None
    steps: Steps | None = None
    attributes: _request_attributes.RequestAttributes | None = None  # those that the tool sets


class Steps:
    """The steps of one request that have ended, to be recorded with it.

    `batch` has their spans; None if the request is not sampled, and only durations are recorded. `describe` then
    returns the request's details, should a step fail.
    """

    __slots__ = ("batch", "describe", "details", "done", "labels", "owner", "point", "request", "started")

    labels: AttributeSet
    details: Details | None

    def __init__(
        self,
        point: Point,
        request: Stepped,
        batch: SpanBatch | None,
        owner: Any,
        describe: Callable[..., Details | None],
    ) -> None:
        self.point = point
        self.request: Stepped | None = request
        self.batch = batch
        self.owner = owner
        self.describe = describe
        self.done: list[Step] = []
        self.started = perf_counter_ns()

    @property
    def _about(self) -> Stepped | Steps:
        """The attributes of the request, which may have ended."""
        return self.request or self

    def finish(self, error: BaseException | None) -> None:
        ended = perf_counter_ns()
        batch = self.batch
        try:
            if error is None:
                self.done.append((self.point, self.started, ended, 0 if batch is None else batch.span_id))
            request = cast("Stepped", self.request)
            if batch is not None:
                attributes = request.attributes
                if attributes is not None and attributes.values:
                    request.details = _with_attributes(request, attributes.values)
                if error is None and batch.leave_to_call(self):
                    # Without the request, whose arguments are not to outlive it.
                    self.labels, self.details = request.labels, request.details
                    self.request = self.owner = None
                    return
            if self.done:
                self.record()
            if error is not None:
                operation = self.operation_at(self.point, self.started)
                if batch is not None:
                    batch.attach(operation, batch.span_id)
                operation.end(error)
        except Exception as fault:
            _guard.contain(f"recording {self.point.name}", fault)

    def record(self) -> None:
        plans = self._plans()
        if self.batch is None:
            self._count(plans)
        else:
            self.batch.record(self.done, plans, self)
        if len(plans[self.done[-1][0]].cell.new) >= FOLD_SIZE:
            _fold(plans)

    def run(self, point: Point, function: Callable[..., R], *args: Any) -> R:
        """Run a step that has no current span, and keep its start and end."""
        started = perf_counter_ns()
        try:
            returned = function(*args)
        except BaseException as error:
            self.failed(point, started, error)
            raise
        self.done.append((point, started, perf_counter_ns(), 0))
        return returned

    def failed(self, point: Point, started: int, error: BaseException) -> None:
        if self.batch is None or point in _controls.suppressed:
            Operation.from_start(point, self._about.labels, self._described(), started).end(error)
        else:
            operation = self.operation_at(point, started)
            self.batch.attach(operation)
            operation.end(error)

    def _described(self) -> Details | None:
        try:
            return self._about.details or self.describe(self.owner, self.request)
        except Exception as fault:
            _guard.contain(f"describing {self.point.name}", fault)
            return None

    def close(self, span: Any, error: BaseException | None = None) -> None:
        """Keep a step that succeeded; end it at once if it failed or user code changed its span."""
        if error is None:
            step = self.batch.close(span)  # type: ignore[union-attr]
            if step is not None:
                self.done.append(step)
                return
        self.operation_for(span).end(error)

    def operation_for(self, span: Any) -> Operation:
        operation = self.operation_at(span.point, span.started)
        operation.attach_span(span, span.maker)
        return operation

    def operation_at(self, point: Point, started: int) -> Operation:
        about = self._about
        return Operation.from_start(point, about.labels, about.details, started)

    def _plans(self) -> dict[Point, StepPlan]:
        request = self._about
        details = request.details or (_UNSAMPLED_DETAILS if self.batch is None else _NO_DETAILS)
        of_details: dict[AttributeSet, dict[Point, StepPlan]] = details.step_cache
        found = of_details.get(request.labels)
        if found is None:
            found = of_details[request.labels] = {}
        return found

    def plan(self, point: Point) -> StepPlan:
        labels, details = self._about.labels, self._about.details or _NO_DETAILS
        template = None if self.batch is None else self.batch.template(point, labels, details)
        cell = _instruments.cell_for(point, labels, _NOTHING)
        plan = self._plans()[point] = StepPlan(cell.add, cell, template)
        return plan

    def _count(self, plans: dict[Point, StepPlan]) -> None:
        for point, started, ended, _ in self.done:
            add, _, _ = plans.get(point) or self.plan(point)
            add(((ended - started) * 1e-9, 0, 0, 0))


def _fold(plans: dict[Point, StepPlan]) -> None:
    """Fold the recorded durations of all steps, once those of one of them are many."""
    for plan in plans.values():
        plan.cell.fold()


def request(
    point: Point,
    labels: Callable[..., AttributeSet],
    details: Callable[..., Details | None],
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Make a coroutine method the lifecycle point of a whole request, whose steps are marked with `step`.

    Its first argument is the request, a `Stepped`. `labels` and `details` are called with the arguments; see
    `observed`. The span is not current in the method itself, but those of its steps are.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        run: Any = function

        @wraps(run)
        async def call(owner: Any, request: Stepped, *args: Any) -> Any:
            above: Any = _context.get().get(SPAN_KEY)
            unsampled = above.__class__ is Unsampled
            try:
                request.labels = labels(owner, request)
                if not unsampled:
                    request.details = details(owner, request)
            except Exception as error:
                _guard.contain(f"describing {point.name}", error)
            attributes = request.attributes = _request_attributes.begin()
            maker = None if unsampled or point in _controls.suppressed else getattr(above, "maker", None)
            batch = None if maker is None else maker.batch(above)
            if batch is not None or unsampled:
                steps = request.steps = Steps(point, request, batch, owner, details)
            else:
                with _alone(point, request) as operation:
                    try:
                        return await run(owner, request, *args)
                    finally:
                        if attributes.values:
                            operation.set(attributes.values)
            try:
                returned = await run(owner, request, *args)
            except BaseException as error:
                steps.finish(error)
                raise
            steps.finish(None)
            return returned

        return cast("Callable[P, R]", LifecyclePoint(function, call))

    return decorate


def step(point: Point, *, quiet: bool = False) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Make a method a step of the request that is its first argument.

    The span is current inside, unless the step is `quiet`: a plain method in which nothing has telemetry, with one
    further argument at most.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        wrap = _async_step if inspect.iscoroutinefunction(function) else _quiet_step if quiet else _step
        return cast("Callable[P, R]", LifecyclePoint(function, wrap(function, point)))

    return decorate


def _quiet_step(function: Any, point: Point) -> Callable[..., Any]:
    run = function
    if len(inspect.signature(function).parameters) == _WITHOUT_SUBJECT:

        def run(owner: Any, request: Stepped, _: Any) -> Any:
            return function(owner, request)

    @wraps(function)
    def call(owner: Any, request: Stepped, subject: Any = None) -> Any:
        steps = request.steps
        if steps is None:
            with _alone(point, request):
                return run(owner, request, subject)
        started = perf_counter_ns()
        try:
            returned = run(owner, request, subject)
        except BaseException as error:
            steps.failed(point, started, error)
            raise
        steps.done.append((point, started, perf_counter_ns(), 0))
        return returned

    return call


def _step(function: Any, point: Point) -> Callable[..., Any]:
    @wraps(function)
    def call(owner: Any, request: Stepped, *args: Any) -> Any:
        steps = request.steps
        if steps is None:
            with _alone(point, request):
                return function(owner, request, *args)
        if steps.batch is None or point in _controls.suppressed:
            return steps.run(point, function, owner, request, *args)
        span = steps.batch.start(point, steps)
        token = _context.attach(with_span(_context.get(), span))
        try:
            returned = function(owner, request, *args)
        except BaseException as error:
            steps.close(span, error)
            raise
        else:
            steps.close(span)
            return returned
        finally:
            _context.detach(token)

    return call


def _async_step(function: Any, point: Point) -> Callable[..., Any]:
    @wraps(function)
    async def call(owner: Any, request: Stepped, *args: Any) -> Any:
        steps = request.steps
        if steps is None:
            with _alone(point, request):
                return await function(owner, request, *args)
        if steps.batch is None or point in _controls.suppressed:
            started = perf_counter_ns()
            try:
                returned = await function(owner, request, *args)
            except BaseException as error:
                steps.failed(point, started, error)
                raise
            steps.done.append((point, started, perf_counter_ns(), 0))
            return returned
        span = steps.batch.start(point, steps)
        token = _context.attach(with_span(_context.get(), span))
        try:
            returned = await function(owner, request, *args)
        except BaseException as error:
            steps.close(span, error)
            raise
        else:
            steps.close(span)
            return returned
        finally:
            _context.detach(token)

    return call


def _with_attributes(request: Stepped, attributes: dict[str, Any]) -> Details:
    return Details({**({} if request.details is None else request.details.values), **attributes})


def _alone(point: Point, request: Stepped) -> Operation:
    return Operation(point, request.labels, lambda: request.details)
