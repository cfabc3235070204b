"""Values on the wire: JSON inside `google.protobuf.Any`, and opaque bytes beside it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping
from numbers import Rational, Real
from typing import Any, TypeVar

from google.protobuf import json_format, struct_pb2, wrappers_pb2
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import DecodeError

from snakepit_otel.bridge.wire.references import RAW_MARK, Opened, has_references
from snakepit_otel.bridge.wire.values import from_json, plain_markers, to_json
from snakepit_otel.errors import ValueRefused
from snakepit_otel.zero_copy._descriptor import replaced

_PREFIX = "type.googleapis.com/"
STRING_VALUE = _PREFIX + "google.protobuf.StringValue"
_OURS = _PREFIX + "snakepit."
_BINARY = _OURS + "binary"
CHUNK_KIND = "snakepit.chunk"  # metadata key: `text` or `bytes`, where the data alone are ambiguous
_FLOAT = _OURS + "float"
_NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_KINDS = {
    bool: "boolean",
    int: "integer",
    float: "float",
    str: "string",
    list: "list",
    tuple: "list",
    dict: "map",
    type(None): "string",
}
_KINDS_BY_FIRST_BYTE = {b"{": "map", b"[": "list", b'"': "string", b"t": "boolean", b"f": "boolean", b"n": "string"}
_WRAPPERS: Mapping[str, Any] = {
    "BoolValue": wrappers_pb2.BoolValue,
    "BytesValue": wrappers_pb2.BytesValue,
    "DoubleValue": wrappers_pb2.DoubleValue,
    "FloatValue": wrappers_pb2.FloatValue,
    "Int32Value": wrappers_pb2.Int32Value,
    "Int64Value": wrappers_pb2.Int64Value,
    "StringValue": wrappers_pb2.StringValue,
    "UInt32Value": wrappers_pb2.UInt32Value,
    "UInt64Value": wrappers_pb2.UInt64Value,
}
_STRUCTURES: Mapping[str, Any] = {
    "Value": struct_pb2.Value,
    "Struct": struct_pb2.Struct,
    "ListValue": struct_pb2.ListValue,
}
_CONTAINERS = frozenset({list, tuple, dict})
_STRING_TAG = 0x0A
_LARGE_PARTS = 1_000
_LARGE_TEXT_BYTES = 64 << 10
T = TypeVar("T")
_PICKLE_ADVICE = "unpickling what a peer sent would run its code; send JSON, raw bytes or a zero-copy reference"


def encode_parameters(
    values: Mapping[str, Any], default: Callable[[Any], Any] = plain_markers
) -> tuple[dict[str, AnyMessage], dict[str, bytes]]:
    """Return a call's parameters as Any by name, and those that are bytes on their own."""
    if not isinstance(values, Mapping):
        raise ValueRefused(f"parameters are a {type(values).__qualname__}; they must be values by name, as in a dict")
    parameters: dict[str, AnyMessage] = {}
    binary: dict[str, bytes] = {}
    for given, value in values.items():
        name = given if type(given) is str and given.isascii() else _name(given)
        if isinstance(value, (bytes, bytearray, memoryview)):
            binary[name] = bytes(value)
        else:
            raw = _not_finite(value)
            if raw is not None:
                parameters[name] = AnyMessage(type_url=_FLOAT, value=raw)
                continue
            # The type the Elixir authority uses for everything: raw JSON under StringValue's name.
            raw = to_json(value, default, f"parameters[{name!r:.100}]")
            parameters[name] = AnyMessage(type_url=STRING_VALUE, value=raw)
    return parameters, binary


def decode_parameters(
    parameters: Mapping[str, AnyMessage],
    binary: Mapping[str, bytes] | None = None,
    metadata: Mapping[str, str] | None = None,
    opened: Opened | None = None,
) -> dict[str, Any]:
    """Return a call's arguments by name, references as `opened` makes them of their JSON form.

    Raises `ValueRefused`, naming the parameter, for what is malformed, of unknown type or pickled.
    """
    values: dict[str, Any] = {}
    for name in parameters:  # not by `items()`, for which protobuf's maps take ten times as long
        message = parameters[name]
        raw = message.value
        if raw and raw[0] != _STRING_TAG and message.type_url == STRING_VALUE:
            # As our own programs send nearly everything.
            value = _loads(raw, name, "StringValue")
        else:
            value = decode_any(message, name)
        values[name] = replaced(value, opened) if opened is not None and RAW_MARK in raw else value
    if binary:
        for name, data in binary.items():
            if (metadata or {}).get(f"binary_format:{name}") == "pickle":
                raise ValueRefused(f"parameter {name!r:.100} is pickled; {_PICKLE_ADVICE}")
            values[name] = data
    return values


def is_long(parameters: Mapping[str, AnyMessage], limit: int) -> bool:
    """Return whether the values of a call's parameters have more than `limit` bytes in all."""
    size = 0
    for name in parameters:
        size += len(parameters[name].value)
    return size > limit


def decode_any(message: AnyMessage, name: str = "value") -> Any:
    """Return what an Any holds: JSON under any of the bridge's types, or a genuine wrapper message."""
    url, raw = message.type_url, message.value
    if url == STRING_VALUE:
        return _decode_string(raw, name)
    if url.startswith(_OURS):
        if url.endswith(".binary"):
            raise ValueRefused(f"parameter {name!r:.100} is pickled ({url!r:.100}); {_PICKLE_ADVICE}")
        value = _loads(raw, name, url)
        return _NOT_FINITE.get(value, value) if url == _FLOAT and isinstance(value, str) else value
    kind = url.removeprefix(_PREFIX + "google.protobuf.")
    if kind in _STRUCTURES:
        try:
            return from_json(raw)  # upstream's worker writes raw JSON under this name as well
        except ValueError:
            structure = _parse(_STRUCTURES[kind], raw, name)
        try:
            return json_format.MessageToDict(structure)
        except (json_format.Error, ValueError) as error:
            raise ValueRefused(f"parameter {name!r:.100} is malformed: {error}") from None
    if kind in _WRAPPERS:
        return _parse(_WRAPPERS[kind], raw, name).value
    raise ValueRefused(f"parameter {name!r:.100} has the type {url!r:.100}, which the bridge does not know")


async def encoded(encode: Callable[[Any, Callable[[Any], Any]], T], value: Any, default: Callable[[Any], Any]) -> T:
    """Return what `encode` makes of a value: in a thread where that is long text, or has many parts."""
    return await asyncio.to_thread(encode, value, default) if is_large(value) else encode(value, default)


def encode_result(value: Any, default: Callable[[Any], Any] = plain_markers) -> tuple[AnyMessage, bytes]:
    """Return a result as Any, and as bytes where it is bytes."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return AnyMessage(type_url=_BINARY, value=b"null"), bytes(value)
    kind = _KINDS.get(type(value))
    if kind is None or kind == "float":
        raw = _not_finite(value)
        if raw is not None:
            return AnyMessage(type_url=_FLOAT, value=raw), b""
    raw = to_json(value, default, "result")
    kind = kind or _KINDS_BY_FIRST_BYTE.get(raw[:1])
    if kind is None:
        kind = "integer" if raw.removeprefix(b"-").isdigit() else "float"
    return AnyMessage(type_url=_OURS + kind, value=raw), b""


def decode_result(message: AnyMessage, binary: bytes = b"", opened: Opened | None = None) -> Any:
    """Return a result, from either side of the bridge, references as `opened` makes them of their JSON form."""
    if message.type_url == _BINARY:
        return binary
    if message.type_url.startswith(_OURS) and message.type_url.endswith(".binary"):
        raise ValueRefused(f"the result is pickled ({message.type_url!r:.100}); {_PICKLE_ADVICE}")
    if binary:
        return binary
    return _opened(decode_any(message, "result"), message.value, opened) if message.type_url else None


def encode_chunk(value: Any, default: Callable[[Any], Any] = plain_markers) -> tuple[bytes, dict[str, str]]:
    """Return the data of a stream's chunk, bytes and text as they are, the rest as JSON; and its metadata.

    The metadata have the kind of data that are ambiguous; upstream has no such key, and guesses.
    """
    if value is None:
        return b"", {}
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value), {CHUNK_KIND: "bytes"}
    if not isinstance(value, str):
        return to_json(value, default, "chunk"), {}
    try:
        data = value.encode()
    except UnicodeEncodeError as error:
        raise ValueRefused(f"text cannot be sent: {error}") from None
    return data, {} if decode_chunk(data) == value else {CHUNK_KIND: "text"}


def decode_chunk(data: bytes, metadata: Mapping[str, str] | None = None, opened: Opened | None = None) -> Any:
    """Return the data of a chunk: of the kind in its metadata, else the first of JSON, text and bytes that fits."""
    kind = metadata.get(CHUNK_KIND) if metadata else None
    if kind == "bytes":
        return data
    if kind != "text":
        if not data:
            return None
        try:
            value = from_json(data)
        except ValueError:
            pass
        else:
            return _opened(value, data, opened)
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


def is_large(value: Any) -> bool:
    """Return whether a value is large, values that are converted first left aside."""
    kind = type(value)
    if kind not in _CONTAINERS:
        return kind in (str, bytes) and len(value) > _LARGE_TEXT_BYTES
    parts, pending = 0, [value]
    while pending:
        part = pending.pop()
        kind = type(part)
        if kind in (list, tuple, dict):
            parts += len(part)
            if parts > _LARGE_PARTS:
                return True
            pending += part.values() if kind is dict else part
        elif kind in (str, bytes) and len(part) > _LARGE_TEXT_BYTES:
            return True
    return False


def _name(given: Any) -> str:
    """Return the name of a parameter. Raises `ValueRefused` for what is no text, or no valid UTF-8."""
    if not isinstance(given, str):
        raise ValueRefused(f"a parameter has the name {given!r:.60}, a {type(given).__qualname__}; names are text")
    try:
        return given.encode().decode()
    except UnicodeEncodeError:
        raise ValueRefused(f"a parameter has the name {given!r:.40}, with surrogates, which UTF-8 cannot say") from None


def _not_finite(value: Any) -> bytes | None:
    """Return NaN or an infinity as the wire has it; None for other numbers, and for what is no number."""
    kind = type(value)
    if kind is not float and (kind in _KINDS or not isinstance(value, Real) or isinstance(value, Rational)):
        return None
    if math.isfinite(value):
        return None
    return b'"NaN"' if math.isnan(value) else b'"Infinity"' if value > 0 else b'"-Infinity"'


def _opened(value: Any, raw: bytes, opened: Opened | None) -> Any:
    return replaced(value, opened) if opened is not None and has_references(raw) else value


def _decode_string(raw: bytes, name: str) -> Any:
    # A genuine StringValue begins with its tag, a line feed, or is empty; raw JSON as peers write it
    # begins with neither. JSON would take the tag, and some lengths, for white space.
    if not raw:
        return ""
    if raw[0] == _STRING_TAG:
        return _parse(wrappers_pb2.StringValue, raw, name).value
    return _loads(raw, name, "StringValue")


def _loads(raw: bytes, name: str, url: str) -> Any:
    try:
        return from_json(raw)
    except ValueError as error:
        raise ValueRefused(f"parameter {name!r:.100} is malformed: not JSON under {url!r:.100} ({error})") from None


def _parse(kind: Any, raw: bytes, name: str) -> Any:
    try:
        return kind.FromString(raw)
    except DecodeError as error:
        raise ValueRefused(f"parameter {name!r:.100} is malformed: not a {kind.DESCRIPTOR.name} ({error})") from None
