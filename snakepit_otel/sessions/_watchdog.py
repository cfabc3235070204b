"""Watchdog that warns when sessions accumulate: at every sweep, and at once when a threshold is crossed."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from enum import StrEnum
from typing import Any

from snakepit_otel import telemetry
from snakepit_otel.common.clock import Clock
from snakepit_otel.common.printable import printable_lines
from snakepit_otel.sessions._attribution import CreatorIndex
from snakepit_otel.sessions._settings import SessionSettings
from snakepit_otel.telemetry import names

_log = logging.getLogger("snakepit_otel.sessions")

Emit = Callable[..., None]


class WarningReason(StrEnum):
    """The documented reasons of `snakepit.bridge.session.accumulation_warning`."""

    THRESHOLD_WARNING = "threshold_warning"
    QUOTA_EXCEEDED = "quota_exceeded"


class Watchdog:
    """Emits at most one event per reason and cleanup interval, which counts the occurrences since the one before.

    An occurrence is each crossing of the threshold and of the quota, each create that was rejected or
    had to evict at the quota, and each sweep that still finds too many.
    """

    def __init__(
        self, settings: SessionSettings, clock: Clock, creators: CreatorIndex | None, emit: Emit = telemetry.emit
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._creators = creators
        self._emit = emit
        limit = settings.max_sessions
        self._limit = limit
        # The small allowance keeps 0.8 of 10 at 8 whatever the rounding.
        share = limit * settings.accumulation_threshold
        self._threshold = max(1, math.ceil(share - 1e-9)) if math.isfinite(limit) else limit
        self._pending = dict.fromkeys(WarningReason, 0)
        self._quiet_until = dict.fromkeys(WarningReason, -math.inf)

    def is_threshold(self, live: int) -> bool:
        return live in (self._threshold, self._limit)

    def on_created(self, live: int) -> None:
        """Check the count after a new session; each that had to evict another finds it at the quota, too."""
        if live == self._limit:
            self._note(WarningReason.QUOTA_EXCEEDED, live)
        elif live == self._threshold:
            self._note(WarningReason.THRESHOLD_WARNING, live)

    def on_rejected(self, live: int) -> None:
        self._note(WarningReason.QUOTA_EXCEEDED, live)

    def on_swept(self, live: int) -> None:
        """Check the count after a sweep, and emit what is pending since the last event."""
        if live >= self._limit:
            self._pending[WarningReason.QUOTA_EXCEEDED] += 1
        elif live >= self._threshold:
            self._pending[WarningReason.THRESHOLD_WARNING] += 1
        for reason, pending in self._pending.items():
            if pending:
                self._emit_pending(reason, live)

    def _note(self, reason: WarningReason, live: int) -> None:
        self._pending[reason] += 1
        self._emit_pending(reason, live)

    def _emit_pending(self, reason: WarningReason, live: int) -> None:
        now = self._clock.monotonic()
        if now < self._quiet_until[reason]:
            return
        count, self._pending[reason] = self._pending[reason], 0
        self._quiet_until[reason] = now + self._settings.cleanup_interval / 1000
        attributes: dict[str, Any] = {
            names.REASON: reason.value,
            names.STRICT_MODE: self._settings.strict_mode,
            names.TABLE_NAME: self._settings.table_name,
        }
        measurements = {
            "count": count,
            "current_sessions": live,
            "max_sessions": int(self._limit),
            "utilization": live / self._limit,
        }
        text = f"{reason.value}: {live} of {int(self._limit)} sessions are live ({live / self._limit:.0%})"
        if self._creators is not None:
            creators = [str(creator) for creator in self._creators.largest(now)]
            if creators:
                attributes[names.SNAKEPIT_SESSION_CREATOR] = creators[0]
                attributes[names.SNAKEPIT_SESSION_CREATORS] = creators
            text = "\n".join((f"sessions accumulate, {text}. Made by:", *(f"  {line}" for line in creators)))
            _log.warning("%s", printable_lines(text))
        self._emit(names.EVENT_BRIDGE_SESSION_ACCUMULATION_WARNING, attributes, measurements, body=text)
