"""Tools: methods of an adapter, or functions of the authority, that can be called by name."""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar, overload

from snakepit_otel.adapters.arguments import ArgumentCheck
from snakepit_otel.errors import ToolRefused

F = TypeVar("F", bound=Callable[..., Any])

MAX_NAME = 64
MAX_METADATA_ENTRIES = 32
MAX_METADATA_BYTES = 4096
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_MARK = "__snakepit_tool__"
_NO_DEFAULT = inspect.Parameter.empty


@dataclass(frozen=True)
class Mark:
    """What the decorator noted on a function."""

    name: str | None
    description: str
    supports_streaming: bool | None
    metadata: Mapping[str, str]


@dataclass(frozen=True)
class Parameter:
    """One parameter of a tool, as callers are told of it."""

    name: str
    type: str
    required: bool
    default: Any = None


@dataclass(frozen=True)
class Tool:
    """A tool as registered: what callers may know, and the function behind it."""

    name: str
    function: Callable[..., Any]
    description: str = ""
    supports_streaming: bool = False
    parameters: tuple[Parameter, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def is_async(self) -> bool:
        """Whether it runs on the event loop."""
        return inspect.iscoroutinefunction(self.function) or inspect.isasyncgenfunction(self.function)

    @cached_property
    def check(self) -> ArgumentCheck:
        """The check of its arguments, made when first needed."""
        return ArgumentCheck(self.name, self.function)


@overload
def tool(function: F, /) -> F: ...
@overload
def tool(
    description: str = "",
    /,
    *,
    name: str | None = None,
    supports_streaming: bool | None = None,
    metadata: Mapping[str, str] | None = None,
) -> Callable[[F], F]: ...
def tool(
    description: Any = "",
    /,
    *,
    name: str | None = None,
    supports_streaming: bool | None = None,
    metadata: Mapping[str, str] | None = None,
) -> Any:
    """Mark a method of an adapter as a tool; with or without arguments.

    The description defaults to the first paragraph of the docstring, the name to the method's;
    generators stream. Raises `ToolRefused` for a name the registry would not take: 1 to 64 of
    letters, digits, `_`, `.` and `-`, beginning with a letter or digit.
    """
    if not isinstance(description, str):
        return tool()(description)

    def mark(function: F) -> F:
        if not inspect.isfunction(function):
            raise ToolRefused(f"{function!r:.100} is marked as a tool but is no plain method")
        checked_name(name or function.__name__)
        setattr(function, _MARK, Mark(name, description, supports_streaming, dict(metadata or {})))
        return function

    return mark


def checked_name(name: str) -> str:
    """Return the name, or raise `ToolRefused`."""
    if not isinstance(name, str) or len(name) > MAX_NAME or not _NAME.fullmatch(name):
        raise ToolRefused(
            f"tool name {name!r:.100} is refused: 1 to {MAX_NAME} letters, digits, '_', '.' and '-', "
            "beginning with a letter or digit"
        )
    return name


def checked_metadata(name: str, metadata: Mapping[str, str]) -> Mapping[str, str]:
    """Return the metadata, or raise `ToolRefused` over 32 entries or 4096 bytes."""
    size = sum(len(key.encode()) + len(value.encode()) for key, value in metadata.items())
    if len(metadata) > MAX_METADATA_ENTRIES or size > MAX_METADATA_BYTES:
        raise ToolRefused(
            f"metadata of tool {name!r} has {len(metadata)} entries and {size} bytes; at most "
            f"{MAX_METADATA_ENTRIES} entries and {MAX_METADATA_BYTES} bytes are allowed"
        )
    return metadata


def tools_of(adapter: type) -> dict[str, Tool]:
    """Return the tools of an adapter class by name.

    Raises `ToolRefused` if two methods claim one name.
    """
    found: dict[str, Tool] = {}
    for attribute in sorted(dir(adapter)):
        function = inspect.getattr_static(adapter, attribute)
        if not hasattr(function, _MARK) and not hasattr(getattr(function, "__func__", None), _MARK):
            continue
        if not inspect.isfunction(function):
            raise ToolRefused(f"{adapter.__qualname__}.{attribute} is marked as a tool but is no plain method")
        made = make_tool(function)
        if made.name in found:
            raise ToolRefused(f"{adapter.__qualname__} has two tools named {made.name!r}")
        found[made.name] = made
    return found


def make_tool(function: Callable[..., Any], name: str | None = None) -> Tool:
    """Return the tool that a function is, by its mark, signature and docstring."""
    mark: Mark = getattr(function, _MARK, None) or Mark(None, "", None, {})
    name = checked_name(name or mark.name or function.__name__)
    streaming = mark.supports_streaming
    if streaming is None:
        streaming = inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)
    first_paragraph = (inspect.getdoc(function) or "").partition("\n\n")[0]
    return Tool(
        name,
        function,
        mark.description or " ".join(first_paragraph.split()),
        streaming,
        _parameters(function),
        checked_metadata(name, mark.metadata),
    )


def _parameters(function: Callable[..., Any]) -> tuple[Parameter, ...]:
    found = []
    # The first parameter is the adapter, or for authority tools the session context.
    for parameter in list(inspect.signature(function).parameters.values())[1:]:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        required = parameter.default is _NO_DEFAULT
        found.append(
            Parameter(
                parameter.name,
                _type_name(parameter.annotation),
                required,
                None if required else parameter.default,
            )
        )
    return tuple(found)


def _type_name(annotation: Any) -> str:
    if annotation is _NO_DEFAULT:
        return "any"
    if isinstance(annotation, type) and typing.get_origin(annotation) is None:
        return annotation.__name__.lower()
    return str(annotation).lower()
