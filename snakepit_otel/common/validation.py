"""Validation of settings: types of their values, and messages that name the setting and the remedy."""

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

_VARIABLES = frozenset(("environment", "slot_environment"))
_OPTIONS = (("middleware", "options"), ("session_store", "backend_options"))
SettingPath = tuple[str | int, ...]  # names of the groups, of the setting, and keys inside of its value


def _no_boolean(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("must be a number, not a boolean")  # noqa: TRY004 - what pydantic collects
    return value


# Numbers may be text, as environment variables are. Workers get whole numbers in 64 bits.
Number = Annotated[float, BeforeValidator(_no_boolean)]
Whole = Annotated[int, BeforeValidator(_no_boolean), Field(le=(1 << 63) - 1)]
# Ten years at most: gRPC takes a time that it cannot count for a deadline that has passed.
Milliseconds = Annotated[Whole, Field(le=315_360_000_000)]


@dataclass(frozen=True)
class Problem:
    """Problem of one setting."""

    path: SettingPath
    message: str
    cross_field: bool = False  # several settings contradict each other, or one is missing
    unknown: bool = False


def build(model: type[Model], values: dict[str, Any], prefix: str = "") -> Model:
    """Return `model(**values)`; raise `ConfigurationError` naming each bad setting, prefixed by `prefix`."""
    try:
        return model(**values)
    except ValidationError as error:
        raise ConfigurationError(explain(model, error, prefix)) from None


def explain(model: type[BaseModel], error: ValidationError, prefix: str = "") -> str:
    """Return the problems, one on a line, with the nearest known name for an unknown one."""
    lines = []
    for problem in problems(model, error):
        name = dotted(problem.path)
        lines.append(f"{prefix}{name}: {problem.message}" if name else f"{prefix.rstrip('.: ')}: {problem.message}")
    return "\n".join(line.removeprefix(": ") for line in lines)


def problems(model: type[BaseModel], error: ValidationError) -> list[Problem]:
    """Return the problems that pydantic found."""
    return [_problem(model, details) for details in error.errors()]


def dotted(path: SettingPath) -> str:
    """Return the name of a setting as TOML would write it: `pool.size`, `pools."a b"`."""
    return ".".join(part if re.fullmatch(r"[\w-]+", part) else f'"{part}"' for part in map(str, path))


def is_secret(path: SettingPath) -> bool:
    """Whether a setting's value is not to be shown: variables and options of others' code may be secrets."""
    return not _VARIABLES.isdisjoint(path) or path[:2] in (
        ("middleware", "options"),
        ("session_store", "backend_options"),
    )


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return the end of a message about an unknown name: the nearest known one, or all of them."""
    known = sorted(known)
    match = difflib.get_close_matches(name, known, 1)
    return f"did you mean {match[0]!r}?" if match else f"known here: {', '.join(known)}"


def member_type(kind: Any, part: str | int) -> Any:
    """Return the type of a member of a group of settings of type `kind`; None if there is no such member."""
    group = model_of(kind)
    if group is not None:
        field = group.model_fields.get(str(part))
        return None if field is None else field.annotation
    return get_args(_bare(kind))[-1] if is_mapping(kind) else None


def model_of(kind: Any) -> type[BaseModel] | None:
    """Return the model of a type, optional or not; None if it is none."""
    bare = _bare(kind)
    return bare if isinstance(bare, type) and issubclass(bare, BaseModel) else None


def is_mapping(kind: Any) -> bool:
    """Whether a type has settings under names of the user's choice."""
    return get_origin(_bare(kind)) is dict


def _bare(kind: Any) -> Any:
    while get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    # Of an optional type, the one beside None.
    options = [option for option in get_args(kind) if option is not type(None)]
    return _bare(options[0]) if type(None) in get_args(kind) and len(options) == 1 else kind


def _problem(model: type[BaseModel], details: Any) -> Problem:
    path: SettingPath = tuple(details["loc"])
    message = details["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    kind: Any = model
    for part in path[:-1]:
        kind = member_type(kind, part)
    if details["type"] == "extra_forbidden":
        group = model_of(kind)
        message = f"unknown setting; {suggestion(str(path[-1]), group.model_fields if group else ())}"
        return Problem(path, message, unknown=True)
    if details["type"] == "missing":
        return Problem(path, "is missing", cross_field=True)
    if path[-1:] == ("[key]",):
        return Problem(path[:-1], f"{message} (got {masked_text(repr(details['input']))})")
    if details["type"] in ("model_type", "dict_type"):
        message = "input should be a group of settings"
    group = model_of(member_type(kind, path[-1]) if path else kind)
    if group is not None and details["type"] == "value_error":
        # Such a message may begin with the setting at fault.
        name, _, rest = message.partition(" ")
        if name in group.model_fields:
            return Problem((*path, name), rest, cross_field=True)
        return Problem(path, message, cross_field=True)
    shown = MASK if is_secret(path) else masked_text(repr(details["input"]))
    return Problem(path, f"{message} (got {shown})")
