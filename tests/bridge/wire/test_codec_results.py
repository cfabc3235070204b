"""Values on their way out and back: results and the chunks of streams."""

from __future__ import annotations

import math
import pickle
from datetime import date
from enum import IntEnum, StrEnum
from typing import Any, NamedTuple

import numpy as np
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from hypothesis import given
from hypothesis import strategies as st

from snakepit_otel.bridge.wire.codec import (
    CHUNK_KIND,
    decode_any,
    decode_chunk,
    decode_result,
    encode_chunk,
    encode_parameters,
    encode_result,
    to_json,
)
from snakepit_otel.errors import ValueRefused

OURS = "type.googleapis.com/snakepit."

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=30,
)


class Word(StrEnum):
    YES = "yes"


class Number(IntEnum):
    ONE = 1


class Pair(NamedTuple):
    left: int
    right: int


@given(json_values)
def test_json_comes_back_as_it_was(value: Any) -> None:
    """Whatever JSON can say survives the way out and back: as result, as parameter and as chunk."""
    assert decode_result(*encode_result(value)) == value
    assert decode_any(encode_parameters({"value": value})[0]["value"]) == value
    assert decode_chunk(*encode_chunk(value)) == value


@given(st.binary())
def test_bytes_come_back_as_they_were(value: bytes) -> None:
    """Bytes survive the way out and back, whatever they look like."""
    assert decode_result(*encode_result(value)) == value
    assert decode_chunk(*encode_chunk(value)) == value


@given(json_values)
def test_types_come_back_as_they_were(value: Any) -> None:
    """A whole float stays a float, a boolean a boolean, text that looks like JSON text."""
    assert type(decode_result(*encode_result(value))) is type(value)
    assert type(decode_chunk(*encode_chunk(value))) is type(value)


@pytest.mark.parametrize(
    ("value", "kind", "raw"),
    [
        (True, "boolean", b"true"),
        ({"a": 1}, "map", b'{"a":1}'),
        ("text", "string", b'"text"'),
        (1.5, "float", b"1.5"),
        ([1], "list", b"[1]"),
        ((1, 2), "list", b"[1,2]"),
        (7, "integer", b"7"),
        (2**70, "integer", b"1180591620717411303424"),
        (None, "string", b"null"),
        (math.nan, "float", b'"NaN"'),
        (math.inf, "float", b'"Infinity"'),
        (-math.inf, "float", b'"-Infinity"'),
        (np.float64("nan"), "float", b'"NaN"'),
        (np.float32(0.5), "float", b"0.5"),
        (np.int64(-3), "integer", b"-3"),
        (np.True_, "boolean", b"true"),
        (np.arange(3), "list", b"[0,1,2]"),
        (date(2024, 2, 29), "string", b'"2024-02-29"'),
        (Word.YES, "string", b'"yes"'),
        (Number.ONE, "integer", b"1"),
        (Pair(1, 2), "map", b'{"left":1,"right":2}'),
        ({1: "a"}, "map", b'{"1":"a"}'),
        ({1}, "list", b"[1]"),
    ],
    ids=str,
)
def test_the_type_that_a_result_travels_under(value: Any, kind: str, raw: bytes) -> None:
    """Results are JSON under `snakepit.<type>`, as upstream's worker has it."""
    message, binary = encode_result(value)
    assert (message.type_url, message.value, binary) == (OURS + kind, raw, b"")


@pytest.mark.parametrize("value", [math.inf, -math.inf])
def test_infinities_come_back(value: float) -> None:
    """A result beyond JSON's numbers comes back as the number it was."""
    assert decode_result(*encode_result(value)) == value


def test_nan_comes_back() -> None:
    """Not a number comes back as such; text that says so stays text."""
    assert math.isnan(decode_result(*encode_result(math.nan)))
    assert decode_result(*encode_result("NaN")) == "NaN"


def test_nan_inside_a_container_is_null() -> None:
    """Inside containers JSON has no word for it, and null stands in."""
    assert decode_result(*encode_result([math.nan, {"x": math.inf}])) == [None, {"x": None}]


@pytest.mark.parametrize("value", [b"", b"\x00\xff", b"{}", bytearray(b"a"), memoryview(b"m")])
def test_bytes_travel_beside_the_result(value: Any) -> None:
    """A result that is bytes goes into `binary_result` and comes back as bytes."""
    message, binary = encode_result(value)
    assert message.type_url == OURS + "binary"
    assert binary == bytes(value)
    assert decode_result(message, binary) == bytes(value)


def test_a_pickled_result_is_refused() -> None:
    """A result that upstream pickled is refused and not opened."""
    message = AnyMessage(type_url=OURS + "tensor.binary", value=b"{}")
    with pytest.raises(ValueRefused, match=r"the result is pickled .*tensor\.binary"):
        decode_result(message, pickle.dumps([1]))


def test_no_result_is_none() -> None:
    """A response without a result means None."""
    assert decode_result(AnyMessage()) is None


def test_what_cannot_be_sent_is_refused() -> None:
    """A circular value, a key that is no text and text that UTF-8 cannot say are refused where they are sent."""
    circle: list[Any] = []
    circle.append(circle)
    for value, words in (
        (circle, "a list cannot be sent: .*ircular"),
        ({(1, 2): 3}, "a dict cannot be sent: keys must be"),
        ("\ud800", "a str cannot be sent: .*surrogates"),
        (["\ud800"], "a list cannot be sent: .*surrogates"),
    ):
        with pytest.raises(ValueRefused, match=words):
            to_json(value)
    with pytest.raises(ValueRefused, match="surrogates"):
        encode_chunk("\ud800")


@pytest.mark.parametrize(
    ("value", "data", "kind"),
    [
        ({"n": 1}, b'{"n":1}', None),
        ("hello", b"hello", None),
        (" ", b" ", None),
        ("1", b"1", "text"),
        ("null", b"null", "text"),
        ('"quoted"', b'"quoted"', "text"),
        ("", b"", "text"),
        (b"hello", b"hello", "bytes"),
        (b"\xff", b"\xff", "bytes"),
        (None, b"", None),
    ],
)
def test_chunks_pass_text_and_bytes_through(value: Any, data: bytes, kind: str | None) -> None:
    """Text and bytes are sent as they are, and marked where they could be taken for something else."""
    sent, metadata = encode_chunk(value)
    assert sent == data
    assert metadata.get(CHUNK_KIND) == kind
    assert decode_chunk(sent, metadata) == value


@pytest.mark.parametrize(
    ("data", "value"), [(b"", None), (b"1", 1), (b'{"a":1}', {"a": 1}), (b"hello", "hello"), (b"\xff", b"\xff")]
)
def test_chunks_of_upstream_are_guessed(data: bytes, value: Any) -> None:
    """A chunk without a mark is JSON if it can be, else text, else bytes."""
    assert decode_chunk(data) == value
