"""Tells telemetry which sessions ended, and lets it read the ledger."""

from __future__ import annotations

import math
from collections.abc import Sequence

from snakepit_otel import telemetry
from snakepit_otel.sessions._watchdog import Emit
from snakepit_otel.sessions.backends.base import Backend, Ended, EndReason
from snakepit_otel.telemetry import names


class Announcer:
    """Emits `snakepit.bridge.session.pruned` and the lifetimes of sessions that ended."""

    def __init__(self, backend: Backend, table_name: str, emit: Emit = telemetry.emit) -> None:
        self._backend = backend
        self._table_name = table_name
        self._emit = emit
        self._glance = backend.glance
        telemetry.observe(self, names.METRIC_SESSION_COUNT, lambda me: [(me._glance().live, {})])
        telemetry.observe(self, names.METRIC_SESSION_MEMORY_USAGE, lambda me: [(me._glance().memory_bytes, {})])
        telemetry.observe(self, names.METRIC_SESSION_CREATED, lambda me: [(me._glance().created, {})])
        telemetry.observe(self, names.METRIC_SESSION_REJECTED, lambda me: [(me._glance().rejected, {})])
        telemetry.observe(self, names.METRIC_SESSION_ENDED, Announcer._read_ended)
        if math.isfinite(backend.limits.max_sessions):
            telemetry.observe(self, names.METRIC_SESSION_LIMIT, lambda me: [(int(me._backend.limits.max_sessions), {})])

    def ended(self, ended: Sequence[Ended], live: int) -> None:
        """Record every lifetime, and one event per reason for those that were pruned."""
        pruned: dict[EndReason, int] = {}
        for one in ended:
            telemetry.record(
                names.METRIC_SESSION_LIFETIME,
                one.lifetime,
                {names.SNAKEPIT_SESSION_END_REASON: one.reason.value},
            )
            if one.reason is not EndReason.DELETED:
                pruned[one.reason] = pruned.get(one.reason, 0) + 1
        for reason, count in pruned.items():
            self._emit(
                names.EVENT_BRIDGE_SESSION_PRUNED,
                {names.REASON: reason.value, names.TABLE_NAME: self._table_name},
                {"count": count, "remaining_sessions": live},
                body=f"{count} sessions pruned ({reason.value}), {live} remain",
            )

    def _read_ended(self) -> list[tuple[float, dict[str, str]]]:
        stats = self._glance()
        by_reason = {
            EndReason.DELETED: stats.deleted,
            EndReason.TTL: stats.pruned_ttl,
            EndReason.OVERFLOW: stats.pruned_overflow,
        }
        return [(count, {names.SNAKEPIT_SESSION_END_REASON: reason.value}) for reason, count in by_reason.items()]
