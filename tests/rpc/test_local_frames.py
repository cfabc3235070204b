"""Bodies of the local transport's frames, against protobuf's own reading and writing of ttrpc's messages."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from google.rpc import status_pb2
from hypothesis import example, given
from hypothesis import strategies as st

from benchmarks.framings.framing import Request, Response
from snakepit_otel.rpc import RpcError, StatusCode
from snakepit_otel.rpc.transports.local import frames
from snakepit_otel.rpc.transports.local.frames import MalformedFrame

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
NAMES = frames.names_of("test.Service/Method")
TEXT = st.text(max_size=200)
METADATA = st.lists(st.tuples(st.sampled_from(["traceparent", "tracestate", "x"]) | TEXT, st.just(TRACE) | TEXT))
TIMEOUTS = st.none() | st.floats(0, 1e6) | st.sampled_from([0.0, 1e-9, 0.002, 34.35, 34.37])
PAYLOADS = st.binary(max_size=300) | st.sampled_from([0, 127, 128, 4095, 4096, 70_000]).map(bytes)


@given(PAYLOADS, TIMEOUTS, METADATA)
@example(b"payload", 30.0, [("traceparent", TRACE)])
@example(b"", None, [])
def test_requests_are_protobufs(payload: bytes, timeout: float | None, metadata: list[tuple[str, str]]) -> None:
    """A request that is written here is what ttrpc's message is, and is read back as it was; no time is cut off."""
    body = frames.request_body(NAMES, payload, timeout, metadata)
    message = Request.FromString(body)
    assert (message.service, message.method, message.payload) == ("test.Service", "Method", payload)
    assert [(entry.key, entry.value) for entry in message.metadata] == metadata
    assert frames.names_in(body) == NAMES
    _, _, read, left, pairs = frames.request_in(body, len(NAMES))
    assert (read, pairs) == (payload, metadata)
    if timeout is None:
        assert message.timeout_nano == 0
        assert left is None
    else:
        assert left == pytest.approx(message.timeout_nano * 1e-9)
        assert timeout <= left <= timeout + 0.005


@given(st.data())
def test_requests_of_others_are_read(data: st.DataObject) -> None:
    """Fields in any order, repeated and unknown ones among them, are read as protobuf reads them."""
    message = Request(service="test.Service", method=data.draw(TEXT), timeout_nano=data.draw(st.integers(0, 1 << 50)))
    message.payload = data.draw(PAYLOADS)
    for key, value in data.draw(METADATA):
        message.metadata.add(key=key, value=value)
    others = (b"\x32\x01x", b"\x38\x05", b"\x45....", b"\x49........", Request(payload=b"first").SerializeToString())
    fields = [*data.draw(st.lists(st.sampled_from(others), max_size=2)), message.SerializeToString()]
    body = b"".join(data.draw(st.permutations(fields)))
    expected = Request.FromString(body)
    service, method, payload, left, metadata = frames.request_in(body)
    assert (service, method, payload) == (expected.service, expected.method, expected.payload)
    assert metadata == [(entry.key, entry.value) for entry in expected.metadata]
    assert (left or 0) == pytest.approx(expected.timeout_nano * 1e-9)


def test_a_stream_begins_without_a_payload() -> None:
    """A request without a message has no field for it, which others would take for an empty message."""
    assert frames.request_body(NAMES, None, None, None) == NAMES
    assert not Request.FromString(frames.request_body(NAMES, None, 1.0, [("traceparent", TRACE)])).payload


@given(PAYLOADS)
def test_responses_are_protobufs(payload: bytes) -> None:
    """A response with status OK is ttrpc's message, however it is written."""
    body = frames.response_body(payload)
    assert Response.FromString(body).payload == payload
    assert len(body) - len(payload) <= frames.RESPONSE_HEAD_BYTES
    assert frames.payload_in(body) == payload
    explicit = Response(status=status_pb2.Status(code=0), payload=payload)
    assert frames.payload_in(explicit.SerializeToString()) == payload


@given(st.sampled_from([code for code in StatusCode if code is not StatusCode.OK]), TEXT)
def test_failures_are_protobufs(code: StatusCode, details: str) -> None:
    """A status crosses with its text, and those of others with details that nobody here reads."""
    status = Response.FromString(frames.failure_body(code, details)).status
    assert (status.code, status.message) == (code.number, details)
    given_status = status_pb2.Status(code=code.number, message=details)
    given_status.details.add(type_url="x", value=b"y")
    with pytest.raises(RpcError) as failed:
        frames.payload_in(Response(status=given_status).SerializeToString())
    assert (failed.value.code, failed.value.details) == (code, details)


@given(st.binary(max_size=60) | st.binary(max_size=60).map(lambda end: NAMES + b"\x2a" + end))
def test_what_is_no_message_is_refused(body: bytes) -> None:
    """Whatever bytes come, they are read, or refused by one error; where protobuf reads them, the same is read."""
    read: Any = None
    with suppress(MalformedFrame):
        read = frames.request_in(body)
    with suppress(MalformedFrame, RpcError):
        frames.payload_in(body)
    frames.names_in(body)
    try:
        expected = Request.FromString(body)
    except Exception:
        return
    if read is not None:
        assert read[2] == expected.payload
