"""Arguments of `call`, converted to the types of the tool's parameters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from snakepit_otel.cli.arguments import arguments_of
from snakepit_otel.errors import ConfigurationError, InvalidArguments, SnakepitError

SCHEMA = {
    "type": "object",
    "properties": {
        "text": {"type": "string"},
        "whole": {"type": "integer"},
        "number": {"type": "number"},
        "flag": {"type": "boolean"},
        "list": {"type": "array", "items": {"type": "integer"}},
        "object": {"$ref": "#/$defs/Item"},
        "maybe": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "either": {"anyOf": [{"type": "string"}, {"type": "integer"}]},
        "kind": {"enum": ["a", 2]},
        "anything": {},
    },
    "additionalProperties": {"type": "number"},
    "$defs": {"Item": {"type": "object"}},
}


@pytest.mark.parametrize(
    ("pair", "value"),
    [
        ("text=123", "123"),
        ("text=true", "true"),
        ('text="quoted"', '"quoted"'),
        ("text=", ""),
        ("text=a=b", "a=b"),
        ("text=@@me", "@me"),
        ("text:=5", 5),
        ("whole=5", 5),
        ("number=5", 5.0),
        ("number=1e3", 1000.0),
        ("flag=True", True),
        ("list=[1, 2]", [1, 2]),
        ('object={"a": 1}', {"a": 1}),
        ("maybe=null", None),
        ("maybe=5", "5"),
        ("either=5", 5),
        ("either=x", "x"),
        ("kind=a", "a"),
        ("kind=2", 2),
        ("anything=5", 5),
        ("anything=x y", "x y"),
        ("unknown=5", 5.0),
    ],
)
def test_values_have_the_types_of_their_parameters(pair: str, value: Any) -> None:
    """Text stays text, numbers, flags, lists and objects are read, and := is JSON."""
    (found,) = arguments_of([pair], SCHEMA).values()
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("pair", "message", "kind"),
    [
        ("whole=5.5", "argument 'whole' is '5.5', and must be a whole number", InvalidArguments),
        ("number=nan", "argument 'number' is 'nan', and must be a number", InvalidArguments),
        ("flag=yes", "argument 'flag' is 'yes', and must be true or false", InvalidArguments),
        ("list={}", r"argument 'list' is '{}', and must be a list, as JSON: \[1, 2\]", InvalidArguments),
        ("object=x", "argument 'object' is 'x', and must be an object, as JSON", InvalidArguments),
        ("kind=b", "argument 'kind' is 'b', and must be one of a, 2", InvalidArguments),
        ("text:={", "the value of 'text' is not JSON", ConfigurationError),
        ("text", "'text' is no parameter; write key=value", ConfigurationError),
        ("text=@/no/such/file", "text: /no/such/file cannot be read: No such file", ConfigurationError),
    ],
)
def test_values_of_other_types(pair: str, message: str, kind: type[SnakepitError]) -> None:
    """The error names the parameter, the value and what it must be."""
    with pytest.raises(kind, match=message):
        arguments_of([pair], SCHEMA)


def test_values_from_files(tmp_path: Path) -> None:
    """The text of a file is taken as if it were written there, as text or as JSON."""
    file = tmp_path / "value"
    file.write_text("[1]")
    assert arguments_of([f"text=@{file}", f"list=@{file}", f"anything:=@{file}"], SCHEMA) == {
        "text": "[1]",
        "list": [1],
        "anything": [1],
    }


def test_without_a_schema() -> None:
    """What is JSON is taken as that, and all else as text."""
    assert arguments_of(["a=5", "b=x", "c=[1]", "d:=null"], None) == {"a": 5, "b": "x", "c": [1], "d": None}
