"""The deadline of the request that the current code runs for."""

from __future__ import annotations

import math
from contextvars import ContextVar
from decimal import Decimal
from numbers import Real
from time import monotonic
from typing import Any

from snakepit_otel.errors import ConfigurationError, DeadlineExceeded

# A longer timeout is none: gRPC treats a deadline that it cannot represent as one that has passed.
_LONGEST_TIMEOUT_SECONDS = 10 * 365 * 86_400.0
_deadline: ContextVar[float | None] = ContextVar("snakepit_deadline", default=None)


def checked_timeout(timeout: Any, name: str = "timeout") -> float | None:
    """Return a caller's timeout as seconds; None if it sets no limit: None, infinity, or more than ten years.

    Any real number is accepted, `Decimal` and NumPy scalars included; 0 or less is a timeout that is over. Raises
    `ConfigurationError`, with the parameter's name, for NaN, text, booleans and other values.
    """
    if timeout is None:
        return None
    if type(timeout) is not bool and isinstance(timeout, Real | Decimal):
        try:
            seconds = float(timeout)
        except OverflowError:  # an integer that is beyond all floating-point numbers
            seconds = math.inf if timeout == abs(timeout) else -math.inf
        except ValueError:  # a signalling NaN
            seconds = math.nan
        if not math.isnan(seconds):
            return None if seconds > _LONGEST_TIMEOUT_SECONDS else max(seconds, 0.0)
    raise ConfigurationError(f"{name} is {timeout!r:.100}; it must be a number of seconds, or None for no limit")


def enter(deadline: float) -> None:
    """Set the deadline, on the clock of `time.monotonic`, for this task and the tasks that it starts."""
    _deadline.set(deadline)


def remaining() -> float | None:
    """Return the seconds that are left, at least 0; None where there is no deadline."""
    deadline = _deadline.get()
    return None if deadline is None else max(deadline - monotonic(), 0.0)


def at_most(longest: float) -> float:
    """Return the seconds that one step may take, `longest` or what is left. Raises `DeadlineExceeded` if none are."""
    left = remaining()
    if left is None or left > longest:
        return longest
    if left <= 0:
        raise DeadlineExceeded("the request's deadline has passed, so no further call is made on its behalf")
    return left
