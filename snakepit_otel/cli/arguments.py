"""Arguments of a tool from `key=value` pairs, converted to the types that the tool takes."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from snakepit_otel.common.attempt import attempt
from snakepit_otel.errors import ConfigurationError, InvalidArguments

ARGUMENTS_HELP = (
    "key=value pairs; a value is converted to the type of the tool's parameter, lists and objects from JSON. "
    "key:=JSON is JSON whatever the type, key=@FILE is the text of a file, and key=@@TEXT is text with an @."
)
_ANYTHING: Mapping[str, Any] = {}
_MAX_DEPTH = 20
_NAMES = {
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "null": "null",
    "string": "text",
    "array": "a list, as JSON: [1, 2]",
    "object": 'an object, as JSON: {"key": "value"}',
}


def arguments_of(pairs: Sequence[str], schema: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the arguments, of the types of a JSON Schema; without one, what is JSON is that, and all else is text.

    Raises `ConfigurationError` for what is no pair, no JSON or no file, and `InvalidArguments` for a value that is not
    of its parameter's type. Names that the schema does not have are left to the tool.
    """
    schema = schema or {}
    properties, others = schema.get("properties", {}), schema.get("additionalProperties", {})
    found: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        as_json, key = key.endswith(":"), key.removesuffix(":")
        if not equals or not key:
            raise ConfigurationError(f"{pair!r} is no parameter; write key=value")
        text = _text(key, text)
        if as_json:
            found[key] = _json(key, text)
            continue
        wanted = properties.get(key, others)
        found[key] = _value(key, text, _choices(wanted, schema))
    return found


def _text(key: str, text: str) -> str:
    """Return the text of a value, or of the file that it names after an @."""
    if text.startswith("@@"):
        return text[1:]
    if not text.startswith("@"):
        return text
    try:
        return Path(text[1:]).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigurationError(f"{key}: {text[1:]} cannot be read: {reason}; for text with an @ write @@") from None


def _json(key: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"the value of {key!r} is not JSON: {error}") from None


def _choices(schema: Any, root: Mapping[str, Any], depth: int = 0) -> list[Mapping[str, Any]]:
    """Return the schemas of which a value must fulfil one, without references and unions."""
    if not isinstance(schema, dict) or depth > _MAX_DEPTH:
        return [_ANYTHING]
    if "$ref" in schema:
        name = str(schema["$ref"]).rpartition("/")[2]
        return _choices(root.get("$defs", {}).get(name), root, depth + 1)
    for union in ("anyOf", "oneOf"):
        if union in schema:
            return [one for part in schema[union] for one in _choices(part, root, depth + 1)]
    return [schema]


def _value(key: str, text: str, choices: Sequence[Mapping[str, Any]]) -> Any:
    # Text last, as every value can be that.
    for schema in sorted(choices, key=lambda one: one.get("type", "") == "string"):
        converted, error = attempt(_converted, text, schema)
        if error is None:
            return converted
    names = dict.fromkeys(_name(schema) for schema in choices)
    raise InvalidArguments(f"argument {key!r} is {text!r:.80}, and must be {' or '.join(names)}")


def _converted(text: str, schema: Mapping[str, Any]) -> Any:
    """Return the text as a value of this type. Raises where it is none."""
    allowed = schema.get("enum", [schema["const"]] if "const" in schema else None)
    if allowed is not None:
        return next(value for value in allowed if text in (value, json.dumps(value)))
    convert = _CONVERTERS.get(str(schema.get("type")))
    if convert is not None:
        return convert(text)
    value, error = attempt(json.loads, text)
    return text if error is not None else value


def _number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


def _container(kind: type, text: str) -> Any:
    value = json.loads(text)
    if not isinstance(value, kind):
        raise TypeError(text)
    return value


_CONVERTERS: Mapping[str, Callable[[str], Any]] = {
    "string": str,
    "integer": int,
    "number": _number,
    "boolean": lambda text: {"true": True, "false": False}[text.strip().lower()],
    "null": lambda text: {"null": None}[text.strip().lower()],
    "array": partial(_container, list),
    "object": partial(_container, dict),
}


def _name(schema: Mapping[str, Any]) -> str:
    allowed = schema.get("enum", [schema["const"]] if "const" in schema else None)
    if allowed is not None:
        return "one of " + ", ".join(value if isinstance(value, str) else json.dumps(value) for value in allowed[:20])
    return _NAMES.get(str(schema.get("type")), "JSON")
