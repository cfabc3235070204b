"""Tool calls and results as bytes: what is read of them, what is refused, and that they stay as they are."""

from __future__ import annotations

from contextlib import suppress

import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb
from snakepit_otel.bridge.wire.codec import STRING_VALUE
from snakepit_otel.bridge.wire.raw_messages import (
    LARGE_BYTES,
    MAX_FIELDS,
    MAX_NAME_BYTES,
    LargeChunk,
    LargeRequest,
    LargeResponse,
    json_bytes_of,
    read_call_back,
    read_chunk,
    read_request,
    read_response,
)
from snakepit_otel.errors import MessageTooLarge, ValueRefused

_LONG = b'"' + b"x" * 2 * LARGE_BYTES + b'"'


def _request(**fields: object) -> pb.ExecuteToolRequest:
    return pb.ExecuteToolRequest(**{"tool_name": "echo", "session_id": "alice", **fields})  # type: ignore[arg-type]


def _any(value: bytes) -> AnyMessage:
    return AnyMessage(type_url=STRING_VALUE, value=value)


def test_a_large_request_is_read_but_for_its_values() -> None:
    """Ids, tool and metadata are parsed, JSON is weighed, and the bytes that came are the bytes that go."""
    whole = _request(
        parameters={"a": _any(_LONG), "b": _any(b"1")}, binary_parameters={"c": b"cc"}, metadata={"k": "v"}
    )
    raw = whole.SerializeToString()
    read = read_request(raw)
    assert isinstance(read, LargeRequest)
    assert (read.session_id, read.tool_name, dict(read.metadata)) == ("alice", "echo", {"k": "v"})
    assert json_bytes_of(read) == len(_LONG) + 1
    read.metadata["here"] = "only"
    assert read.SerializeToString() is raw
    assert read.parsed() == whole


def test_a_small_request_is_parsed() -> None:
    """What is small is a message like any other."""
    whole = _request(parameters={"a": _any(b"[1]")})
    assert read_request(whole.SerializeToString()) == whole
    assert json_bytes_of(whole) == 3


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"tool_name": "x" * (MAX_NAME_BYTES + 1)}, "besides its values"),
        ({"session_id": "x" * (MAX_NAME_BYTES + 1)}, "besides its values"),
        ({"metadata": {"k": "v" * (MAX_NAME_BYTES + 1)}}, "besides its values"),
        ({"metadata": {str(number): "v" * 40 for number in range(3_000)}}, "too much metadata"),
        ({"parameters": {"n" * (MAX_NAME_BYTES + 1): _any(b"1")}}, "besides its values"),
        ({"binary_parameters": {"n" * (MAX_NAME_BYTES + 1): b""}}, "besides its values"),
        ({"parameters": {"n": AnyMessage(type_url="u" * (MAX_NAME_BYTES + 1))}}, "besides its values"),
        ({"parameters": {str(number): _any(b"1") for number in range(MAX_FIELDS // 5)}}, "too many fields"),
        ({"binary_parameters": {str(number): b"x" * 8 for number in range(MAX_FIELDS // 3)}}, "too many fields"),
    ],
    ids=[
        "tool",
        "session",
        "value of metadata",
        "entries of metadata",
        "name",
        "name of bytes",
        "type",
        "many",
        "bytes",
    ],
)
def test_what_is_large_besides_values_is_refused(fields: dict[str, object], why: str) -> None:
    """Names, types, metadata and the number of fields have limits, whatever a request's values are."""
    with pytest.raises(MessageTooLarge, match=why):
        read_request(_request(**fields).SerializeToString())


def test_values_may_be_as_large_as_messages() -> None:
    """Neither JSON nor bytes count for what a request has besides them."""
    large = b"x" * (3 * MAX_NAME_BYTES)
    assert isinstance(read_request(_request(parameters={"a": _any(large)}).SerializeToString()), LargeRequest)
    assert isinstance(read_request(_request(binary_parameters={"a": large}).SerializeToString()), LargeRequest)


def test_repeated_parts_of_a_parameter_are_counted() -> None:
    """A parameter that says its name a million times is refused after as many steps as a message may have."""
    entry = b"\x0a\x00" * 1_000_000
    size = len(entry)
    prefix = bytes([0x1A, size & 0x7F | 0x80, size >> 7 & 0x7F | 0x80, size >> 14 & 0x7F | 0x80, size >> 21])
    with pytest.raises(MessageTooLarge, match="too many fields"):
        read_request(prefix + entry)


@pytest.mark.parametrize("read", [read_request, read_call_back])
def test_an_empty_request_is_refused_as_such(read: object) -> None:
    """What may be left of a message for which there was no memory is not taken for a call of the tool ''."""
    with pytest.raises(ValueRefused, match="the request is empty"):
        read(b"")  # type: ignore[operator]


@settings(max_examples=50)
@given(st.binary(max_size=60), st.binary(max_size=60))
def test_no_bytes_are_more_than_refused(before: bytes, after: bytes) -> None:
    """Whatever a peer sends is a message, or refused by one of three errors, large as it may be."""
    filler = b"\x7a\xfc\xff\x07" + bytes((128 << 10) - 4)
    for read in (read_request, read_call_back, read_response, read_chunk):
        with suppress(DecodeError, MessageTooLarge, ValueRefused):
            read(before + b"\x1a\x80\x80\x08" + filler + after)


def test_a_large_result_stays_as_it_came() -> None:
    """A result that is good is passed on unread, and one that is an error is read."""
    good = pb.ExecuteToolResponse(success=True, result=_any(_LONG), execution_time_ms=3)
    raw = good.SerializeToString()
    read = read_response(raw)
    assert isinstance(read, LargeResponse)
    assert read.SerializeToString() is raw
    assert read.parsed() == good
    bad = pb.ExecuteToolResponse(success=False, error_message="x" * 2 * LARGE_BYTES)
    assert read_response(bad.SerializeToString()) == bad


def test_a_large_chunk_stays_as_it_came() -> None:
    """What a chunk says of itself is read, and its data are a slice of what came."""
    whole = pb.ToolChunk(chunk_id="c-1", data=_LONG, is_final=True, metadata={"k": "v"})
    raw = whole.SerializeToString()
    read = read_chunk(raw)
    assert isinstance(read, LargeChunk)
    assert (read.data, read.is_final, dict(read.metadata)) == (_LONG, True, {"k": "v"})
    assert read.SerializeToString() is raw
    assert read.parsed() == whole
