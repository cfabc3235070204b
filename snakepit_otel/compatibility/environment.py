"""What variables tell a worker, in the words that Elixir and upstream's worker have for it."""

from __future__ import annotations

import logging
import os

from snakepit_otel import telemetry

_LEVELS = {"warn": "WARNING", **{name: name.upper() for name in ("debug", "info", "warning", "error", "critical")}}
_YES = frozenset({"1", "true", "yes", "on"})


def is_set(variable: str) -> bool:
    """Say whether a variable says yes."""
    return os.environ.get(variable, "").strip().lower() in _YES


def logs_information() -> bool:
    """Say whether SNAKEPIT_LOG_LEVEL lets information through, as it does where nobody has set it."""
    return os.environ.get("SNAKEPIT_LOG_LEVEL", "").strip().lower() in ("", "debug", "info")


def log_as_told() -> None:
    """Log to standard error what SNAKEPIT_LOG_LEVEL says: errors, if it says nothing or what nobody knows."""
    told = os.environ.get("SNAKEPIT_LOG_LEVEL", "").strip().lower()
    logging.disable(logging.CRITICAL if told == "none" else logging.NOTSET)
    telemetry.log_to_stderr(_LEVELS.get(told, "ERROR"))
