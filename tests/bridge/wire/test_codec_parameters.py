"""Values on their way in: every form that the wire page has for a parameter."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from google.protobuf import struct_pb2, wrappers_pb2
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from snakepit_otel.bridge.wire.codec import decode_any, decode_parameters, encode_parameters
from snakepit_otel.errors import ValueRefused

PREFIX = "type.googleapis.com/"


def under(name: str, raw: bytes) -> AnyMessage:
    """Return bytes under a type's name."""
    return AnyMessage(type_url=PREFIX + name, value=raw)


def genuine(message: Message) -> AnyMessage:
    """Return a message as protobuf packs it."""
    packed = AnyMessage()
    packed.Pack(message)
    return packed


def text(value: str) -> AnyMessage:
    """Return text as a genuine StringValue."""
    return genuine(wrappers_pb2.StringValue(value=value))


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b'"hello"', "hello"),
        (b"1", 1),
        (b"-1.5", -1.5),
        (b"true", True),
        (b"null", None),
        (b'{"a":[1,null]}', {"a": [1, None]}),
        (b"[]", []),
        (b'" "', " "),
        (b"18446744073709551616", 2**64),
        (b'{"big":[-1180591620717411303424]}', {"big": [-(2**70)]}),
        (b'"12345678901234567890"', "12345678901234567890"),
    ],
)
def test_raw_json_under_string_value(raw: bytes, expected: Any) -> None:
    """The Elixir authority's parameters: JSON bytes under StringValue's name, integers of any size."""
    decoded = decode_any(under("google.protobuf.StringValue", raw))
    assert decoded == expected
    assert type(decoded) is type(expected)


@pytest.mark.parametrize(
    "value",
    ["", "hello", "null", "1", "{}", '"quoted"', "\n", "ünïcödé", "x" * 300, "123456789", "\t" * 10, "[1," * 3]
    # Lengths that JSON takes for white space or a digit, before text that is JSON.
    + ["1" * length for length in (9, 10, 13, 32, *range(48, 58))]
    + [" " * (length - 4) + "null" for length in (9, 10, 13, 32)]
    # Lengths that JSON takes for the beginning of an array, an object, text, true, false or null.
    + ["1" * length for length in (0x22, 0x5B, 0x66, 0x6E, 0x74, 0x7B)]
    + ['"' + "a" * 32 + '"', "rue" + "1" * 113],
)
def test_genuine_string_values(value: str) -> None:
    """A serialised StringValue is its text, whatever its bytes may look like."""
    assert decode_any(text(value)) == value


@given(st.text())
def test_every_genuine_string_value(value: str) -> None:
    """No text is ever mistaken for JSON."""
    assert decode_any(text(value)) == value


@pytest.mark.parametrize(
    ("raw", "expected"), [(b"3", 3), (b"3.5", 3.5), (b"-0.0", -0.0), (b"true", True), (b'{"a":1}', {"a": 1})]
)
def test_raw_json_under_value(raw: bytes, expected: Any) -> None:
    """Upstream's worker writes JSON bytes under `google.protobuf.Value`."""
    decoded = decode_any(under("google.protobuf.Value", raw))
    assert decoded == expected
    assert type(decoded) is type(expected)


json_values = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(json_values)
def test_every_genuine_value(value: Any) -> None:
    """A serialised `Value`, `Struct` or `ListValue` is what it says, whatever its bytes may look like."""
    packed = struct_pb2.Value()
    if value is None:
        packed.null_value = struct_pb2.NULL_VALUE
    elif isinstance(value, bool):
        packed.bool_value = value
    elif isinstance(value, float):
        packed.number_value = value
    elif isinstance(value, str):
        packed.string_value = value
    elif isinstance(value, list):
        packed.list_value.SetInParent()
        packed.list_value.extend(value)
        assert decode_any(genuine(packed.list_value)) == value
    else:
        packed.struct_value.SetInParent()
        packed.struct_value.update(value)
        assert decode_any(genuine(packed.struct_value)) == value
    assert decode_any(genuine(packed)) == value


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (wrappers_pb2.BoolValue(value=True), True),
        (wrappers_pb2.BoolValue(), False),
        (wrappers_pb2.Int32Value(value=-3), -3),
        (wrappers_pb2.Int64Value(value=2**62), 2**62),
        (wrappers_pb2.UInt32Value(value=3), 3),
        (wrappers_pb2.UInt64Value(value=2**63), 2**63),
        (wrappers_pb2.DoubleValue(value=1.1), 1.1),
        (wrappers_pb2.FloatValue(value=0.5), 0.5),
        (wrappers_pb2.BytesValue(value=b"\x00\xff"), b"\x00\xff"),
        (wrappers_pb2.StringValue(), ""),
        (struct_pb2.Value(), None),
    ],
)
def test_wrappers(message: Message, expected: Any) -> None:
    """Protobuf's own wrappers are taken for what they wrap."""
    assert decode_any(genuine(message)) == expected


def test_binary_parameters_are_bytes_beside_the_others() -> None:
    """Bytes travel on their own and are merged in by name, untouched even if they are a pickle's."""
    pickled = pickle.dumps({"a": 1})
    parameters, binary = encode_parameters(
        {"n": 1, "data": pickled, "view": memoryview(b"v"), "array": bytearray(b"a")}
    )
    assert set(parameters) == {"n"}
    assert decode_parameters(parameters, binary) == {"n": 1, "data": pickled, "view": b"v", "array": b"a"}


def test_parameters_leave_as_raw_json_under_string_value() -> None:
    """Ours go out as the Elixir authority's do, None as null."""
    parameters, _ = encode_parameters({"text": "hey", "none": None, "list": (1, 2)})
    assert {message.type_url for message in parameters.values()} == {PREFIX + "google.protobuf.StringValue"}
    assert {name: message.value for name, message in parameters.items()} == {
        "text": b'"hey"',
        "none": b"null",
        "list": b"[1,2]",
    }


class Explosive:
    def __reduce__(self) -> Any:
        return pytest.fail, ("it was unpickled",)


def test_pickles_are_refused_without_being_opened() -> None:
    """Both of upstream's ways to send a pickle are refused by parameter name; nothing is unpickled."""
    bomb = pickle.dumps(Explosive())
    with pytest.raises(ValueRefused, match=r"'tensor' is pickled; .*would run its code; send JSON, raw bytes"):
        decode_parameters({}, {"tensor": bomb}, {"binary_format:tensor": "pickle"})
    for kind in ("tensor", "embedding", "string"):
        with pytest.raises(ValueRefused, match=f"'tensor' is pickled .*snakepit.{kind}.binary"):
            decode_parameters({"tensor": under(f"snakepit.{kind}.binary", bomb)})
    other = decode_parameters({}, {"tensor": bomb}, {"binary_format:tensor": "raw", "binary_format:x": "pickle"})
    assert other == {"tensor": bomb}


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (under("google.protobuf.StringValue", b"hello"), "'p' is malformed: not JSON under 'StringValue'"),
        (under("google.protobuf.StringValue", b"\x0a\xff"), "'p' is malformed: not a StringValue"),
        (under("google.protobuf.StringValue", b"\x0a\x02\xff\xfe"), "'p' is malformed: not a StringValue"),
        (under("google.protobuf.Value", b"NaN"), "'p' is malformed: not a Value"),
        (under("google.protobuf.Int64Value", b"\xff"), "'p' is malformed: not a Int64Value"),
        (under("snakepit.map", b"{"), "'p' is malformed: not JSON"),
        (under("snakepit.string", b'"\\ud800"'), "'p' is malformed: not JSON"),
        (under("snakepit.integer", b"9" * 5_000), "'p' is malformed: not JSON"),
        (under("google.protobuf.Duration", b""), "'p' has the type '.*Duration', which the bridge does not know"),
        (under("evil" * 100, b""), "'p' has the type '.{,100}, which the bridge does not know"),
        (AnyMessage(), "'p' has the type '', which the bridge does not know"),
        (genuine(struct_pb2.Value(number_value=float("inf"))), "'p' is malformed: .*Infinity"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_read_is_refused_by_name(message: AnyMessage, words: str) -> None:
    """Malformed bytes and unknown types are refused, and the message names the parameter."""
    with pytest.raises(ValueRefused, match=words):
        decode_parameters({"p": message})


def test_deep_nesting_is_refused() -> None:
    """JSON nested beyond reason is malformed, not a crash."""
    with pytest.raises(ValueRefused, match="malformed"):
        decode_any(under("snakepit.list", b"[" * 100_000 + b"]" * 100_000))
