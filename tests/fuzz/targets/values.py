"""Values on the wire: JSON in an Any, bytes, chunks of streams, session state; and what Python sends itself."""

from __future__ import annotations

import json
import math
from collections import deque, namedtuple
from dataclasses import make_dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from pathlib import PurePosixPath
from typing import Any
from uuid import UUID

import numpy as np
from google.protobuf.any_pb2 import Any as AnyMessage

from snakepit_otel.bridge.wire import codec
from snakepit_otel.bridge.wire.unserializable import Unserializable
from snakepit_otel.bridge.wire.values import from_json, plain_markers, to_json
from snakepit_otel.errors import SnakepitError, StateRefused, ValueRefused
from snakepit_otel.sessions import _state as state
from tests.fuzz.choices import Choices
from tests.fuzz.kit import insist, refusing, target

_GOOGLE, _OURS = "type.googleapis.com/google.protobuf.", "type.googleapis.com/snakepit."
_URLS = [
    *(_GOOGLE + kind for kind in ("StringValue", "Value", "Struct", "ListValue", "BoolValue", "BytesValue")),
    *(
        _GOOGLE + kind
        for kind in ("DoubleValue", "FloatValue", "Int32Value", "Int64Value", "UInt32Value", "UInt64Value")
    ),
    *(_OURS + kind for kind in ("float", "string", "map", "list", "integer", "binary", "pickle.binary", "")),
]
_Pair = namedtuple("_Pair", "left right")
_Record = make_dataclass("_Record", ["part", "_hidden"])
_Colour = Enum("_Colour", {"RED": 1, "BLUE": (1, "a")})


class _Stubborn:
    def __repr__(self) -> str:
        raise RuntimeError("no")


def same(one: Any, other: Any) -> bool:
    """Say whether two values of JSON are the same, numbers that are none included."""
    try:
        return one == other or repr(one) == repr(other)
    except RecursionError:
        return True


@target(largest=8_192)
def values(data: bytes) -> None:
    """Parameters and results: what an Any of any type holds is a value or `ValueRefused`, and travels on as it is."""
    choices = Choices(data)
    url = choices.pick(_URLS) if choices.below(8) else choices.sendable()
    name = choices.sendable()
    format_of_binary = choices.pick(["", "pickle", "raw"])
    message = AnyMessage(type_url=url, value=choices.rest())
    with refusing(ValueRefused) as refused:
        value = codec.decode_any(message, name)
    if not refused:
        with refusing(ValueRefused) as refused:
            result, binary = codec.encode_result(value)
        if not refused:
            insist(same(codec.decode_result(result, binary), _as_json_says(value)), "a result changed:", value)
    with refusing(ValueRefused) as refused:
        given = codec.decode_parameters(
            {name: message}, {"raw": message.value}, {"binary_format:raw": format_of_binary}
        )
        again, raw = codec.encode_parameters(given)
        insist(same(codec.decode_parameters(again, raw), {key: _as_json_says(part) for key, part in given.items()}))
    with refusing(ValueRefused):
        codec.decode_result(message, data[:1])
    with refusing(SnakepitError):
        codec.decode_parameters({name: message}, opened=dict)


def _as_json_says(value: Any) -> Any:
    """Return a value with what JSON has no word for as null, where it is not the whole value."""
    return json.loads(to_json(value)) if isinstance(value, (dict, list)) else value


@target()
def chunks(data: bytes) -> None:
    """Chunks of streams: any bytes under any metadata are a value, which as a chunk again stays what it is."""
    choices = Choices(data)
    kind = choices.pick(["", "text", "bytes", "json"])
    raw = choices.rest()
    value = codec.decode_chunk(raw, {codec.CHUNK_KIND: kind} if kind else {})
    with refusing(ValueRefused) as refused:
        encoded, metadata = codec.encode_chunk(value)
    if not refused:
        insist(same(codec.decode_chunk(encoded, metadata), _as_json_says(value)), "a chunk changed:", value)
    with refusing(SnakepitError):
        codec.decode_chunk(raw, opened=dict)


@target(steps=5_000, largest=32_768)
def state_values(data: bytes) -> None:
    """Session state: what is taken as JSON is JSON that says the same, and the rest is `StateRefused`."""
    choices = Choices(data)
    key = choices.text()
    if choices.chance():
        value = _value(choices)
        with refusing(StateRefused):
            raw = state.encode(key, value)
            insist(same(state.decode(raw), _listed(value)), "state changed:", raw)
        return
    raw = choices.rest()
    with refusing(StateRefused):
        insist(state.checked_json(key, raw) == raw)
        state.decode(raw)


def _listed(value: Any) -> Any:
    """Return a value with its tuples as lists."""
    if isinstance(value, dict):
        return {key: _listed(part) for key, part in value.items()}
    return [_listed(part) for part in value] if isinstance(value, (list, tuple)) else value


# A list that contains itself is gone through as far as there is room, of a few bytes.
@target(steps=5_000, base=500_000)
def python_values(data: bytes) -> None:
    """What tools return: JSON in UTF-8 that can be read again, or `ValueRefused`; never an error of a conversion."""
    choices = Choices(data)
    default = choices.pick([plain_markers, Unserializable("repr_redacted_truncated", 40, 3), Unserializable("none")])
    value = _value(choices)
    raw = None
    with refusing(SnakepitError):
        raw = to_json(value, default, "result")
    if raw is None:
        return
    raw.decode()
    made = from_json(raw)
    insist(to_json(made) == to_json(from_json(to_json(made))), "JSON changed:", raw)
    with refusing(SnakepitError):
        codec.decode_result(*codec.encode_result(value, default))


def _value(choices: Choices, deep: int = 0) -> Any:
    """Return some value of Python."""
    if deep > 5 or choices.chance():
        return choices.json(deep)
    kind = choices.below(24)

    def parts() -> list[Any]:
        return [_value(choices, deep + 1) for _ in range(choices.below(4))]

    def hashable() -> Any:
        return choices.pick([choices.text(), choices.integer(), choices.real(), None, True, date(2020, 1, 1)])

    match kind:
        case 0:
            return tuple(parts())
        case 1:
            return {hashable() for _ in range(choices.below(4))}
        case 2:
            return {hashable(): _value(choices, deep + 1) for _ in range(choices.below(4))}
        case 3:
            return deque(parts())
        case 4:
            made = parts()
            made.append(made)
            return made
        case 5:
            return Decimal(choices.pick(["1.5", "NaN", "Infinity", "1E+999"]))
        case 6:
            return Fraction(choices.integer(), choices.byte() + 1)
        case 7:
            return datetime(2024, 2, 29, tzinfo=choices.pick([None, UTC]))
        case 8:
            return timedelta(microseconds=choices.integer() % 10**15)
        case 9:
            return choices.pick(
                [UUID(int=1), PurePosixPath("a/\udcffb"), time(1, 2), date.min, _Colour.RED, _Colour.BLUE]
            )
        case 10:
            return _Pair(_value(choices, deep + 1), choices.raw())
        case 11:
            return _Record(_value(choices, deep + 1), object())
        case 12:
            return choices.raw()
        case 13:
            return np.array(
                [choices.real() for _ in range(choices.below(6))], choices.pick(["f8", "f4", "i4", "O", "U3"])
            )
        case 14:
            return np.array(choices.integer() % 2**62, choices.pick(["M8[ns]", "m8[s]", "M8[D]", "m8", "m8[Y]"]))
        case 15:
            return choices.pick([np.float32(0.1), np.longdouble(1), np.int64(2**62), np.bool_(True), np.float64("nan")])
        case 16:
            return choices.pick([_Stubborn(), object(), int, len, NotImplemented, ..., _Colour, 1j, math])
        case 17:
            return range(choices.below(5))
        case 18:
            made = current = []
            for _ in range(choices.below(65_536) % 1_200):
                current.append([])
                current = current[0]
            return made
        case _:
            return choices.json(deep)
