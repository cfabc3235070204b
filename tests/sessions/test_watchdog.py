"""Warnings of the watchdog about accumulating sessions, and the counts that they stand for."""

from __future__ import annotations

import math

import pytest

from snakepit_otel.errors import SessionQuotaExceeded
from snakepit_otel.sessions import SessionStore
from snakepit_otel.telemetry import names
from snakepit_otel.testing import FakeClock
from tests.sessions.conftest import Emissions

WARNING = names.EVENT_BRIDGE_SESSION_ACCUMULATION_WARNING


async def fill(store: SessionStore, count: int, ttl: float = 3600) -> list[str]:
    """Create so many sessions and return their ids."""
    return [(await store.create(ttl=ttl)).id for _ in range(count)]


async def test_reaching_four_fifths_of_the_quota_warns_at_once(clock: FakeClock, emissions: Emissions) -> None:
    """The eighth of ten sessions makes one warning, with the documented keys; the ninth makes none."""
    store = SessionStore(max_sessions=10, clock=clock, emit=emissions.take)
    await fill(store, 7)
    assert emissions == []
    await fill(store, 2)
    (warning,) = emissions
    assert warning.event is WARNING
    assert warning.attributes == {"reason": "threshold_warning", "strict_mode": False, "table_name": "sessions"}
    assert warning.measurements == {"count": 1, "current_sessions": 8, "max_sessions": 10, "utilization": 0.8}
    assert warning.body == "threshold_warning: 8 of 10 sessions are live (80%)"


async def test_reaching_the_quota_warns_at_once(clock: FakeClock, emissions: Emissions) -> None:
    """The last session that fits makes a warning of its own reason."""
    store = SessionStore(max_sessions=10, clock=clock, emit=emissions.take, table_name="visitors")
    await fill(store, 10)
    assert emissions.counts(WARNING) == [("threshold_warning", 1), ("quota_exceeded", 1)]
    assert emissions[-1].attributes["table_name"] == "visitors"
    assert emissions[-1].measurements == {
        "count": 1,
        "current_sessions": 10,
        "max_sessions": 10,
        "utilization": 1.0,
    }


async def test_refusals_within_the_interval_are_counted_into_one_warning(
    clock: FakeClock, emissions: Emissions
) -> None:
    """However many creates are refused, there is one event per interval, and it stands for all of them."""
    store = SessionStore(max_sessions=1, cleanup_interval=10_000, clock=clock, emit=emissions.take)
    await fill(store, 1)
    for seconds in (0, 5, 4.75, 0.25, 1):
        clock.advance(seconds)
        with pytest.raises(SessionQuotaExceeded):
            await store.create()
    assert emissions.counts(WARNING) == [("quota_exceeded", 1), ("quota_exceeded", 4)]
    clock.advance(9)
    await store.sweep()
    assert emissions.counts(WARNING)[2:] == [("quota_exceeded", 2)]


async def test_a_refusal_warns_even_if_nothing_else_did(clock: FakeClock, emissions: Emissions) -> None:
    """A rejected create is reported at once where no warning of its kind came within the interval."""
    store = SessionStore(max_sessions=1, cleanup_interval=10_000, clock=clock, emit=emissions.take)
    await fill(store, 1)
    clock.advance(10)
    emissions.clear()
    with pytest.raises(SessionQuotaExceeded):
        await store.create()
    assert emissions.counts(WARNING) == [("quota_exceeded", 1)]


@pytest.mark.parametrize(
    ("live", "reason"), [(7, None), (8, "threshold_warning"), (9, "threshold_warning"), (10, "quota_exceeded")]
)
async def test_every_sweep_that_finds_too_many_warns(
    clock: FakeClock, emissions: Emissions, live: int, reason: str | None
) -> None:
    """As long as too many sessions are live, each sweep reports the graver of the two reasons."""
    store = SessionStore(max_sessions=10, cleanup_interval=10_000, clock=clock, emit=emissions.take)
    await fill(store, live)
    emissions.clear()
    for _ in range(3):
        clock.advance(10)
        await store.sweep()
    assert emissions.counts(WARNING) == ([(reason, 1)] * 3 if reason else [])


async def test_a_sweep_looks_at_what_it_left(clock: FakeClock, emissions: Emissions) -> None:
    """Sessions that the sweep itself removes are not warned of."""
    store = SessionStore(max_sessions=10, cleanup_interval=10_000, clock=clock, emit=emissions.take)
    await fill(store, 9, ttl=10)
    emissions.clear()
    clock.advance(10)
    await store.sweep()
    assert emissions.counts(WARNING) == []


async def test_the_reasons_wait_for_themselves_only(clock: FakeClock, emissions: Emissions) -> None:
    """A warning of one reason does not hold back one of the other."""
    store = SessionStore(max_sessions=5, cleanup_interval=10_000, clock=clock, emit=emissions.take)
    await fill(store, 4)
    clock.advance(9)
    (last,) = await fill(store, 1)
    await store.delete(last)
    clock.advance(1)
    await store.sweep()
    await fill(store, 1)
    clock.advance(9)
    await store.sweep()
    assert emissions.counts(WARNING) == [
        ("threshold_warning", 1),
        ("quota_exceeded", 1),
        ("threshold_warning", 1),
        ("quota_exceeded", 2),
    ]


async def test_each_crossing_counts(clock: FakeClock, emissions: Emissions) -> None:
    """Going below the threshold and above it again is another occurrence, reported with the next event."""
    store = SessionStore(max_sessions=5, cleanup_interval=10_000, clock=clock, emit=emissions.take)
    await fill(store, 3)
    for _ in range(4):
        (last,) = await fill(store, 1)
        await store.delete(last)
    assert emissions.counts(WARNING) == [("threshold_warning", 1)]
    clock.advance(10)
    await store.sweep()
    assert emissions.counts(WARNING) == [("threshold_warning", 1), ("threshold_warning", 3)]
    assert emissions[-1].measurements["current_sessions"] == 3


async def test_every_eviction_counts_as_the_quota_exceeded(clock: FakeClock, emissions: Emissions) -> None:
    """A store that evicts warns as one that rejects does: each session that had to go is an occurrence."""
    store = SessionStore(max_sessions=2, overflow="evict", cleanup_interval=10_000, clock=clock, emit=emissions.take)
    await fill(store, 6)
    clock.advance(10)
    await fill(store, 1)
    assert emissions.counts(WARNING) == [("quota_exceeded", 1), ("quota_exceeded", 5)]


async def test_a_live_id_at_the_quota_is_no_occurrence(clock: FakeClock, emissions: Emissions) -> None:
    """Asking for a session that is there, by creating it, does not warn."""
    store = SessionStore(max_sessions=1, clock=clock, emit=emissions.take)
    await store.create("a")
    emissions.clear()
    clock.advance(3_000)
    await store.create("a")
    assert emissions == []


async def test_what_has_expired_is_not_held_against_the_living(clock: FakeClock, emissions: Emissions) -> None:
    """Expired sessions that no sweep has seen yet do not make a crossing; they are pruned instead."""
    store = SessionStore(max_sessions=10, clock=clock, emit=emissions.take)
    await fill(store, 6, ttl=1)
    clock.advance(1)
    await fill(store, 7)
    assert emissions.counts(WARNING) == []
    assert (store.stats_snapshot().pruned_ttl, store.stats_snapshot().live) == (6, 7)
    await fill(store, 1)
    assert emissions.counts(WARNING) == [("threshold_warning", 1)]


async def test_without_a_quota_nothing_is_too_much(clock: FakeClock, emissions: Emissions) -> None:
    """A store without a quota never warns."""
    store = SessionStore(max_sessions=math.inf, clock=clock, emit=emissions.take)
    await fill(store, 500)
    await store.sweep()
    assert emissions == []


@pytest.mark.parametrize(
    ("quota", "share", "first"),
    [
        (10, 0.8, 8),
        (5, 0.8, 4),
        (7, 0.8, 6),
        (3, 0.8, 3),
        (1, 0.8, 1),
        (100, 0.07, 7),
        (100, 0.57, 57),
        (3, 0.1, 1),
        (10, 1.0, 10),
        (10, 1e-12, 1),
    ],
)
async def test_the_threshold_is_the_first_count_of_that_share(
    clock: FakeClock, emissions: Emissions, quota: int, share: float, first: int
) -> None:
    """The warning comes with the first session that makes the share, whatever floats make of it."""
    store = SessionStore(max_sessions=quota, accumulation_threshold=share, clock=clock, emit=emissions.take)
    await store.sweep()
    await fill(store, first - 1)
    assert emissions == []
    await fill(store, 1)
    (warning,) = emissions
    assert warning.measurements["current_sessions"] == first
    assert warning.attributes["reason"] == ("quota_exceeded" if first == quota else "threshold_warning")
