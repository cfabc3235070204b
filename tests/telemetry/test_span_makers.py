"""Conformance suite of span makers: each implementation keeps the contract of `spans/base.py`."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanContext, TraceFlags

import snakepit_otel.telemetry
from snakepit_otel.telemetry import Operation, _guard, names
from snakepit_otel.telemetry._attributes import NONE, AttributeSet, Details
from snakepit_otel.telemetry.spans import select
from snakepit_otel.telemetry.spans.base import SpanMaker, StepPlan
from tests.source import tree
from tests.telemetry.scripted import Exporting, encoded_spans, object_spans, provided, sdk_spans

SPANS = Path(snakepit_otel.telemetry.__file__).parent / "spans"
MAKERS = pytest.mark.parametrize("exporting", [sdk_spans, object_spans, encoded_spans])
TRACE_ID, PARENT_ID = 2**127 + 5, 2**60 + 3
PRIVATE_NAMES = {
    "_Span",
    "_instrumentation_scope",
    "_is_enabled",
    "_on_ending",
    "_span_limits",
    "_span_processors",
}


@pytest.fixture(autouse=True)
def no_faults() -> Any:
    """No test may contain a fault of telemetry."""
    before = _guard.fault_count
    yield
    assert _guard.fault_count == before


def exported(exporting: Exporting, use: Callable[[SpanMaker], Any], **settings: Any) -> dict[str, Span]:
    """Return the spans that `use` ends, by name."""
    request: ExportTraceServiceRequest = exporting(provided(**settings), use)
    return {
        span.name: span for resource in request.resource_spans for scope in resource.scope_spans for span in scope.spans
    }


def private_names(path: Path) -> set[str]:
    """Return the private names that a file uses of objects and packages that are not ours."""
    parsed = tree(path)
    own = {node.name for node in ast.walk(parsed) if isinstance(node, ast.FunctionDef)}
    imported = {
        alias.name
        for node in ast.walk(parsed)
        if isinstance(node, ast.ImportFrom) and not (node.module or "").startswith(("snakepit_otel", "__future__"))
        for alias in node.names
    }
    attributes = {
        node.attr
        for node in ast.walk(parsed)
        if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") not in {"self", "cls"}
    }
    return {name for name in (imported | attributes) - own if name.startswith("_") and not name.startswith("__")}


def operation(point: Any = names.REQUEST, **attributes: Any) -> Operation:
    """Return an operation that has begun, and has no span."""
    return Operation.from_start(point, AttributeSet(attributes), None, 1_000)


def number(span_id: bytes) -> int:
    """Return an id as a number."""
    return int.from_bytes(span_id, "big")


@MAKERS
def test_a_span_starts_below_the_current_one(exporting: Exporting) -> None:
    """The context that `start` returns has the operation's span, and spans started in it are its children."""

    def use(maker: SpanMaker) -> None:
        outer, inner = operation(names.REQUEST), operation(names.CALLBACK)
        context = maker.start(outer, Context())
        assert trace.get_current_span(context) is outer.span
        maker.start(inner, context)
        maker.end(inner, 10)
        maker.end(outer, 20)

    spans = exported(exporting, use)
    outer, inner = spans[names.REQUEST.span], spans[names.CALLBACK.span]
    assert not outer.parent_span_id
    assert (inner.parent_span_id, inner.trace_id) == (outer.span_id, outer.trace_id)


@MAKERS
@pytest.mark.parametrize("sampled", [True, False])
def test_a_remote_start_continues_the_callers_trace(exporting: Exporting, sampled: bool) -> None:
    """`start_remote` is `start` below the caller's span, and keeps to its sampling."""

    def use(maker: SpanMaker) -> None:
        started = operation()
        context = maker.start_remote(started, TRACE_ID, PARENT_ID, int(sampled))
        current = trace.get_current_span(context).get_span_context()
        assert (current.trace_id, current.trace_flags.sampled) == (TRACE_ID, sampled)
        assert (started.span is not None) == sampled
        if sampled:
            maker.end(started, 10)

    spans = exported(exporting, use)
    assert [(number(span.trace_id), number(span.parent_span_id)) for span in spans.values()] == (
        [(TRACE_ID, PARENT_ID)] if sampled else []
    )


@MAKERS
def test_an_unsampled_operation_has_no_span(exporting: Exporting) -> None:
    """What the sampler drops has a context to pass on, and nothing is exported."""

    def use(maker: SpanMaker) -> None:
        dropped = operation()
        context = maker.start(dropped, Context())
        current = trace.get_current_span(context)
        assert dropped.span is None
        assert not current.is_recording()
        assert current.get_span_context().is_valid

    assert exported(exporting, use, sampler=ALWAYS_OFF) == {}


@MAKERS
def test_the_end_returns_the_exported_spans_ids(exporting: Exporting) -> None:
    """`end` returns the ids that the span is exported with."""
    found = []

    def use(maker: SpanMaker) -> None:
        started = operation()
        maker.start(started, Context())
        found.append(maker.end(started, 10))

    (span,) = exported(exporting, use).values()
    assert found == [(number(span.trace_id), number(span.span_id))]


@MAKERS
def test_an_ended_span_has_everything(exporting: Exporting) -> None:
    """`end` exports labels, details, late attributes, links and the error status."""
    link = SpanContext(7, 9, True, TraceFlags(1))

    def use(maker: SpanMaker) -> None:
        failed = operation(label="l")
        failed.details = Details({"detail": "d"})
        maker.start(failed, Context())
        failed.set({"late": 1})
        failed.link(link)
        failed.fail("timeout", "too long")
        maker.end(failed, 10)

    (span,) = exported(exporting, use).values()
    assert {"label", "detail", "late"} <= {attribute.key for attribute in span.attributes}
    assert [number(one.span_id) for one in span.links] == [9]
    assert (span.status.code, span.status.message) == (2, "too long")


@MAKERS
def test_a_labelled_end_exports_the_same(exporting: Exporting) -> None:
    """`end_labelled` returns None where `end` is needed, else the end time and ids of the exported span."""
    found: list[Any] = []

    def use(maker: SpanMaker) -> None:
        labels = AttributeSet({"label": "l"})
        for _ in range(2):
            started = Operation.from_start(names.REQUEST, labels, None, 1_000)
            maker.start(started, Context())
            found[:] = [maker.end_labelled(started, 10)]
            if found == [None]:
                maker.end(started, 10)

    (span,) = exported(exporting, use).values()
    expected = (span.end_time_unix_nano, number(span.trace_id), number(span.span_id))
    assert found in ([None], [expected])
    assert (found == [expected]) == (exporting is encoded_spans)


@MAKERS
def test_a_batch_records_the_request_and_its_steps(exporting: Exporting) -> None:
    """A batch's spans are the request below the parent, and its steps below the request; or there is no batch."""
    durations: list[Any] = []

    class Source:
        def operation_for(self, span: Any) -> Operation:
            raise AssertionError("no step was changed")

        def operation_at(self, point: Any, started: int) -> Operation:
            return Operation.from_start(point, NONE, None, started)

        def plan(self, point: Any) -> StepPlan:
            return StepPlan(durations.append, None, batch.template(point, NONE, NONE))

    def use(maker: SpanMaker) -> None:
        nonlocal batch
        parent = operation(names.RPC_SERVER)
        maker.start(parent, Context())
        batch = maker.batch(parent.span)
        if batch is not None:
            step = batch.close(batch.start(names.ADAPTER_BUILD, Source()))
            done = [step, (names.ADAPTER_CLEANUP, 1, 2, 0), (names.ADAPTER_REQUEST, 0, 3, batch.span_id)]
            batch.record(done, {}, Source())
        maker.end(parent, 10)

    batch: Any = None
    spans = exported(exporting, use)
    assert (batch is not None) == (exporting is encoded_spans)
    if batch is not None:
        request = spans[names.ADAPTER_REQUEST.span]
        assert request.parent_span_id == spans[names.RPC_SERVER.span].span_id
        for point in (names.ADAPTER_BUILD, names.ADAPTER_CLEANUP):
            assert spans[point.span].parent_span_id == request.span_id
        assert len(durations) == 3


@MAKERS
def test_a_maker_is_current(exporting: Exporting) -> None:
    """A maker is current for the provider that it was made for."""

    def use(maker: SpanMaker) -> None:
        assert maker.is_current()
        assert maker.kind in {"sdk", "fast"}

    exported(exporting, use)


def test_private_names_of_the_sdk_stand_in_one_file() -> None:
    """These are all private names of OpenTelemetry that spans rely on, and `fast/compat.py` alone has them."""
    used = {path.relative_to(SPANS).as_posix(): private_names(path) for path in SPANS.rglob("*.py")}
    assert used.pop("fast/compat.py") == PRIVATE_NAMES
    assert {path: found for path, found in used.items() if found} == {}
    assert select.__name__.endswith("spans.select")
