"""Our short ways of reading and writing trace context give what OpenTelemetry's propagators give."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import baggage, context, propagate, trace
from opentelemetry.context import Context
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.propagators.textmap import TextMapPropagator
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from snakepit_otel.telemetry import Operation, _guard, _propagation, incoming, names, outgoing
from snakepit_otel.testing import Capture

HEX = "0123456789abcdef"
ID = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"
GOOD = f"00-{ID}-{SPAN}-01"

hexes = st.text(HEX, min_size=1, max_size=34)
near = st.builds(
    "{}{}-{}-{}-{}{}".format,
    st.sampled_from(["", " ", "\t", "x"]),
    st.sampled_from(["00", "01", "cc", "ff", "0", "FF", "0x"]),
    st.one_of(st.just(ID), st.just("0" * 32), st.just(ID.upper()), hexes),
    st.one_of(st.just(SPAN), st.just("0" * 16), st.just(SPAN.upper()), hexes),
    st.one_of(
        st.sampled_from(["00", "01", "02", "03", "ff", "FF", "1", "_1", "+1"]), st.text(HEX, min_size=2, max_size=2)
    ),
    st.sampled_from(["", " ", "\n", "-", "-00", "-what-comes", "\t\n"]),
)
parents = st.one_of(st.text(max_size=60), near, st.just(GOOD))
headers = st.lists(
    st.one_of(
        st.tuples(st.just("traceparent"), st.one_of(parents, st.binary(max_size=60), st.just(GOOD.encode()))),
        st.tuples(st.just("tracestate"), st.one_of(st.just("a=1,b=2"), st.text(max_size=20), st.just(b"a=1"))),
        st.tuples(st.just("baggage"), st.one_of(st.just("who=me"), st.text(max_size=20))),
        st.tuples(st.sampled_from(["Traceparent", "user-agent", "x"]), parents),
    ),
    max_size=5,
)


def stock(metadata: list[tuple[str, str | bytes]]) -> Context:
    """Return what OpenTelemetry's own means read."""
    return propagate.extract({key: value for key, value in metadata if isinstance(value, str)})


def identity(read: Context) -> tuple[SpanContext, bool, dict[str, object], set[str]]:
    """Return all that there is to know of a context."""
    found = trace.get_current_span(read)
    return found.get_span_context(), found.is_recording(), dict(baggage.get_all(read)), set(read)


@given(headers)
def test_reading(metadata: list[tuple[str, str | bytes]]) -> None:
    """Whatever a caller sends is read as OpenTelemetry reads it."""
    assert identity(incoming(metadata)) == identity(stock(metadata))
    assert identity(incoming(tuple(metadata))) == identity(stock(metadata))


@given(near)
def test_reading_nearly_right_parents(parent: str) -> None:
    """Nearly right parents are as right or as wrong as OpenTelemetry thinks."""
    assert identity(incoming([("traceparent", parent)])) == identity(stock([("traceparent", parent)]))


@pytest.mark.parametrize(
    "parent",
    [
        GOOD,
        GOOD.upper(),
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{ID}-{'0' * 16}-01",
        f"00-{ID}-{SPAN}-ff",
        f"ff-{ID}-{SPAN}-01",
        f"01-{ID}-{SPAN}-01",
        f"01-{ID}-{SPAN}-01-more",
        f"00-{ID}-{SPAN}-01-more",
        f" {GOOD} ",
        f"{GOOD}\n",
        "",
    ],
)
def test_reading_known_cases(parent: str) -> None:
    """The cases that the W3C's own tests have."""
    assert identity(incoming([("traceparent", parent)])) == identity(stock([("traceparent", parent)]))


def test_the_short_way_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """What nearly every caller sends is read, and written, without the propagators."""
    monkeypatch.setattr(propagate, "extract", None)
    monkeypatch.setattr(propagate, "inject", None)
    before = _guard.fault_count
    assert identity(incoming((("user-agent", "grpc"), ("traceparent", GOOD))))[0].trace_id == int(ID, 16)
    assert incoming(()) == {}
    token = context.attach(trace.set_span_in_context(NonRecordingSpan(SpanContext(1, 2, False, TraceFlags(1)))))
    try:
        assert outgoing() == (("traceparent", f"00-{1:032x}-{2:016x}-01"),)
    finally:
        context.detach(token)
    assert _guard.fault_count == before


states = st.sampled_from([None, TraceState([("a", "1")])])
spans = st.builds(
    lambda ids, flags, state, remote: NonRecordingSpan(SpanContext(*ids, remote, TraceFlags(flags), state)),
    st.tuples(st.integers(0, 2**128), st.integers(0, 2**64)),
    st.integers(0, 255),
    states,
    st.booleans(),
)


@given(spans, st.booleans())
def test_writing(span: NonRecordingSpan, with_baggage: bool) -> None:
    """What is written for a span is what OpenTelemetry writes, after what was there."""
    around = trace.set_span_in_context(span, Context())
    if with_baggage:
        around = baggage.set_baggage("who", "me", around)
    token = context.attach(around)
    try:
        carrier: dict[str, str] = {}
        propagate.inject(carrier)
        assert outgoing([("x", "y")]) == (("x", "y"), *carrier.items())
    finally:
        context.detach(token)


def test_writing_for_our_own_spans(capture: Capture) -> None:
    """So it is for spans of ours, and for no span at all."""
    assert outgoing() == ()
    with Operation(names.SESSION_CREATE):
        carrier: dict[str, str] = {}
        propagate.inject(carrier)
        assert carrier
        assert outgoing() == tuple(carrier.items())


class Broken(TextMapPropagator):
    """A propagator that fails."""

    fields = frozenset()

    def extract(self, *_: object, **__: object) -> Context:
        raise RuntimeError("broken")

    def inject(self, *_: object, **__: object) -> None:
        raise RuntimeError("broken")


class Named(Broken):
    """A propagator whose header gRPC would refuse as it is."""

    def inject(self, carrier: dict[str, str], *_: object, **__: object) -> None:  # type: ignore[override]
        carrier["X-Trace"] = "1"


@pytest.fixture
def set_propagator() -> Iterator[object]:
    """Set the process' propagator, for one test."""
    before = propagate.get_global_textmap()
    yield propagate.set_global_textmap
    propagate.set_global_textmap(before)


def test_other_propagators(set_propagator: object) -> None:
    """A propagator that is not the usual one is used, in lower case, and kept from doing harm."""
    assert _propagation._has_default_propagators()
    propagate.set_global_textmap(CompositePropagator([TraceContextTextMapPropagator()]))
    assert not _propagation._has_default_propagators()
    assert identity(incoming([("traceparent", GOOD), ("baggage", "who=me")]))[2] == {}
    propagate.set_global_textmap(Named())
    assert outgoing() == (("x-trace", "1"),)
    propagate.set_global_textmap(Broken())
    before = _guard.fault_count
    assert incoming([("traceparent", GOOD)]) == {}
    assert outgoing([("x", "y")]) == (("x", "y"),)
    assert _guard.fault_count == before + 2
