"""Tools: methods of an adapter, or functions of the authority, that can be called by name."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar, overload

from snakepit_otel.adapters._annotations import name_of, signature_of
from snakepit_otel.adapters._arguments import ArgumentCheck
from snakepit_otel.adapters._base import BaseAdapter
from snakepit_otel.adapters._retry import Retry
from snakepit_otel.errors import ToolRefused

F = TypeVar("F", bound=Callable[..., Any])

MAX_NAME = 64
MAX_METADATA_ENTRIES = 32
MAX_METADATA_BYTES = 4096
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_OPTIONS_ATTRIBUTE = "__snakepit_tool__"
# What is called or set on every adapter, beside what Python itself does.
_HOOKS = frozenset(name for name in dir(BaseAdapter) if not name.startswith("__")) | {"execute_tool", "session_context"}
_NO_DEFAULT = inspect.Parameter.empty


@dataclass(frozen=True)
class ToolOptions:
    name: str | None
    description: str
    supports_streaming: bool | None
    metadata: Mapping[str, str]
    idempotent: bool = False
    retry: Retry | None = None


@dataclass(frozen=True)
class Parameter:
    name: str
    type: str
    required: bool
    default: Any = None


@dataclass(frozen=True)
class Tool:
    """A tool as registered: its description for callers, and its function.

    `owner` is the adapter class that the function is a method of. One that is `idempotent` may be run again after the
    loss of its worker, and after the errors of `retry`.
    """

    name: str
    function: Callable[..., Any]
    description: str = ""
    supports_streaming: bool = False
    parameters: tuple[Parameter, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)
    owner: type | None = None
    idempotent: bool = False
    retry: Retry | None = None

    @cached_property
    def is_async(self) -> bool:
        """Whether it runs on the event loop."""
        return inspect.iscoroutinefunction(self.function) or inspect.isasyncgenfunction(self.function)

    @cached_property
    def check(self) -> ArgumentCheck:
        return ArgumentCheck(self.name, self.function, self.owner)


@overload
def tool(function: F, /) -> F: ...
@overload
def tool(
    description: str | None = None,
    supports_streaming: bool | None = None,
    required_variables: Iterable[str] | None = None,
    *,
    name: str | None = None,
    metadata: Mapping[str, str] | None = None,
    idempotent: bool = False,
    retry: Retry | None = None,
) -> Callable[[F], F]: ...
def tool(
    description: Any = None,
    supports_streaming: bool | None = None,
    required_variables: Iterable[str] | None = None,
    *,
    name: str | None = None,
    metadata: Mapping[str, str] | None = None,
    idempotent: bool = False,
    retry: Retry | None = None,
) -> Any:
    """Mark a method of an adapter as a tool; with or without arguments.

    The description defaults to the first paragraph of the docstring, the name to the method's; generators stream,
    unless `supports_streaming` says otherwise. `required_variables` are comma-separated in the metadata, for
    callers; nothing checks that they are there. A tool that is `idempotent` may run more than once for a request: it is
    run again, as `pool.max_retries` allows, if its worker is lost, and if it raises an error of `retry`, which only
    such a tool may have. Raises `ToolRefused` for a name the registry would not take: 1 to 64 of letters, digits, `_`,
    `.` and `-`, beginning with a letter or digit; and for what is not as it is written here.
    """
    if description is not None and not isinstance(description, str):
        if not callable(description) and not hasattr(description, "__get__"):
            raise ToolRefused(f"the description of a tool is {description!r:.60}; it must be text")
        return tool()(description)
    about = dict(metadata or {})
    if required_variables:
        about["required_variables"] = _comma_separated(required_variables)

    _check_retry(idempotent, retry)

    def mark(function: F) -> F:
        if not inspect.isfunction(function):
            raise ToolRefused(f"{function!r:.100} is marked as a tool but is no plain method")
        checked_name(name or function.__name__)
        options = ToolOptions(name, description or "", supports_streaming, about, idempotent, retry)
        setattr(function, _OPTIONS_ATTRIBUTE, options)
        return function

    return mark


def _check_retry(idempotent: Any, retry: Any) -> None:
    if not isinstance(idempotent, bool):
        raise ToolRefused(f"idempotent of a tool is {idempotent!r:.60}; it must be True or False")
    if retry is None:
        return
    if not isinstance(retry, Retry):
        raise ToolRefused(f"retry of a tool is {retry!r:.60}; it must be a Retry, such as Retry(on=(TimeoutError,))")
    if not idempotent:
        raise ToolRefused(
            "a tool with retry=… may run more than once for a request, so it must be one that can bear that: "
            "add idempotent=True, or leave retry out"
        )


def _comma_separated(variables: Iterable[str]) -> str:
    names = [variables] if isinstance(variables, str) else list(variables)
    if not all(isinstance(variable, str) for variable in names):
        raise ToolRefused(f"required_variables of a tool are {names!r:.60}; they must be a list of names")
    return ",".join(names)


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
    if not all(isinstance(part, str) for pair in metadata.items() for part in pair):
        raise ToolRefused(f"metadata of tool {name!r} are {dict(metadata)!r:.100}; keys and values must be text")
    size = sum(len(key.encode()) + len(value.encode()) for key, value in metadata.items())
    if len(metadata) > MAX_METADATA_ENTRIES or size > MAX_METADATA_BYTES:
        raise ToolRefused(
            f"metadata of tool {name!r} has {len(metadata)} entries and {size} bytes; at most "
            f"{MAX_METADATA_ENTRIES} entries and {MAX_METADATA_BYTES} bytes are allowed"
        )
    return metadata


def tools_of(adapter: type) -> dict[str, Tool]:
    """Return the tools of an adapter class by name.

    Raises `ToolRefused` if two methods claim one name, or one has the name of what is called in every request.
    """
    found: dict[str, Tool] = {}
    for attribute in sorted(dir(adapter)):
        function = inspect.getattr_static(adapter, attribute)
        if not any(hasattr(part, _OPTIONS_ATTRIBUTE) for part in (function, *_wrapped_by(function))):
            continue
        where = f"{adapter.__qualname__}.{attribute}"
        if not inspect.isfunction(function):
            raise ToolRefused(f"{where} is marked as a tool but is no plain method")
        if attribute in _HOOKS or (attribute.startswith("__") and attribute.endswith("__")):
            raise ToolRefused(
                f"{where} is marked as a tool, but a method of this name is part of every request's life; rename the "
                f"method (callers may still know it as {attribute!r}, by @tool(name=…), if that is a tool's name)"
            )
        made = make_tool(function, owner=adapter)
        if made.name in found:
            raise ToolRefused(f"{adapter.__qualname__} has two tools named {made.name!r}")
        found[made.name] = made
    return found


def _wrapped_by(attribute: Any) -> Iterator[Any]:
    """Yield the functions in a property, a class method or the like, which are marked where it is not."""
    for name in ("__func__", "fget", "fset", "fdel", "func"):
        inner = inspect.getattr_static(attribute, name, None) and getattr(attribute, name, None)
        if inspect.isfunction(inner):
            yield inner


def make_tool(function: Callable[..., Any], name: str | None = None, owner: type | None = None) -> Tool:
    options: ToolOptions = getattr(function, _OPTIONS_ATTRIBUTE, None) or ToolOptions(None, "", None, {})
    name = checked_name(name or options.name or function.__name__)
    streaming = options.supports_streaming
    if streaming is None:
        streaming = inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)
    if not signature_of(function).parameters:
        raise ToolRefused(f"tool {name!r} has no parameters, and so none for what it is called on: begin with self")
    first_paragraph = (inspect.getdoc(function) or "").partition("\n\n")[0]
    return Tool(
        name,
        function,
        options.description or " ".join(first_paragraph.split()),
        streaming,
        _parameters(function),
        checked_metadata(name, options.metadata),
        owner,
        options.idempotent,
        options.retry,
    )


def _parameters(function: Callable[..., Any]) -> tuple[Parameter, ...]:
    found = []
    # The first parameter is the adapter, or for authority tools the session context.
    for parameter in list(signature_of(function).parameters.values())[1:]:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        required = parameter.default is _NO_DEFAULT
        found.append(
            Parameter(
                parameter.name, _type_name(parameter.annotation), required, None if required else parameter.default
            )
        )
    return tuple(found)


def _type_name(annotation: Any) -> str:
    return "any" if annotation is _NO_DEFAULT else name_of(annotation).lower()
