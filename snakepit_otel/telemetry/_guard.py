"""Guard that keeps faults of telemetry away from the code it observes."""

from __future__ import annotations

import logging
from contextlib import ContextDecorator

from snakepit_otel.common.printable import MAX_NAME_CHARACTERS, printable, printable_error

_log = logging.getLogger("snakepit_otel.telemetry")
_MAX_LOGGED = 1_000
_logged: set[tuple[type[BaseException], str]] = set()
fault_count = 0


class _Guard(ContextDecorator):
    """Contain every `Exception` of a block or function; a function then returns None. Not for the hot path."""

    def __init__(self, action: str) -> None:
        self._action = action

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> bool:
        if not isinstance(error, Exception):
            return False
        contain(self._action, error)
        return True


guard = _Guard


def contain(action: str, error: Exception) -> None:
    """Count a fault, and log it once per kind and action; never raises."""
    global fault_count
    fault_count += 1
    key = (type(error), action[:MAX_NAME_CHARACTERS])
    # What a fault is called may have a name of a peer's in it.
    if key in _logged or len(_logged) >= _MAX_LOGGED:
        return
    _logged.add(key)
    _log.warning(
        "telemetry fault in %s, contained (further ones of this kind are only counted): %s",
        printable(action),
        printable_error(error),
    )
