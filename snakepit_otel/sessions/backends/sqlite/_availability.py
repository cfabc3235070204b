"""Log lines of a file that cannot be used, and of its return: one of each, not one for every call."""

from __future__ import annotations

import logging
import math
import time
from pathlib import Path

from snakepit_otel.common.printable import printable

_QUIET_S = 60.0  # between two lines of a loss, where calls fail and succeed in turn, as on a disk that is nearly full
_log = logging.getLogger("snakepit_otel.sessions")


class Availability:
    """Whether the file could be used last, for the log."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._logged = -math.inf
        self._is_away = False

    def on_failure(self, error: BaseException) -> None:
        """Log an error that says why the file cannot be used, unless one has been logged since it could."""
        if not self._is_away and time.monotonic() - self._logged >= _QUIET_S:
            self._is_away = True
            self._logged = time.monotonic()
            _log.warning("%s", printable(str(error)))

    def on_success(self) -> None:
        """Log that the file can be used again, if a loss was logged."""
        if self._is_away:
            self._is_away = False
            _log.info("session store %s can be used again", printable(str(self._path)))
