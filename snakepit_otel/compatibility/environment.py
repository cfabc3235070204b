"""What variables tell a worker, in the words that Elixir and upstream's worker have for it."""

from __future__ import annotations

import logging

from snakepit_otel import telemetry


def is_set(variable: str) -> bool:
    """Say whether a variable says yes."""
    return bool(telemetry.environment.value(variable))


def logs_information() -> bool:
    """Return whether SNAKEPIT_LOG_LEVEL lets information through, as it does where nobody has set it."""
    level, _ = telemetry.environment.examine("SNAKEPIT_LOG_LEVEL")
    return level is None or level <= logging.INFO


def log_as_told() -> None:
    """Log to standard error what SNAKEPIT_LOG_LEVEL says: errors, if it says nothing or what nobody knows."""
    telemetry.log_to_stderr(logging.ERROR)
