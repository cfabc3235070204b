"""Lifecycle points that are the steps of one request, recorded together at its end.

A request and its steps share their attributes, and follow one another. So each step only notes when it began
and ended, and one loop at the end of the request does the rest: durations, spans, one visit to the queue.
That costs a third of the same points done one by one, which is what happens where this cannot serve: with
other spans than lean ones, and for steps that fail or whose spans others change.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from time import perf_counter_ns
from typing import Any, NamedTuple, ParamSpec, TypeVar, cast

from snakepit_otel.telemetry import _context, _controls, _guard, _instruments
from snakepit_otel.telemetry._attributes import NONE, AttributeSet, Details
from snakepit_otel.telemetry._context import SPAN_KEY, with_span
from snakepit_otel.telemetry._decorators import LifecyclePoint
from snakepit_otel.telemetry._definitions import Point
from snakepit_otel.telemetry._metric_cells import MOST_KEPT, Value
from snakepit_otel.telemetry._operation import Observation
from snakepit_otel.telemetry.spans import otlp
from snakepit_otel.telemetry.spans.fast import LeanSpan, Unsampled, prepared
from snakepit_otel.telemetry.spans.otlp import child

P = ParamSpec("P")
R = TypeVar("R")
_NOTHING: dict[str, Any] = {}
NO_DETAILS = Details({})
_USUAL_HEAD = otlp.trace(0)
"""The fields of a trace without state, by their length."""


class Stepped:
    """What requests inherit whose steps are observed: where their telemetry is kept while they run."""

    labels: AttributeSet = NONE
    details: Details | None = None
    steps: Steps | None = None


class Steps:
    """The steps of one request that have ended, to be recorded with it.

    `above` is the span that the request is below; None if it is not sampled, and durations are all there is.
    `describe` then says what else is known of the request, should a step fail.
    """

    __slots__ = ("above", "describe", "done", "owner", "point", "request", "span_id", "started")

    def __init__(
        self,
        point: Point,
        request: Stepped,
        above: LeanSpan | None,
        owner: Any,
        describe: Callable[..., Details | None],
    ) -> None:
        self.point = point
        self.request = request
        self.above = above
        self.owner = owner
        self.describe = describe
        self.span_id = 0 if above is None else above.trace.lane.span_id()
        self.done: list[tuple[Point, int, int, int]] = []
        self.started = perf_counter_ns()

    def finish(self, error: BaseException | None) -> None:
        """Record the request and its steps."""
        ended = perf_counter_ns()
        try:
            if error is None:
                self.done.append((self.point, self.started, ended, self.span_id))
            if self.done:
                if self.above is None:
                    self._count()
                else:
                    self._record(self.above)
            if error is not None:
                self._passage(self.point, self.started, self.span_id).end(error)
        except Exception as fault:  # noqa: BLE001 - telemetry never raises into the code it observes
            _guard.contain(f"recording {self.point.name}", fault)

    def note(self, point: Point, function: Callable[..., R], *args: Any) -> R:
        """Run a step of which others see no span, and note when it began and ended."""
        started = perf_counter_ns()
        try:
            returned = function(*args)
        except BaseException as error:
            self.failed(point, started, error)
            raise
        self.done.append((point, started, perf_counter_ns(), 0))
        return returned

    def failed(self, point: Point, started: int, error: BaseException) -> None:
        """Record a step that raised."""
        if self.above is None or point in _controls.suppressed:
            Observation.resumed(point, self.request.labels, self._described(), started).end(error)
        else:
            self._passage(point, started, self.above.trace.lane.span_id()).end(error)

    def _described(self) -> Details | None:
        try:
            return self.request.details or self.describe(self.owner, self.request)
        except Exception as fault:  # noqa: BLE001 - telemetry never raises into the code it observes
            _guard.contain(f"describing {self.point.name}", fault)
            return None

    def begin(self, point: Point) -> LeanSpan:
        """Return the span of a step, for others to see."""
        above = self.above
        assert above is not None
        span = LeanSpan(above.trace, above.trace.lane.span_id(), self.span_id, perf_counter_ns(), self.tell)
        span.point = point
        return span

    def settle(self, span: LeanSpan, error: BaseException | None = None) -> None:
        """Note a step that went well, or end it at once if it failed or somebody has had their say on its span."""
        if error is None and span.whole is None:
            ended = perf_counter_ns()
            span.end_time = ended + span.trace.since
            self.done.append((span.point, span.started, ended, span.span_id))  # type: ignore[arg-type]
        else:
            self.tell(span).end(error)

    def tell(self, span: LeanSpan) -> Observation:
        """Return the passage of a step that has this span."""
        assert span.point is not None
        passage = Observation.resumed(span.point, self.request.labels, self.request.details, span.started)
        passage.take_span(span)
        return passage

    def _passage(self, point: Point, started: int, span_id: int) -> Observation:
        request, above = self.request, self.above
        passage = Observation.resumed(point, request.labels, request.details, started)
        if above is not None:
            parent_id = above.span_id if span_id == self.span_id else self.span_id
            passage.take_span(LeanSpan(above.trace, span_id, parent_id, started, passage.tell))
        return passage

    def _plans(self) -> dict[Point, Plan]:
        """Return how steps of such requests are recorded, as far as there have been any."""
        request = self.request
        of_details: dict[AttributeSet, dict[Point, Plan]] = (request.details or NO_DETAILS).plans
        found = of_details.get(request.labels)
        if found is None:
            found = of_details[request.labels] = {}
        return found

    def _plan(self, point: Point) -> Plan:
        labels, details = self.request.labels, self.request.details or NO_DETAILS
        kept = prepared(point, point.span, labels, remote_parent=False)
        begin = rest = b""
        if kept is not None and details.encoded is not None and kept[1].isdisjoint(details.values):
            rest = kept[0] + details.encoded + otlp.NO_STATUS
            begin = otlp.beginning(_USUAL_HEAD, rest)
        cell = _instruments.cell_for(point, labels, _NOTHING)
        plan = self._plans()[point] = Plan(cell.add, begin, rest, cell)
        return plan

    def _count(self) -> None:
        plans = self._plans()
        for point, started, ended, _ in self.done:
            add, _, _, cell = plans.get(point) or self._plan(point)
            add(((ended - started) * 1e-9, 0, 0, 0))
        if len(cell.new) >= MOST_KEPT:
            _fold(plans)

    def _record(self, above: LeanSpan) -> None:
        of, own_id, plans, suppressed = above.trace, self.span_id, self._plans(), _controls.suppressed
        lane, since, trace_id, head = of.lane, of.since, of.trace_id, of.head
        new_id, usual = lane.span_id, len(head) == len(_USUAL_HEAD)
        encoded = []
        for point, started, ended, known_id in self.done:
            add, begin, rest, cell = plans.get(point) or self._plan(point)
            if point in suppressed:
                add(((ended - started) * 1e-9, ended + since, trace_id, own_id))
                continue
            # Nobody has asked for the ids of quiet steps, so they have none yet.
            span_id = known_id or new_id()
            add(((ended - started) * 1e-9, ended + since, trace_id, span_id))
            if rest and usual:
                parent_id = above.span_id if span_id == own_id else own_id
                encoded.append(child(begin, head, span_id, parent_id, started + since, ended + since, rest))
            else:
                lane.end(self._passage(point, started, span_id), ended - started)
        if encoded and lane.take is not None:
            lane.take(encoded)
        if len(cell.new) >= MOST_KEPT:
            _fold(plans)


class Plan(NamedTuple):
    """How a step with certain attributes is recorded: what takes its duration, and what all its spans share."""

    add: Callable[[Value], None]
    begin: bytes
    rest: bytes
    """Nothing, where OpenTelemetry is to encode the span."""
    cell: Any


def _fold(plans: dict[Point, Plan]) -> None:
    """Count in what was recorded, now that it is enough for one of them."""
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
            kind = above.__class__
            try:
                request.labels = labels(owner, request)
                if kind is not Unsampled:
                    request.details = details(owner, request)
            except Exception as error:  # noqa: BLE001 - telemetry never raises into the code it observes
                _guard.contain(f"describing {point.name}", error)
            if kind is LeanSpan and above.trace.lane.take is not None and point not in _controls.suppressed:
                steps = request.steps = Steps(point, request, above, owner, details)
            elif kind is Unsampled:
                steps = request.steps = Steps(point, request, None, owner, details)
            else:
                with _alone(point, request):
                    return await run(owner, request, *args)
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

    The span is current inside, unless the step is `quiet`: a plain method in which nothing has telemetry.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        made = _async_step if inspect.iscoroutinefunction(function) else _quiet_step if quiet else _step
        return cast("Callable[P, R]", LifecyclePoint(function, made(function, point)))

    return decorate


def _quiet_step(function: Any, point: Point) -> Callable[..., Any]:
    @wraps(function)
    def call(owner: Any, request: Stepped, *args: Any) -> Any:
        steps = request.steps
        if steps is None:
            with _alone(point, request):
                return function(owner, request, *args)
        return steps.note(point, function, owner, request, *args)

    return call


def _step(function: Any, point: Point) -> Callable[..., Any]:
    @wraps(function)
    def call(owner: Any, request: Stepped, *args: Any) -> Any:
        steps = request.steps
        if steps is None:
            with _alone(point, request):
                return function(owner, request, *args)
        if steps.above is None or point in _controls.suppressed:
            return steps.note(point, function, owner, request, *args)
        span = steps.begin(point)
        token = _context.attach(with_span(_context.get(), span))
        try:
            returned = function(owner, request, *args)
        except BaseException as error:
            steps.settle(span, error)
            raise
        else:
            steps.settle(span)
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
        if steps.above is None or point in _controls.suppressed:
            started = perf_counter_ns()
            try:
                returned = await function(owner, request, *args)
            except BaseException as error:
                steps.failed(point, started, error)
                raise
            steps.done.append((point, started, perf_counter_ns(), 0))
            return returned
        span = steps.begin(point)
        token = _context.attach(with_span(_context.get(), span))
        try:
            returned = await function(owner, request, *args)
        except BaseException as error:
            steps.settle(span, error)
            raise
        else:
            steps.settle(span)
            return returned
        finally:
            _context.detach(token)

    return call


def _alone(point: Point, request: Stepped) -> Observation:
    return Observation(point, request.labels, lambda: request.details)
