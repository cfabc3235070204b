"""Tools that `@tool` makes of methods."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from snakepit_otel.adapters import BaseAdapter, tool
from snakepit_otel.adapters._lifecycle import AdapterHost
from snakepit_otel.adapters._tool import Parameter, make_tool, tools_of
from snakepit_otel.adapters._tool_threads import ToolThreads
from snakepit_otel.errors import ToolRefused


class Greeter(BaseAdapter):
    @tool
    def greet(self, name: str, times: int = 1, *rest: Any, loud: bool = False, **more: Any) -> str:
        """Greet somebody
        by name.

        As often as asked.
        """
        return f"{name} {times} {loud} {rest} {more}"

    @tool("Say goodbye.", name="part.from-2", metadata={"team": "doors"})
    async def goodbye(self, name) -> str:
        """Not what callers are told."""
        return name

    def helper(self) -> None:
        """Not a tool."""


def test_a_tool_is_named_for_its_method_and_described_by_its_docstring() -> None:
    """Without arguments the name is the method's and the description the docstring's first paragraph."""
    greet = tools_of(Greeter)["greet"]
    assert (greet.name, greet.description) == ("greet", "Greet somebody by name.")
    assert not greet.is_async
    assert not greet.supports_streaming


def test_the_decorator_may_say_otherwise() -> None:
    """Description, name and metadata given to the decorator win over what the method says."""
    part = tools_of(Greeter)["part.from-2"]
    assert part.description == "Say goodbye."
    assert part.metadata == {"team": "doors"}
    assert part.is_async


def test_only_marked_methods_are_tools() -> None:
    """Methods without the decorator are not callable by name."""
    assert set(tools_of(Greeter)) == {"greet", "part.from-2"}


def test_the_decorator_leaves_the_method_as_it_is() -> None:
    """A marked method is still the plain function and can be called directly."""

    def method(self: Any) -> int:
        return 7

    assert tool(method) is method
    assert tool()(method)(None) == 7


def test_parameters_are_told_with_types_and_defaults() -> None:
    """Callers learn each named parameter's type, whether it is required, and its default."""
    assert tools_of(Greeter)["greet"].parameters == (
        Parameter("name", "str", True),
        Parameter("times", "int", False, 1),
        Parameter("loud", "bool", False, False),
    )
    assert tools_of(Greeter)["part.from-2"].parameters == (Parameter("name", "any", True),)


def test_a_method_without_docstring_has_an_empty_description() -> None:
    """Nothing is made up where there is nothing to say."""

    @tool
    def bare(self: Any) -> None: ...

    assert make_tool(bare).description == ""


def test_generators_stream() -> None:
    """Generator methods, sync and async, are marked as streaming; the decorator may say otherwise."""

    class Streams(BaseAdapter):
        @tool
        def numbers(self) -> Iterator[int]:
            yield 1

        @tool
        async def later(self) -> AsyncIterator[int]:
            yield 1

        @tool(supports_streaming=True)
        def iterator(self) -> Iterator[int]:
            return iter([1])

        @tool(supports_streaming=False)
        def quietly(self) -> Iterator[int]:
            yield 1

    streaming = {name: made.supports_streaming for name, made in tools_of(Streams).items()}
    assert streaming == {"numbers": True, "later": True, "iterator": True, "quietly": False}


@pytest.mark.parametrize("name", ["_x", ".x", "-x", "a b", "a/b", "é", "a\n", " a", "x" * 65])
def test_names_the_registry_would_not_take_are_refused_at_once(name: str) -> None:
    """A bad name fails where it is written, and the message says what a name may be."""
    with pytest.raises(ToolRefused, match="1 to 64 letters, digits"):
        tool(name=name)(lambda self: None)


@pytest.mark.parametrize("name", ["A", "0", "a.b-c_d", "x" * 64])
def test_names_the_registry_takes(name: str) -> None:
    """Letters, digits, `_`, `.` and `-`, up to 64 of them, beginning with a letter or digit."""

    def method(self: Any) -> None: ...

    assert make_tool(tool(name=name)(method)).name == name


def test_a_private_method_needs_a_name() -> None:
    """A method whose own name is no tool name is refused unless the decorator gives one."""

    def _private(self: Any) -> None: ...

    with pytest.raises(ToolRefused, match="'_private' is refused"):
        tool(_private)
    assert make_tool(tool(name="public")(_private)).name == "public"


def test_two_methods_cannot_claim_one_name() -> None:
    """A duplicate is refused with the class and the name."""

    class Twins(BaseAdapter):
        @tool(name="twin")
        def one(self) -> None: ...

        @tool(name="twin")
        def other(self) -> None: ...

    with pytest.raises(ToolRefused, match="Twins has two tools named 'twin'"):
        tools_of(Twins)


def test_too_much_metadata_is_refused() -> None:
    """At most 32 entries and 4096 bytes, as the registry has it."""

    class Many(BaseAdapter):
        @tool(metadata={str(number): "" for number in range(33)})
        def many(self) -> None: ...

    class Long(BaseAdapter):
        @tool(metadata={"k": "é" * 2048})
        def long(self) -> None: ...

    with pytest.raises(ToolRefused, match="metadata of tool 'many' has 33 entries"):
        tools_of(Many)
    with pytest.raises(ToolRefused, match="'long' has 1 entries and 4097 bytes"):
        tools_of(Long)


def test_tools_are_inherited() -> None:
    """A subclass has the tools of its bases; a marked override takes the place of the inherited one."""

    class Polite(Greeter):
        @tool("Greet politely.")
        def greet(self, name: str) -> str:
            return name

        @tool
        def bow(self) -> None: ...

    found = tools_of(Polite)
    assert set(found) == {"bow", "greet", "part.from-2"}
    assert found["greet"].description == "Greet politely."


def test_an_override_without_the_decorator_is_no_tool() -> None:
    """A subclass takes a tool away by overriding it unmarked."""

    class Mute(Greeter):
        def greet(self, *args: Any, **kwargs: Any) -> str:
            return ""

    assert set(tools_of(Mute)) == {"part.from-2"}


def test_static_and_class_methods_are_refused() -> None:
    """A tool needs its instance, so what has none is refused rather than left out, in either order."""

    class Static(BaseAdapter):
        @staticmethod
        @tool
        def static(x: Any) -> None: ...

    class Classy(BaseAdapter):
        @classmethod
        @tool
        def classy(cls) -> None: ...

    for adapter in (Static, Classy):
        with pytest.raises(ToolRefused, match="is no plain method"):
            tools_of(adapter)
    for wrap in (staticmethod, classmethod):
        with pytest.raises(ToolRefused, match="is no plain method"):
            tool(wrap(lambda _: None))


def test_an_adapter_without_tools_is_refused() -> None:
    """A class that can serve nothing is refused when it is hosted, and the message says what to do."""
    with pytest.raises(ToolRefused, match=r"BaseAdapter has no tools: mark methods with @tool"):
        AdapterHost(BaseAdapter, ToolThreads())


class Spelled(BaseAdapter):
    """Tools in the words of Snakepit's guide."""

    @tool(description="Search for items", supports_streaming=True, required_variables=["api_key", "region"])
    def search(self, query: str, limit: int = 10) -> Iterator[int]:
        yield limit

    @tool(description="Add two numbers together")
    def add(self, a: float, b: float) -> float:
        """Not what callers are told."""
        return a + b

    @tool("Stream.", True, ["one"])
    def by_position(self) -> Any: ...

    @tool(description="", required_variables=[], supports_streaming=None)
    def by_default(self) -> Any:
        """Do what it does by default."""


def test_keywords_of_snakepits_guide() -> None:
    """`description`, `supports_streaming` and `required_variables` mean what they mean there, by name or position."""
    tools = tools_of(Spelled).values()
    about = {made.name: (made.description, made.supports_streaming, made.metadata) for made in tools}
    assert about == {
        "search": ("Search for items", True, {"required_variables": "api_key,region"}),
        "add": ("Add two numbers together", False, {}),
        "by_position": ("Stream.", True, {"required_variables": "one"}),
        "by_default": ("Do what it does by default.", False, {}),
    }


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"description": 5}, "the description of a tool is 5; it must be text"),
        ({"required_variables": [1]}, r"required_variables of a tool are \[1\]; they must be a list of names"),
        ({"name": 5}, "tool name 5 is refused"),
    ],
)
def test_what_the_decorator_is_given_is_checked(given: dict[str, Any], words: str) -> None:
    """What is not as the decorator has it is refused where it is written."""
    with pytest.raises(ToolRefused, match=words):
        tool(**given)(lambda self: None)


def test_metadata_are_text() -> None:
    """Metadata that the wire cannot carry are refused with the tool."""

    class Numbered(BaseAdapter):
        @tool(metadata={"version": 1})  # type: ignore[dict-item]
        def numbered(self) -> None: ...

    with pytest.raises(ToolRefused, match=r"metadata of tool 'numbered' are .*; keys and values must be text"):
        tools_of(Numbered)


def adapter_with(**namespace: Any) -> type:
    """Return an adapter class of these attributes."""
    return type("Made", (BaseAdapter,), namespace)


def marked(**given: Any) -> Any:
    """Return a method that is marked as a tool."""

    def method(self: Any) -> None: ...

    return tool(**given)(method)


@pytest.mark.parametrize("given", [{}, {"name": "tidy-up"}, {"description": "Delete all temporary files."}])
@pytest.mark.parametrize(
    "hook",
    [
        "initialize",
        "cleanup",
        "set_session_context",
        "execute_tool",
        "session_context",
        "__init__",
        "__call__",
        "__del__",
        "__thread_safe__",
    ],
)
def test_a_tool_in_the_place_of_a_hook_is_refused(hook: str, given: dict[str, Any]) -> None:
    """A method that every request calls is no tool, whatever name callers were to know it by; the message has both."""
    with pytest.raises(ToolRefused, match=rf"Made\.{hook} is marked as a tool, .* rename the method"):
        tools_of(adapter_with(**{hook: marked(**given)}))
    with pytest.raises(ToolRefused, match=hook):
        AdapterHost(type("Mixed", (type("Mixin", (), {hook: marked(**given)}), BaseAdapter), {}), ToolThreads())


def test_callers_may_know_a_tool_by_the_name_of_a_hook() -> None:
    """It is the method's own name that must not be taken; a tool may be called anything that the registry takes."""
    assert set(tools_of(adapter_with(tidy=marked(name="cleanup")))) == {"cleanup"}


@pytest.mark.parametrize(
    "wrap",
    [
        property,
        lambda function: property(None, function),
        functools.cached_property,
        functools.partialmethod,
        functools.singledispatchmethod,
        functools.lru_cache,
        staticmethod,
        classmethod,
    ],
)
def test_what_is_no_plain_method_is_refused(wrap: Any) -> None:
    """A marked function inside something else would be a tool that nobody finds, so it is refused by its name."""
    with pytest.raises(ToolRefused, match=r"Made\.total is marked as a tool but is no plain method"):
        tools_of(adapter_with(total=wrap(marked())))


def test_a_tool_without_self_is_refused() -> None:
    """A function that cannot take its adapter is refused at load rather than at its first call."""

    class Forgetful(BaseAdapter):
        @tool
        def forget() -> None: ...  # type: ignore[misc]

    with pytest.raises(ToolRefused, match=r"tool 'forget' has no parameters, .* begin with self"):
        tools_of(Forgetful)
