"""A guard that logs an error and goes on, for work whose failure must not end what is around it."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from functools import wraps
from typing import Any, Self, TypeVar

from snakepit_otel.common.printable import printable, printable_error

F = TypeVar("F", bound=Callable[..., Any])


class Guard:
    """Logs an exception of its block or function, and suppresses it; see `guard`.

    `error` is the exception, None if there was none. Cancellation and exits are not suppressed.
    """

    def __init__(self, action: str, log: logging.Logger, *, traceback: bool) -> None:
        self._action = action
        self._log = log
        self._traceback = traceback
        self.error: Exception | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> bool:
        if not isinstance(error, Exception):
            return False
        self.error = error
        log = self._log
        if self._traceback:
            log.error("%s failed", printable(self._action), exc_info=error)
        else:
            log.warning("%s failed: %s", printable(self._action), printable_error(error))
        return True

    def __call__(self, function: F) -> F:
        """Return the function, or the coroutine function, which returns None where it raises an exception."""
        if inspect.iscoroutinefunction(function):

            @wraps(function)
            async def run(*args: Any, **kwargs: Any) -> Any:
                with guard(self._action, self._log, traceback=self._traceback):
                    return await function(*args, **kwargs)

            return run  # type: ignore[return-value]

        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            with guard(self._action, self._log, traceback=self._traceback):
                return function(*args, **kwargs)

        return call  # type: ignore[return-value]


def guard(action: str, log: logging.Logger, *, traceback: bool = True) -> Guard:
    """Return a context manager, or a decorator, that logs `ACTION failed` for an exception and goes on.

    Not for the hot path. With `traceback`, the record is an error with the traceback, else a warning of one line.
    """
    return Guard(action, log, traceback=traceback)
