"""Settings from a TOML file."""

from __future__ import annotations

from snakepit_otel.errors import ConfigurationError
from snakepit_otel.settings._sources import Source
from snakepit_otel.settings._toml_lines import toml_lines
from snakepit_otel.system.settings_file import SettingsFile, read_settings


def read_file(file: SettingsFile) -> Source:
    """Return the settings in a file, each with its line; see `read_settings`."""
    try:
        text, values = read_settings(file)
    except ConfigurationError as error:
        return Source(problems=[str(error)], readable=False)
    return Source(values, {path: f"{file.path}:{line}" for path, line in toml_lines(text).items()})
