"""A log of failed exports, limited to one line per message template and minute, without secrets.

A receiver that refuses every batch would otherwise fill the log with text of its choice.
"""

from __future__ import annotations

import logging
from typing import Self

from snakepit_otel.common.line_limit import LineLimit
from snakepit_otel.common.printable import MAX_MESSAGE_CHARACTERS, printable, printable_error
from snakepit_otel.common.secrets import masked_text

_log = logging.getLogger("snakepit_otel.telemetry")
_limit = LineLimit()
reset = _limit.reset


def warning(template: str, *arguments: object) -> None:
    """Log a warning."""
    if (message := _next(logging.WARNING, template, arguments)) is not None:
        _log.warning("%s", printable(message, MAX_MESSAGE_CHARACTERS))


def error(template: str, *arguments: object) -> None:
    """Log an error."""
    if (message := _next(logging.ERROR, template, arguments)) is not None:
        _log.error("%s", printable(message, MAX_MESSAGE_CHARACTERS))


class Guard:
    """Logs and suppresses whatever its block raises; the error is the template's last argument."""

    def __init__(self, template: str, *arguments: object) -> None:
        self._template = template
        self._arguments = arguments

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: object, raised: BaseException | None, _traceback: object) -> bool:
        if raised is not None:
            warning(self._template, *self._arguments, printable_error(raised))
        return True


def _next(level: int, template: str, arguments: tuple[object, ...]) -> str | None:
    """Return the message to log now; None if it is suppressed."""
    if not _log.isEnabledFor(level) or (count := _limit.admit(template)) is None:
        return None
    message = masked_text(template % arguments)
    return f"{message} ({count} similar messages suppressed)" if count else message
