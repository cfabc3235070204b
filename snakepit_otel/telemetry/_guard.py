"""The guard that keeps our own telemetry's faults away from the code it observes."""

from __future__ import annotations

import logging

from snakepit_otel.common.printable import MAX_NAME_CHARACTERS, printable, printable_error

_log = logging.getLogger("snakepit_otel.telemetry")
_MOST_REPORTED = 1_000
_reported: set[tuple[type[BaseException], str]] = set()
count = 0
"""How many faults this process has contained."""


def contain(where: str, error: Exception) -> None:
    """Count a fault and say it once per kind and place; never raises."""
    global count  # noqa: PLW0603 - one tally per process is the point
    count += 1
    key = (type(error), where[:MAX_NAME_CHARACTERS])
    # What a fault is called may have a name of a peer's in it.
    if key in _reported or len(_reported) >= _MOST_REPORTED:
        return
    _reported.add(key)
    _log.warning(
        "telemetry fault in %s, contained (further ones of this kind are only counted): %s",
        printable(where),
        printable_error(error),
    )
