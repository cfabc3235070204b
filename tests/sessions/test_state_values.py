"""Values that session state may hold, and refusals of others."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import math
import pathlib
import tracemalloc
import uuid
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakepit_otel.errors import StateRefused
from snakepit_otel.sessions import SessionStore
from snakepit_otel.sessions import _state as state


class Colour(enum.Enum):
    RED = 1


class Level(enum.IntEnum):
    HIGH = 3


class Word(enum.StrEnum):
    YES = "yes"


class Pair(NamedTuple):
    left: int
    right: int


@dataclasses.dataclass
class Point:
    x: int


def nested(depth: int) -> list[Any]:
    """Return a list `depth` lists deep."""
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    return value


def circular() -> list[Any]:
    """Return a list that contains itself."""
    value: list[Any] = []
    value.append(value)
    return value


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
)


@given(JSON)
def test_json_comes_back_as_it_was(value: Any) -> None:
    """Every JSON value is read back equal, and as the same types."""
    assert repr(state.decode(state.encode("key", value))) == repr(value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({1, 2}, r"state\['key'\] is a builtins.set"),
        (b"raw", r"state\['key'\] is a builtins.bytes"),
        (object(), r"state\['key'\] is a builtins.object"),
        ({"a": [0, {"b": {1}}]}, r"state\['key'\]\['a'\]\[1\]\['b'\] is a builtins.set"),
        ((1, (2, b"")), r"state\['key'\]\[1\]\[1\] is a builtins.bytes"),
        (math.nan, r"state\['key'\] is nan"),
        ([1.0, {"a": math.nan}], r"state\['key'\]\[1\]\['a'\] is nan"),
        ([math.inf], r"state\['key'\]\[0\] is inf"),
        ({"a": {7: "x"}}, r"state\['key'\]\['a'\] has the key 7"),
        ({None: 1}, r"state\['key'\] has the key None"),
        ({Word.YES: 1}, r"state\['key'\] has the key <Word.YES: 'yes'>"),
        (Colour.RED, r"state\['key'\] is a .*Colour"),
        (Pair(1, 2), r"state\['key'\] is a .*Pair"),
        (Point(1), r"state\['key'\] is a .*Point"),
        (uuid.UUID(int=0), r"state\['key'\] is a uuid.UUID"),
        (decimal.Decimal(1), r"state\['key'\] is a decimal.Decimal"),
        (datetime.datetime(2024, 1, 1), r"state\['key'\] is a datetime.datetime"),
        (pathlib.Path("/a"), r"state\['key'\] is a pathlib.PosixPath"),
        (datetime.timedelta(1), r"state\['key'\] is a datetime.timedelta"),
        ([np.int64(1)], r"state\['key'\]\[0\] is a numpy.int64"),
        ({"a": np.float64(1)}, r"state\['key'\]\['a'\] is a numpy.float64"),
        ({np.int64(1): 1}, r"state\['key'\] has the key np.int64\(1\)"),
        (np.arange(2), r"state\['key'\] is a numpy.ndarray"),
        (2**64, r"state\['key'\] is not JSON: Integer"),
        ([-(2**63) - 1], r"state\['key'\] is not JSON: Integer"),
        ("\ud800", r"state\['key'\] is not JSON: .*surrogate"),
        ({"\ud800": 1}, r"state\['key'\] is not JSON: .*surrogate"),
        (nested(300), "nested too deeply"),
        (nested(100_000), "nested too deeply"),
        (circular(), r"state\['key'\]\[0\] contains itself"),
    ],
    ids=lambda part: str(part)[:30] if isinstance(part, str) else type(part).__name__,
)
async def test_what_is_not_json_is_refused_by_path(value: Any, message: str) -> None:
    """A part that JSON cannot represent is refused with its path, and nothing is kept."""
    store = SessionStore()
    await store.create("a")
    with pytest.raises(StateRefused, match=message):
        await store.set_state("a", "key", value)
    assert await store.list_state("a") == {}


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ((1, (2, 3)), [1, [2, 3]]),
        ({"a": ((),)}, {"a": [[]]}),
        (Level.HIGH, 3),
        ([Word.YES], ["yes"]),
        (2**63, 2**63),
        (-(2**63), -(2**63)),
        (True, True),
        (nested(200), nested(200)),
    ],
    ids=repr,
)
async def test_what_equals_json_is_kept_as_json(value: Any, kept: Any) -> None:
    """Tuples become lists; members of number and text enums become the numbers and texts they equal."""
    store = SessionStore()
    await store.create("a")
    await store.set_state("a", "key", value)
    assert repr(await store.get_state("a", "key")) == repr(kept)


async def test_a_value_belongs_to_the_state_once_it_is_set() -> None:
    """Changing a value after it was set, or after it was read, does not change the state."""
    store = SessionStore()
    await store.create("a")
    value = {"items": [1]}
    await store.set_state("a", "key", value)
    value["items"].append(2)
    (await store.get_state("a", "key"))["items"].append(3)
    assert await store.get_state("a", "key") == {"items": [1]}


REFERENCE = {"__snakepit_zero_copy__": {"id": 1}}


@pytest.mark.parametrize(
    ("value", "path"),
    [(REFERENCE, ""), ([0, REFERENCE], "[1]"), ({"frame": ({"pixels": REFERENCE},)}, "['frame'][0]['pixels']")],
    ids=["itself", "in a list", "in a dict"],
)
async def test_a_zero_copy_reference_is_refused_by_name_and_path(value: Any, path: str) -> None:
    """A reference lives for one request, so state that holds one is refused with the way to it."""
    store = SessionStore()
    await store.create("a")
    with pytest.raises(StateRefused) as caught:
        await store.set_state("a", "tensor", value)
    assert str(caught.value).startswith(f"state['tensor']{path} is a zero-copy reference")
    assert await store.list_state("a") == {}


async def test_text_that_speaks_of_the_reference_mark_is_kept() -> None:
    """Only a key makes a reference; text with the mark in it is text."""
    assert state.decode(state.encode("key", ["__snakepit_zero_copy__"])) == ["__snakepit_zero_copy__"]


@pytest.mark.parametrize(
    "raw",
    [
        b'{"__snakepit_zero_copy__": 1}',
        b'[{"__snakepit\\u005fzero_copy__": 1}]',
        b"[" * 900 + b'{"__snakepit_zero_copy__": 1}' + b"]" * 900,
    ],
    ids=["plain", "escaped", "deep"],
)
def test_a_reference_in_json_from_outside_is_refused(raw: bytes) -> None:
    """JSON of another program is searched for references however it is written."""
    with pytest.raises(StateRefused, match="zero-copy reference"):
        state.checked_json("key", raw)


@pytest.mark.parametrize("raw", [b"", b"{", b"nan", b"[" * 5_000, b'"\xff"'], ids=repr)
def test_bytes_that_are_not_json_are_refused(raw: bytes) -> None:
    """What cannot be parsed is refused by the name of its key."""
    with pytest.raises(StateRefused, match=r"state\['key'\] is not JSON"):
        state.checked_json("key", raw)


@pytest.mark.parametrize("key", ["", None, 7, b"key", "x" * 257, "€" * 86, "\ud800", "x" * 200 + "\ud800"], ids=repr)
async def test_a_key_that_cannot_be_is_refused(key: Any) -> None:
    """Keys are text of 1 to 256 bytes in UTF-8."""
    store = SessionStore()
    await store.create("a")
    with pytest.raises(StateRefused, match="state key"):
        await store.set_state("a", key, 1)
    assert await store.list_state("a") == {}


@pytest.mark.parametrize("key", ["x", "x" * 256, "€" * 85])
def test_a_key_may_have_256_bytes(key: str) -> None:
    """The limit is counted in bytes and included."""
    assert state.checked_key(key) == key


@pytest.mark.parametrize("mark", ['"\\u0041"', '{"__snakepit_zero_copy__": true}'], ids=["escape", "reference"])
def test_looking_for_references_costs_no_more_than_the_state(mark: str) -> None:
    """The place of a part is not written down for each of them, below a long name least of all, nor in an error."""
    raw = f'{{"{"k" * 200_000}": [{"[]," * 19_000} {mark}]}}'.encode()
    tracemalloc.start()
    try:
        if "snakepit" in mark:
            with pytest.raises(StateRefused, match="zero-copy reference") as raised:
                state.checked_json("a", raw)
            assert len(str(raised.value)) < 1_000
        else:
            assert state.checked_json("a", raw) == raw
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 40 * len(raw)


def test_a_deep_path_is_shortened() -> None:
    """A path of many names is shown by its beginning and its end."""
    value: Any = object()
    for number in range(150):
        value = {f"{'k' * 100}{number}": value}
    with pytest.raises(StateRefused, match=r"state\['a'\]\['k.*\[…\].* is a builtins.object") as raised:
        state.encode("a", value)
    assert len(str(raised.value)) < 1_500


def test_what_contains_itself_is_refused_at_once() -> None:
    """Lists that contain themselves, and each other, are refused by the place of the first that does."""
    lists: list[Any] = []
    for _ in range(20):
        lists = [lists]
        lists.append(lists)
    with pytest.raises(StateRefused, match="contains itself"):
        state.encode("a", lists)
