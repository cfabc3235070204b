"""Annotations that are resolved where the tool was written, and those that cannot be checked."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Collection
from typing import (
    TYPE_CHECKING,
    Any,
    Final,
    Literal,
    LiteralString,
    Never,
    ParamSpec,
    Protocol,
    Required,
    Self,
    TypedDict,
    TypeVar,
    Unpack,
)

import pytest
import wrapt

from snakepit_otel import BaseAdapter, tool
from snakepit_otel.adapters._lifecycle import AdapterHost
from snakepit_otel.adapters._tool import tools_of
from snakepit_otel.adapters._tool_threads import ToolThreads
from snakepit_otel.errors import InvalidArguments
from snakepit_otel.testing import run_tool

if TYPE_CHECKING:
    from nowhere import DataFrame  # type: ignore[import-not-found]

P = ParamSpec("P")
R = TypeVar("R")


class Settings(TypedDict, total=False):
    """Spelled by `typing`, which pydantic does not take before Python 3.12."""

    depth: Required[int]
    label: str
    children: list[Settings]


class Options(TypedDict, total=False):
    depth: Required[int]
    label: str


class Opaque(Protocol):
    def read(self) -> int: ...


def kept(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate, and keep the signature."""

    @functools.wraps(function)
    def around(*args: P.args, **kwargs: P.kwargs) -> R:
        return function(*args, **kwargs)

    return around


def hidden(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate, and hide the signature."""

    def around(*args: P.args, **kwargs: P.kwargs) -> R:
        return function(*args, **kwargs)

    around.__name__ = function.__name__
    return around


@wrapt.decorator
def passed_on(wrapped: Any, _instance: Any, args: Any, kwargs: Any) -> Any:
    """Decorate by wrapt."""
    return wrapped(*args, **kwargs)


class Checked(BaseAdapter):
    class Inner(TypedDict):
        n: int

    Whole = int

    @tool
    def result_is_for_type_checkers(self, n: int) -> DataFrame | None:
        return None

    @tool
    def nested_class(self, n: Inner) -> None: ...

    @tool
    def alias_in_the_class(self, n: Whole) -> None: ...

    @tool
    def list(self, n: list[int]) -> None:
        """Has the name of a type that other tools mean."""

    @tool
    @kept
    def wrapped(self, n: int) -> None: ...

    @tool
    @passed_on
    def wrapped_by_wrapt(self, n: int) -> None: ...

    @tool
    def final(self, n: Final[int]) -> None: ...

    @tool
    def typed_dict(self, n: Options) -> None: ...

    @tool
    def options(self, **n: Unpack[Options]) -> None: ...

    @tool
    def others(self, **n: int) -> None: ...

    @tool
    def collection(self, n: Collection[int]) -> None: ...

    @tool
    def text(self, n: LiteralString) -> None: ...

    @tool
    def literal(self, n: Literal["a", 2]) -> None: ...


@pytest.mark.parametrize(
    ("name", "good", "bad", "where"),
    [
        ("result_is_for_type_checkers", {"n": 1}, {"n": "1"}, "'n': input should be a valid integer"),
        ("nested_class", {"n": {"n": 1}}, {"n": {"n": "1"}}, "'n.n': input should be a valid integer"),
        ("alias_in_the_class", {"n": 1}, {"n": "1"}, "'n': input should be a valid integer"),
        ("list", {"n": [1]}, {"n": ["1"]}, "'n.0': input should be a valid integer"),
        ("wrapped", {"n": 1}, {"n": "1"}, "'n': input should be a valid integer"),
        ("wrapped_by_wrapt", {"n": 1}, {"n": "1"}, "'n': input should be a valid integer"),
        ("final", {"n": 1}, {"n": "1"}, "'n': input should be a valid integer"),
        ("typed_dict", {"n": {"depth": 1}}, {"n": {"label": 2}}, "'n.depth' is missing"),
        ("options", {"depth": 1}, {"label": "x"}, "'depth' is missing"),
        ("options", {"depth": 1, "label": ""}, {"depth": 1, "lable": ""}, "did you mean 'label'?"),
        ("others", {"a": 1, "b": 2}, {"a": 1, "b": "2"}, "'b': input should be a valid integer"),
        ("collection", {"n": [1]}, {"n": ["1"]}, "'n.0': input should be a valid integer"),
        ("text", {"n": "a"}, {"n": 1}, "'n': input should be a valid string"),
        ("literal", {"n": "a"}, {"n": "b"}, "'n': input should be 'a' or 2"),
    ],
)
def test_annotations_are_checked_however_they_are_written(
    name: str, good: dict[str, Any], bad: dict[str, Any], where: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Text is resolved in module, class and closure; decorators are looked through; results are left alone."""
    check = tools_of(Checked)[name].check
    assert check(good) == good
    with pytest.raises(InvalidArguments, match=where.replace("?", r"\?")):
        check(bad)
    assert not caplog.records


class Unchecked(BaseAdapter):
    @tool
    def for_type_checkers(self, x: DataFrame, n: int) -> None: ...

    @tool
    def at_depth(self, n: int, x: dict[str, list[DataFrame | None]] | None = None) -> None: ...

    @tool
    def others(self, n: int, **x: DataFrame) -> None: ...

    @tool
    def no_type(self, x: "some words", n: int) -> None: ...  # type: ignore[valid-type]  # noqa: F722

    @tool
    def wrong(self, x: 1 / 0, n: int) -> None: ...  # type: ignore[valid-type]

    @tool
    def never(self, x: Never, n: int) -> None: ...

    @tool
    def self_of_the_class(self, x: Self, n: int) -> None: ...

    @tool
    def protocol(self, x: Opaque, n: int) -> None: ...


@pytest.mark.parametrize("name", sorted(tools_of(Unchecked)))
def test_what_cannot_be_checked_is_logged_and_taken(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """One line names tool, parameter, annotation and cause; that parameter takes anything, the others are checked."""
    check = tools_of(Unchecked)[name].check
    (record,) = caplog.records
    line = record.getMessage()
    annotation = str(vars(Unchecked)[name].__annotations__["x"])
    assert line.startswith(f"tool {name!r}: parameter 'x' is annotated as {annotation}, which cannot be checked (")
    assert line.endswith("it takes anything")
    assert "\n" not in line
    assert check({"x": object, "n": 1}) == {"x": object, "n": 1}
    with pytest.raises(InvalidArguments, match="'n': input should be a valid integer"):
        check({"x": 1, "n": "1"})


def test_it_is_logged_when_the_adapter_is_loaded(caplog: pytest.LogCaptureFixture) -> None:
    """A worker's log has the lines before it serves."""
    AdapterHost(Unchecked, ToolThreads())
    logged = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(logged) == len(tools_of(Unchecked))


def test_names_of_the_enclosing_function_are_known() -> None:
    """What a tool of a local class closes over is there for its annotations, as far as the tool uses it."""
    Local = int

    class Inside(BaseAdapter):
        @tool
        def add(self, n: Local) -> Any:
            return Local(n)

    with pytest.raises(InvalidArguments, match="valid integer"):
        tools_of(Inside)["add"].check({"n": "1"})


def test_a_decorator_that_hides_the_signature_passes_everything_on(caplog: pytest.LogCaptureFixture) -> None:
    """Where nothing is known of the parameters, nothing is checked, and there is nothing to say of it."""

    class Hidden(BaseAdapter):
        @tool
        @hidden
        def add(self, n: int) -> int:
            return n

    assert tools_of(Hidden)["add"].check({"n": "1", "m": 2}) == {"n": "1", "m": 2}
    assert not caplog.records


def test_a_record_that_contains_itself(caplog: pytest.LogCaptureFixture) -> None:
    """A recursive TypedDict is checked where pydantic can, and taken as it is where it cannot, but never for ever."""

    class Tree(BaseAdapter):
        @tool
        def grow(self, tree: Settings) -> None: ...

    tree = {"depth": 1, "children": [{"depth": 2}]}
    assert tools_of(Tree)["grow"].check({"tree": tree}) == {"tree": tree}
    assert len(caplog.records) <= 1


async def test_an_adapter_with_annotations_for_type_checkers_runs() -> None:
    """From load to result, such annotations keep no tool from being called."""
    assert await run_tool(Checked, "result_is_for_type_checkers", {"n": 3}) is None
    assert await run_tool(Unchecked, "for_type_checkers", {"n": 3, "x": {"a": [1]}}) is None
