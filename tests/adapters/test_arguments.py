"""A call's arguments against the tool's signature: names and plain types."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NewType

import pytest

from snakepit_otel.adapters._arguments import ArgumentCheck
from snakepit_otel.errors import InvalidArguments, ToolRefused

UserId = NewType("UserId", int)


def check(function: Callable[..., Any], **arguments: Any) -> dict[str, Any]:
    """Check arguments for a method."""
    return ArgumentCheck("paint", function)(arguments)


def complaint(function: Callable[..., Any], **arguments: Any) -> str:
    """Return what is wrong with the arguments."""
    with pytest.raises(InvalidArguments) as raised:
        check(function, **arguments)
    return str(raised.value)


def test_arguments_that_fit_are_passed_on() -> None:
    """What fits the signature comes out as it went in; defaults are left to the function."""

    def paint(self: Any, colour: str, coats: int = 1) -> None: ...

    assert check(paint, colour="red", coats=2) == {"colour": "red", "coats": 2}
    assert check(paint, colour="red") == {"colour": "red"}


def test_a_missing_argument_is_named() -> None:
    """Every missing argument is named, with the tool."""

    def paint(self: Any, colour: str, coats: int) -> None: ...

    assert complaint(paint) == "paint: argument 'colour' is missing; argument 'coats' is missing"


def test_an_unexpected_argument_brings_the_nearest_name() -> None:
    """A misspelt argument is answered with the one that was probably meant."""

    def paint(self: Any, colour: str = "", coats: int = 1) -> None: ...

    assert "unexpected argument 'color' (did you mean 'colour'?)" in complaint(paint, color="red")


def test_an_unexpected_argument_brings_the_names_there_are() -> None:
    """Where nothing is near, the message lists what the tool takes."""

    def paint(self: Any, colour: str = "", coats: int = 1) -> None: ...

    def nothing(self: Any) -> None: ...

    assert "unexpected argument 'x' (it takes colour, coats)" in complaint(paint, x=1)
    assert "unexpected argument 'x' (it takes none)" in complaint(nothing, x=1)


@pytest.mark.parametrize(
    ("hint", "value"),
    [
        (int, "1"),
        (int, 1.0),
        (int, True),
        (int, None),
        (float, "1.5"),
        (float, True),
        (str, 1),
        (str, b"text"),
        (bool, 1),
        (bool, "true"),
        (bytes, "text"),
        (UserId, "7"),
        (int | None, "1"),
        (int | str, True),
        (Literal["a", "b"], "c"),
    ],
)
def test_scalars_are_never_coerced(hint: Any, value: Any) -> None:
    """Text, numbers and booleans of another type are refused, with the value that was got."""

    def paint(self: Any, x: Any) -> None: ...

    paint.__annotations__["x"] = hint
    message = complaint(paint, x=value)
    assert "argument 'x" in message
    assert f"got {value!r}" in message


@pytest.mark.parametrize(
    ("hint", "value"),
    [
        (int, 2**70),
        (float, 1),
        (float, 1.5),
        (str, ""),
        (bool, False),
        (bytes, b"\xff"),
        (int | None, None),
        (UserId, 7),
    ],
)
def test_scalars_of_the_right_type_pass(hint: Any, value: Any) -> None:
    """The annotated type passes unchanged; an integer will do for a float."""

    def paint(self: Any, x: Any) -> None: ...

    paint.__annotations__["x"] = hint
    assert check(paint, x=value)["x"] == value


def test_an_argument_without_annotation_takes_anything() -> None:
    """What the signature does not say is not checked."""

    def paint(self, x, y=None): ...

    value = object()
    assert check(paint, x=value, y=[1, "a"]) == {"x": value, "y": [1, "a"]}


def test_annotations_as_text_are_resolved() -> None:
    """With `from __future__ import annotations`, as in this file, types are checked all the same."""

    def paint(self: Any, x: int) -> None: ...

    assert paint.__annotations__["x"] == "int"
    assert "input should be a valid integer, got 'red'" in complaint(paint, x="red")


def test_keyword_arguments_take_what_has_no_name() -> None:
    """`**more` takes every other argument; those with names are checked still."""

    def paint(self: Any, coats: int, **more: Any) -> None: ...

    assert check(paint, coats=1, colour="red") == {"coats": 1, "colour": "red"}
    assert "argument 'coats': input should be a valid integer" in complaint(paint, coats="1", colour="red")


def test_positional_rest_takes_nothing() -> None:
    """Arguments come by name, so `*rest` stays empty and its name is unexpected."""

    def paint(self: Any, *rest: Any) -> None: ...

    assert check(paint) == {}
    assert "unexpected argument 'rest'" in complaint(paint, rest=[1])


def test_positional_only_parameters_are_refused() -> None:
    """A signature that cannot be called by name is the tool's mistake."""

    def paint(self: Any, x: int, /) -> None: ...

    with pytest.raises(ToolRefused, match="positional-only"):
        check(paint, x=1)


def test_names_of_python_and_of_pydantic_are_plain_names() -> None:
    """Parameters may be called what they like: `from_`, `_x`, `model_config`, `type`, `default`."""

    def paint(
        self: Any, from_: int, _x: int, model_config: int, schema: int, type: int, default: int, metadata: int
    ) -> None: ...

    arguments = {"from_": 1, "_x": 2, "model_config": 3, "schema": 4, "type": 5, "default": 6, "metadata": 7}
    assert check(paint, **arguments) == arguments
    message = complaint(paint, **dict.fromkeys(arguments, "1"))
    assert message.count("input should be a valid integer") == len(arguments)


def test_a_long_value_is_cut_in_the_message() -> None:
    """What was got is shown only in part when it is long."""

    def paint(self: Any, x: int) -> None: ...

    assert len(complaint(paint, x="y" * 10_000)) < 200


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"coats": ["a"] * 100_000}, "100000 arguments, or parts of them, are wrong"),
        ({"coats": ["a"] * 50}, "argument 'coats.9': input should be a valid integer, got 'a'; and 40 more faults"),
        ({"coats": [], "x" * 100_000: 1}, "unexpected argument 'xxxxx"),
        (
            {"coats": [[0] * 100_000]},
            "argument 'coats.0': input should be a valid integer, got [0, 0, 0, ",
        ),
        ({"coats": ["a" * 100_000]}, "argument 'coats.0': input should be a valid integer, got 'aaaaa"),
        ({}, "argument 'coats' is missing"),
    ],
    ids=["faults", "some faults", "name", "list", "text", "none"],
)
def test_a_complaint_is_short(arguments: dict[str, Any], words: str) -> None:
    """However many faults there are, and however long what was given, what is said of them is not."""

    def paint(self: Any, coats: list[int]) -> None: ...

    said = complaint(paint, **arguments)
    assert words in said
    assert len(said) < 2_000
