"""Effective settings with their sources; secrets are masked."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from snakepit_otel.common.secrets import MASK, masked_text
from snakepit_otel.common.validation import SettingPath, dotted, is_secret
from snakepit_otel.pool.settings import PoolSettings
from snakepit_otel.settings import Settings
from snakepit_otel.settings._loading import Loaded

DEFAULT = "default"
PROGRAM = "command line"


@dataclass(frozen=True)
class Effective:
    """One setting, its value, default and source."""

    name: str
    value: Any
    default: Any
    source: str  # `snakepit.toml:12`, a variable's name, `command line` or `default`

    @property
    def changed(self) -> bool:
        """Whether the value is not the default."""
        return bool(self.value != self.default)


def effective(loaded: Loaded) -> list[Effective]:
    """Return every setting, in the order of the documentation."""
    return list(_of_group(loaded, (), loaded.settings, Settings()))


def written(value: Any) -> str:
    """Return a value much as in TOML; `none` for None."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.15g}"
    return ", ".join(map(str, value)) or "none" if isinstance(value, tuple) else str(value)


def plain(value: Any) -> Any:
    """Return a value as JSON can have it; infinity becomes text."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Enum):
        return value.value
    return str(value) if isinstance(value, Path) else value


def _of_group(loaded: Loaded, path: SettingPath, group: BaseModel, default: BaseModel | None) -> Iterator[Effective]:
    for name in type(group).model_fields:
        if (*path, name) == ("pool", "adapter"):
            continue  # cannot be set: the adapter of [pool] is the top-level one
        yield from _of(loaded, (*path, name), getattr(group, name), getattr(default, name, None))


def _of(loaded: Loaded, path: SettingPath, value: Any, default: Any) -> Iterator[Effective]:
    if isinstance(value, BaseModel):
        yield from _of_group(loaded, path, value, default)
    elif isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _of(loaded, (*path, name), inner, PoolSettings() if path == ("pools",) else None)
    else:
        location = loaded.locations.get(path)
        source = DEFAULT if location is None else location or PROGRAM
        empty = value == {} or (value == () and is_secret(path))
        yield Effective(dotted(path), None if empty else _masked(path, value), None if empty else default, source)


def _masked(path: SettingPath, value: Any) -> Any:
    if is_secret(path):
        return MASK
    return masked_text(value) if isinstance(value, str) and not isinstance(value, Enum) else value
