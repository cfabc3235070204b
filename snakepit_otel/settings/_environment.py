"""Settings from environment variables, `SNAKEPIT_OTEL_<GROUP>__<NAME>`.

A library that reads variables into a model takes names in any case, passes over unknown ones and stops at the first
mistake; here each variable is a source of its own, so all mistakes are found, each with its variable.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import reduce
from typing import Any, get_origin

from snakepit_otel.common.validation import SettingPath, dotted, is_mapping, member_type, model_of
from snakepit_otel.settings._sources import Source, flattened
from snakepit_otel.settings._tree import Settings
from snakepit_otel.system.file_ownership import SERVER_USER
from snakepit_otel.system.settings_file import FILE_VARIABLE

PREFIX = "SNAKEPIT_OTEL_"
SEPARATOR = "__"
OTHER_VARIABLES = {
    "SNAKEPIT_OTEL_ADDRESS": "where call, sessions and other commands find the authority",
    SERVER_USER: "one more user, by name or number, whose authority's Unix socket is called",
    FILE_VARIABLE: "the file of settings, where --config names none",
}
# Kubernetes puts these into every container where a service is called `snakepit-otel`.
_KUBERNETES = re.compile(PREFIX + r"(SERVICE_(HOST|PORT(_\w+)?)|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)")


def read_environment(environ: Mapping[str, str]) -> list[Source]:
    """Return a source for each variable that is not empty, those of single settings before those of groups."""
    found = [name for name in environ if name.startswith(PREFIX) and is_setting(name) and environ[name].strip()]
    sources: list[Source] = []
    for name in sorted(found, key=lambda name: (name.count(SEPARATOR), name), reverse=True):
        path = setting_of(name)
        if path is None:
            sources.append(Source(problems=[f"{name}: unknown setting; {_suggestion(name, found)}"]))
        else:
            sources.append(_read_variable(name, path, environ[name]))
    return sources


def is_setting(name: str) -> bool:
    """Whether a variable with the prefix is meant for a setting."""
    return name not in OTHER_VARIABLES and not _KUBERNETES.fullmatch(name)


def setting_of(name: str) -> SettingPath | None:
    """Return the path of the setting, or group, of a variable; None if there is none."""
    kind: Any = Settings
    parts = name.removeprefix(PREFIX).split(SEPARATOR)
    path: SettingPath = ()
    while parts:
        if is_mapping(kind) and model_of(member_type(kind, "")) is None:
            # The names of workers' variables keep their case and underscores.
            return (*path, SEPARATOR.join(parts)) if all(parts) else None
        part = parts.pop(0)
        kind = member_type(kind, part.lower()) if part and part == part.upper() else None
        if kind is None:
            return None
        path = (*path, part.lower())
    return path


def variables(pools: Iterable[str] = ()) -> dict[str, tuple[SettingPath, bool]]:
    """Return the variables of all settings, those of these pools included: the setting, and whether it is a group."""
    return dict(_variables(Settings, (), sorted(pools)))


def _variables(kind: Any, path: SettingPath, pools: list[str]) -> Iterator[tuple[str, tuple[SettingPath, bool]]]:
    model = model_of(kind)
    if path:
        yield PREFIX + SEPARATOR.join(map(str, path)).upper(), (path, model is not None or is_mapping(kind))
    members = pools if path == ("pools",) else () if model is None else model.model_fields
    for name in members:
        yield from _variables(member_type(kind, name), (*path, name), pools)


def _read_variable(name: str, path: SettingPath, text: str) -> Source:
    """Return the source of one variable: text, a list of names with commas between them, or JSON."""
    kind: Any = reduce(member_type, path, Settings)
    is_list = get_origin(kind) is tuple
    value: Any = text
    if is_list and not text.lstrip().startswith("["):
        value = [item.strip() for item in text.split(",") if item.strip()]
    elif is_list or is_mapping(kind) or model_of(kind) is not None:
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            value = error
        if is_list and not isinstance(value, list):
            return Source(problems=[f"{name}: this is no JSON array: {value}"])
        if not is_list and not isinstance(value, dict):
            message = "this names a group of settings, which is given as a JSON object, {…}"
            return Source(problems=[f"{name}: {message}"])
    for part in reversed(path):
        value = {part: value}
    return Source(value, dict.fromkeys(flattened(value), name), variable=path)


def _suggestion(name: str, others: list[str]) -> str:
    pools = {path[1] for other in others if (path := setting_of(other)) and path[0] == "pools" and len(path) > 1}
    known = variables(str(pool) for pool in pools)
    match = difflib.get_close_matches(name.upper(), known, 1, 0.8)
    if match:
        return f"did you mean {match[0]} ({dotted(known[match[0]][0])})?"
    return "docs/configuration.md lists all of them"
