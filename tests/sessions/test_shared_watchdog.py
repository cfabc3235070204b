"""Warnings about sessions that several authorities create in one store."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from snakepit_otel.errors import OwnerQuotaExceeded, SessionQuotaExceeded
from snakepit_otel.sessions import Limits, MemoryBackend, SessionStore
from snakepit_otel.telemetry import names
from snakepit_otel.testing import FakeClock
from tests.sessions.conftest import Emissions
from tests.sessions.remote_backend import RemoteBackend

WARNING = names.EVENT_BRIDGE_SESSION_ACCUMULATION_WARNING
INTERVAL = 10.0


@asynccontextmanager
async def authorities(
    clock: FakeClock, emissions: Emissions, **settings: Any
) -> AsyncIterator[tuple[SessionStore, SessionStore]]:
    """Two stores over one server, which sweep only where a test has them do so."""
    limits = Limits(**{key: value for key, value in settings.items() if key.startswith("max_")})
    server = MemoryBackend(limits, clock)
    common = {**settings, "cleanup_interval": int(INTERVAL * 1000), "clock": clock, "emit": emissions.take}
    one, other = (SessionStore(backend=RemoteBackend(limits, server=server), **common) for _ in range(2))
    for store in (one, other):
        store._sweeper.start = lambda: None  # type: ignore[method-assign]
    async with one, other:
        yield one, other


async def open_tab(store: SessionStore) -> None:
    """Create a session and forget it."""
    await store.create()


async def import_orders(store: SessionStore) -> None:
    """Create a session elsewhere in the code, and forget it."""
    await store.create()


def line_of(function: Any) -> str:
    """Return the call site of the create in a function."""
    return f"sessions/test_shared_watchdog.py:{inspect.getsourcelines(function)[1] + 2} in {function.__name__}"


async def refused(store: SessionStore, times: int, owner: str | None = None) -> None:
    """Have creates refused."""
    for _ in range(times):
        with pytest.raises((SessionQuotaExceeded, OwnerQuotaExceeded)):
            await store.create(owner=owner)


async def test_all_authorities_warn_once_an_interval(clock: FakeClock, emissions: Emissions) -> None:
    """The first event is the one that filled the store; the next has what both were refused since."""
    async with authorities(clock, emissions, max_sessions=1) as (one, other):
        await one.create("a")
        await refused(one, 2)
        await refused(other, 3)
        assert emissions.counts(WARNING) == [("quota_exceeded", 1)]
        clock.advance(INTERVAL)
        await refused(other, 1)
        assert len(emissions.counts(WARNING)) == 2
        await one.sweep()
        await other.sweep()
        assert len(emissions.counts(WARNING)) == 2, "an interval has one event, whoever sweeps in it"


async def test_no_occurrence_is_lost_between_authorities(clock: FakeClock, emissions: Emissions) -> None:
    """When all have swept, the events stand for each refusal of each authority, and for each sweep of a full store."""
    async with authorities(clock, emissions, max_sessions=1) as (one, other):
        await one.create("a")
        await refused(one, 2)
        await refused(other, 3)
        for _ in range(2):
            clock.advance(INTERVAL)
            await one.sweep()
            await other.sweep()
        await one.delete("a")
        clock.advance(INTERVAL)
        await one.sweep()
        await other.sweep()
        filled, refusals, sweeps = 1, 5, 4
        assert sum(count for _, count in emissions.counts(WARNING)) == filled + refusals + sweeps
        assert len(emissions.counts(WARNING)) == 4


async def test_an_authority_that_stands_still_is_warned_for_by_another(clock: FakeClock, emissions: Emissions) -> None:
    """What one has added to the pending count, another's event has, also when the one is gone."""
    async with authorities(clock, emissions, max_sessions=1) as (one, other):
        await one.create("a")
        # The store takes the count of one that has not learned yet that it is too early.
        await refused(other, 1)
        assert emissions.counts(WARNING) == [("quota_exceeded", 1)]
        await one.delete("a")
        clock.advance(INTERVAL)
        await one.sweep()
        assert emissions.counts(WARNING) == [("quota_exceeded", 1), ("quota_exceeded", 1)]


async def test_creators_of_all_authorities_are_named(clock: FakeClock, emissions: Emissions) -> None:
    """Strict mode's report is about the store, whoever emits it: the largest group first, wherever it was made."""
    async with authorities(clock, emissions, max_sessions=10, strict_mode=True) as (one, other):
        for _ in range(5):
            await open_tab(other)
        for _ in range(3):
            await import_orders(one)
        (warning,) = emissions
        assert warning.attributes["reason"] == "threshold_warning"
        first, second = warning.attributes["snakepit.session.creators"]
        assert first.startswith(f"5 sessions, oldest 0 s, {line_of(open_tab)}")
        assert second.startswith(f"3 sessions, oldest 0 s, {line_of(import_orders)}")


async def test_owners_that_any_authority_refused_are_named(clock: FakeClock, emissions: Emissions) -> None:
    """An event has the refusals of all: of the owner who was refused most by name, and of the others by number."""
    async with authorities(clock, emissions, max_sessions=100, max_sessions_per_owner=1) as (one, other):
        await one.create(owner="jobs")
        await other.create(owner="web")
        await refused(one, 1, "web")
        await refused(one, 2, "jobs")
        await refused(other, 1, "web")
        clock.advance(INTERVAL)
        await one.sweep()
        await other.sweep()
        assert emissions.counts(WARNING) == [("owner_quota_exceeded", 1), ("owner_quota_exceeded", 3)]
        assert [event.attributes["snakepit.session.owner"] for event in emissions] == ["web", "jobs"]
        assert emissions[-1].body.endswith("was refused 2 more; 1 other owners were refused 1")
