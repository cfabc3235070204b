"""Changes of level, sampling and filters while a process runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, format_trace_id, set_span_in_context

from snakepit_otel.telemetry import Operation, _controls, _guard, names, observed, outgoing
from snakepit_otel.telemetry.spans import select
from snakepit_otel.telemetry.spans.fast import compat
from snakepit_otel.telemetry.spans.sdk import SdkSpanMaker
from tests.telemetry.counting import in_cells, points
from tests.telemetry.scripted import REMOTE, Ids, Node, OperationNode, Run, by_encodings, by_objects, by_sdk, provided

SpanMaker = Callable[[list[Node], TracerProvider], Run]
MAKERS = pytest.mark.parametrize("maker", [by_sdk, by_objects, by_encodings])
REQUEST: list[Node] = [
    OperationNode(
        names.RPC_SERVER,
        parent=REMOTE[0],
        children=(
            OperationNode(
                names.ADAPTER_REQUEST,
                children=(
                    OperationNode(names.ADAPTER_BUILD),
                    OperationNode(names.ADAPTER_EXECUTE, children=(OperationNode(names.RPC_CLIENT),)),
                ),
            ),
        ),
    )
]


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """Whatever a test sets, the next one begins with everything."""
    yield
    _controls.set_level("full")
    _controls.set_sampling(1)
    _controls.set_filter()


def spans_of(run: Run) -> list[Any]:
    """What was exported."""
    return [span for resource in run.exported.resource_spans for scope in resource.scope_spans for span in scope.spans]


def tree(run: Run) -> set[tuple[str, str | None]]:
    """Each span's name, and that of its parent here."""
    spans = spans_of(run)
    by_id = {span.span_id: span.name for span in spans}
    return {(span.name, by_id.get(span.parent_span_id)) for span in spans}


@MAKERS
@pytest.mark.parametrize(
    ("level", "expected"),
    [
        (
            "full",
            {
                ("rpc", None), ("handle request", "rpc"), ("build adapter", "handle request"),
                ("execute tool", "handle request"), ("rpc", "execute tool"),
            },
        ),
        ("essential", {("rpc", None), ("handle request", "rpc"), ("rpc", "handle request")}),
    ],
)  # fmt: skip
def test_points_with_spans_by_level(maker: SpanMaker, level: str, expected: Any) -> None:
    """Essential are requests and calls; what has no span does not break the tree, and is counted as ever."""
    _controls.set_level(level)
    with in_cells() as collect:
        assert tree(maker(REQUEST, provided())) == expected
        durations = points(collect())
    assert sum(point.count for point in durations) == 5


@MAKERS
def test_off_nothing_is_recorded(maker: SpanMaker) -> None:
    """Off, decorated functions are plain calls: no span, no count."""
    _controls.set_level("off")
    decorated: list[Node] = [
        OperationNode(names.REQUEST, how="function", children=(OperationNode(names.ADAPTER_BUILD, how="function"),))
    ]
    with in_cells() as collect:
        run = maker(decorated, provided())
        assert collect() == []
    assert spans_of(run) == []


def test_a_level_that_is_none_changes_nothing() -> None:
    """A wrong word is refused, and what was, stays."""
    _controls.set_level("essential")
    suppressed = set(_controls.suppressed)
    with pytest.raises(ValueError, match="loud"):
        _controls.set_level("loud")
    assert (_controls.level, _controls.suppressed) == (_controls.Level.ESSENTIAL, suppressed)


@MAKERS
@pytest.mark.parametrize(
    ("allow", "deny", "expected"),
    [
        (["snakepit.adapter.*"], [], {"handle request", "build adapter", "execute tool"}),
        ([], ["rpc.*"], {"handle request", "build adapter", "execute tool"}),
        (["snakepit.adapter.*"], ["*.build"], {"handle request", "execute tool"}),
        (["*"], ["*"], set()),
        (["snakepit.adapter.buil?", "rpc.client"], [], {"build adapter", "rpc"}),
    ],
)
def test_filters_go_by_the_registrys_names(
    maker: SpanMaker, allow: list[str], deny: list[str], expected: set[str]
) -> None:
    """Spans of points that are not allowed, or are denied, are not made, however they are made."""
    _controls.set_filter(allow, deny)
    assert {span.name for span in spans_of(maker(REQUEST, provided()))} == expected


def test_filter_and_level_both_hold() -> None:
    """A filter does not bring back what the level leaves out."""
    _controls.set_level("essential")
    _controls.set_filter(allow=["snakepit.adapter.*"])
    assert {span.name for span in spans_of(by_encodings(REQUEST, provided()))} == {"handle request"}


MANY: list[Node] = [
    OperationNode(names.REQUEST, parent=parent, children=(OperationNode(names.ADAPTER_EXECUTE, how=how),))
    for how in ("block", "function", "request")
    for parent in (None, None, REMOTE[0], None, REMOTE[1], None, None, None)
]


@MAKERS
@pytest.mark.parametrize("rate", [0, 0.2, 0.5, 0.8, 1])
def test_sampling_keeps_whole_traces(maker: SpanMaker, rate: float) -> None:
    """Of the traces that would be recorded a share is, each with all its spans; which, does not depend on the way."""
    everything = spans_of(maker(MANY, provided(id_generator=Ids())))
    _controls.set_sampling(rate)
    kept = spans_of(maker(MANY, provided(id_generator=Ids())))
    expected = sorted((span.trace_id, span.name) for span in everything if _in_share(span.trace_id, rate))
    assert sorted((span.trace_id, span.name) for span in kept) == expected
    assert 0 < len(expected) < len(everything) or rate in (0, 1)


def _in_share(trace_id: bytes, rate: float) -> bool:
    """By the W3C's random part of the id, which all processes see alike."""
    return int.from_bytes(trace_id[-7:], "big") < rate * 2**56


@given(trace_id=st.integers(1, 2**128 - 1), rates=st.tuples(st.floats(-1, 2), st.floats(-1, 2)))
def test_more_is_more(trace_id: int, rates: tuple[float, float]) -> None:
    """What is kept of little is kept of more; all is all, and none is none."""
    low, high = sorted(rates)
    _controls.set_sampling(low)
    kept = _controls.keeps_trace(trace_id)
    _controls.set_sampling(high)
    assert _controls.keeps_trace(trace_id) or not kept
    assert _controls.keeps_trace(trace_id) or high < 1
    assert not _controls.keeps_trace(trace_id) or high > 0


@MAKERS
def test_what_the_sampler_left_out_stays_out(maker: SpanMaker) -> None:
    """The share is of what would be recorded."""
    assert spans_of(maker(MANY, provided(sampler=ALWAYS_OFF))) == []


@pytest.mark.parametrize("made", [SdkSpanMaker, compat.maker_for])
def test_peers_get_the_unsampled_flag_of_points_left_out(made: Callable[[Any], Any]) -> None:
    """A request that is not kept goes on under its trace, not sampled, so that others leave it out, too."""
    provider, memory = provided(), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(memory))
    maker = made(provider)
    out = SpanContext(5 << 100 | 0xFF << 48, 1, True, TraceFlags(1))
    _controls.set_sampling(0.5)
    before = _guard.fault_count
    with patch.object(select, "span_maker", lambda: maker):
        for parent, trace_id in (
            (set_span_in_context(NonRecordingSpan(out)), format_trace_id(out.trace_id)),
            (None, None),
        ):
            _controls.set_sampling(0.5 if parent else 0)
            with Operation(names.REQUEST, parent=parent), Operation(names.ADAPTER_EXECUTE):
                header = dict(outgoing())["traceparent"].split("-")
                assert trace_id is None or header[1] == trace_id
                assert int(header[3], 16) & 1 == 0
                with provider.get_tracer("user").start_as_current_span("theirs"):
                    pass
    assert memory.get_finished_spans() == ()
    assert _guard.fault_count == before


def test_what_changes_holds_for_what_begins_then() -> None:
    """A point that is under way keeps its span; the next goes by the new setting."""
    seen = []

    @observed(names.ADAPTER_BUILD)
    def build() -> None:
        seen.append(trace.get_current_span().is_recording())

    provider = provided()
    maker = compat.maker_for(provider)
    with patch.object(select, "span_maker", lambda: maker):
        with Operation(names.REQUEST) as operation:
            _controls.set_filter(deny=["snakepit.request"])
            assert operation.span is not None
            assert operation.span.is_recording()
            build()
        with Operation(names.REQUEST) as operation:
            assert operation.span is None
            build()
    assert seen == [True, True]
