"""Bodies of frames, against protobuf's own encoding of ttrpc's messages."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from hypothesis import given
from hypothesis import strategies as st

from snakepit_otel.rpc.status import RpcError, StatusCode
from snakepit_otel.rpc.transports.local import frames
from snakepit_otel.rpc.transports.local.frames import MalformedFrame

_FIELD = descriptor_pb2.FieldDescriptorProto
_TYPES = {"string": _FIELD.TYPE_STRING, "bytes": _FIELD.TYPE_BYTES, "int64": _FIELD.TYPE_INT64}
_MESSAGES = {
    "Request": [
        ("service", 1, "string"),
        ("method", 2, "string"),
        ("payload", 3, "bytes"),
        ("timeout_nano", 4, "int64"),
        ("metadata", 5, "KeyValue"),
    ],
    "KeyValue": [("key", 1, "string"), ("value", 2, "string")],
    "Response": [("status", 1, "Status"), ("payload", 2, "bytes")],
    "Status": [("code", 1, "int64"), ("message", 2, "string")],
}


def _messages() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(name="tests/ttrpc.proto", package="ttrpc_tests", syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, number, kind in fields:
            added = message.field.add(name=field, number=number, label=_FIELD.LABEL_OPTIONAL)
            if kind in _TYPES:
                added.type = _TYPES[kind]
            else:
                added.type, added.type_name = _FIELD.TYPE_MESSAGE, f".ttrpc_tests.{kind}"
            if field == "metadata":
                added.label = _FIELD.LABEL_REPEATED
    pool = DescriptorPool()
    pool.Add(file)
    return {name: GetMessageClass(pool.FindMessageTypeByName(f"ttrpc_tests.{name}")) for name in _MESSAGES}


ENVELOPE = _messages()
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
pairs = st.lists(st.tuples(texts, texts), max_size=6)
traces = st.builds(lambda head: [("traceparent", head)], st.text("0123456789abcdef-", min_size=55, max_size=55))
timeouts = st.none() | st.floats(0, 1e6)


@given(texts, texts.map(lambda name: name.replace("/", "")), st.binary(max_size=5000), timeouts, pairs | traces)
def test_requests_are_protobufs(service: str, name: str, payload: bytes, timeout: float | None, metadata: Any) -> None:
    """What is written here protobuf reads, and the time left is rounded up by some milliseconds at most."""
    names = frames.names_of(f"{service}/{name}")
    body = frames.request_body(names, payload, timeout, metadata)
    message = ENVELOPE["Request"].FromString(body)
    assert (message.service, message.method, message.payload) == (service, name, payload)
    assert [(pair.key, pair.value) for pair in message.metadata] == metadata
    if timeout is None:
        assert message.timeout_nano == 0
    else:
        assert timeout - 1e-6 <= message.timeout_nano * 1e-9 <= timeout + 0.005
    read = frames.request_in(body)
    assert (read[0], read[1], read[2], read[4]) == (service, name, payload, metadata)
    assert read[3] is None if timeout is None else read[3] == pytest.approx(message.timeout_nano * 1e-9)
    found = frames.names_in(body)
    assert found in ("", b"", names)
    if found:
        assert frames.request_in(body, len(found))[2:] == read[2:]


@given(texts, texts, st.binary(max_size=5000), st.integers(-(1 << 63), (1 << 63) - 1), pairs)
def test_requests_of_protobuf_are_read(service: str, name: str, payload: bytes, nanos: int, metadata: Any) -> None:
    """What protobuf writes is read here; a time in the past has passed."""
    message = ENVELOPE["Request"](service=service, method=name, payload=payload, timeout_nano=nanos)
    for key, value in metadata:
        message.metadata.add(key=key, value=value)
    read = frames.request_in(message.SerializeToString())
    assert (read[0], read[1], read[2], read[4]) == (service, name, payload, metadata)
    assert read[3] == (None if not nanos else max(nanos * 1e-9, 0.0))


@given(st.binary(max_size=70_000) | st.integers(100, 20_000).map(bytes))
def test_answers_are_protobufs(payload: bytes) -> None:
    """Answers go there and back."""
    body = frames.response_body(payload)
    assert ENVELOPE["Response"].FromString(body).payload == payload
    assert frames.payload_in(body) == payload
    assert frames.payload_in(ENVELOPE["Response"](payload=payload).SerializeToString()) == payload


@given(st.sampled_from([code for code in StatusCode if code is not StatusCode.OK]), texts)
def test_failures_are_protobufs(code: StatusCode, details: str) -> None:
    """So do failures, whatever is in their details."""
    body = frames.failure_body(code, details)
    message = ENVELOPE["Response"].FromString(body)
    assert (message.status.code, message.status.message) == (code.number, details)
    for written in (body, message.SerializeToString()):
        with pytest.raises(RpcError) as raised:
            frames.payload_in(written)
        assert (raised.value.code, raised.value.details) == (code, details)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_malformed(body: bytes) -> None:
    """Bytes that are no message raise the one error."""
    for read in (frames.request_in, frames.payload_in, frames.names_in, frames.window_in_hello, frames.count_in):
        with suppress(MalformedFrame, RpcError):
            read(body)  # type: ignore[operator]


@pytest.mark.parametrize(("metadata", "is_long"), [(0, False), (90, False), (120, True), (100_000, True)])
def test_long_metadata_is_found(metadata: int, is_long: bool) -> None:
    """What counts is everything but the payload, however large that is."""
    body = frames.request_body(b"", b"x" * 500_000, None, [("", "v" * max(metadata - 8, 0))])
    assert frames.has_long_metadata(body, 100) == is_long
