"""Log of `serve` and its workers: its level, and where that is set."""

from __future__ import annotations

import logging
import os
from collections.abc import MutableMapping

from snakepit_otel import telemetry
from snakepit_otel.common.validation import SettingPath
from snakepit_otel.settings._environment import PREFIX
from snakepit_otel.settings._loading import Loaded

LEVEL, LEVELS = "SNAKEPIT_LOG_LEVEL", "SNAKEPIT_LOG_LEVELS"
DEFAULT = logging.INFO


def configure_log(loaded: Loaded, environ: MutableMapping[str, str] = os.environ) -> str:
    """Set the levels by the settings, for this process and, in its environment, for its workers; return them in words.

    SNAKEPIT_LOG_LEVEL and SNAKEPIT_LOG_LEVELS win over the file of settings, not over options and SNAKEPIT_OTEL_LOG__….
    """
    settings = loaded.settings.log
    source = _source(loaded, ("log", "level"), LEVEL, environ)
    if source is not None and source != LEVEL:
        environ[LEVEL] = settings.level
    if settings.levels and _source(loaded, ("log", "levels"), LEVELS, environ) != LEVELS:
        environ[LEVELS] = ",".join(f"{name}={level}" for name, level in settings.levels.items())
    telemetry.log_to_stderr(DEFAULT)
    name = environ.get(LEVEL, "").strip().lower() if source is not None else settings.level
    how = f"set by {source or '--log-level'}" if source is not None else "--log-level, SNAKEPIT_LOG_LEVEL or log.level"
    others = environ.get(LEVELS, "").strip()
    return f"log level {name} ({how})" + (f"; {others}" if others else "")


def _source(loaded: Loaded, path: SettingPath, variable: str, environ: MutableMapping[str, str]) -> str | None:
    """Return the place that sets a level; empty for the command line, None for none."""
    place = loaded.locations.get(path)
    if place is not None and (place == "" or place.startswith(PREFIX)):
        return place
    return variable if telemetry.environment.examine(variable, environ)[0] is not None else place
