"""The settings that all sources come to: the program's, the environment's, the file's, the defaults, in this order."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from snakepit_otel.common.validation import Problem, Where, problems
from snakepit_otel.errors import ConfigurationError
from snakepit_otel.settings._environment import from_environment
from snakepit_otel.settings._file import from_file, settings_file
from snakepit_otel.settings._sources import Given, Source, nearest, owners, ways
from snakepit_otel.settings._tree import Settings


@dataclass(frozen=True)
class Loaded:
    """Settings, and where they come from."""

    settings: Settings
    file: Path | None
    """The file that was read."""
    places: Mapping[Where, str]

    def place(self, where: Where) -> str | None:
        """Return where a setting was given: `snakepit.toml:12`, or a variable's name; None for a default.

        The empty string stands for the program, or its command line.
        """
        return self.places.get(where)


def load_settings(
    file: Path | None = None, values: dict[str, Any] | None = None, environ: Mapping[str, str] | None = None
) -> Settings:
    """Return the settings from `values`, the environment and a file, in this order of precedence.

    Without `file`, the one that SNAKEPIT_OTEL_CONFIG names is read or, if there is one, ./snakepit.toml, which must be
    this user's or root's, and nobody else may write to it. Raises
    `ConfigurationError` for a file that cannot be read, an unknown name or a bad value; it has a line for each
    of them, in any of the sources, that begins with the place to correct.
    """
    return load(file, values, environ).settings


def load(
    file: Path | None = None, values: dict[str, Any] | None = None, environ: Mapping[str, str] | None = None
) -> Loaded:
    """Return the same as `load_settings`, with the place of each setting."""
    environ = os.environ if environ is None else environ
    chosen = settings_file(file, environ)
    read = [] if chosen is None else [from_file(chosen.path, named=chosen.named)]
    program = Given(values or {}, dict.fromkeys(ways(values), ""))
    sources = [program, *from_environment(environ), *read]
    complaints: list[str] = []
    for source in reversed(sources):
        # By itself as well, so that what another source lays over a mistake does not hide it.
        found = [source.complaint(problem) for problem in _checked([source])[1] if not problem.of_the_whole]
        complaints += sorted([*source.problems, *found], key=_by_line)
    settings, wrong = _checked(sources)
    owner = owners(sources)
    if all(source.readable for source in sources):
        complaints += [(nearest(owner, problem.where) or program).complaint(problem) for problem in wrong]
    if complaints or settings is None:
        raise ConfigurationError("\n".join(dict.fromkeys(complaints)))
    places = {where: source.places[where] for where, source in owner.items()}
    return Loaded(settings, None if chosen is None else chosen.path, places)


def _checked(sources: Sequence[Source]) -> tuple[Settings | None, list[Problem]]:
    found, left_out = list[Problem](), set[Where]()
    while True:
        for source in sources:
            source.left_out = left_out
        try:
            settings = Settings.from_sources(tuple(sources))
        except ValidationError as error:
            found += [problem for problem in problems(Settings, error) if problem not in found]
        else:
            return (None if found else settings), found
        # How the settings of a group go together is looked at only where each by itself will do. So the others are
        # looked at again without those that there are not, and without what has been complained of in this way.
        more = left_out | {problem.where for problem in found if problem.unknown or problem.of_the_whole}
        if more == left_out:
            return None, found
        left_out = more


def _by_line(complaint: str) -> tuple[int, str]:
    line = re.match(r"[^\n]*?:(\d+): ", complaint)
    return (int(line[1]) if line else 0, complaint)
