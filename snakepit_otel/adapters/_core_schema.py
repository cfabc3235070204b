"""Schemas of signatures that need no more than pydantic's core, which is a tenth of pydantic to load."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from typing import Any

_SCHEMAS: dict[Any, dict[str, Any]] = {
    Any: {"type": "any"},
    object: {"type": "any"},
    None: {"type": "none"},
    type(None): {"type": "none"},
    # Text, numbers and booleans are taken as they are, never coerced.
    **{kind: {"type": kind.__name__, "strict": True} for kind in (bool, int, float, str, bytes)},
    list: {"type": "list", "items_schema": {"type": "any"}},
    dict: {"type": "dict", "keys_schema": {"type": "any"}, "values_schema": {"type": "any"}},
}
# The keys of a JSON object are text, whatever the mapping has for keys.
_KEYS = {kind: {"type": kind.__name__} for kind in (str, int)}


def schema_of(fields: Mapping[str, Any], *, takes_others: bool) -> dict[str, Any] | None:
    """Return the schema of named arguments; None if one of the types takes the whole of pydantic.

    It is what pydantic would make of a `TypedDict` with these fields, which may be `NotRequired`.
    """
    made = {}
    for name, hint in fields.items():
        required = typing.get_origin(hint) is not typing.NotRequired
        schema = _schema(hint if required else typing.get_args(hint)[0])
        if schema is None:
            return None
        made[name] = {"type": "typed-dict-field", "schema": schema, "required": required}
    return {"type": "typed-dict", "fields": made, "extra_behavior": "allow" if takes_others else "forbid"}


def _schema(hint: Any) -> dict[str, Any] | None:
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is None:
        try:
            return _SCHEMAS.get(hint)
        except TypeError:  # what cannot be hashed, such as a mistake
            return None
    if origin is list:
        items = _schema(parts[0])
        return None if items is None else {"type": "list", "items_schema": items}
    if origin is dict and parts[0] in _KEYS:
        values = _schema(parts[1])
        return None if values is None else {"type": "dict", "keys_schema": _KEYS[parts[0]], "values_schema": values}
    if origin in (typing.Union, types.UnionType):
        return _union(parts)
    return None


def _union(parts: tuple[Any, ...]) -> dict[str, Any] | None:
    choices = []
    for part in parts:
        if part is not type(None):
            schema = _schema(part)
            if schema is None:
                return None
            choices.append(schema)
    one = choices[0] if len(choices) == 1 else {"type": "union", "choices": choices}
    return {"type": "nullable", "schema": one} if type(None) in parts else one
