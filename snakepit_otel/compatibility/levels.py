"""What SNAKEPIT_LOG_LEVEL says, in Elixir's words or in logging's."""

from __future__ import annotations

import logging
import os

from snakepit_otel import telemetry

_LEVELS = {"warn": "WARNING", **{name: name.upper() for name in ("debug", "info", "warning", "error", "critical")}}


def log_as_told() -> None:
    """Log to standard error what SNAKEPIT_LOG_LEVEL says: errors, if it says nothing or what nobody knows."""
    told = os.environ.get("SNAKEPIT_LOG_LEVEL", "").strip().lower()
    logging.disable(logging.CRITICAL if told == "none" else logging.NOTSET)
    telemetry.log_to_stderr(_LEVELS.get(told, "ERROR"))
