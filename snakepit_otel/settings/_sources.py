"""Sources of settings, with the location of each value."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from snakepit_otel.common.validation import Problem, SettingPath, dotted

Value = TypeVar("Value")


@dataclass(frozen=True)
class Source:
    """Values of a program, a variable or a file, their locations, and what is wrong with the source itself."""

    values: dict[str, Any] = field(default_factory=dict)
    locations: Mapping[SettingPath, str] = field(
        default_factory=dict
    )  # `snakepit.toml:12`, a variable, "" for programs
    problems: Sequence[str] = ()
    readable: bool = True  # if not, a setting that is missing may be in this source
    variable: SettingPath = ()  # the setting of a variable

    def message(self, problem: Problem) -> str:
        """Return a problem's message, which begins with the location to correct."""
        location, path = nearest(self.locations, problem.path), problem.path
        if path[: len(self.variable)] == self.variable:
            path = path[len(self.variable) :]
        return ": ".join(part for part in (location, dotted(path), problem.message) if part)


def merged(sources: Sequence[Source]) -> dict[str, Any]:
    """Return the values of all sources, the first winning; tables are merged, arrays are replaced."""
    values: dict[str, Any] = {}
    for source in reversed(sources):
        values = _laid_over(values, source.values)
    return values


def owners(sources: Sequence[Source]) -> dict[SettingPath, Source]:
    """Return the source of each setting, which is the first that has it; for a group, the last."""
    found: dict[SettingPath, Source] = {}
    for path, value in flattened(merged(sources)).items():
        holders = [source for source in sources if path in source.locations]
        found[path] = holders[-1] if isinstance(value, dict) else holders[0]
    return found


def nearest(known: Mapping[SettingPath, Value], path: SettingPath) -> Value | None:
    """Return the value for a setting or, without one, for the innermost group around the setting that has one."""
    return next((known[path[:end]] for end in range(len(path), 0, -1) if path[:end] in known), None)


def flattened(values: Any, prefix: SettingPath = ()) -> dict[SettingPath, Any]:
    """Return everything in tables and arrays by its path, outer ones first."""
    pairs = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    found: dict[SettingPath, Any] = {}
    for name, value in pairs:
        found |= {(*prefix, name): value, **flattened(value, (*prefix, name))}
    return found


def without(values: dict[str, Any], paths: Collection[SettingPath]) -> dict[str, Any]:
    """Return a copy of tables without the settings at these paths."""
    return {
        name: without(value, [path[1:] for path in paths if path[:1] == (name,)]) if isinstance(value, dict) else value
        for name, value in values.items()
        if (name,) not in paths
    }


def _laid_over(lower: dict[str, Any], upper: dict[str, Any]) -> dict[str, Any]:
    both = {name for name, value in upper.items() if isinstance(value, dict) and isinstance(lower.get(name), dict)}
    return {**lower, **upper, **{name: _laid_over(lower[name], upper[name]) for name in both}}
