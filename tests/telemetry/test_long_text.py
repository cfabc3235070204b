"""Text of peers takes little room in telemetry, however long it is."""

from __future__ import annotations

from contextlib import suppress

import pytest
from opentelemetry import trace
from opentelemetry.trace import SpanContext, TraceFlags, TraceState

from snakepit_otel import telemetry
from snakepit_otel.rpc.method import OTHER_METHOD, method_of
from snakepit_otel.telemetry import _attributes, _guard, names
from snakepit_otel.telemetry._attributes import MAX_CHARACTERS
from snakepit_otel.telemetry._links import Trail, without_state
from snakepit_otel.testing import Capture

LONG = "é" * 100_000
STATE = TraceState([("vendor", "s" * 200)])


class Failed(Exception):
    """An error that has a type and a message of its own."""

    error_type = LONG


@telemetry.observed(
    names.ADAPTER_EXECUTE,
    labels=lambda *_: {names.SNAKEPIT_TOOL_NAME: LONG},
    details=lambda *_: {names.SESSION_ID: LONG, "list": ["short"], "number": 1},
    result=lambda _: {"late": LONG, "lists": [LONG]},
)
def observed(error: Exception | None = None) -> None:
    """Pass, or raise the error."""
    if error is not None:
        raise error


@pytest.mark.parametrize("error", [None, Failed(LONG)], ids=["well", "failed"])
def test_attributes_of_spans_are_cut(capture: Capture, error: Exception | None) -> None:
    """Labels, details, what comes late, types of errors and messages all are."""
    capture.clear()
    with suppress(Failed):
        observed(error)
    (span,) = capture.spans(names.ADAPTER_EXECUTE.span)
    values = [*span.attributes.values(), *span.attributes.get("lists", ())]
    assert max(len(value) for value in values if isinstance(value, str)) <= MAX_CHARACTERS
    assert span.attributes[names.SESSION_ID] == LONG[:MAX_CHARACTERS]


def test_recurring_attributes_are_kept_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """The table of sets that recur has no long value either, by whatever length it was asked for."""
    monkeypatch.setattr(_attributes, "_known", {})  # other tests may have filled it
    found = telemetry.interned({names.SNAKEPIT_TOOL_NAME: LONG})
    assert found == telemetry.interned({names.SNAKEPIT_TOOL_NAME: LONG[:MAX_CHARACTERS]})
    assert all(len(str(part)) <= 2 * MAX_CHARACTERS for key in _attributes._known for part in key)
    assert telemetry.Details.of_text("key", LONG).values == {"key": LONG[:MAX_CHARACTERS]}


def test_events_are_cut(capture: Capture) -> None:
    """An event's body and texts have at most as many characters as a traceback may have."""
    telemetry.emit(names.EVENT_WORKER_ORPHAN_KILLED, {names.SNAKEPIT_WORKER_ID: LONG}, {"count": 1}, body=LONG)
    (event,) = capture.events(names.EVENT_WORKER_ORPHAN_KILLED.name)
    assert len(event.body) == len(event.attributes[names.SNAKEPIT_WORKER_ID]) == 10_000


def test_trails_keep_little(capture: Capture) -> None:
    """A long key has no trail, and of a span before only what a link needs is kept."""
    trail = Trail(lambda key: key)
    with trace.get_tracer("test").start_as_current_span("span") as span:
        assert trail.step(LONG, span) is None
        assert not trail._last
        assert trail.step("short", span) is None
        assert trail.step("short", span) == without_state(span.get_span_context())


def test_identities_without_state() -> None:
    """A link to a caller's span has its ids, and not what the caller's vendors had to say."""
    identity = SpanContext(1, 2, True, TraceFlags(1), STATE)
    bare = without_state(identity)
    assert (bare.trace_id, bare.span_id, bare.is_remote, bare.trace_flags) == (1, 2, True, TraceFlags(1))
    assert not bare.trace_state
    assert without_state(bare) is bare


@pytest.mark.parametrize(("length", "kept"), [(100, True), (200_000, False)])
def test_long_trace_state_is_left_out(length: int, kept: bool) -> None:
    """Trace state of a size that anybody passes on is; more of it is dropped, and the trace goes on."""
    headers = [("traceparent", f"00-{1:032x}-{2:016x}-01"), ("tracestate", f"a={'b' * length}, {' ' * length}")]
    found = trace.get_current_span(telemetry.incoming(headers)).get_span_context()
    assert (found.trace_id, found.span_id) == (1, 2)
    assert bool(found.trace_state) is kept


def test_long_methods_are_other() -> None:
    """A path that no service of anybody's has is not remembered."""
    assert method_of(f"/service/{LONG}") is OTHER_METHOD
    assert method_of("/service/method") is not OTHER_METHOD


def test_faults_are_remembered_by_a_short_name() -> None:
    """The table of what has been reported holds no long name, and does not grow without bound."""
    _guard.contain(LONG, ValueError("once"))
    assert max(len(where) for _, where in _guard._logged) <= 200
