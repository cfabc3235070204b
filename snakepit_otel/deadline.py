"""When the request that code runs for has to be done."""

from __future__ import annotations

from contextvars import ContextVar
from time import monotonic

from snakepit_otel.errors import DeadlineExceeded

_deadline: ContextVar[float | None] = ContextVar("snakepit_deadline", default=None)


def enter(deadline: float) -> None:
    """Set the deadline, on the clock of `time.monotonic`, for this task and for what it starts."""
    _deadline.set(deadline)


def remaining() -> float | None:
    """Return the seconds that are left, at least 0; None where there is no deadline."""
    deadline = _deadline.get()
    return None if deadline is None else max(deadline - monotonic(), 0.0)


def at_most(longest: float) -> float:
    """Return the seconds that one step may take: `longest`, or what is left if that is less.

    Raises `DeadlineExceeded` if nothing is left.
    """
    left = remaining()
    if left is None or left > longest:
        return longest
    if left <= 0:
        raise DeadlineExceeded("the request's deadline has passed, so nothing more is asked on its behalf")
    return left
