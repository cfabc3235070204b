"""Our encoding of spans, piece by piece, as protobuf reads it."""

from __future__ import annotations

import logging
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common._internal import _encode_attributes
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans, Span, Status
from opentelemetry.trace import SpanContext

from snakepit_otel.telemetry._attributes import AttributeSet, copied
from snakepit_otel.telemetry.spans.fast import encoding, otlp

# On either side of where a length takes one more byte, and of what is kept ready.
SIZES = st.sampled_from(
    [0, 1, 100, 125, 127, 128, 900, 1_000, 1_023, 1_024, 16_300, 16_383, 16_384, 70_000]
) | st.integers(0, 2_000)
IDS = st.sampled_from([1, 2**63, 2**64 - 1]) | st.integers(1, 2**64 - 1)
TIMES = st.integers(0, 2**64 - 1)
SIMPLE = st.text(max_size=5) | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats()


@given(size=st.integers(0, 2**64 - 1) | SIZES)
def test_lengths_are_varints(size: int) -> None:
    """Any length is read as it was written."""
    encoded = otlp.length(size)
    assert sum((byte & 0x7F) << 7 * place for place, byte in enumerate(encoded)) == size
    assert [byte > 0x7F for byte in encoded] == [True] * (len(encoded) - 1) + [False]


@given(values=st.dictionaries(st.text(min_size=1, max_size=5), SIMPLE, max_size=otlp.MAX_ATTRIBUTES))
def test_attributes_are_encoded_as_by_opentelemetry(values: dict[str, Any]) -> None:
    """Text, truth values and numbers are the very bytes that OpenTelemetry's encoder makes."""
    encoded = otlp.attributes(values)
    assert encoded is not None
    assert encoded == Span(attributes=_encode_attributes(values)).SerializeToString()


@pytest.mark.parametrize("values", [{"a": "\ud800"}, {"\udfff": 1}])
def test_what_is_no_text_is_left_out(values: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    """Half a surrogate pair costs the attribute, as it does in OpenTelemetry's encoder, and no other."""
    caplog.set_level(logging.CRITICAL + 1, "opentelemetry")
    encoded = otlp.attributes({**values, "b": 1})
    assert encoded == Span(attributes=_encode_attributes({**values, "b": 1})).SerializeToString()


@pytest.mark.parametrize(
    "values",
    [
        {"a": None}, {"a": [1]}, {"a": b"x"}, {"a": {"b": 1}}, {"a": 2**63}, {"a": -(2**63) - 1}, {"a": object()},
        {"": 1}, {5: 1}, {str(number): number for number in range(otlp.MAX_ATTRIBUTES + 1)},
    ],
)  # fmt: skip
def test_other_attributes_are_left_to_opentelemetry(values: dict[Any, Any]) -> None:
    """Of what we do not encode ourselves, nothing is guessed."""
    assert otlp.attributes(values) is None
    assert encoding.of_details(AttributeSet(values)) is None


@given(
    ids=st.tuples(IDS, st.just(0) | IDS),
    times=st.tuples(TIMES, TIMES),
    size=SIZES,
    state=st.sampled_from(["", "a=b,c=d"]),
)
def test_a_span_of_any_size_is_read_back(ids: tuple[int, int], times: tuple[int, int], size: int, state: str) -> None:
    """Ids, times and the rest arrive, whatever their size."""
    rest = otlp.attributes({"text": "x" * size})
    assert rest is not None
    encoded = otlp.span(otlp.trace(2**127 + 1, state), *ids, *times, rest)
    (found,) = ScopeSpans.FromString(encoded * 1).spans
    assert int.from_bytes(found.trace_id, "big") == 2**127 + 1
    assert (int.from_bytes(found.span_id, "big"), int.from_bytes(found.parent_span_id, "big")) == ids
    assert bool(found.parent_span_id) == bool(ids[1])
    assert (found.start_time_unix_nano, found.end_time_unix_nano, found.trace_state) == (*times, state)
    assert len(found.attributes[0].value.string_value) == size
    assert found.SerializeToString() == ScopeSpans.FromString(found_again(found)).spans[0].SerializeToString()


def found_again(span: Span) -> bytes:
    """A span among a scope's, by protobuf itself."""
    return ScopeSpans(spans=[span]).SerializeToString()


@pytest.mark.parametrize("remote", [False, True])
@pytest.mark.parametrize(("kind", "number"), [("internal", 1), ("server", 2), ("client", 3)])
def test_names_kinds_and_flags(kind: str, number: int, remote: bool) -> None:
    """A span says what it is, and whether its parent is in another process."""
    found = Span.FromString(otlp.identity("é\ud800🎉", kind, remote_parent=remote))
    assert (found.name, found.kind, found.flags) == ("é?🎉", number, 0x300 if remote else 0x100)


def test_links_and_statuses() -> None:
    """Links carry ids and whether they are remote; a failure its message, if it has one."""
    context = SpanContext(2**100, 2**60, True)
    (link,) = Span.FromString(otlp.link(context.trace_id, context.span_id, remote=True)).links
    assert (int.from_bytes(link.trace_id, "big"), int.from_bytes(link.span_id, "big"), link.flags) == (
        2**100,
        2**60,
        0x300,
    )
    assert Span.FromString(otlp.error_status("no\ud800")).status == Status(code=2, message="no?")
    assert Span.FromString(otlp.error_status("")).status == Status(code=2)
    assert Span.FromString(otlp.NO_STATUS).HasField("status")


def test_requests_follow_each_other() -> None:
    """Two requests, one after the other, are one with both; schema urls are where they belong."""
    resource = Resource(attributes=_encode_attributes({"a": 1}))
    scope = InstrumentationScope(name="s", version="1")
    spans = otlp.scope_spans(scope.SerializeToString(), "of scope", otlp.span(otlp.trace(1), 1, 0, 1, 2, b""))
    one = otlp.request(resource.SerializeToString(), "of resource", spans)
    both = ExportTraceServiceRequest.FromString(one + otlp.request(b"", "", b""))
    first, second = both.resource_spans
    assert (first.resource, first.schema_url, first.scope_spans[0].schema_url) == (resource, "of resource", "of scope")
    assert (first.scope_spans[0].scope, len(first.scope_spans[0].spans)) == (scope, 1)
    assert second.schema_url == ""


def test_copies_do_not_follow_their_originals() -> None:
    """A set of attributes stays as it was made, however deep the change."""
    inner = [1]
    values = {"list": inner, "map": {"deep": inner}, "text": "abc", "bytes": b"abc", "nan": math.inf}
    kept, copy = AttributeSet(values), copied(values)
    inner.append(2)
    values["more"] = 1
    expected = {"list": (1,), "map": {"deep": (1,)}, "text": "abc", "bytes": b"abc", "nan": math.inf}
    assert kept.values == copy == expected
