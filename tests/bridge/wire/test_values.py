"""Values of Python's and NumPy's own types: what each becomes as JSON, and which are refused, by their place."""

from __future__ import annotations

import math
import pathlib
import types
from collections import ChainMap, Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, Flag, IntEnum, StrEnum
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_np
from pydantic import BaseModel

from snakepit_otel.adapters._arguments import ArgumentCheck
from snakepit_otel.bridge.wire.codec import decode_result, encode_chunk, encode_parameters, encode_result
from snakepit_otel.bridge.wire.unserializable import Unserializable
from snakepit_otel.bridge.wire.values import MAX_DEPTH, from_json, to_json
from snakepit_otel.errors import ValueRefused


class Colour(Enum):
    RED = "red"


class Rights(Flag):
    READ = 1
    WRITE = 2


class Size(IntEnum):
    SMALL = 1


class Word(StrEnum):
    YES = "yes"


class Pair(NamedTuple):
    left: int
    right: Any


@dataclass
class Point:
    x: int
    _hidden: int = 0


class SubPoint(Point):
    """A dataclass by its base only."""


@dataclass(slots=True)
class Slotted:
    x: Any


class Model(BaseModel):
    price: Decimal


def sub(kind: type, *args: Any) -> Any:
    """Return an instance of a subclass of a plain type."""
    return type("Sub", (kind,), {})(*args)


def marker(name: str) -> dict[str, Any]:
    """Return what takes the place of a value that has no conversion."""
    return {"__ffi_unserializable__": True, "__type__": name}


ZONE = timezone(timedelta(hours=2))

VALUES: list[tuple[Any, Any]] = [
    (-0.0, -0.0),
    (2**70, 2**70),
    (np.int64(3), 3),
    (np.uint64(2**64 - 1), 2**64 - 1),
    (np.float16(0.5), 0.5),
    (np.float64(0.1), 0.1),
    (np.longdouble("0.5"), 0.5),
    (np.longdouble("nan"), None),
    (np.bool_(True), True),
    (np.str_("a"), "a"),
    (np.datetime64("2024-02-29T12:00:00.000000001"), "2024-02-29T12:00:00.000000001"),
    (np.datetime64("2024-02"), "2024-02"),
    (np.datetime64("NaT", "s"), None),
    (np.timedelta64(1500, "ns"), "PT0.0000015S"),
    (np.timedelta64(-3, "m"), "-PT180S"),
    (np.timedelta64(3, "Y"), "P3Y"),
    (np.timedelta64("NaT", "s"), None),
    (np.array(["2024-02-29", "NaT"], "M8[ns]"), ["2024-02-29T00:00:00.000000000", None]),
    (np.array([[1], [2]], "m8[s]"), [["PT1S"], ["PT2S"]]),
    (np.array(np.datetime64("2024-02-29")), "2024-02-29"),
    (np.array(7), 7),
    (np.arange(6).reshape(2, 3)[:, ::2], [[0, 2], [3, 5]]),
    (np.arange(3, dtype=">i4"), [0, 1, 2]),
    (np.arange(2, dtype=np.longdouble), [0.0, 1.0]),
    (np.array([[1, 2]]).view(np.matrix), [[1, 2]]),
    (np.ma.masked_array([1, 2], [False, True]), [1, None]),
    (np.array([(1, 0.5)], [("a", "i4"), ("b", "f8")]), [[1, 0.5]]),
    (np.array([(1, 0.5)], [("a", "i4"), ("b", "f8")]).view(np.recarray), [[1, 0.5]]),
    (np.array([1, "a", None, Decimal("0.1")], object), [1, "a", None, "0.1"]),
    (np.array(["a", "é"]), ["a", "é"]),
    (np.array([b"a"]), [marker("builtins.bytes")]),
    (np.complex64(1j), marker("builtins.complex")),
    (Decimal("1.50"), "1.50"),
    (Decimal("NaN"), "NaN"),
    (Fraction(1, 3), "1/3"),
    (date(2024, 2, 29), "2024-02-29"),
    (datetime(2024, 2, 29, 12, tzinfo=ZONE), "2024-02-29T12:00:00+02:00"),
    (datetime(2024, 2, 29, 0, 0, 0, 5), "2024-02-29T00:00:00.000005"),
    (time(12, 30), "12:30:00"),
    (time(12, 30, tzinfo=UTC), "12:30:00+00:00"),
    (timedelta(days=1, microseconds=5), "PT86400.000005S"),
    (timedelta(seconds=-1), "-PT1S"),
    (timedelta(), "PT0S"),
    (Path("/tmp/é"), "/tmp/é"),
    (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    (Colour.RED, "red"),
    (Size.SMALL, 1),
    (Word.YES, "yes"),
    (Rights.READ | Rights.WRITE, 3),
    ({1}, [1]),
    (frozenset("a"), ["a"]),
    (deque([1, Decimal(2)]), [1, "2"]),
    (range(3), [0, 1, 2]),
    ({"a": 1}.keys(), ["a"]),
    ({"a": 1}.items(), [["a", 1]]),
    (types.MappingProxyType({"a": np.int8(1)}), {"a": 1}),
    (ChainMap({"a": 1}, {"b": 2}), {"a": 1, "b": 2}),
    (Counter("aa"), {"a": 2}),
    (OrderedDict(a=1), {"a": 1}),
    (defaultdict(list, a=[1]), {"a": [1]}),
    (Point(1), {"x": 1}),
    (SubPoint(1), {"x": 1}),
    (Slotted(Decimal(1)), {"x": "1"}),
    (Pair(1, {2}), {"left": 1, "right": [2]}),
    (Model(price=Decimal("0.10")), {"price": "0.10"}),
    (sub(str, "a"), "a"),
    (sub(int, 2**70), 2**70),
    (sub(float, 0.5), 0.5),
    (sub(list, [1]), [1]),
    (sub(dict, {"a": 1}), {"a": 1}),
    (sub(tuple, (1,)), [1]),
    (b"\xff", marker("builtins.bytes")),
    (bytearray(b"a"), marker("builtins.bytearray")),
    ((part for part in ()), marker("builtins.generator")),
    (1j, marker("builtins.complex")),
    (dict, marker("builtins.type")),
    (object(), marker("builtins.object")),
]

KEYS: list[tuple[Any, str]] = [
    (1, "1"),
    (-(2**70), "-1180591620717411303424"),
    (True, "true"),
    (None, "null"),
    (0.5, "0.5"),
    (math.nan, "null"),
    (np.int64(1), "1"),
    (np.float32(0.5), "0.5"),
    (np.bool_(False), "false"),
    (np.str_("a"), "a"),
    (np.datetime64("2024-02-29"), "2024-02-29"),
    (sub(str, "a"), "a"),
    (Word.YES, "yes"),
    (Colour.RED, "red"),
    (Size.SMALL, "1"),
    (date(2024, 2, 29), "2024-02-29"),
    (datetime(2024, 2, 29, tzinfo=UTC), "2024-02-29T00:00:00+00:00"),
    (time(1, tzinfo=UTC), "01:00:00+00:00"),
    (timedelta(seconds=1), "PT1S"),
    (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    (Decimal("1.0"), "1.0"),
    (Path("/a"), "/a"),
]


@pytest.mark.parametrize(("value", "expected"), VALUES, ids=lambda value: repr(value).partition(" at 0x")[0])
def test_what_a_value_becomes(value: Any, expected: Any) -> None:
    """Each becomes what the table says: alone, and beside what orjson cannot write, which takes another way."""
    assert from_json(to_json([value])) == [expected]
    assert from_json(to_json({"value": value, "big": 2**70, 1: "key"})) == {"value": expected, "big": 2**70, "1": "key"}


@pytest.mark.parametrize(("key", "expected"), KEYS, ids=repr)
def test_what_a_key_becomes(key: Any, expected: str) -> None:
    """A key becomes the text of what its value would be, at any depth, whatever is beside it."""
    assert from_json(to_json([{key: 1}])) == [{expected: 1}]
    assert from_json(to_json([{key: 1}, 2**70])) == [{expected: 1}, 2**70]


def nested(depth: int) -> Any:
    """Return lists and dicts within each other."""
    value: Any = 1
    for level in range(depth):
        value = [value] if level % 2 else {"a": value}
    return value


def circle() -> Any:
    """Return what contains itself."""
    value: dict[str, Any] = {}
    value["a"] = [value]
    return value


def around() -> Any:
    """Return an array that contains itself."""
    value = np.empty(1, object)
    value[0] = value
    return value


class Failing(dict[str, Any]):
    def __iter__(self) -> Any:
        raise OSError("gone")

    keys = items = __iter__


class Forever:
    def to_dict(self) -> Any:
        return types.SimpleNamespace(to_dict=self.again)

    def again(self) -> Any:
        return Forever()


REFUSED: list[tuple[Callable[[], Any], str]] = [
    (lambda: [{1: "a", "1": "b"}], r"result\[0\] has two keys that become '1'"),
    (lambda: {np.float32(0.5): "a", "0.5": "b"}, r"result has two keys that become '0.5'"),
    (lambda: {None: 1, "null": 2}, "result has two keys that become 'null'"),
    (lambda: {"a": [{(1, 2): 3}]}, r"keys must be text, and result\['a'\]\[0\] has the key \(1, 2\), a tuple"),
    (lambda: {b"a": 1}, "keys must be text, and result has the key b'a', a bytes"),
    (lambda: {frozenset([1]): 1}, "keys must be text, and result has the key frozenset"),
    (lambda: {object: 1}, "keys must be text, and result has the key <class 'object'>"),
    (lambda: {"a": ["\ud800"]}, r"result\['a'\]\[0\] is text with surrogates"),
    (lambda: {"\ud800": 1}, "result has a key that is text with surrogates"),
    (lambda: [Path("\udcff")], r"result\[0\] is text with surrogates"),
    (lambda: {"a": [10**5000]}, r"result\['a'\]\[0\] is an integer of too many digits"),
    (lambda: {10**5000: 1}, r"is an integer of too many digits"),
    (circle, r"result\['a'\]\[0\] is a dict that contains itself"),
    (around, "result.* contains itself|nested"),
    (lambda: nested(MAX_DEPTH + 2), rf"result\[.*\[…\].* is nested more than {MAX_DEPTH} deep"),
    (lambda: nested(100_000), rf"is nested more than {MAX_DEPTH} deep"),
    (Forever, f"result is nested more than {MAX_DEPTH} deep"),
    (lambda: [Failing(a=1)], r"result\[0\] is a .*Failing, whose conversion failed: OSError: gone"),
]


@pytest.mark.parametrize(("make", "words"), REFUSED)
def test_what_is_refused_by_its_place(make: Callable[[], Any], words: str) -> None:
    """What no JSON can say is refused with the place of the part and what it is; never by somebody else's error."""
    with pytest.raises(ValueRefused, match=words):
        encode_result(make())


@pytest.mark.parametrize("depth", [254, 255, 600, MAX_DEPTH])
def test_deep_values_are_sent(depth: int) -> None:
    """Values are nested as deep as Python can follow, beyond what orjson alone would."""
    assert orjson.loads(to_json(nested(depth))) == nested(depth)


def test_an_error_names_what_was_to_be_sent() -> None:
    """An error begins with the parameter, the chunk or the result that the part is in."""
    for send, where in (
        (lambda value: encode_parameters({"x": value}), r"parameters\['x'\]"),
        (encode_chunk, "chunk"),
        (encode_result, "result"),
    ):
        with pytest.raises(ValueRefused, match=rf"a list cannot be sent: keys must be text, and {where}\[0\] has"):
            send([{(1, 2): 3}])


@pytest.mark.parametrize("names", [{1: "a"}, {np.int64(1): "a"}, {None: 1}, {"\ud800": 1}, [1], "ab"])
def test_names_of_parameters_are_text(names: Any) -> None:
    """A call's arguments come by name; other keys are refused with the key."""
    with pytest.raises(ValueRefused, match=r"a parameter has the name|must be values by name"):
        encode_parameters(names)
    assert encode_parameters({sub(str, "a"): 1})[0].keys() == {"a"}


@pytest.mark.parametrize("kind", [float, np.float16, np.float32, np.float64, np.longdouble])
@pytest.mark.parametrize("text", ["nan", "inf", "-inf"])
def test_numbers_that_json_has_no_word_for_arrive_as_they_are(kind: Any, text: str) -> None:
    """A result or an argument that is such a number as a whole stays one."""
    value = kind(text)
    for got in (
        decode_result(*encode_result(value)),
        decode_result(encode_parameters({"x": value})[0]["x"]),
    ):
        assert type(got) is float
        assert str(got) == text


def test_a_conversion_that_returns_its_own_kind_is_none() -> None:
    """What would be converted to the same for ever is passed over for the next way, or marked."""

    class Same:
        def to_dict(self) -> Any:
            return Same()

    assert from_json(to_json(Same()))["__type__"].endswith("Same")


@pytest.mark.parametrize(
    "value", [Decimal(1), Path("/a"), timedelta(1), Fraction(1, 2), deque([1]), range(1), SubPoint(1)], ids=repr
)
def test_elixir_gets_what_upstream_gives(value: Any) -> None:
    """Where Elixir reads it, what upstream's worker marks is marked, and no more is converted."""
    kind = type(value)
    assert from_json(to_json(value, Unserializable())) == marker(f"{kind.__module__}.{kind.__qualname__}")


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=()))
    | st.decimals()
    | st.fractions()
    | st.datetimes(timezones=st.none() | st.timezones())
    | st.dates()
    | st.times()
    | st.timedeltas()
    | st.uuids()
    | st.binary(max_size=3)
    | st.complex_numbers()
    | st.sampled_from([*Colour, *Size, *Word, *Rights, object(), dict, Path("/a")])
    | st_np.scalar_dtypes().flatmap(st_np.from_dtype)
)
keys = scalars.filter(lambda key: not (isinstance(key, Decimal) and key.is_snan())) | st.tuples(st.integers())
anything = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(keys, inner, max_size=3)
        | st.tuples(inner, inner)
        | st.builds(Slotted, inner)
        | st.builds(Pair, st.integers(), inner)
        | st.lists(inner, max_size=2).map(deque)
    ),
    max_leaves=12,
)


def sent_or_refused(value: Any, default: Callable[[Any], Any]) -> tuple[bytes | None, str]:
    """Return a value as JSON, or the words that it was refused with."""
    try:
        return to_json(value, default, "result"), ""
    except ValueRefused as refused:
        return None, str(refused)


@given(anything)
def test_anything_is_sent_as_json_or_refused_by_its_place(value: Any) -> None:
    """Whatever a tool returns arrives, and says the same when it is sent on; or an error of ours names its place."""
    for default in (Unserializable().for_python, Unserializable()):
        raw, refusal = sent_or_refused([value], default)
        if raw is None:
            assert "result" in refusal
        else:
            arrived = from_json(raw)
            assert from_json(to_json(arrived)) == arrived


@pytest.mark.parametrize(
    "value",
    [
        Decimal("-1.50"),
        Fraction(1, 3),
        timedelta(days=-3, microseconds=5),
        timedelta(days=400, seconds=0.5),
        Path("/tmp/é"),
        UUID(int=1),
        date(2024, 2, 29),
        datetime(2024, 2, 29, tzinfo=UTC),
        time(12, 30, tzinfo=UTC),
        Colour.RED,
        Size.SMALL,
        {1, 2},
        frozenset("a"),
        deque([1]),
        {Decimal("0.5"): timedelta(1)},
        Slotted(1),
    ],
    ids=repr,
)
def test_what_was_converted_is_built_again_for_an_annotation(value: Any) -> None:
    """A parameter that is annotated as what the caller passed gets the same."""

    def function(self: Any, x: Any) -> None: ...

    hint = dict[Decimal, timedelta] if isinstance(value, dict) else type(value)
    function.__annotations__["x"] = pathlib.Path if isinstance(value, Path) else hint
    got = ArgumentCheck("tool", function)({"x": decode_result(encode_parameters({"x": value})[0]["x"])})["x"]
    assert got == value
    assert type(got) is type(value)


@given(st.dictionaries(keys, st.integers()))
def test_no_key_is_lost(value: dict[Any, int]) -> None:
    """An object has as many keys as the dict that it was, or is refused."""
    raw, refusal = sent_or_refused(value, Unserializable().for_python)
    assert refusal if raw is None else len(from_json(raw)) == len(value)


@pytest.mark.parametrize("value", [10**400, [-(10**309), 0.5, "é"], {"a": 10**4_000}], ids=["one", "list", "many"])
def test_integers_beyond_a_float(value: object) -> None:
    """Integers that no float could come near arrive as they were."""
    assert from_json(to_json(value)) == value


@pytest.mark.parametrize(
    "part", ["NaN", "Infinity", "1e999", '"\\ud800"', '{"\\udfff": 1}', '"a\nb"', "01", "[1,]", "\ufeff1"], ids=ascii
)
def test_beside_a_long_integer_json_is_as_strict(part: str) -> None:
    """What is no JSON elsewhere is none beside an integer of 400 digits either."""
    for text in (f"[{part}]", f"[{part},{'1' * 400}]"):
        with pytest.raises(ValueError, match=r"\w"):
            from_json(text.encode())
