"""Texts of exceptions, whatever their own methods do.

An exception is a user's object: its `__str__`, its `__notes__` or a member of its group may raise anything, a
`BaseException` among it.
"""

from __future__ import annotations

import logging
import traceback
from types import TracebackType

from snakepit_otel.common.printable import MAX_MESSAGE_CHARACTERS, printable, printable_lines


def message_of(error: BaseException) -> str:
    """Return an exception's own text, or the type of the error that its `__str__` raises."""
    try:
        return str(error)
    except BaseException as fault:
        return f"<str failed: {type(fault).__name__}>"


def formatted(error: BaseException, frames: TracebackType | None) -> str:
    """Return an exception as the interpreter prints it, with these frames; without its causes where they raise."""
    try:
        return "".join(traceback.format_exception(type(error), error, frames))
    except BaseException as fault:
        shown = f"{type(error).__name__}: {message_of(error)} <formatting failed: {type(fault).__name__}>"
        return "".join([*traceback.format_tb(frames), shown])


def log_error(log: logging.Logger, text: str, error: BaseException) -> None:
    """Log a line about an exception, with its traceback."""
    try:
        log.error("%s", printable(text, MAX_MESSAGE_CHARACTERS), exc_info=error)
    except BaseException:  # handlers format the exception, and pass on a `BaseException`
        shown = formatted(error, error.__traceback__)
        log.error("%s\n%s", printable(text, MAX_MESSAGE_CHARACTERS), printable_lines(shown))  # noqa: TRY400
