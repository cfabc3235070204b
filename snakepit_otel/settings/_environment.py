"""Settings from environment variables, `SNAKEPIT_OTEL_<GROUP>__<NAME>`."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import reduce
from typing import Any, get_origin

from pydantic_settings import EnvSettingsSource

from snakepit_otel.common.validation import Where, dotted, group_of, inside, is_mapping
from snakepit_otel.settings._file import FILE_VARIABLE
from snakepit_otel.settings._sources import Source, Unusable, ways
from snakepit_otel.settings._tree import Settings
from snakepit_otel.system.file_ownership import SERVER_USER

PREFIX = "SNAKEPIT_OTEL_"
SEPARATOR = "__"
NO_SETTINGS = {
    "SNAKEPIT_OTEL_ADDRESS": "where call, sessions and other commands find the authority",
    SERVER_USER: "one more user, by name or number, whose authority's Unix socket is called",
    FILE_VARIABLE: "the file of settings, where --config names none",
}
"""Variables with our prefix that are for something else."""

_OF_KUBERNETES = re.compile(PREFIX + r"(SERVICE_(HOST|PORT(_\w+)?)|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)")
"""What Kubernetes puts into every container where a service is called `snakepit-otel`."""

_BETWEEN = "\0"
"""What the library is to split names at: in no variable's name, so that it leaves those of workers' variables whole."""


class Variable(Source, EnvSettingsSource):
    """One variable: so what it says has its name as place, and is read whatever is wrong with others."""

    def __init__(self, name: str, where: Where, text: str) -> None:
        super().__init__(Settings, env_nested_delimiter=_BETWEEN)
        self.name, self.variable, self.problems = name, where, []
        self.env_vars = {_BETWEEN.join(map(str, where)): text}
        values = EnvSettingsSource.__call__(self)
        self.values = {} if self.problems else values
        self.places = dict.fromkeys(ways(self.values), name)

    def decode_complex_value(self, field_name: str, field: Any, value: str) -> Any:
        """Return a group or list that is JSON, or a list of names with commas between them."""
        kind: Any = reduce(inside, self.variable, Settings)
        is_list = get_origin(kind) is tuple
        if not is_list and group_of(kind) is None and not is_mapping(kind):
            return value  # older versions of the library ask about every setting of a pool that has a name
        if is_list and not value.lstrip().startswith("["):
            return [item.strip() for item in value.split(",") if item.strip()]
        try:
            decoded = super().decode_complex_value(field_name, field, value)
        except (ValueError, RecursionError) as error:
            decoded = error
        if isinstance(decoded, list if is_list else dict):
            return decoded
        # Not raised, because some of these the library would swallow, and take the text for the value.
        group = "this names a group of settings, which is given as a JSON object, {…}"
        self.problems.append(f"{self.name}: {f'this is no JSON array: {decoded}' if is_list else group}")
        return {}


def from_environment(environ: Mapping[str, str]) -> list[Source]:
    """Return a source for each variable, those of single settings before those of groups; an empty one says nothing.

    The library by itself takes names in any case, passes over those it does not know and stops at the first mistake;
    so which setting a variable is for is found here.
    """
    found = [name for name in environ if name.startswith(PREFIX) and is_for_settings(name) and environ[name].strip()]
    sources: list[Source] = []
    for name in sorted(found, key=lambda name: (name.count(SEPARATOR), name), reverse=True):
        where = setting_of(name)
        if where is None:
            sources.append(Unusable(f"{name}: unknown setting; {_near(name, found)}", readable=True))
        else:
            sources.append(Variable(name, where, environ[name]))
    return sources


def is_for_settings(name: str) -> bool:
    """Say whether a variable with our prefix is meant to set something."""
    return name not in NO_SETTINGS and not _OF_KUBERNETES.fullmatch(name)


def setting_of(name: str) -> Where | None:
    """Return the setting, or the group, that a variable sets; None if there is no such setting."""
    kind: Any = Settings
    parts = name.removeprefix(PREFIX).split(SEPARATOR)
    where: Where = ()
    while parts:
        if is_mapping(kind) and group_of(inside(kind, "")) is None:
            # The names of a worker's variables are left as they are.
            return (*where, SEPARATOR.join(parts)) if all(parts) else None
        part = parts.pop(0)
        kind = inside(kind, part.lower()) if part and part == part.upper() else None
        if kind is None:
            return None
        where = (*where, part.lower())
    return where


def variables(pools: Iterable[str] = ()) -> dict[str, tuple[Where, bool]]:
    """Return the variables of all settings, those of these pools among them: what each sets, if that is a group."""
    return dict(_variables(Settings, (), sorted(pools)))


def _variables(kind: Any, where: Where, pools: list[str]) -> Iterator[tuple[str, tuple[Where, bool]]]:
    group = group_of(kind)
    if where:
        yield PREFIX + SEPARATOR.join(map(str, where)).upper(), (where, group is not None or is_mapping(kind))
    named = pools if where == ("pools",) else () if group is None else group.model_fields
    for name in named:
        yield from _variables(inside(kind, name), (*where, name), pools)


def _near(name: str, others: list[str]) -> str:
    pools = {where[1] for other in others if (where := setting_of(other)) and where[0] == "pools" and len(where) > 1}
    known = variables(str(pool) for pool in pools)
    match = difflib.get_close_matches(name.upper(), known, 1, 0.8)
    if match:
        return f"did you mean {match[0]} ({dotted(known[match[0]][0])})?"
    return "docs/configuration.md has those that there are"
