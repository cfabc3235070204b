"""Settings from a TOML file."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from snakepit_otel.settings._sources import Given, Source, Unusable
from snakepit_otel.settings._toml_lines import toml_lines
from snakepit_otel.system.file_ownership import file_problem, foreign_link, user

FILE_VARIABLE = "SNAKEPIT_OTEL_CONFIG"
USUAL_FILE = Path("snakepit.toml")


class SettingsFile(NamedTuple):
    """A file to read."""

    path: Path
    named: bool
    """Whether it is read because of its name, rather than because it was there."""


def settings_file(named: Path | None, environ: Mapping[str, str]) -> SettingsFile | None:
    """Return the file to read: the one named, or by SNAKEPIT_OTEL_CONFIG, or ./snakepit.toml if there is one."""
    if named is not None:
        return SettingsFile(named, named=True)
    if in_environment := environ.get(FILE_VARIABLE, "").strip():
        return SettingsFile(Path(in_environment), named=True)
    return SettingsFile(USUAL_FILE, named=False) if os.path.lexists(USUAL_FILE) else None


def from_file(file: Path, *, named: bool = True) -> Source:
    """Return what a file says.

    One that nobody has named is read only if it is this user's or root's and others may not write to it: settings can
    have workers run any code, and the current directory may be anybody's.
    """
    # The library's own source for TOML passes over what is no regular file, a pipe or one that is not there, and keeps
    # no text in which lines could be found.
    try:
        # Line ends as they are: a lone carriage return, which text mode would make a line end, is not TOML.
        with open(file, encoding="utf-8", newline="", opener=None if named else _without_waiting) as opened:
            if not named and (why := _refused(file, os.fstat(opened.fileno()))):
                return Unusable(f"{file}: {why}", readable=False)
            text = opened.read()
        values = tomllib.loads(text)
    except OSError as error:
        return Unusable(f"{file}: {error.strerror}", readable=False)
    except UnicodeDecodeError as error:
        return Unusable(f"{file}: this is not TOML: {error}", readable=False)
    except tomllib.TOMLDecodeError as error:
        said, _, position = str(error).partition(" (at ")
        line = re.match(r"line (\d+)", position)
        number = line[1] if line else text.rstrip().count("\n") + 1  # at the end of the document
        return Unusable(f"{file}:{number}: this is not TOML: {said[:1].lower()}{said[1:]}", readable=False)
    except RecursionError:
        return Unusable(f"{file}: this is not TOML that can be read: it is nested too deeply", readable=False)
    return Given(values, {where: f"{file}:{line}" for where, line in toml_lines(text).items()})


def _refused(file: Path, status: os.stat_result) -> str | None:
    """Return why a file that nobody has named, and which is open, is not read; None if it is."""
    link = foreign_link(file)
    why = file_problem(status) if link is None else f"{link[0]} is a link that user {user(link[1])} has made"
    if why is None:
        return None
    remedy = f"name it if that is meant: --config {file}, or {FILE_VARIABLE}={file.absolute()}"
    if status.st_uid == os.geteuid() and link is None:
        remedy = f"chmod go-w {file.absolute()}, or {remedy}"
    return f"not read: {file.absolute()} is found by its name alone, and {why}; {remedy}"


def _without_waiting(path: str, flags: int) -> int:
    # Not where it is a pipe that somebody has put there.
    return os.open(path, flags | os.O_NONBLOCK)
