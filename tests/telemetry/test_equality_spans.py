"""Every way of making spans exports what the stock SDK exports for the same work."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Kind
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    DEFAULT_OFF,
    DEFAULT_ON,
    ParentBasedTraceIdRatio,
    TraceIdRatioBased,
)
from opentelemetry.trace import StatusCode

from snakepit_otel.telemetry import Operation, names
from snakepit_otel.telemetry._attributes import AttributeSet
from snakepit_otel.telemetry.export.export_queue import BatchSettings
from snakepit_otel.telemetry.export.ledger import Ledger
from snakepit_otel.telemetry.export.spans import SpanPipeline
from snakepit_otel.telemetry.spans import select
from snakepit_otel.telemetry.spans.fast import compat
from tests.telemetry.scripted import (
    INVALID,
    INVALID_WITH_STATE,
    REMOTE,
    REQUESTS,
    SCRIPTS,
    Call,
    Ids,
    ListeningPeer,
    Node,
    OperationNode,
    Run,
    UserSpan,
    by_encodings,
    by_objects,
    by_sdk,
    canonical,
    provided,
)

SpanMaker = Callable[[list[Node], TracerProvider], Run]
SAMPLERS = st.sampled_from(
    [ALWAYS_ON, ALWAYS_ON, ALWAYS_OFF, DEFAULT_ON, DEFAULT_OFF, TraceIdRatioBased(0.5), ParentBasedTraceIdRatio(0.5)]
)
HALF = settings(max_examples=settings.default.max_examples // 2)
LIMIT = st.none() | st.integers(0, 3)
LIMITS = st.builds(
    SpanLimits,
    max_span_attributes=LIMIT,
    max_events=LIMIT,
    max_links=LIMIT,
    max_event_attributes=LIMIT,
    max_link_attributes=LIMIT,
    max_attribute_length=LIMIT,
    max_span_attribute_length=LIMIT,
)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """The SDK says something of each odd value, and there are thousands."""
    log = logging.getLogger("opentelemetry")
    before = log.level
    log.setLevel(logging.CRITICAL + 1)
    yield
    log.setLevel(before)


def same(script: list[Node], makers: Iterable[SpanMaker] = (by_objects, by_encodings), **settings: Any) -> Run:
    """Do a script by the stock SDK and by the fast makers, and hold these to that."""
    reference = by_sdk(script, provided(**_fresh(settings)))
    expected = canonical(reference.exported)
    for maker in makers:
        run = maker(script, provided(**_fresh(settings)))
        assert run.seen == reference.seen
        assert canonical(run.exported) == expected
    return reference


def _fresh(settings: dict[str, Any]) -> dict[str, Any]:
    return {"id_generator": Ids(), **{key: value() if callable(value) else value for key, value in settings.items()}}


@HALF
@given(script=SCRIPTS)
def test_same_work_gives_the_same_spans(script: list[Node]) -> None:
    """Whatever is said of spans, and wherever the user's own are: what is exported is equal, field by field."""
    same(script)


@HALF
@given(script=SCRIPTS, sampler=SAMPLERS, claims_random=st.booleans())
def test_samplers_decide_the_same(script: list[Node], sampler: Any, claims_random: bool) -> None:
    """With every sampler the SDK has, the same spans are recorded and the same context goes to peers."""
    same(script, sampler=sampler, id_generator=lambda: Ids(claims_random=claims_random))


@HALF
@given(script=SCRIPTS, limits=LIMITS)
def test_limits_cut_the_same(script: list[Node], limits: SpanLimits) -> None:
    """What goes beyond a limit is cut, and counted as dropped, as the SDK does it."""
    same(script, span_limits=limits)


def below(node: Node) -> list[Node]:
    """A script with a node where most are: below a point that has a span."""
    return [OperationNode(names.RPC_SERVER, parent=REMOTE[0], children=(node,))]


def within_call(node: Node, parent: Any = REMOTE[1]) -> list[Node]:
    """A script with a node in a call that arrives, is answered, and ends with what came with it."""
    return [
        OperationNode(names.RPC_SERVER, name="a/B", parent=parent, labels={"l": 1}, children=(node,), how="arrives")
    ]


@settings(max_examples=settings.default.max_examples // 5)
@given(request=REQUESTS)
def test_a_request_and_its_steps_are_the_same(request: OperationNode) -> None:
    """Steps that are recorded together at the end are what they would have been one by one."""
    same(below(request))


@settings(max_examples=settings.default.max_examples // 5)
@given(request=REQUESTS, parent=st.sampled_from(REMOTE))
def test_a_request_within_a_call_is_the_same(request: OperationNode, parent: Any) -> None:
    """Spans packed at the end of the call, with the call's own, are what they would have been one by one."""
    same(within_call(request, parent))


@pytest.mark.parametrize("how", ["block", "steps", "arrives", "function", "request"])
@pytest.mark.parametrize(
    "node",
    [
        OperationNode(names.REQUEST),
        OperationNode(names.SESSION_CREATE, labels={"a": 1}, details={"session.id": "s"}),
        OperationNode(names.ADAPTER_REQUEST, labels={"a": 1}, details={"a": 2}),
        OperationNode(names.ADAPTER_REQUEST, labels={"a": [1]}, details={"b": {"c": [2]}}, late=({"d": [3]},)),
        OperationNode(names.ADAPTER_REQUEST, details={"snakepit.phase": "theirs"}),
        OperationNode(names.REQUEST, links=(INVALID,), late_links=(INVALID_WITH_STATE, REMOTE[1])),
        OperationNode(names.REQUEST, labels={"a": 1}, raises=ValueError("no \ud800")),
        OperationNode(
            names.REQUEST, fails=("timeout", ""), children=(OperationNode(names.CALLBACK), UserSpan("theirs", {}))
        ),
        OperationNode(names.REQUEST, calls=(Call("set_attribute", ("a", [1])), Call("set_status", (StatusCode.OK,)))),
    ],
)
def test_corners(how: str, node: OperationNode) -> None:
    """What chance may pass over."""
    same(below(replace(node, how=how)))
    same(within_call(replace(node, how=how)))


RICH: list[Node] = [
    OperationNode(
        names.REQUEST,
        parent=REMOTE[0],
        labels={"a": "eleven bytes", "b": True, "c": 3, "d": 0.5},
        details={"session.id": "s" * 50},
        links=REMOTE[:2],
        calls=(
            Call("set_attribute", ("mine", ["eleven bytes", "two"])),
            Call("add_event", ("one", {"a": "eleven bytes", "b": 2, "c": 3})),
            Call("add_event", ("two", {})),
            Call("add_link", (REMOTE[2], {"a": "eleven bytes", "b": 2})),
        ),
        children=(
            UserSpan(
                "theirs",
                {"a": 1},
                (),
                (OperationNode(names.ADAPTER_EXECUTE, labels={"a": 1, "b": 2}, links=REMOTE[:3]),),
            ),
        ),
        late=({"late": 1},),
        late_links=REMOTE[:1],
    )
]


@pytest.mark.parametrize(
    "variable",
    [
        "OTEL_ATTRIBUTE_COUNT_LIMIT",
        "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT",
        "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT",
        "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT",
        "OTEL_SPAN_EVENT_COUNT_LIMIT",
        "OTEL_SPAN_LINK_COUNT_LIMIT",
        "OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT",
        "OTEL_LINK_ATTRIBUTE_COUNT_LIMIT",
    ],
)
def test_limits_come_from_the_environment(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of the specification's variables is obeyed by every maker."""
    unlimited = canonical(same(RICH).exported)
    monkeypatch.setenv(variable, "1")
    assert canonical(same(RICH).exported) != unlimited


def test_default_limits_hold_for_ours_too() -> None:
    """More attributes and links than the specification's 128 are cut in the same way."""
    many = {f"k{number}": number for number in range(150)}
    script: list[Node] = [
        OperationNode(names.REQUEST, labels=many),
        OperationNode(names.REQUEST, details=many, late=(many,)),
        OperationNode(names.REQUEST, links=REMOTE * 40),
        OperationNode(names.REQUEST, late_links=REMOTE * 40),
    ]
    spans = spans_of(same(script))
    assert [(span.dropped_attributes_count, span.dropped_links_count) for span in spans[2:]] == [(0, 32), (0, 32)]
    assert all(span.dropped_attributes_count for span in spans[:2])


def test_a_usual_request_is_packed_with_its_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """The spans of a request that succeeds, and of its call, are one item of the queue; so the suite holds that."""
    packed: list[int] = []
    real = SpanPipeline.__init__

    def listening(pipeline: SpanPipeline, *args: Any) -> None:
        real(pipeline, *args)
        take = pipeline.take_joined
        assert take is not None
        pipeline.take_joined = lambda data, count: (packed.append(count), take(data, count))[1]

    monkeypatch.setattr(SpanPipeline, "__init__", listening)
    details = {"session.id": "s"}
    request = OperationNode(names.ADAPTER_REQUEST, labels={"a": "b"}, details=details, how="request")
    assert len(spans_of(same(within_call(request)))) == 6
    assert packed == [6]


def test_usual_spans_are_never_made_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a label, an id, a late attribute, a failure and links, a span is encoded by us; so the suite holds that."""
    made: list[Any] = []
    monkeypatch.setattr(SpanPipeline, "on_end", lambda _, span: made.append(span))
    script: list[Node] = [
        OperationNode(
            names.RPC_SERVER,
            name="a.Service/Call",
            parent=REMOTE[0],
            labels={"rpc.method": "a.Service/Call"},
            details={"session.id": "s"},
            links=REMOTE[:2],
            late=({"rpc.response.status_code": "OK"},),
            fails=("timeout", "late"),
            children=(OperationNode(names.ADAPTER_EXECUTE, raises=ValueError("no \ud800")),),
        )
    ]
    run = by_encodings(script, provided())
    assert [span.name for span in spans_of(run)] == ["execute tool", "a.Service/Call"]
    assert made == []


def test_one_key_said_twice_has_the_later_value() -> None:
    """A key of the point, the labels, the details and the late attributes is one attribute, the last one."""
    key = "snakepit.operation"
    script: list[Node] = [
        OperationNode(names.SESSION_CREATE, labels={key: 1}),
        OperationNode(names.SESSION_CREATE, details={key: 2}),
        OperationNode(names.SESSION_CREATE, late=({key: 3},)),
        OperationNode(names.REQUEST, labels={key: 1}, details={key: 2}),
        OperationNode(names.REQUEST, details={key: 1}, late=({key: 3},)),
        OperationNode(names.REQUEST, labels={key: 1}, late=({key: 3}, {key: 4})),
    ]
    # Labels count once more at the end, as the plain maker has it.
    assert [[pair.value.int_value for pair in span.attributes] for span in spans_of(same(script))] == [
        [1], [2], [3], [1], [3], [4],
    ]  # fmt: skip


def test_points_of_one_name_and_the_same_labels_keep_their_kinds() -> None:
    """A call's two sides in one process, with the same labels, are a client and a server."""
    labels = AttributeSet({"rpc.method": "Call"})
    peer = ListeningPeer()
    provider = provided()
    pipeline = SpanPipeline(peer, provider.resource, Ledger()["traces"], BatchSettings())
    provider.add_span_processor(pipeline)
    maker = compat.maker_for(provider)
    with patch.object(select, "span_maker", lambda: maker):
        for point in (names.RPC_CLIENT, names.RPC_SERVER):
            Operation(point, labels, span_name="Call").end()
    assert pipeline.queue.close(10)
    spans = spans_of(Run(exported=ExportTraceServiceRequest.FromString(peer.requests[0])))
    assert [span.kind for span in spans] == [Kind.SPAN_KIND_CLIENT, Kind.SPAN_KIND_SERVER]


@pytest.mark.parametrize("maker", [by_sdk, by_objects, by_encodings])
def test_ids_are_those_of_the_generator(maker: SpanMaker) -> None:
    """An application's own generator makes all ids, in every maker."""
    ids = Ids()
    script: list[Node] = [
        OperationNode(names.REQUEST, children=(OperationNode(names.ADAPTER_EXECUTE),)),
        OperationNode(names.REQUEST),
    ]
    spans = spans_of(maker(script, provided(id_generator=ids)))
    assert {int.from_bytes(span.trace_id, "big") for span in spans} == set(ids.traces)
    assert {int.from_bytes(span.span_id, "big") for span in spans} == set(ids.spans)
    assert (len(ids.traces), len(ids.spans)) == (2, 3)


@pytest.mark.parametrize("maker", [by_sdk, by_objects, by_encodings])
def test_ids_are_random_unless_somebody_makes_them(maker: SpanMaker) -> None:
    """Without a generator ids are random, and contexts say so."""
    script: list[Node] = [
        OperationNode(names.REQUEST, children=(OperationNode(names.ADAPTER_EXECUTE),)) for _ in range(20)
    ]
    run = maker(script, provided(id_generator=None))
    spans = spans_of(run)
    assert (len({span.trace_id for span in spans}), len({span.span_id for span in spans})) == (20, 40)
    assert {flags for _, flags, _, _ in run.seen} == {3}


def spans_of(run: Run) -> list[Any]:
    """What was exported, in order of its end."""
    return [span for resource in run.exported.resource_spans for scope in resource.scope_spans for span in scope.spans]


@pytest.fixture
def adopted() -> Iterator[InMemorySpanExporter]:
    """What the adopted maker, which is in use meanwhile, exports."""
    provider, memory = provided(), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(memory))
    maker = compat.maker_for(provider)
    with patch.object(select, "span_maker", lambda: maker):
        yield memory


def test_threads_in_one_span_lose_nothing(adopted: InMemorySpanExporter) -> None:
    """Threads that say something of one span for the first time at the same moment are all heard."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(30):
            together = threading.Barrier(4)
            with Operation(names.REQUEST):
                span = trace.get_current_span()

                def say(number: int, span: Any = span, together: Any = together) -> None:
                    together.wait()
                    span.set_attribute(f"k{number}", number)

                threads = [threading.Thread(target=say, args=(number,)) for number in range(4)]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
    finally:
        sys.setswitchinterval(before)
    assert [dict(span.attributes or {}) for span in adopted.get_finished_spans()] == [
        {f"k{number}": number for number in range(4)} for _ in range(30)
    ]


def test_an_ended_span_takes_no_more(adopted: InMemorySpanExporter) -> None:
    """What is said of a span after its end is ignored, and does no harm."""
    with Operation(names.REQUEST):
        span = trace.get_current_span()
        assert span.is_recording()
        span.end()
        assert span.is_recording(), "only the point itself ends its span"
    span.set_attribute("late", 1)
    span.set_status(StatusCode.ERROR)
    assert not span.is_recording()
    assert [(dict(span.attributes or {}), span.status.is_unset) for span in adopted.get_finished_spans()] == [
        ({}, True)
    ]


def test_instrumentations_can_look_at_our_spans(adopted: InMemorySpanExporter) -> None:
    """What the SDK's spans have beyond the API, ours have too."""
    with Operation(names.RPC_SERVER, AttributeSet({"a": 1}), span_name="Call"):
        span: Any = trace.get_current_span()
        assert (span.name, span.kind, dict(span.attributes)) == ("Call", trace.SpanKind.SERVER, {"a": 1})
        assert not hasattr(span, "no_such_thing")


def test_late_attributes_are_as_they_were_when_they_were_set(adopted: InMemorySpanExporter) -> None:
    """What becomes of a list after it was handed over is not the span's."""
    value = [1]
    with Operation(names.REQUEST) as operation:
        operation.set({"late": value})
        value.append(2)
    assert [span.attributes["late"] for span in adopted.get_finished_spans() if span.attributes] == [(1,)]
