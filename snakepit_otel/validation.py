"""Turning a settings model's complaints into one sentence a person can act on."""

from __future__ import annotations

import difflib
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ValidationError

from snakepit_otel.errors import ConfigurationError

Model = TypeVar("Model", bound=BaseModel)


def _no_boolean(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("must be a number, not a boolean")  # noqa: TRY004 - what pydantic collects
    return value


Number = Annotated[float, BeforeValidator(_no_boolean)]
"""A setting that is a number; text of one will do, as environment variables have it."""

Whole = Annotated[int, BeforeValidator(_no_boolean)]
"""A setting that is a whole number."""


def build(model: type[Model], values: dict[str, Any], where: str = "") -> Model:
    """Return `model(**values)`; raise `ConfigurationError` naming each bad setting, prefixed by `where`."""
    try:
        return model(**values)
    except ValidationError as error:
        raise ConfigurationError(explain(model, error, where)) from None


def explain(model: type[BaseModel], error: ValidationError, where: str = "") -> str:
    """Return what is wrong, setting by setting, with the nearest known name for an unknown one."""
    lines = []
    for problem in error.errors():
        path = [str(part) for part in problem["loc"]]
        name = ".".join(path)
        if problem["type"] == "extra_forbidden":
            known = _names(model, path[:-1])
            near = difflib.get_close_matches(path[-1], known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(sorted(known))}"
            lines.append(f"{where}{name}: unknown setting; {hint}")
        else:
            message = problem["msg"].removeprefix("Value error, ")
            lines.append(f"{where}{name}: {message[:1].lower() + message[1:]} (got {problem['input']!r})")
    return "\n".join(lines)


def _names(model: type[BaseModel], path: list[str]) -> list[str]:
    for part in path:
        inner = model.model_fields[part].annotation if part in model.model_fields else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return []
        model = inner
    return list(model.model_fields)
