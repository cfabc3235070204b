"""Watchdog that warns when sessions accumulate: at every sweep, and at once when a threshold is crossed."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable
from typing import Any

from snakepit_otel import telemetry
from snakepit_otel.common.clock import Clock
from snakepit_otel.common.guard import guard
from snakepit_otel.common.printable import printable, printable_lines
from snakepit_otel.sessions._settings import SessionSettings
from snakepit_otel.sessions.backends.base import MOST_OWNERS, SessionBackend, WarningReason
from snakepit_otel.telemetry import names

_log = logging.getLogger("snakepit_otel.sessions")

Emit = Callable[..., None]


class Watchdog:
    """Emits at most one event per reason and cleanup interval, which counts the occurrences since the one before.

    That is so over all authorities that share a backend, which keeps what is pending: those of the others are counted
    at the next sweep. An occurrence is each crossing of the threshold and of the quota, each create that was rejected
    or had to evict at the quota, and each sweep that still finds too many; for the quota of owners, each create that
    was rejected at it. In strict mode warnings are logged as well, and name the creators. A backend that fails
    meanwhile is logged, and fails nothing else.
    """

    def __init__(
        self, settings: SessionSettings, clock: Clock, backend: SessionBackend, emit: Emit = telemetry.emit
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._backend = backend
        self.strict_mode = settings.strict_mode
        self._emit = emit
        limit = settings.max_sessions
        self._limit = limit
        # The small allowance keeps 0.8 of 10 at 8 whatever the rounding.
        share = limit * settings.accumulation_threshold
        self._threshold = max(1, math.ceil(share - 1e-9)) if math.isfinite(limit) else limit
        # What this authority found since its last claim.
        self._pending = dict.fromkeys(WarningReason, 0)
        self._quiet_until = dict.fromkeys(WarningReason, -math.inf)
        self._refused_owners: Counter[str] = Counter()

    def is_threshold(self, live: int) -> bool:
        return live in (self._threshold, self._limit)

    async def on_created(self, live: int) -> None:
        """Check the count after a new session; each that had to evict another finds it at the quota, too."""
        if live == self._limit:
            await self._note(WarningReason.QUOTA_EXCEEDED, live)
        elif live == self._threshold:
            await self._note(WarningReason.THRESHOLD_WARNING, live)

    async def on_rejected(self, live: int) -> None:
        await self._note(WarningReason.QUOTA_EXCEEDED, live)

    async def on_owner_rejected(self, owner: str) -> None:
        """Count a create that was refused at the quota of its owner."""
        if owner in self._refused_owners or len(self._refused_owners) < MOST_OWNERS:
            self._refused_owners[owner] += 1
        await self._note(WarningReason.OWNER_QUOTA_EXCEEDED, 0)

    async def on_swept(self, live: int) -> None:
        """Check the count after a sweep, and emit what is pending since the last event."""
        if live >= self._limit:
            self._pending[WarningReason.QUOTA_EXCEEDED] += 1
        elif live >= self._threshold:
            self._pending[WarningReason.THRESHOLD_WARNING] += 1
        for reason in WarningReason:
            await self._claim(reason, live)

    async def _note(self, reason: WarningReason, live: int) -> None:
        self._pending[reason] += 1
        await self._claim(reason, live)

    async def _claim(self, reason: WarningReason, live: int) -> None:
        """Emit what is pending, unless it is too early: then the backend is not asked at all."""
        now = self._clock.monotonic()
        if now < self._quiet_until[reason]:
            return
        interval = self._settings.cleanup_interval / 1000
        # Taken before anything is awaited, so that no other task claims with the same occurrences.
        self._quiet_until[reason] = now + interval
        count, self._pending[reason] = self._pending[reason], 0
        owners: Counter[str] = Counter()
        if reason is WarningReason.OWNER_QUOTA_EXCEEDED:
            owners, self._refused_owners = self._refused_owners, Counter()
        with guard("the session watchdog", _log, traceback=False) as guarded:
            claim = await self._backend.claim(reason, count, interval, owners)
            self._quiet_until[reason] = now + claim.quiet
            if not claim.occurrences:
                return
            if reason is WarningReason.OWNER_QUOTA_EXCEEDED:
                await self._emit_refused_owner(claim.occurrences, Counter(claim.owners))
            else:
                text = f"{reason.value}: {live} of {int(self._limit)} sessions are live ({live / self._limit:.0%})"
                await self._emit_warning(reason, claim.occurrences, live, self._limit, text, {})
        if guarded.error is not None:
            self._pending[reason] += count
            self._refused_owners.update(owners)

    async def _emit_refused_owner(self, count: int, owners: Counter[str]) -> None:
        ((owner, refused),) = owners.most_common(1)
        limit = self._settings.max_sessions_per_owner
        text = (
            f"{WarningReason.OWNER_QUOTA_EXCEEDED.value}: owner {printable(owner)} has {int(limit)} live sessions, "
            f"which is its quota, and was refused {refused} more"
        )
        if len(owners) > 1:
            text += f"; {len(owners) - 1} other owners were refused {count - refused}"
        attributes = {names.SNAKEPIT_SESSION_OWNER: printable(owner)}
        await self._emit_warning(
            WarningReason.OWNER_QUOTA_EXCEEDED, count, int(limit), limit, text, attributes, owner=owner
        )

    async def _emit_warning(
        self,
        reason: WarningReason,
        count: int,
        live: int,
        limit: float,
        text: str,
        more: dict[str, Any],
        *,
        owner: str | None = None,
    ) -> None:
        attributes: dict[str, Any] = {
            names.REASON: reason.value,
            names.STRICT_MODE: self.strict_mode,
            names.TABLE_NAME: self._settings.table_name,
            **more,
        }
        measurements = {
            "count": count,
            "current_sessions": live,
            "max_sessions": int(limit),
            "utilization": live / limit,
        }
        if self.strict_mode:
            with guard("the report of sessions' creators", _log, traceback=False):
                report = await self._backend.suspects(owner=owner)
                if creators := [str(creator) for creator in report.largest]:
                    attributes[names.SNAKEPIT_SESSION_CREATOR] = creators[0]
                    attributes[names.SNAKEPIT_SESSION_CREATORS] = creators
                text = "\n".join((f"sessions accumulate, {text}. Made by:", *(f"  {line}" for line in report.lines())))
            _log.warning("%s", printable_lines(text))
        self._emit(names.EVENT_BRIDGE_SESSION_ACCUMULATION_WARNING, attributes, measurements, body=text)
