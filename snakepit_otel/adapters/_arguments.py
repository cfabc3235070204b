"""Checks a call's arguments against the tool's signature, before the tool runs."""

from __future__ import annotations

import difflib
import inspect
import logging
import reprlib
import typing
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from snakepit_otel.adapters import _core_schema as core_schema
from snakepit_otel.adapters._annotations import Annotations, fields_of, name_of, signature_of
from snakepit_otel.adapters._reference_arguments import opening_of
from snakepit_otel.common.attempt import attempt
from snakepit_otel.common.printable import printable
from snakepit_otel.errors import InvalidArguments, ToolRefused

_log = logging.getLogger("snakepit_otel.adapters")
_SCALARS = frozenset({"bool", "int", "float", "str", "bytes"})
# The keys of a JSON object are text, whatever the mapping has for keys; the others hold no schemas.
_AS_THEY_ARE = frozenset({"keys_schema", "default", "metadata", "serialization"})
# What these hold has names of the users' own, and is no schema itself.
_BY_NAME = frozenset({"fields", "choices"})
# No parameter has this name, so it is free for what `**name` takes.
OTHERS = "**"
# Not with the validators that models have already, which open nothing; older releases have no such thing.
_PREBUILT = "_use_prebuilt"
_MAX_NAMED_FAULTS = 10
_MAX_READ_FAULTS = 1_000
_MAX_SHOWN_CHARACTERS = 100
_outlines = reprlib.Repr()
_outlines.maxlist = _outlines.maxtuple = _outlines.maxset = _outlines.maxdict = 40
_outlines.maxstring = _outlines.maxlong = _outlines.maxother = 2 * _MAX_SHOWN_CHARACTERS
_Fields = dict[str, Any]
_Check = Callable[[Mapping[str, Any]], dict[str, Any]]


class ArgumentCheck:
    """Checks and converts the arguments of one tool; `owner` is the class that it is a method of.

    Text, numbers and booleans are taken as they are, never coerced; containers, dates, enums,
    dataclasses and pydantic models are built from their JSON form. What a pydantic model coerces is its
    own affair. A parameter without annotation takes anything, and so does `**name`. A zero-copy reference is opened
    for a parameter that is annotated as an array of NumPy's, a tensor of PyTorch's or something of PyArrow's, at any
    depth. An annotation that cannot be checked is logged, and its parameter takes anything.

    Raises `ToolRefused` for a signature that cannot be called by name.
    """

    def __init__(self, tool: str, function: Callable[..., Any], owner: type | None = None) -> None:
        # Only here, since adapters that have an `execute_tool` check what they like themselves.
        from pydantic_core import ValidationError

        self._tool = tool
        self._mismatch: type[ValidationError] = ValidationError
        # The first parameter is the adapter, or for authority tools the session context.
        parameters = list(signature_of(function).parameters.values())[1:]
        if any(parameter.kind is parameter.POSITIONAL_ONLY for parameter in parameters):
            raise ToolRefused(f"tool {tool!r} has positional-only parameters; arguments are passed by name")
        annotations = Annotations(function, owner)
        named = [parameter for parameter in parameters if parameter.kind is not parameter.VAR_POSITIONAL]
        groups = [self._fields_of(parameter, annotations) for parameter in named]
        # pydantic has many ways to refuse a type.
        self.function = function
        self.fields = _joined(groups)  # types by name, required or not
        made, refused = attempt(_check_of, self.fields)
        if refused is not None:
            self.fields = _joined(self._checked(*pair) for pair in zip(named, groups, strict=True))
            made = _check_of(self.fields)
        self._validate: _Check = made
        self._names = [name for name in self.fields if name != OTHERS]

    def __call__(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments to call with, or raise `InvalidArguments` naming every fault."""
        try:
            return self._validate(arguments)
        except self._mismatch as error:
            count = error.error_count()
            if count > _MAX_READ_FAULTS:
                # To read any of them is to make all of them.
                raise InvalidArguments(f"{self._tool}: {count} arguments, or parts of them, are wrong") from None
            faults = [self._fault(problem) for problem in error.errors()[:_MAX_NAMED_FAULTS]]
            if count > _MAX_NAMED_FAULTS:
                faults.append(f"and {count - _MAX_NAMED_FAULTS} more faults")
            raise InvalidArguments(f"{self._tool}: {'; '.join(faults)}") from None

    def _fields_of(self, parameter: inspect.Parameter, annotations: Annotations) -> _Fields:
        fields, error = attempt(_resolved_fields, parameter, annotations)
        return fields if error is None else self._unchecked(parameter, error)

    def _checked(self, parameter: inspect.Parameter, fields: _Fields) -> _Fields:
        error = attempt(_check_of, fields).error
        return fields if error is None else self._unchecked(parameter, error)

    def _unchecked(self, parameter: inspect.Parameter, error: Exception) -> _Fields:
        is_no_type = type(error).__name__ == "ArbitraryTypeWarning"
        _log.warning(
            "tool '%s': parameter '%s' is annotated as %s, which cannot be checked (%s); it takes anything",
            printable(self._tool),
            printable(parameter.name),
            printable(name_of(parameter.annotation)),
            printable("it is no type" if is_no_type else " ".join(str(error).split())),
        )
        return _field_of(parameter, Any)

    def _fault(self, problem: Any) -> str:
        name = ".".join(str(part)[:_MAX_SHOWN_CHARACTERS] for part in problem["loc"][:_MAX_NAMED_FAULTS])
        if problem["type"] == "missing":
            return f"argument {name!r} is missing"
        if problem["type"] == "extra_forbidden":
            if len(problem["loc"]) > 1:
                return f"unexpected argument {name!r}"
            near = difflib.get_close_matches(name, self._names, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"it takes {', '.join(self._names) or 'none'}"
            return f"unexpected argument {name!r} ({hint})"
        message = problem["msg"][:1].lower() + problem["msg"][1:]
        return f"argument {name!r}: {message}, got {_shown(problem['input'])}"


def _shown(value: Any) -> str:
    """Return what a value looks like, whose own `repr` may be large, or too deep to be had."""
    if type(value) is str:
        return f"{value[:_MAX_SHOWN_CHARACTERS]!r:.80}"
    shown, error = attempt(_outlines.repr, value)
    return f"{shown:.80}" if error is None else f"a {type(value).__qualname__}"


def _resolved_fields(parameter: inspect.Parameter, annotations: Annotations) -> _Fields:
    hint = annotations.resolve(parameter.annotation)
    if parameter.kind is parameter.VAR_KEYWORD and typing.get_origin(hint) is typing.Unpack:
        return fields_of(typing.get_args(hint)[0])
    return _field_of(parameter, hint)


def _field_of(parameter: inspect.Parameter, hint: Any) -> _Fields:
    if parameter.kind is parameter.VAR_KEYWORD:
        return {OTHERS: typing.NotRequired[hint]}
    return {parameter.name: hint if parameter.default is parameter.empty else typing.NotRequired[hint]}


def is_optional(hint: Any) -> bool:
    """Return whether an argument of such a type may be left out."""
    origin: Any = typing.get_origin(hint)
    return origin is typing.NotRequired


def _joined(groups: Iterable[_Fields]) -> _Fields:
    return {name: hint for fields in groups for name, hint in fields.items()}


def _check_of(fields: _Fields) -> _Check:
    """Return the check of arguments by these types. Raises for a type that cannot be checked."""
    from pydantic_core import SchemaValidator

    plain = _plain_schema_of(fields)
    if plain is not None:
        return SchemaValidator(plain).validate_python
    anew: Any = {_PREBUILT: False} if _PREBUILT in (SchemaValidator.__text_signature__ or "") else {}
    return SchemaValidator(full_schema_of(fields), **anew).validate_python


def _plain_schema_of(fields: _Fields) -> Any:
    if fields.get(OTHERS) not in (None, typing.NotRequired[Any]):
        return None
    named = {name: hint for name, hint in fields.items() if name != OTHERS}
    return core_schema.schema_of(named, takes_others=OTHERS in fields)


def full_schema_of(fields: Mapping[str, Any]) -> Any:
    """Return pydantic's schema of named arguments. Raises for a type that it does not take."""
    # Only here, since it takes longer to load than all the rest of a worker, and most tools do without.
    from pydantic import ConfigDict, TypeAdapter
    from pydantic.warnings import ArbitraryTypeWarning
    from typing_extensions import TypedDict

    make_typed_dict: Any = TypedDict  # a name of its own, because this one is made at run time
    shape = make_typed_dict("Arguments", fields)
    takes_others = OTHERS in fields
    shape.__pydantic_config__ = ConfigDict(extra="allow" if takes_others else "forbid", arbitrary_types_allowed=True)
    with warnings.catch_warnings():
        # Pydantic would only warn that it takes anything for such a type.
        warnings.simplefilter("error", ArbitraryTypeWarning)
        schema = _adapted(TypeAdapter(shape).core_schema)
    if takes_others:
        arguments = next(part for part in (schema, schema.get("schema")) if part["type"] == "typed-dict")
        arguments["extras_schema"] = arguments["fields"].pop(OTHERS)["schema"]
    return schema


def _adapted(schema: Any, *, strict: bool = True) -> Any:
    """Return the schema with references opened for what takes arrays and tables, at any depth.

    Its scalars are made strict, but inside pydantic's models and dataclasses.
    """
    if isinstance(schema, (list, tuple)):
        return type(schema)(_adapted(part, strict=strict) for part in schema)
    if not isinstance(schema, dict):
        return schema
    if schema.get("type") in ("model", "dataclass"):
        strict = strict and not hasattr(schema["cls"], "__pydantic_complete__")
    made: dict[str, Any] = {}
    for key, part in schema.items():
        if key in _BY_NAME and isinstance(part, dict):
            made[key] = {name: _adapted(field, strict=strict) for name, field in part.items()}
        else:
            made[key] = part if key in _AS_THEY_ARE else _adapted(part, strict=strict)
    kind = made.get("type")
    opening = opening_of(made["cls"]) if kind == "is-instance" else None
    if opening is not None:
        from pydantic_core import core_schema

        # The reference to the schema, if others refer to it, is to what it becomes.
        return core_schema.no_info_before_validator_function(opening, made, ref=made.pop("ref", None))
    if strict and kind in _SCALARS:
        made.setdefault("strict", True)
    elif kind == "generator":
        # An Iterable is checked at once, rather than as the tool goes through it.
        made["type"] = "list"
    return made
