"""Checks a call's arguments against the tool's signature, before the tool runs."""

from __future__ import annotations

import difflib
import inspect
import sys
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

from snakepit_otel.adapters import plain_schema
from snakepit_otel.errors import InvalidArguments, ToolRefused
from snakepit_otel.zero_copy import Reference

_SCALARS = frozenset({"bool", "int", "float", "str", "bytes"})
# The keys of a JSON object are text, whatever the mapping has for keys; the others hold no schemas.
_AS_THEY_ARE = frozenset({"keys_schema", "default", "metadata", "serialization"})
_PASS_ON = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class ArgumentCheck:
    """Checks and converts the arguments of one tool.

    Text, numbers and booleans are taken as they are, never coerced; containers, dates, enums,
    dataclasses and pydantic models are built from their JSON form. What a pydantic model coerces is its
    own affair. A parameter without annotation takes anything, and so does `**name`. A zero-copy reference is opened
    for a parameter that is annotated as an array of NumPy's, a tensor of PyTorch's or something of PyArrow's.

    Raises `ToolRefused` for a signature that cannot be called by name.
    """

    def __init__(self, tool: str, function: Callable[..., Any]) -> None:
        # Only here, since adapters that have an `execute_tool` check what they like themselves.
        from pydantic_core import SchemaValidator, ValidationError

        self._tool = tool
        self._mismatch: type[ValidationError] = ValidationError
        # The first parameter is the adapter, or for authority tools the session context.
        parameters = list(inspect.signature(function).parameters.values())[1:]
        if any(parameter.kind is parameter.POSITIONAL_ONLY for parameter in parameters):
            raise ToolRefused(f"tool {tool!r} has positional-only parameters; arguments are passed by name")
        try:
            hints = typing.get_type_hints(function, include_extras=True)
        except Exception as error:
            raise ToolRefused(f"the annotations of tool {tool!r} cannot be resolved: {error}") from error
        self._names = [parameter.name for parameter in parameters if parameter.kind not in _PASS_ON]
        fields: dict[str, Any] = {}
        for parameter in parameters:
            if parameter.kind not in _PASS_ON:
                hint = hints.get(parameter.name, Any)
                fields[parameter.name] = hint if parameter.default is parameter.empty else typing.NotRequired[hint]
        takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
        schema: Any = plain_schema.schema_of(fields, takes_others=takes_any)
        try:
            schema = schema or _schema_of(fields, takes_others=takes_any)
            self._validate = SchemaValidator(schema).validate_python
        except Exception as error:
            raise ToolRefused(f"the annotations of tool {tool!r} cannot be checked: {error}") from error

    def __call__(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments to call with, or raise `InvalidArguments` naming every fault."""
        try:
            return self._validate(arguments)  # type: ignore[no-any-return]
        except self._mismatch as error:
            faults = "; ".join(self._fault(problem) for problem in error.errors())
            raise InvalidArguments(f"{self._tool}: {faults}") from None

    def _fault(self, problem: Any) -> str:
        name = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "missing":
            return f"argument {name!r} is missing"
        if problem["type"] == "extra_forbidden":
            if len(problem["loc"]) > 1:
                return f"unexpected argument {name!r}"
            near = difflib.get_close_matches(name, self._names, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"it takes {', '.join(self._names) or 'none'}"
            return f"unexpected argument {name!r} ({hint})"
        message = problem["msg"][:1].lower() + problem["msg"][1:]
        return f"argument {name!r}: {message}, got {problem['input']!r:.80}"


def _schema_of(fields: Mapping[str, Any], *, takes_others: bool) -> Any:
    """Return the schema of named arguments that pydantic makes."""
    # Only here, since it takes longer to load than all the rest of a worker, and most tools do without.
    from pydantic import ConfigDict, TypeAdapter
    from typing_extensions import TypedDict

    make_typed_dict: Any = TypedDict  # a name of its own, because this one is made at run time
    shape = make_typed_dict("Arguments", {name: _opening_field(hint) for name, hint in fields.items()})
    shape.__pydantic_config__ = ConfigDict(extra="allow" if takes_others else "forbid", arbitrary_types_allowed=True)
    return _strict(TypeAdapter(shape).core_schema)


def _opening_field(hint: Any) -> Any:
    if typing.get_origin(hint) is typing.NotRequired:
        return typing.NotRequired[_opening(typing.get_args(hint)[0])]
    return _opening(hint)


def _opening(hint: Any) -> Any:
    """Return the hint with what takes arrays and tables made to take references to them, at any depth."""
    from pydantic import BeforeValidator

    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    kind = origin if inspect.isclass(origin) else hint
    package = kind.__module__.partition(".")[0] if inspect.isclass(kind) else ""
    if package == "numpy" and kind.__name__ == "ndarray":
        return typing.Annotated[kind, BeforeValidator(_opened(lambda reference: reference.to_numpy()))]
    if package == "pyarrow":
        return typing.Annotated[kind, BeforeValidator(_opened(lambda reference: reference.to_arrow()))]
    if package == "torch" and kind.__name__ == "Tensor":
        return typing.Annotated[kind, BeforeValidator(_opened(sys.modules["torch"].from_dlpack))]
    if origin in (typing.Union, types.UnionType):
        return typing.Union[tuple(map(_opening, parts))]  # noqa: UP007 - of parts that are known at run time only
    if origin in (list, tuple, dict):
        return origin[tuple(part if part is ... else _opening(part) for part in parts)]
    return hint


def _opened(open_: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: open_(value) if isinstance(value, Reference) else value


def _strict(schema: Any) -> Any:
    """Return the schema with its scalars made strict, at any depth but inside pydantic models."""
    if isinstance(schema, (list, tuple)):
        return type(schema)(_strict(part) for part in schema)
    if not isinstance(schema, dict) or schema.get("type") == "model":
        return schema
    strict = {key: part if key in _AS_THEY_ARE else _strict(part) for key, part in schema.items()}
    if strict.get("type") in _SCALARS:
        strict.setdefault("strict", True)
    elif strict.get("type") == "generator":
        # An Iterable is checked at once, rather than as the tool goes through it.
        strict["type"] = "list"
    return strict
