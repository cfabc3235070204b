"""File of settings: its place, and the TOML in it."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from snakepit_otel.errors import ConfigurationError
from snakepit_otel.system.file_ownership import file_problem, foreign_link, user

FILE_VARIABLE = "SNAKEPIT_OTEL_CONFIG"
USUAL_FILE = Path("snakepit.toml")


class SettingsFile(NamedTuple):
    """File of settings, and whether the user has named it."""

    path: Path
    named: bool  # if not, the file was found under its usual name


class SettingsText(NamedTuple):
    """Text of a file of settings, and its values."""

    text: str
    values: dict[str, Any]


def settings_file(named: Path | None, environ: Mapping[str, str]) -> SettingsFile | None:
    """Return the file to read: the one named, or by SNAKEPIT_OTEL_CONFIG, or ./snakepit.toml if there is one."""
    if named is not None:
        return SettingsFile(named, named=True)
    if in_environment := environ.get(FILE_VARIABLE, "").strip():
        return SettingsFile(Path(in_environment), named=True)
    return SettingsFile(USUAL_FILE, named=False) if os.path.lexists(USUAL_FILE) else None


def read_settings(file: SettingsFile) -> SettingsText:
    """Return what is in a file. Raises `ConfigurationError`, with the line, for one that cannot be read or is no TOML.

    A file that the user has not named is read only if it is this user's or root's and others may not write to it:
    settings can have workers run any code, and the current directory may be anybody's.
    """
    path = file.path
    try:
        # Line ends as they are: a lone carriage return, which text mode would make a line end, is not TOML.
        with open(path, encoding="utf-8", newline="", opener=None if file.named else _without_waiting) as opened:
            if not file.named and (reason := _refusal(path, os.fstat(opened.fileno()))):
                raise ConfigurationError(f"{path}: {reason}")
            text = opened.read()
        return SettingsText(text, tomllib.loads(text))
    except OSError as error:
        problem = f"{path}: {error.strerror}"
    except UnicodeDecodeError as error:
        problem = f"{path}: this is not TOML: {error}"
    except tomllib.TOMLDecodeError as error:
        message, _, position = str(error).partition(" (at ")
        line = re.match(r"line (\d+)", position)
        number = line[1] if line else text.rstrip().count("\n") + 1  # at the end of the document
        problem = f"{path}:{number}: this is not TOML: {message[:1].lower()}{message[1:]}"
    except RecursionError:
        problem = f"{path}: this is not TOML that can be read: it is nested too deeply"
    raise ConfigurationError(problem)


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
