"""Options of a server in another process, as JSON."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from snakepit_otel.adapters._adapter_loading import located, spec_of
from snakepit_otel.errors import ConfigurationError


def plain_options(adapter: type | str | None, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of `Snakepit`, classes and functions by name. Raises `ConfigurationError`."""
    if not isinstance(settings, Mapping):
        raise ConfigurationError(f"snakepit_settings is a {type(settings).__name__}; it must be a dict")
    options = {key: _plain(value, f"snakepit_settings[{key!r}]") for key, value in settings.items()}
    if adapter is not None:
        options["adapter"] = located(_plain(adapter, "snakepit_adapter"))
    return options


def _plain(value: Any, place: str) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(one, f"{place}[{key!r}]") for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one, f"{place}[{number}]") for number, one in enumerate(value)]
    return value if value is None or isinstance(value, str | bool | int | float) else _named(value, place)


def _named(value: Any, place: str) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", exclude_unset=True)
    if isinstance(value, type):
        return spec_of(value)
    if isinstance(value, Path):
        return str(value)
    if inspect.isfunction(value) and "<locals>" not in value.__qualname__:
        return f"{value.__module__}:{value.__qualname__}"
    raise ConfigurationError(
        f"{place} is {value!r:.100}; the server is another process, so give a class, a function at the top of a "
        "module, or the name of either, as package.module:Name"
    )
