"""Arguments that are built from their JSON form: containers, dates, enums, records, models."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from pathlib import PurePosixPath
from typing import Annotated, Any, NamedTuple
from uuid import UUID

import numpy as np
import pytest
from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from snakepit_otel.adapters._arguments import ArgumentCheck
from snakepit_otel.errors import InvalidArguments


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Size(IntEnum):
    SMALL = 1


@dataclass
class Point:
    x: int
    y: float = 0.0
    labels: dict[str, Any] = field(default_factory=lambda: {"type": "int"})


class Corner(NamedTuple):
    row: int
    column: int


class Box(TypedDict):
    width: int


class Person(BaseModel):
    name: str
    age: int


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str


def taking(hint: Any) -> Callable[..., Any]:
    """Return a method with one parameter of this type."""

    def paint(self: Any, x: Any) -> None: ...

    paint.__annotations__["x"] = hint
    return paint


def built(hint: Any, value: Any) -> Any:
    """Return what becomes of a value under an annotation."""
    return ArgumentCheck("paint", taking(hint))({"x": value})["x"]


def complaint(hint: Any, value: Any) -> str:
    """Return what is wrong with a value under an annotation."""
    with pytest.raises(InvalidArguments) as raised:
        built(hint, value)
    return str(raised.value)


@pytest.mark.parametrize(
    ("hint", "value", "expected"),
    [
        (list[int], [1, 2], [1, 2]),
        (Sequence[str], ["a"], ["a"]),
        (Iterable[int], [1, 2], [1, 2]),
        (tuple[int, str], [1, "a"], (1, "a")),
        (tuple[int, ...], [1, 2, 3], (1, 2, 3)),
        (set[str], ["a", "a"], {"a"}),
        (frozenset[int], [1], frozenset({1})),
        (dict[str, list[int]], {"a": [1]}, {"a": [1]}),
        (Mapping[str, int], {"a": 1}, {"a": 1}),
        (dict[int, str], {"1": "a"}, {1: "a"}),
        (date, "2024-02-29", date(2024, 2, 29)),
        (datetime, "2024-02-29T12:00:00Z", datetime(2024, 2, 29, 12, tzinfo=UTC)),
        (timedelta, "PT5S", timedelta(seconds=5)),
        (UUID, "6d054aaa-f83f-5d1c-8d05-4aaaf83f5d1c", UUID("6d054aaa-f83f-5d1c-8d05-4aaaf83f5d1c")),
        (Decimal, "1.50", Decimal("1.50")),
        (PurePosixPath, "/tmp", PurePosixPath("/tmp")),
        (Colour, "red", Colour.RED),
        (Size, 1, Size.SMALL),
        (Point, {"x": 1}, Point(1)),
        (list[Point], [{"x": 1, "y": 2.5, "labels": {}}], [Point(1, 2.5, {})]),
        (Corner, [1, 2], Corner(1, 2)),
        (Box, {"width": 3}, {"width": 3}),
        (Person, {"name": "Ada", "age": 36}, Person(name="Ada", age=36)),
        (Point | None, None, None),
        (Annotated[int, Field(gt=0)], 1, 1),
        (Any, {"a": 1}, {"a": 1}),
    ],
    ids=str,
)
def test_built_from_json(hint: Any, value: Any, expected: Any) -> None:
    """What JSON cannot say is built from the nearest it can, at any depth."""
    result = built(hint, value)
    assert result == expected
    assert type(result) is type(expected)


@pytest.mark.parametrize(
    ("hint", "value", "where"),
    [
        (list[int], [1, "2"], "'x.1': input should be a valid integer, got '2'"),
        (dict[str, list[float]], {"a": [1, "b"]}, "'x.a.1': input should be a valid number, got 'b'"),
        (list[int], "12", "'x': input should be a valid list, got '12'"),
        (Iterable[int], [1, "2"], "'x.1': input should be a valid integer"),
        (tuple[int, int], [1], "'x.1' is missing"),
        (date, "soon", "'x': input should be a valid date"),
        (Colour, "green", "'x': input should be 'red' or 'blue', got 'green'"),
        (Point, {"x": "1"}, "'x.x': input should be a valid integer, got '1'"),
        (Point, {}, "'x.x' is missing"),
        (Point, {"x": 1, "z": 2}, "'x.z': unexpected keyword argument, got 2"),
        (Corner, [1, "2"], "'x.1': input should be a valid integer"),
        (Box, {"width": "3"}, "'x.width': input should be a valid integer"),
        (Person, {"name": "Ada", "age": "old"}, "'x.age': input should be a valid integer"),
        (Strict, {"name": "Ada", "nick": "A"}, "unexpected argument 'x.nick'"),
        (Annotated[int, Field(gt=0)], 0, "'x': input should be greater than 0, got 0"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_found_at_depth(hint: Any, value: Any, where: str) -> None:
    """A value that does not fit is named by its path, scalars inside records included."""
    assert where in complaint(hint, value)


def test_a_record_passes_as_it_is() -> None:
    """An instance of the annotated class is taken as it is."""
    point = Point(1)
    assert built(Point, point) == point


def test_a_default_that_looks_like_a_schema_is_left_alone() -> None:
    """Defaults inside records are the record's own."""
    assert built(Point, {"x": 1}).labels == {"type": "int"}


def test_a_model_decides_for_itself_what_it_coerces() -> None:
    """A pydantic model's own settings hold inside it."""
    assert built(Person, {"name": "Ada", "age": "36"}).age == 36


def test_classes_pydantic_does_not_know_take_their_instances() -> None:
    """An annotation with any other class asks for an instance of it."""
    array = np.zeros(2)
    assert built(np.ndarray, array) is array
    assert "'x': input should be an instance of ndarray" in complaint(np.ndarray, [0, 0])


def test_every_fault_is_told_at_once() -> None:
    """All that is wrong is said in one message, not one fault at a time."""

    def paint(self: Any, a: int, b: list[str], c: str) -> None: ...

    with pytest.raises(InvalidArguments) as raised:
        ArgumentCheck("paint", paint)({"a": "1", "b": [1], "d": 2})
    message = str(raised.value)
    assert "'a': input" in message
    assert "'b.0': input" in message
    assert "'c' is missing" in message
    assert "unexpected argument 'd'" in message
