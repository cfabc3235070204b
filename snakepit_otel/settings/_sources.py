"""Sources of settings that know where each of their values was given."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeVar

from pydantic_settings import InitSettingsSource, PydanticBaseSettingsSource

from snakepit_otel.common.validation import Problem, Where, dotted
from snakepit_otel.settings._tree import Settings

Value = TypeVar("Value")


class Source(PydanticBaseSettingsSource):
    """What a source says, where it says each, and what is wrong with the source itself."""

    values: dict[str, Any]
    places: Mapping[Where, str]
    """`snakepit.toml:12`, or a variable's name; nothing for what the program or its command line says."""
    problems: list[str]
    readable: bool = True
    """Whether its values are known; if not, what is missing may be among them."""
    variable: Where = ()
    """The setting that it is for, if it is a variable."""
    left_out: Collection[Where] = ()
    """What it is not to say."""

    def __call__(self) -> dict[str, Any]:
        """Return its values."""
        return without(self.values, self.left_out)

    def complaint(self, problem: Problem) -> str:
        """Return what is wrong with a setting, beginning with the place to correct."""
        place, where = nearest(self.places, problem.where), problem.where
        if where[: len(self.variable)] == self.variable:
            where = where[len(self.variable) :]
        return ": ".join(part for part in (place, dotted(where), problem.said) if part)


class Given(Source, InitSettingsSource):
    """Values that are at hand."""

    def __init__(self, values: dict[str, Any], places: Mapping[Where, str]) -> None:
        super().__init__(Settings, values)
        self.values, self.places, self.problems = values, places, []


class Unusable(Given):
    """A source that is nothing but a problem."""

    def __init__(self, problem: str, *, readable: bool) -> None:
        super().__init__({}, {})
        self.problems, self.readable = [problem], readable


def owners(sources: Sequence[Source]) -> dict[Where, Source]:
    """Return whose place is that of each setting and group, where the first source wins."""
    found: dict[Where, Source] = {}
    said: dict[Where, Any] = {}
    for source in sources:
        values = ways(source.values)
        for where in source.places:
            first, value = said.setdefault(where, values.get(where)), values.get(where)
            # A group is where the last source has it, however much others put into it.
            if where not in found or (isinstance(first, dict) and isinstance(value, dict)):
                found[where] = source
    return found


def nearest(known: Mapping[Where, Value], where: Where) -> Value | None:
    """Return what is known of a setting or, where there is nothing, of the nearest group that it would be in."""
    return next((known[where[:end]] for end in range(len(where), 0, -1) if where[:end] in known), None)


def ways(values: Any, to: Where = ()) -> dict[Where, Any]:
    """Return everything that is in tables and arrays by the way to it, outer ones first."""
    pairs = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    found: dict[Where, Any] = {}
    for name, value in pairs:
        found |= {(*to, name): value, **ways(value, (*to, name))}
    return found


def without(values: dict[str, Any], left_out: Collection[Where]) -> dict[str, Any]:
    """Return a copy of tables in which these are not."""
    here = {where[0] for where in left_out if len(where) == 1}
    return {
        name: without(value, [where[1:] for where in left_out if where[:1] == (name,)])
        if isinstance(value, dict)
        else value
        for name, value in values.items()
        if name not in here
    }
