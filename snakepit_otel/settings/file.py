"""Settings from a TOML file."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path

from snakepit_otel.settings.sources import Given, Source, Unusable
from snakepit_otel.settings.toml_lines import toml_lines

FILE_VARIABLE = "SNAKEPIT_OTEL_CONFIG"
USUAL_FILE = Path("snakepit.toml")


def settings_file(named: Path | None, environ: Mapping[str, str]) -> Path | None:
    """Return the file to read: the one named, or by SNAKEPIT_OTEL_CONFIG, or ./snakepit.toml if there is one."""
    if named is not None:
        return named
    if in_environment := environ.get(FILE_VARIABLE, "").strip():
        return Path(in_environment)
    return USUAL_FILE if USUAL_FILE.exists() else None


def from_file(file: Path) -> Source:
    """Return what a file says."""
    # The library's own source for TOML passes over what is no regular file, a pipe or one that is not there, and keeps
    # no text in which lines could be found.
    try:
        text = file.read_text(encoding="utf-8")
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
