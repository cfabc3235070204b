"""Signatures that are checked without pydantic: the same as with it."""

from __future__ import annotations

import typing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import SchemaValidator, ValidationError

from snakepit_otel.adapters import _core_schema as core_schema
from snakepit_otel.adapters._arguments import OTHERS, full_schema_of

SCALARS = st.sampled_from([Any, object, None, bool, int, float, str, bytes, list, dict])


def composed(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Types of types."""
    return st.one_of(
        inner.map(lambda part: list[part]),
        st.tuples(st.sampled_from([str, int]), inner).map(lambda parts: dict[parts]),
        inner.map(lambda part: typing.Optional[part]),  # noqa: UP045 - `object | None` of a type known at run time
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: typing.Union[tuple(parts)]),  # noqa: UP007
    )


TYPES = st.recursive(SCALARS, composed, max_leaves=4)
FIELDS = st.dictionaries(
    st.sampled_from(["a", "b", "c"]), TYPES | TYPES.map(lambda hint: typing.NotRequired[hint]), max_size=3
)
KEYS = st.text(max_size=2) | st.integers(0, 9)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=3)
    | st.binary(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2) | st.integers(0, 9), inner, max_size=2)
    ),
    max_leaves=4,
)


def outcome(schema: Any, arguments: dict[str, Any]) -> Any:
    """Return what a check by this schema makes of the arguments, with types, or what it has against them."""
    try:
        checked = SchemaValidator(schema).validate_python(arguments)
    except ValidationError as error:
        return [(problem["type"], problem["loc"], problem["msg"]) for problem in error.errors()]
    return repr(checked)


@given(FIELDS, st.dictionaries(st.sampled_from(["a", "b", "c", "d"]), VALUES, max_size=4), st.booleans())
def test_the_same_as_pydantic_would_have_it(fields: dict[str, Any], arguments: dict[str, Any], others: bool) -> None:
    """Every value is taken, converted or refused, with the same words, as by the schema that pydantic makes."""
    plain = core_schema.schema_of(fields, takes_others=others)
    assert plain is not None
    all_fields = {**fields, OTHERS: typing.NotRequired[Any]} if others else fields
    assert outcome(plain, arguments) == outcome(full_schema_of(all_fields), arguments)


@pytest.mark.parametrize(
    "hint",
    [
        tuple,
        set[int],
        typing.Literal["a"],
        typing.Annotated[int, "positive"],
        typing.Sequence[int],
        list["int"],
        dict[float, int],
        dict[str, typing.Callable],
        typing.Optional[complex],  # noqa: UP045
        typing.TypeVar("T"),
        typing.NewType("Id", int),
        pytest.param(type("Unhashable", (), {"__eq__": lambda *_: True, "__hash__": None})(), id="unhashable"),
    ],
    ids=str,
)
def test_other_types_are_left_to_pydantic(hint: Any) -> None:
    """What the core has no plain schema for, at any depth, is nobody's guess."""
    assert core_schema.schema_of({"a": int, "b": hint}, takes_others=False) is None
