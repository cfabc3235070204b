"""Metrics and events of the session ledger."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

from snakepit_otel import telemetry
from snakepit_otel.sessions._watchdog import Emit
from snakepit_otel.sessions.backends.base import Ended, EndReason, SessionBackend
from snakepit_otel.telemetry import names

_COUNTERS = {
    names.METRIC_SESSION_COUNT: "live",
    names.METRIC_SESSION_MEMORY_USAGE: "memory_bytes",
    names.METRIC_SESSION_CREATED: "created",
}


class SessionMetrics:
    def __init__(self, backend: SessionBackend, table_name: str, emit: Emit = telemetry.emit) -> None:
        self._backend = backend
        self._table_name = table_name
        self._emit = emit
        for metric, counter in _COUNTERS.items():
            telemetry.observe(self, metric, partial(SessionMetrics._read_counter, counter=counter))
        telemetry.observe(self, names.METRIC_SESSION_ENDED, SessionMetrics._read_ended)
        telemetry.observe(self, names.METRIC_SESSION_REJECTED, SessionMetrics._read_rejected)
        if math.isfinite(backend.limits.max_sessions):
            telemetry.observe(self, names.METRIC_SESSION_LIMIT, lambda me: [(int(me._backend.limits.max_sessions), {})])

    def record_ended(self, ended: Sequence[Ended], live: int) -> None:
        pruned: dict[EndReason, int] = {}
        for one in ended:
            telemetry.record(
                names.METRIC_SESSION_LIFETIME, one.lifetime, {names.SNAKEPIT_SESSION_END_REASON: one.reason.value}
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

    def _read_counter(self, counter: str) -> list[tuple[float, dict[str, str]]]:
        return [(getattr(self._backend.last_stats, counter), {})]

    def _read_rejected(self) -> list[tuple[float, dict[str, str]]]:
        stats = self._backend.last_stats
        read = [(float(stats.rejected - stats.rejected_per_owner), {names.SNAKEPIT_SESSION_QUOTA: "store"})]
        if math.isfinite(self._backend.limits.max_sessions_per_owner):
            read.append((float(stats.rejected_per_owner), {names.SNAKEPIT_SESSION_QUOTA: "owner"}))
        return read

    def _read_ended(self) -> list[tuple[float, dict[str, str]]]:
        stats = self._backend.last_stats
        by_reason = {
            EndReason.DELETED: stats.deleted,
            EndReason.TTL: stats.pruned_ttl,
            EndReason.OVERFLOW: stats.pruned_overflow,
        }
        return [(count, {names.SNAKEPIT_SESSION_END_REASON: reason.value}) for reason, count in by_reason.items()]
