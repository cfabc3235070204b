"""Loading of settings: the program's before the environment's, the file's and the defaults."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from snakepit_otel.common.validation import Problem, SettingPath, problems
from snakepit_otel.errors import ConfigurationError
from snakepit_otel.settings._environment import read_environment
from snakepit_otel.settings._file import read_file
from snakepit_otel.settings._sources import Source, flattened, merged, nearest, owners, without
from snakepit_otel.settings._tree import Settings
from snakepit_otel.system.settings_file import settings_file


@dataclass(frozen=True)
class Loaded:
    """Settings, the file that was read, and where each setting was given; those without a location have defaults.

    A location is `snakepit.toml:12`, or a variable's name; the empty string stands for the program or its command line.
    """

    settings: Settings
    file: Path | None
    locations: Mapping[SettingPath, str]


def load_settings(
    file: Path | None = None, values: dict[str, Any] | None = None, environ: Mapping[str, str] | None = None
) -> Settings:
    """Return the settings from `values`, the environment and a file, in this order of precedence.

    Without `file`, the file that SNAKEPIT_OTEL_CONFIG names is read or, if there is one, ./snakepit.toml, which must be
    this user's or root's, and nobody else may write to it. Raises `ConfigurationError` for a file that cannot be read,
    an unknown name or a bad value: a line for each of them, in any source, that begins with the location to correct.
    """
    return load(file, values, environ).settings


def load(
    file: Path | None = None, values: dict[str, Any] | None = None, environ: Mapping[str, str] | None = None
) -> Loaded:
    """Return the same as `load_settings`, with the location of each setting."""
    environ = os.environ if environ is None else environ
    chosen = settings_file(file, environ)
    program = Source(values or {}, dict.fromkeys(flattened(values), ""))
    sources = [program, *read_environment(environ)]
    if chosen is not None:
        sources.append(read_file(chosen))
    messages: list[str] = []
    for source in reversed(sources):
        # Each source by itself, so that a value which wins does not hide a mistake beneath it.
        found = [source.message(problem) for problem in _validate(source.values)[1] if not problem.cross_field]
        messages += sorted([*source.problems, *found], key=_by_line)
    settings, found_in_all = _validate(merged(sources))
    owner = owners(sources)
    if all(source.readable for source in sources):
        messages += [(nearest(owner, problem.path) or program).message(problem) for problem in found_in_all]
    if messages or settings is None:
        raise ConfigurationError("\n".join(dict.fromkeys(messages)))
    locations = {path: source.locations[path] for path, source in owner.items()}
    return Loaded(settings, None if chosen is None else chosen.path, locations)


def _validate(values: dict[str, Any]) -> tuple[Settings | None, list[Problem]]:
    try:
        return Settings.model_validate(values), []
    except ValidationError as error:
        found = problems(Settings, error)
    # A group's own checks run only where each of its settings is valid, and the first that fails hides the others: so
    # again without what is unknown, or has failed in this way.
    rest = without(values, {problem.path for problem in found if problem.unknown or problem.cross_field})
    return None, found if rest == values else [*found, *_validate(rest)[1]]


def _by_line(message: str) -> tuple[int, str]:
    line = re.match(r"[^\n]*?:(\d+): ", message)
    return (int(line[1]) if line else 0, message)
