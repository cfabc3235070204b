"""Metrics and events of the sessions that end."""

from __future__ import annotations

from collections.abc import Sequence

from snakepit_otel import telemetry
from snakepit_otel.common.clock import Clock
from snakepit_otel.sessions._ledger_metrics import LedgerMetrics
from snakepit_otel.sessions._watchdog import Emit
from snakepit_otel.sessions.backends.base import Ended, EndReason, SessionBackend
from snakepit_otel.telemetry import names


class SessionMetrics:
    """Events and lifetimes of the sessions that this authority ends, and the `ledger` of all.

    `unconfirmed` are those of which the event has been emitted, which the backend has not been given yet.
    """

    def __init__(self, backend: SessionBackend, table_name: str, emit: Emit, clock: Clock) -> None:
        self.unconfirmed = 0
        self.ledger = LedgerMetrics(backend, clock, count_unconfirmed=lambda: self.unconfirmed)
        self._table_name = table_name
        self._emit = emit

    def record_ended(self, ended: Sequence[Ended], live: int) -> None:
        pruned: dict[EndReason, int] = {}
        for one in ended:
            telemetry.record(
                names.METRIC_SESSION_LIFETIME, one.lifetime, {names.SNAKEPIT_SESSION_END_REASON: one.reason.value}
            )
            if one.reason is not EndReason.DELETED:
                pruned[one.reason] = pruned.get(one.reason, 0) + 1
        self.unconfirmed += sum(pruned.values())
        for reason, count in pruned.items():
            self._emit(
                names.EVENT_BRIDGE_SESSION_PRUNED,
                {names.REASON: reason.value, names.TABLE_NAME: self._table_name},
                {"count": count, "remaining_sessions": live},
                body=f"{count} sessions pruned ({reason.value}), {live} remain",
            )
