"""Retries of idempotent requests whose tool raised an error that may pass."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from snakepit_otel.errors import ConfigurationError, ToolError

MAX_RETRIES = 100
MAX_WAIT_SECONDS = 3_600.0
_MAX_NAMES = 32
_MAX_NAME_LENGTH = 200


@dataclass(frozen=True)
class Retry:
    """Errors after which an idempotent request is run again, and how often and when.

        @tool(idempotent=True, retry=Retry(on=(TimeoutError, ConnectionError), most=3, backoff=0.1))

    `on` are classes of exceptions, or their names, subclasses included; one alone needs no tuple. A request is run
    again `most` times, 1 to 100, and not if its deadline would have passed before. The wait before the first is
    `backoff` seconds, doubles each time up to `max_backoff`, and is shortened by up to a half at random. No worker is
    held meanwhile. Raises `ConfigurationError` for other values.
    """

    on: tuple[type[Exception] | str, ...]
    most: int = 3
    backoff: float = 0.1
    max_backoff: float = 30.0

    def __init__(
        self,
        on: type[Exception] | str | Iterable[type[Exception] | str],
        most: int = 3,
        backoff: float = 0.1,
        max_backoff: float = 30.0,
    ) -> None:
        object.__setattr__(self, "on", _checked_kinds(on))
        object.__setattr__(self, "most", _checked_most(most))
        object.__setattr__(self, "backoff", _checked_seconds("backoff", backoff))
        object.__setattr__(self, "max_backoff", _checked_seconds("max_backoff", max_backoff))

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the exceptions, by which `on` crosses to other processes."""
        return tuple(kind if isinstance(kind, str) else kind.__name__ for kind in self.on)

    def covers(self, error: BaseException) -> bool:
        """Return whether a request that raised this is run again: its class is one of `on`, or below one by name."""
        names = {kind for kind in self.on if isinstance(kind, str)}
        if names:
            # What another tool raised, of which there is the name alone.
            own = (error.type,) if isinstance(error, ToolError) else ()
            bases = type(error).__mro__
            if not names.isdisjoint((*own, *(base.__name__ for base in bases))):
                return True
            if not names.isdisjoint(f"{base.__module__}.{base.__qualname__}" for base in bases):
                return True
        return isinstance(error, tuple(kind for kind in self.on if isinstance(kind, type)))

    def wait(self, attempt: int, draw: Callable[[], float] = random.random) -> float:
        """Return the seconds before the retry after `attempt` earlier ones; `draw` gives numbers from 0 to 1."""
        return wait_before(attempt, self.backoff, self.max_backoff, draw)


def wait_before(attempt: int, backoff: float, max_backoff: float, draw: Callable[[], float]) -> float:
    """Return the seconds before the retry after `attempt` earlier ones; see `Retry`."""
    return min(backoff * 2.0**attempt, max_backoff) * (0.5 + 0.5 * draw())


def _checked_kinds(on: Any) -> tuple[type[Exception] | str, ...]:
    kinds = (on,) if isinstance(on, str | type) else tuple(on) if isinstance(on, Iterable) else ()
    if not 0 < len(kinds) <= _MAX_NAMES:
        raise ConfigurationError(
            f"Retry(on={on!r:.100}) must name 1 to {_MAX_NAMES} kinds of exceptions, such as on=(TimeoutError,)"
        )
    for kind in kinds:
        if isinstance(kind, str):
            if 0 < len(kind) <= _MAX_NAME_LENGTH and all(part.isidentifier() for part in kind.split(".")):
                continue
            raise ConfigurationError(f"Retry(on=…) has {kind!r:.100}, which is no name of an exception")
        if not isinstance(kind, type) or not issubclass(kind, Exception):
            # A tool that is cancelled, or that exits, must not be run again by that.
            raise ConfigurationError(f"Retry(on=…) has {kind!r:.100}, which is no subclass of Exception, nor its name")
    return kinds


def _checked_most(most: Any) -> int:
    if isinstance(most, bool) or not isinstance(most, int) or not 1 <= most <= MAX_RETRIES:
        raise ConfigurationError(f"Retry(most={most!r:.40}) must be a whole number from 1 to {MAX_RETRIES}")
    return most


def _checked_seconds(name: str, seconds: Any) -> float:
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or math.isnan(seconds):
        raise ConfigurationError(f"Retry({name}={seconds!r:.40}) must be a number of seconds")
    if not 0 <= seconds <= MAX_WAIT_SECONDS:
        raise ConfigurationError(f"Retry({name}={seconds!r:.40}) must be 0 to {MAX_WAIT_SECONDS:.0f} seconds")
    return float(seconds)
