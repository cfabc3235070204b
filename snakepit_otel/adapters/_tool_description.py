"""Descriptions of tools for callers: signature, documentation, and JSON Schema of the arguments."""

from __future__ import annotations

import inspect
import json
import reprlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from snakepit_otel.adapters._annotations import name_of, signature_of
from snakepit_otel.adapters._argument_schema import argument_schema
from snakepit_otel.adapters._tool import Tool, checked_name
from snakepit_otel.common.attempt import attempt
from snakepit_otel.errors import ToolRefused

ANY_NAME = "*"  # the tools of an adapter that takes any name, by its `execute_tool`
MAX_TOOLS = 1_000
MAX_TEXT = 4 << 10  # characters of a signature, and of a documentation
MAX_SCHEMA_BYTES = 64 << 10
MAX_BYTES = 512 << 10  # of all descriptions of an adapter
_MAX_DEFAULT = 60
_EMPTY = inspect.Parameter.empty


@dataclass(frozen=True)
class ToolDescription:
    """Description of one tool; its name is `*` for whatever an adapter's `execute_tool` takes."""

    name: str
    description: str = ""
    signature: str = ""
    schema: str = ""  # JSON, of an object; empty where there is none
    streams: bool = False
    idempotent: bool = False


def describe(made: Tool, *, checked: bool = True) -> ToolDescription:
    """Return a tool's description; the arguments of one that is not `checked` have no schema."""
    documentation = inspect.getdoc(made.function) or ""
    about = made.description
    if documentation and " ".join(documentation.split()).startswith(about):
        about = documentation
    schema = attempt(lambda: json.dumps(argument_schema(made.check), separators=(",", ":"))).value if checked else ""
    return ToolDescription(
        made.name,
        about[:MAX_TEXT],
        (attempt(signature_text, made).value or "")[:MAX_TEXT],
        schema if schema and len(schema.encode()) <= MAX_SCHEMA_BYTES else "",
        made.supports_streaming,
        made.idempotent,
    )


def describe_all(tools: Iterable[Tool], *, takes_any: bool) -> list[ToolDescription]:
    """Return the descriptions of an adapter's tools, in 512 KiB.

    Where that is not enough, the last ones lose their schemas, and then all but their names.
    """
    found = [describe(made, checked=not takes_any) for made in list(tools)[:MAX_TOOLS]]
    if takes_any:
        found.insert(0, ToolDescription(ANY_NAME, "Any name that the adapter's execute_tool takes.", "(**arguments)"))
    room = MAX_BYTES
    for at, one in enumerate(found):
        for smaller in (one, _without_schema(one), _bare(one)):
            size = len(json.dumps(vars(smaller)))
            if size <= room:
                break
        found[at] = smaller
        room = max(0, room - size)
    return found


def _bare(one: ToolDescription) -> ToolDescription:
    # What a pool goes by is never left out.
    return ToolDescription(one.name, streams=one.streams, idempotent=one.idempotent)


def checked_description(given: Any) -> ToolDescription:
    """Return a description that a worker has sent. Raises `ToolRefused` for what is none, or too large."""
    if not isinstance(given, dict) or given.keys() != ToolDescription.__dataclass_fields__.keys():
        raise ToolRefused("the description of a tool is no object, or has other keys")
    one = ToolDescription(**given)
    texts = (one.name, one.description, one.signature, one.schema)
    if not all(isinstance(text, str) for text in texts) or not all(
        isinstance(flag, bool) for flag in (one.streams, one.idempotent)
    ):
        raise ToolRefused("the description of a tool has a value of another type")
    if one.name != ANY_NAME:
        checked_name(one.name)
    if len(one.description) > MAX_TEXT or len(one.signature) > MAX_TEXT or len(one.schema) > MAX_SCHEMA_BYTES:
        raise ToolRefused(f"the description of tool {one.name!r} is too long")
    if one.schema and not isinstance(attempt(json.loads, one.schema).value, dict):
        raise ToolRefused(f"the schema of tool {one.name!r} is no JSON object")
    return one


def signature_text(made: Tool) -> str:
    """Return the signature as Python writes it, without the parameter that the tool is called on."""
    signature = signature_of(made.function)
    parts: list[str] = []
    for parameter in list(signature.parameters.values())[1:]:
        before = parameter.kind is parameter.KEYWORD_ONLY and not any(part.startswith("*") for part in parts)
        parts += ["*"] if before else []
        parts.append(_parameter_text(parameter))
    returned = signature.return_annotation
    result = "" if returned is _EMPTY else f" -> {_annotation(returned)}"
    return f"({', '.join(parts)}){result}"


def _parameter_text(parameter: inspect.Parameter) -> str:
    stars = (parameter.kind is parameter.VAR_POSITIONAL) + 2 * (parameter.kind is parameter.VAR_KEYWORD)
    text = "*" * stars + parameter.name
    if parameter.annotation is not _EMPTY:
        text += f": {_annotation(parameter.annotation)}"
    if parameter.default is _EMPTY:
        return text
    default: str = attempt(reprlib.repr, parameter.default).value or "..."
    equals = "=" if parameter.annotation is _EMPTY else " = "
    return text + equals + (default if len(default) <= _MAX_DEFAULT else "...")


def _annotation(annotation: Any) -> str:
    if annotation is None or annotation is type(None):
        return "None"
    return name_of(annotation).replace("typing.", "")


def _without_schema(one: ToolDescription) -> ToolDescription:
    return ToolDescription(one.name, one.description, one.signature, "", one.streams, one.idempotent)
