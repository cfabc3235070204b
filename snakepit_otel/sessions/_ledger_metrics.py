"""Metrics of a store's ledger, which every authority over the store reports, and of the client that reads it."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial

from snakepit_otel import telemetry
from snakepit_otel.common.clock import Clock
from snakepit_otel.common.guard import guard
from snakepit_otel.errors import SessionStoreUnavailable
from snakepit_otel.sessions.backends._client_counters import ClientCounters
from snakepit_otel.sessions.backends.base import EndReason, SessionBackend, Stats
from snakepit_otel.telemetry import names
from snakepit_otel.telemetry._definitions import Metric

_ANSWER_SECONDS = 5.0  # after which a ledger that was requested, and has not come, leaves the last one out of date
_log = logging.getLogger("snakepit_otel.sessions")
_Readings = list[tuple[float, dict[str, str]]]

_LEVELS = {names.METRIC_SESSION_MEMORY_USAGE: "memory_bytes"}
_CLIENT = {
    names.METRIC_SESSION_STORE_RETRIES: "retries",
    names.METRIC_SESSION_STORE_NOT_DURABLE: "not_durable",
    names.METRIC_SESSION_STORE_CONNECTION_USAGE: "connections_used",
    names.METRIC_SESSION_STORE_CONNECTION_LIMIT: "connections_limit",
    names.METRIC_SESSION_STORE_CLOCK_SKEW: "clock_skew",
}


class LedgerMetrics:
    """The ledger as metrics that carry the store's name: of all authorities' figures, the highest is the store's.

    Figures of a store in this process' memory are read as they stand. Those of another store are at most as old as the
    collection before, at which they were fetched for this one: an authority that does nothing lags behind by no
    more, and one that does not reach the store reports nothing.

    A lasting store has counted before this authority was there. The first collection reports its ledger as it was
    at the start, so that what is counted from then on is seen to be added, and what was before is not.
    """

    def __init__(self, backend: SessionBackend, clock: Clock, *, count_unconfirmed: Callable[[], int]) -> None:
        self._backend = backend
        self._now = clock.monotonic
        self._is_lasting = getattr(backend, "is_lasting", True)
        self._count_unconfirmed = count_unconfirmed
        self._loop: asyncio.AbstractEventLoop | None = None
        self._fetching: asyncio.Task[None] | None = None
        self._requested_at: float | None = None
        self._is_reached = False
        self._first: Stats | None = None
        self._shown: Stats | None = None
        self._highest: dict[tuple[Metric, str], float] = {}
        # The count first: each collection begins with it.
        telemetry.observe(self, names.METRIC_SESSION_COUNT, LedgerMetrics._read_count)
        for metric, field in _LEVELS.items():
            telemetry.observe(self, metric, partial(LedgerMetrics._read_level, field=field))
        telemetry.observe(self, names.METRIC_SESSION_CREATED, LedgerMetrics._read_created)
        telemetry.observe(self, names.METRIC_SESSION_ENDED, LedgerMetrics._read_ended)
        telemetry.observe(self, names.METRIC_SESSION_REJECTED, LedgerMetrics._read_rejected)
        if math.isfinite(backend.limits.max_sessions):
            telemetry.observe(self, names.METRIC_SESSION_LIMIT, LedgerMetrics._read_limit)
        if self._is_lasting:
            telemetry.observe(self, names.METRIC_SESSION_UNREPORTED, LedgerMetrics._read_unreported)
            for metric, field in _CLIENT.items():
                telemetry.observe(self, metric, partial(LedgerMetrics._read_client, field=field))

    async def start(self) -> None:
        """Read the ledger of a lasting store, for the first collection; where that fails, a later one is the first."""
        if self._is_lasting:
            self._loop = asyncio.get_running_loop()
            await self._fetch()

    async def stop(self) -> None:
        """Stop fetching; the next collection is the last one that has this ledger."""
        self._loop, is_reached = None, self._is_reached
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.wait([self._fetching])
            self._is_reached = is_reached

    def _begin_collection(self) -> Stats | None:
        """Return the ledger for this collection, None if it is out of date; have it fetched for the next one."""
        if not self._is_lasting:
            return self._backend.last_stats
        now, requested_at = self._now(), self._requested_at
        shown: Stats | None = None
        if self._is_reached and (requested_at is None or now < requested_at + _ANSWER_SECONDS):
            shown, self._first = self._first or self._backend.last_stats, None
        loop = self._loop
        if loop is None or loop.is_closed():
            self._is_reached = False
        elif requested_at is None:
            self._requested_at = now
            loop.call_soon_threadsafe(self._begin_fetch)
        return shown

    def _begin_fetch(self) -> None:
        if self._loop is None:
            self._requested_at = None
        else:
            self._fetching = asyncio.create_task(self._fetch())

    async def _fetch(self) -> None:
        ledger: Stats | None = None
        try:
            with (
                guard("reading the session ledger for metrics", _log, traceback=False),
                suppress(SessionStoreUnavailable),
            ):
                # That it is away, whoever uses a session sees; here it is only counted.
                ledger = await self._backend.stats()
        finally:
            if not self._is_reached:
                self._first = ledger
            self._is_reached = ledger is not None
            self._requested_at = None

    def _read_count(self) -> _Readings:
        self._shown = ledger = self._begin_collection()
        return [] if ledger is None else self._of_store(ledger.live)

    def _read_level(self, field: str) -> _Readings:
        return [] if self._shown is None else self._of_store(getattr(self._shown, field))

    def _read_limit(self) -> _Readings:
        return [] if self._shown is None else self._of_store(int(self._backend.limits.max_sessions))

    def _read_unreported(self) -> _Readings:
        ledger = self._shown
        if ledger is None:
            return []
        # What this authority is about to confirm is not lost.
        unreported = ledger.pruned_ttl + ledger.pruned_overflow - ledger.reported - self._count_unconfirmed()
        return self._of_store(max(0, unreported))

    def _read_created(self) -> _Readings:
        ledger = self._shown
        return [] if ledger is None else self._counted(names.METRIC_SESSION_CREATED, "", [("", ledger.created)])

    def _read_ended(self) -> _Readings:
        ledger = self._shown
        if ledger is None:
            return []
        by_reason = [
            (EndReason.DELETED.value, ledger.deleted),
            (EndReason.TTL.value, ledger.pruned_ttl),
            (EndReason.OVERFLOW.value, ledger.pruned_overflow),
        ]
        return self._counted(names.METRIC_SESSION_ENDED, names.SNAKEPIT_SESSION_END_REASON, by_reason)

    def _read_rejected(self) -> _Readings:
        ledger = self._shown
        if ledger is None:
            return []
        by_quota = [("store", ledger.rejected - ledger.rejected_per_owner)]
        if math.isfinite(self._backend.limits.max_sessions_per_owner):
            by_quota.append(("owner", ledger.rejected_per_owner))
        return self._counted(names.METRIC_SESSION_REJECTED, names.SNAKEPIT_SESSION_QUOTA, by_quota)

    def _read_client(self, field: str) -> _Readings:
        if self._loop is None and self._shown is None:
            return []  # not open, so that the store's name need not be the right one
        client: ClientCounters | None = getattr(self._backend, "client", None)
        value = getattr(client, field, None)
        return [] if value is None else self._of_store(value)

    def _of_store(self, value: float) -> _Readings:
        return [(value, {names.SNAKEPIT_SESSION_STORE: self._backend.name})]

    def _counted(self, metric: Metric, attribute: str, counts: Iterable[tuple[str, float]]) -> _Readings:
        """Return a counter's readings, none below an earlier one: a fail-over may cost a store its last seconds."""
        readings: _Readings = []
        for value, count in counts:
            self._highest[metric, value] = highest = max(count, self._highest.get((metric, value), 0))
            attributes = {names.SNAKEPIT_SESSION_STORE: self._backend.name}
            readings.append((highest, {**attributes, attribute: value} if attribute else attributes))
        return readings
