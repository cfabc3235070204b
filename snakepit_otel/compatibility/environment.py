"""Environment variables that Elixir sets for workers, as upstream's worker reads them."""

from __future__ import annotations

import logging

from snakepit_otel import telemetry


def is_set(variable: str) -> bool:
    """Whether a variable is on."""
    return bool(telemetry.environment.value(variable))


def logs_information() -> bool:
    """Whether SNAKEPIT_LOG_LEVEL includes information; it does if it is not set."""
    level, _ = telemetry.environment.examine("SNAKEPIT_LOG_LEVEL")
    return level is None or level <= logging.INFO


def configure_logging() -> None:
    """Log to standard error from the level of SNAKEPIT_LOG_LEVEL; errors, without a valid one."""
    telemetry.log_to_stderr(logging.ERROR)
