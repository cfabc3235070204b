"""JSON Schema of a tool's arguments, from the types by which they are checked."""

from __future__ import annotations

import inspect
import json
import warnings
from collections.abc import Mapping
from typing import Any

from snakepit_otel.adapters import _core_schema as core_schema
from snakepit_otel.adapters._annotations import name_of, signature_of
from snakepit_otel.adapters._arguments import OTHERS, ArgumentCheck, full_schema_of, is_optional
from snakepit_otel.adapters._reference_arguments import opening_of
from snakepit_otel.common.attempt import attempt

_SIMPLE = {
    "any": {},
    "none": {"type": "null"},
    "bool": {"type": "boolean"},
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "str": {"type": "string"},
    "bytes": {"type": "string", "format": "binary"},
}
_Schema = dict[str, Any]


def argument_schema(check: ArgumentCheck) -> _Schema:
    """Return the arguments of a tool as a JSON Schema of draft 2020-12, an object.

    What has no JSON form, such as an array that is passed by reference, and what cannot be described, has a schema that
    takes anything, with the annotation for a description. Defaults are there where JSON has them.
    """
    properties, definitions = _described(check.fields)
    others = properties.pop(OTHERS, None)
    for parameter in _parameters(check):
        schema = properties.get(parameter.name)
        if schema is None:
            continue  # of `**name`
        annotation = parameter.annotation
        if not schema and annotation not in (parameter.empty, Any, object, "Any", "object"):
            schema = properties[parameter.name] = {"description": name_of(annotation)}
        if parameter.default is not parameter.empty and _is_json(parameter.default):
            properties[parameter.name] = {**schema, "default": parameter.default}
    required = [name for name, hint in check.fields.items() if not is_optional(hint)]
    return {
        "type": "object",
        "properties": properties,
        **({"required": required} if required else {}),
        "additionalProperties": False if others is None else others or True,
        **({"$defs": definitions} if definitions else {}),
    }


def _parameters(check: ArgumentCheck) -> list[inspect.Parameter]:
    return list(signature_of(check.function).parameters.values())[1:]


def _described(fields: Mapping[str, Any]) -> tuple[dict[str, _Schema], dict[str, _Schema]]:
    """Return the schemas of the fields, and the definitions to which they refer."""
    plain = {name: core_schema.schema_of({name: hint}, takes_others=False) for name, hint in fields.items()}
    found = {name: _of_plain(made["fields"][name]["schema"]) for name, made in plain.items() if made is not None}
    rest = {name: hint for name, hint in fields.items() if name not in found}
    definitions: dict[str, _Schema] = {}
    if rest:
        # Together, so that they share their definitions.
        described, error = attempt(_of_full, rest)
        if error is not None:
            able = {name: hint for name, hint in rest.items() if attempt(_of_full, {name: hint}).error is None}
            described = _of_full(able) if able else ({}, {})
        properties, definitions = described
        found |= {name: properties.get(name, {}) for name in rest}
    return {name: found[name] for name in fields}, definitions


def _of_plain(schema: Any) -> _Schema:
    """Return the JSON Schema of one that `_core_schema` has made."""
    match schema["type"]:
        case "list":
            items = _of_plain(schema["items_schema"])
            return {"type": "array", **({"items": items} if items else {})}
        case "dict":
            values = _of_plain(schema["values_schema"])
            return {"type": "object", **({"additionalProperties": values} if values else {})}
        case "nullable":
            inner = _of_plain(schema["schema"])
            return {"anyOf": [inner, {"type": "null"}]} if inner else {}
        case "union":
            choices = [_of_plain(choice) for choice in schema["choices"]]
            return {"anyOf": choices} if all(choices) else {}
        case simple:
            return dict(_SIMPLE[simple])


def _of_full(fields: Mapping[str, Any]) -> tuple[dict[str, _Schema], dict[str, _Schema]]:
    """Return the schemas that pydantic makes. Raises for types that it does not describe."""
    from pydantic.json_schema import GenerateJsonSchema

    class Generator(GenerateJsonSchema):
        def field_title_should_be_set(self, schema: Any) -> bool:
            return False

        def handle_invalid_for_json_schema(self, schema: Any, error_info: str) -> Any:
            return _without_json_form(schema)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of defaults that are no JSON, and are left out
        made = Generator(by_alias=True).generate(full_schema_of(fields))
    definitions = made.pop("$defs", {})
    properties = made.get("properties", {})
    if OTHERS in fields:
        others = made.get("additionalProperties", {})
        properties[OTHERS] = others if isinstance(others, dict) else {}
    json.dumps([properties, definitions], allow_nan=False)
    return properties, definitions


def _without_json_form(schema: Any) -> _Schema:
    """Return a description of what is no JSON, by its class."""
    kind = schema.get("cls")
    if kind is None:
        return {}
    name = f"{kind.__module__}.{kind.__qualname__}"
    return {"description": f"{name}, passed by reference" if opening_of(kind) is not None else name}


def _is_json(value: Any) -> bool:
    return value is None or (isinstance(value, (str, int, float, bool, list, dict)) and _encodes(value))


def _encodes(value: Any) -> bool:
    return attempt(lambda: json.dumps(value, allow_nan=False)).error is None
