"""Descriptions of tools: signatures, and JSON Schema of the arguments."""

from __future__ import annotations

import datetime
import enum
import json
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import numpy as np
import pytest
from pydantic import BaseModel, Field

from snakepit_otel import BaseAdapter, tool
from snakepit_otel.adapters._tool import tools_of
from snakepit_otel.adapters._tool_description import (
    ANY_NAME,
    MAX_BYTES,
    MAX_SCHEMA_BYTES,
    ToolDescription,
    checked_description,
    describe,
    describe_all,
)
from snakepit_otel.errors import ToolRefused


class Colour(enum.Enum):
    RED = "red"


class Item(BaseModel):
    name: str
    count: int = 3


class Opaque:
    pass


class Described(BaseAdapter):
    """Tools of all kinds of parameters."""

    @tool
    def plain(
        self, amount: float, flag: bool = False, names: list[str] | None = None, *, deep: dict[str, list[int]]
    ) -> float:
        """Add an amount.

        And more about it.
        """
        return amount

    @tool(idempotent=True)
    def images(
        self, image: np.ndarray, item: Item, colour: Colour, when: datetime.datetime, kind: Literal["a", "b"] = "a"
    ) -> None:
        """Paint."""

    @tool
    def odd(
        self, age: Annotated[int, Field(ge=0, description="in years")], opaque: Opaque, default: Any = b"x"
    ) -> None:
        """Take what JSON does not have."""

    @tool
    def wild(self, first, *rest, **others) -> Iterator[int]:  # type: ignore[no-untyped-def]
        yield 1


def of(name: str) -> tuple[ToolDescription, dict[str, Any]]:
    """Return a tool's description, and its schema."""
    found = describe(tools_of(Described)[name])
    return found, json.loads(found.schema)


def test_plain_types_have_schemas_of_their_own() -> None:
    """Scalars, containers, optional ones, defaults and what is required are described without pydantic's help."""
    found, schema = of("plain")
    assert found.signature == (
        "(amount: float, flag: bool = False, names: list[str] | None = None, *, deep: dict[str, list[int]]) -> float"
    )
    assert found.description == "Add an amount.\n\nAnd more about it."
    assert schema == {
        "type": "object",
        "properties": {
            "amount": {"type": "number"},
            "flag": {"type": "boolean", "default": False},
            "names": {"anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "null"}], "default": None},
            "deep": {"type": "object", "additionalProperties": {"type": "array", "items": {"type": "integer"}}},
        },
        "required": ["amount", "deep"],
        "additionalProperties": False,
    }


def test_models_and_arrays() -> None:
    """Models and enums are definitions; what is passed by reference is described by its class."""
    found, schema = of("images")
    assert found.idempotent
    assert not found.streams
    properties = schema["properties"]
    assert properties["image"] == {"description": "numpy.ndarray, passed by reference"}
    assert properties["item"] == {"$ref": "#/$defs/Item"}
    assert properties["colour"] == {"$ref": "#/$defs/Colour"}
    assert properties["when"] == {"type": "string", "format": "date-time"}
    assert properties["kind"] == {"type": "string", "enum": ["a", "b"], "default": "a"}
    assert schema["$defs"]["Item"]["properties"]["count"] == {"type": "integer", "default": 3}
    assert schema["$defs"]["Colour"]["enum"] == ["red"]


def test_what_json_does_not_have() -> None:
    """A class that is no JSON takes anything, with its name; a default that is none is left out."""
    properties = of("odd")[1]["properties"]
    assert properties["age"] == {"type": "integer", "minimum": 0, "description": "in years"}
    assert properties["opaque"] == {"description": f"{__name__}.Opaque"}
    assert properties["default"] == {}
    found, schema = of("wild")
    assert found.streams
    assert found.signature == "(first, *rest, **others) -> Iterator[int]"
    assert schema["additionalProperties"] is True
    assert schema["required"] == ["first"]


def test_an_adapter_that_takes_any_name() -> None:
    """It has an entry for all names; the tools that it marks have no schema, as nothing checks their arguments."""

    class TakesAny(Described):
        def execute_tool(self, name: str, arguments: dict[str, Any], context: Any) -> Any: ...

    found = describe_all(tools_of(TakesAny).values(), takes_any=True)
    assert [one.name for one in found] == [ANY_NAME, "images", "odd", "plain", "wild"]
    assert not any(one.schema for one in found)


def test_descriptions_are_bounded() -> None:
    """Long texts are cut, a schema that is too large is left out, and so is what goes beyond the limit of all."""

    def much(self: Any, value: Literal["x"] = "x") -> None: ...

    much.__doc__ = "d" * 100_000
    adapter = type("Much", (BaseAdapter,), {f"tool_{number}": tool(name=f"t{number}")(much) for number in range(1)})
    (one,) = describe_all(tools_of(adapter).values(), takes_any=False)
    assert len(one.description) == 4_096
    made = [tools_of(adapter)["t0"]] * 300
    assert len(json.dumps([vars(each) for each in describe_all(made, takes_any=False)])) < MAX_BYTES + 300 * 200


@pytest.mark.parametrize(
    "change",
    [
        {"name": "no name"},
        {"name": 3},
        {"streams": "yes"},
        {"schema": "[]"},
        {"schema": "{"},
        {"schema": '{"x": "' + "y" * MAX_SCHEMA_BYTES + '"}'},
        {"description": "d" * 5_000},
        {"more": 1},
    ],
)
def test_what_a_worker_sends_is_checked(change: dict[str, Any]) -> None:
    """Other keys and types, bad names, long texts and schemas that are none are refused."""
    good = vars(ToolDescription("add", schema='{"type": "object"}'))
    assert checked_description(dict(good)) == ToolDescription("add", schema='{"type": "object"}')
    with pytest.raises(ToolRefused):
        checked_description({**good, **change})
