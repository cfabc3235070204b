"""Turning a settings model's complaints into sentences a person can act on."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, Field, ValidationError

from snakepit_otel.common.secrets import MASK, masked_text
from snakepit_otel.errors import ConfigurationError

Model = TypeVar("Model", bound=BaseModel)

Where = tuple[str | int, ...]
"""The way to a setting: the names of its groups, its own, and what is in it."""


def _no_boolean(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("must be a number, not a boolean")  # noqa: TRY004 - what pydantic collects
    return value


Number = Annotated[float, BeforeValidator(_no_boolean)]
"""A setting that is a number; text of one will do, as environment variables have it."""

Whole = Annotated[int, BeforeValidator(_no_boolean), Field(le=(1 << 63) - 1)]
"""A setting that is a whole number, of 64 bits, which is what travels to workers."""

Milliseconds = Annotated[Whole, Field(le=315_360_000_000)]
"""A setting that is a time, of ten years at most: gRPC takes what it cannot count for a deadline that has passed."""


@dataclass(frozen=True)
class Problem:
    """What is wrong with one setting."""

    where: Where
    said: str
    of_the_whole: bool = False
    """Whether it lies in how several settings go together, or in one that is missing."""
    unknown: bool = False
    """Whether there is no such setting."""


def build(model: type[Model], values: dict[str, Any], where: str = "") -> Model:
    """Return `model(**values)`; raise `ConfigurationError` naming each bad setting, prefixed by `where`."""
    try:
        return model(**values)
    except ValidationError as error:
        raise ConfigurationError(explain(model, error, where)) from None


def explain(model: type[BaseModel], error: ValidationError, where: str = "") -> str:
    """Return what is wrong, setting by setting, with the nearest known name for an unknown one."""
    lines = []
    for problem in problems(model, error):
        name = dotted(problem.where)
        lines.append(f"{where}{name}: {problem.said}" if name else f"{where.rstrip('.: ')}: {problem.said}")
    return "\n".join(line.removeprefix(": ") for line in lines)


def problems(model: type[BaseModel], error: ValidationError) -> list[Problem]:
    """Return what is wrong, setting by setting."""
    return [_problem(model, details) for details in error.errors()]


def dotted(where: Where) -> str:
    """Return the name of a setting as TOML would write it: `pool.size`, `pools."a b"`."""
    return ".".join(part if re.fullmatch(r"[\w-]+", part) else f'"{part}"' for part in map(str, where))


def is_secret(where: Where) -> bool:
    """Say whether a setting's value is better not shown: what workers have in their environment may be anything."""
    return "environment" in where or where[:2] == ("middleware", "options")


def near(name: str, known: Iterable[str]) -> str:
    """Return what to say to somebody who wrote a name that is none of those known."""
    known = sorted(known)
    match = difflib.get_close_matches(name, known, 1)
    return f"did you mean {match[0]!r}?" if match else f"known here: {', '.join(known)}"


def inside(kind: Any, part: str | int) -> Any:
    """Return the type of what has this name in a group of settings of type `kind`; None if it has no such thing."""
    group = group_of(kind)
    if group is not None:
        field = group.model_fields.get(str(part))
        return None if field is None else field.annotation
    return get_args(_bare(kind))[-1] if is_mapping(kind) else None


def group_of(kind: Any) -> type[BaseModel] | None:
    """Return the model that a type is, or may be."""
    bare = _bare(kind)
    return bare if isinstance(bare, type) and issubclass(bare, BaseModel) else None


def is_mapping(kind: Any) -> bool:
    """Say whether a type has settings under names of the user's choice."""
    return get_origin(_bare(kind)) is dict


def _bare(kind: Any) -> Any:
    while get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    # Of an optional setting, what it is if it is anything.
    options = [option for option in get_args(kind) if option is not type(None)]
    return _bare(options[0]) if type(None) in get_args(kind) and len(options) == 1 else kind


def _problem(model: type[BaseModel], details: Any) -> Problem:
    where: Where = tuple(details["loc"])
    message = details["msg"].removeprefix("Value error, ")
    said = message[:1].lower() + message[1:]
    kind: Any = model
    for part in where[:-1]:
        kind = inside(kind, part)
    if details["type"] == "extra_forbidden":
        group = group_of(kind)
        said = f"unknown setting; {near(str(where[-1]), group.model_fields if group else ())}"
        return Problem(where, said, unknown=True)
    if details["type"] == "missing":
        return Problem(where, "is missing", of_the_whole=True)
    if where[-1:] == ("[key]",):
        return Problem(where[:-1], f"{said} (got {masked_text(repr(details['input']))})")
    if details["type"] in ("model_type", "dict_type"):
        said = "input should be a group of settings"
    group = group_of(inside(kind, where[-1]) if where else kind)
    if group is not None and details["type"] == "value_error":
        # The setting that such a message begins with is the one that it is about.
        about, _, rest = said.partition(" ")
        if about in group.model_fields:
            return Problem((*where, about), rest, of_the_whole=True)
        return Problem(where, said, of_the_whole=True)
    shown = MASK if is_secret(where) else masked_text(repr(details["input"]))
    return Problem(where, f"{said} (got {shown})")
