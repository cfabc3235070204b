"""Contract of span makers, which start and end the spans of operations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext

from snakepit_otel.telemetry._attributes import AttributeSet, Details
from snakepit_otel.telemetry._definitions import Point
from snakepit_otel.telemetry._metric_cells import Value


class Unsampled(NonRecordingSpan):
    """Current span of a request that is not recorded: operations inside it need no span maker."""


class SpanOperation(Protocol):
    """Parts of an operation that its span is made of."""

    point: Point
    labels: AttributeSet
    span_name: str
    started: int  # by the performance counter
    details: Details | None
    late: Mapping[str, Any]
    links: Sequence[SpanContext]
    failure: str | None
    message: str
    span: Span | None

    def operation_for(self, span: Any) -> SpanOperation:
        """Return the operation of a span."""


Exemplar = tuple[int, int, int]  # end in ns since 1970, trace id, span id
Step = tuple[
    Point, int, int, int
]  # start and end by the performance counter; span id, 0 where nothing has seen the span


class StepPlan(NamedTuple):
    """Parts that all steps with the same point and attributes share, to record them."""

    add: Callable[[Value], None]
    cell: Any
    template: Any  # as `SpanBatch.template` returned it


class StepSource(Protocol):
    """Source of the operations and plans of one request's steps."""

    def operation_for(self, span: Any) -> SpanOperation:
        """Return the operation of a step's span."""

    def operation_at(self, point: Point, started: int) -> SpanOperation:
        """Return an operation without a span, for a step that began then."""

    def plan(self, point: Point) -> StepPlan:
        """Return a new plan for steps of a point."""

    def record(self) -> None:
        """Record the durations and spans of all steps, one by one."""


class SpanBatch(Protocol):
    """Spans of one request and of its steps, recorded together when the request ends."""

    span_id: int  # of the request

    def start(self, point: Point, source: StepSource) -> Span:
        """Start the span of a step, to be the current one."""

    def close(self, span: Any) -> Step | None:
        """End a step's span and return the step; None if user code changed the span: it needs `SpanMaker.end`."""

    def attach(self, operation: Any, span_id: int = 0) -> None:
        """Give an operation a span with this id, or with a new one."""

    def template(self, point: Point, labels: AttributeSet, details: Details) -> Any:
        """Return the parts that spans with these attributes share."""

    def leave_to_call(self, source: StepSource) -> bool:
        """Have the steps of `source` recorded when the span above ends; False unless that is a call's that will end."""

    def record(self, steps: list[Step], plans: Mapping[Point, StepPlan], source: StepSource) -> None:
        """Record the durations and spans of steps; a step without a plan gets one from `source`."""


class SpanMaker(Protocol):
    """A way to make spans. Each span of a maker that also makes the spans below has it as `maker`."""

    kind: str

    def is_current(self) -> bool:
        """Return whether the provider still has the parts that the maker was chosen for."""

    def start(self, operation: Any, context: Context) -> Context:
        """Start the operation's span, if it is to be recorded, and return the context to work in."""

    def start_remote(self, operation: Any, trace_id: int, parent_id: int, flags: int) -> Context:
        """Start as `start` does, below a caller's span; its W3C trace context has no more than these."""

    def begin(self, above: Any, point: Point, labels: AttributeSet, owner: Any) -> Any:
        """Start a span below `above`, if it is to be recorded, of a lifecycle point that ends it by `finish`.

        `owner` returns its operation, should it need one. None where each span needs an operation from its start;
        `Unsampled` where it is not recorded.
        """

    def finish(self, span: Any, ended: int) -> Exemplar | None:
        """End a span begun by `begin`, of work that succeeded; None where that needs an operation, and `end`."""

    def end_labelled(self, operation: Any, elapsed: int) -> Exemplar | None:
        """End the span of an operation that succeeded with labels only; None where that needs `end`."""

    def end(self, operation: Any, elapsed: int) -> tuple[int, int]:
        """End the operation's span with all attributes, links and the status. `elapsed` is in ns.

        Return the trace id and span id of a sampled span; else zeros.
        """

    def batch(self, parent: Any) -> SpanBatch | None:
        """Return a batch below a span of this maker; None where each span is made by itself."""
