"""Settings from a TOML file."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from snakepit_otel.settings._sources import Source
from snakepit_otel.settings._toml_lines import toml_lines
from snakepit_otel.system.file_ownership import file_problem, foreign_link, user

FILE_VARIABLE = "SNAKEPIT_OTEL_CONFIG"
USUAL_FILE = Path("snakepit.toml")


class SettingsFile(NamedTuple):
    """File of settings, and whether the user has named it."""

    path: Path
    named: bool  # if not, the file was found under its usual name


def settings_file(named: Path | None, environ: Mapping[str, str]) -> SettingsFile | None:
    """Return the file to read: the one named, or by SNAKEPIT_OTEL_CONFIG, or ./snakepit.toml if there is one."""
    if named is not None:
        return SettingsFile(named, named=True)
    if in_environment := environ.get(FILE_VARIABLE, "").strip():
        return SettingsFile(Path(in_environment), named=True)
    return SettingsFile(USUAL_FILE, named=False) if os.path.lexists(USUAL_FILE) else None


def read_file(file: Path, *, named: bool = True) -> Source:
    """Return the settings in a file, each with its line.

    A file that the user has not named is read only if it is this user's or root's and others may not write to it:
    settings can have workers run any code, and the current directory may be anybody's.
    """
    try:
        # Line ends as they are: a lone carriage return, which text mode would make a line end, is not TOML.
        with open(file, encoding="utf-8", newline="", opener=None if named else _without_waiting) as opened:
            if not named and (reason := _refusal(file, os.fstat(opened.fileno()))):
                return _unreadable(f"{file}: {reason}")
            text = opened.read()
        values = tomllib.loads(text)
    except OSError as error:
        return _unreadable(f"{file}: {error.strerror}")
    except UnicodeDecodeError as error:
        return _unreadable(f"{file}: this is not TOML: {error}")
    except tomllib.TOMLDecodeError as error:
        message, _, position = str(error).partition(" (at ")
        line = re.match(r"line (\d+)", position)
        number = line[1] if line else text.rstrip().count("\n") + 1  # at the end of the document
        return _unreadable(f"{file}:{number}: this is not TOML: {message[:1].lower()}{message[1:]}")
    except RecursionError:
        return _unreadable(f"{file}: this is not TOML that can be read: it is nested too deeply")
    return Source(values, {path: f"{file}:{line}" for path, line in toml_lines(text).items()})


def _unreadable(problem: str) -> Source:
    return Source(problems=[problem], readable=False)


def _refusal(file: Path, status: os.stat_result) -> str | None:
    """Return the reason for which an open file that the user has not named is not read; None if it is."""
    link = foreign_link(file)
    reason = file_problem(status) if link is None else f"{link[0]} is a link that user {user(link[1])} has made"
    if reason is None:
        return None
    remedy = f"name it if that is meant: --config {file}, or {FILE_VARIABLE}={file.absolute()}"
    if status.st_uid == os.geteuid() and link is None:
        remedy = f"chmod go-w {file.absolute()}, or {remedy}"
    return f"not read: {file.absolute()} is found by its name alone, and {reason}; {remedy}"


def _without_waiting(path: str, flags: int) -> int:
    # A pipe that somebody has put there would block.
    return os.open(path, flags | os.O_NONBLOCK)
