"""Session store over a backend that fails, is slow, or loses replies."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from snakepit_otel.errors import SessionQuotaExceeded, SessionStoreUnavailable
from snakepit_otel.sessions import Limits, SessionStore
from snakepit_otel.telemetry import names
from snakepit_otel.testing import FakeClock
from tests.sessions.conftest import Emissions
from tests.sessions.failing_backend import ALL, FailingBackend
from tests.waiting import until

PRUNED, WARNING = names.EVENT_BRIDGE_SESSION_PRUNED, names.EVENT_BRIDGE_SESSION_ACCUMULATION_WARNING
WHEN = pytest.mark.parametrize("takes_place", [False, True], ids=["before", "after"])


@asynccontextmanager
async def started(takes_place: bool = False, **settings: Any) -> AsyncIterator[tuple[SessionStore, FailingBackend]]:
    """A store that sweeps once a minute, over a backend that does not fail yet."""
    clock = settings.get("clock")
    limits = Limits(max_sessions=settings.get("max_sessions", 10_000))
    backend = FailingBackend(limits, clock)
    backend.takes_place = takes_place
    async with SessionStore(backend=backend, **{"cleanup_interval": 60_000} | settings) as store:
        yield store, backend


@WHEN
async def test_calls_fail_while_the_store_is_away(takes_place: bool) -> None:
    """With an error that a client may try again, and work when it is back."""
    async with started(takes_place) as (store, backend):
        await store.create("a")
        backend.failing = set(ALL)
        for call in (
            lambda: store.create("b"),
            lambda: store.get("a"),
            lambda: store.set_state("a", "k", 1),
            lambda: store.delete("x"),
            store.list,
        ):
            with pytest.raises(SessionStoreUnavailable) as unavailable:
                await call()
            assert (unavailable.value.retryable, unavailable.value.http_status) == (True, 503)
        backend.failing = set()
        assert (await store.get("a")).id == "a"
        ledger = await store.stats()
        assert (ledger.created, ledger.live) == ((2, 2) if takes_place else (1, 1))


@WHEN
async def test_the_watchdog_keeps_its_counts(takes_place: bool, emissions: Emissions) -> None:
    """What could not be claimed is warned of once the store is back, and the creates go on meanwhile."""
    clock = FakeClock()
    async with started(False, max_sessions=1, clock=clock, emit=emissions.take) as (store, backend):
        backend.failing, backend.takes_place = {"claim"}, takes_place
        await store.create("a")
        for _ in range(3):
            with pytest.raises(SessionQuotaExceeded):
                await store.create("b")
        assert not emissions.counts(WARNING)
        backend.failing = set()
        clock.advance(60)
        await store.get("a")
        await store.sweep()
        ((reason, count),) = emissions.counts(WARNING)
        assert reason == "quota_exceeded"
        assert count == 5


async def test_a_create_that_reaches_the_threshold_needs_no_watchdog(caplog: pytest.LogCaptureFixture) -> None:
    """The session is there, whatever becomes of the sweep and of the warning."""
    async with started(max_sessions=1) as (store, backend):
        backend.failing = {"prune", "claim"}
        assert (await store.create("a")).id == "a"
        assert ["the session watchdog failed" in line for line in caplog.messages] == [True]
        backend.failing = set()


async def test_a_warning_without_its_report(emissions: Emissions) -> None:
    """In strict mode, creators that cannot be read cost the warning only their names."""
    async with started(max_sessions=1, strict_mode=True, emit=emissions.take) as (store, backend):
        backend.failing = {"suspects"}
        await store.create("a")
    (warning,) = [one for one in emissions if one.event is WARNING]
    assert "snakepit.session.creators" not in warning.attributes
    assert warning.body


async def test_the_sweeper_goes_on(emissions: Emissions) -> None:
    """A sweep that fails is made again, and removes what it missed."""
    clock = FakeClock()
    async with started(cleanup_interval=10, clock=clock, emit=emissions.take) as (store, backend):
        await store.create("a", ttl=1)
        clock.advance(1)
        backend.failing = {"prune"}
        await until(lambda: backend.failures > 1)
        backend.failing = set()
        await until(lambda: emissions.counts(PRUNED))
        assert emissions.counts(PRUNED) == [("ttl", 1)]


@WHEN
async def test_a_lease_holds_on(takes_place: bool, caplog: pytest.LogCaptureFixture) -> None:
    """A session is not lost while the store is away; the next attempt is soon, and nothing is logged."""
    clock, lost = FakeClock(), list[str]()
    async with started(takes_place, clock=clock) as (store, backend):
        lease = store.lease(lost.append)
        await lease.create("a", ttl=60)
        backend.failing = {"get"}
        with pytest.raises(SessionStoreUnavailable):
            await lease.touch()
        await lease._touch_and_repeat()
        assert (lost, len(lease), caplog.messages) == ([], 1, [])
        assert lease._timer.when() - asyncio.get_running_loop().time() == pytest.approx(2, abs=0.5)
        backend.failing = set()
        clock.advance(30)
        await lease._touch_and_repeat()
        assert lease._timer.when() - asyncio.get_running_loop().time() == pytest.approx(20, abs=0.5)
        clock.advance(59)
        assert await store.exists("a")
        await lease.end()
        assert not await store.exists("a")


async def test_a_lease_that_ends_meanwhile_leaves_its_sessions(caplog: pytest.LogCaptureFixture) -> None:
    """To their TTL, with a line of the log for each."""
    clock = FakeClock()
    async with started(clock=clock) as (store, backend):
        lease = store.lease()
        await lease.create("a", ttl=60)
        backend.failing = {"delete"}
        await lease.end()
        (record,) = [one for one in caplog.records if one.name == "snakepit_otel.sessions"]
        assert (record.levelno, record.exc_info) == (logging.WARNING, None)
        assert "stays for its TTL after its owner's end: SessionStoreUnavailable" in record.getMessage()
        clock.advance(60)
        assert not await store.exists("a")


async def test_hints_are_dropped_silently(caplog: pytest.LogCaptureFixture) -> None:
    """They make nothing fail, and leave no line in the log."""
    async with started() as (store, backend):
        await store.create("a")
        backend.failing = {"assign_worker"}
        await store.assign_worker("a", "one")
        await store._hints.wait()
        assert not caplog.messages


@WHEN
async def test_a_stop_completes(takes_place: bool) -> None:
    """The backend is closed, although nothing could be brought to its end."""
    async with started(takes_place) as (store, backend):
        await store.create("a")
        await store.lease().create("b")
        backend.failing = set(ALL)
        await store.assign_worker("a", "one")
        await store.stop()
        assert backend.calls == ["open", "close"]


@WHEN
@pytest.mark.parametrize("how", ["create", "scope"])
async def test_a_cancelled_create_of_a_lease_leaves_no_session(takes_place: bool, how: str) -> None:
    """The session that is made nevertheless is deleted as soon as the reply is there."""
    async with started(takes_place) as (store, backend):
        lease = store.lease()

        async def scope() -> None:
            async with store.scope("a"):
                pass

        backend.slow = {"create"}
        creating = asyncio.ensure_future(lease.create("a") if how == "create" else scope())
        await until(lambda: backend.waiting)
        creating.cancel()
        await asyncio.wait([creating])
        assert creating.cancelled()
        backend.go_on.set()
        await until(lambda: store.stats_snapshot().deleted)
        ledger = await store.stats()
        assert (ledger.created, ledger.deleted, ledger.live, len(lease)) == (1, 1, 0, 0)


async def test_a_cancelled_create_leaves_what_was_there() -> None:
    """A session that another made is neither held nor ended."""
    async with started() as (store, backend):
        await store.create("a")
        backend.slow = {"create"}
        lease = store.lease()
        creating = asyncio.ensure_future(lease.create("a"))
        await until(lambda: backend.waiting)
        creating.cancel()
        await asyncio.wait([creating])
        backend.go_on.set()
        await store._abandoned.wait()
        await lease.end()
        assert await store.exists("a")


async def test_a_create_that_is_tried_again_is_held() -> None:
    """By whom it was cancelled before: the session that is found is not deleted."""
    async with started(takes_place=True) as (store, backend):
        lease = store.lease()
        backend.slow = {"create"}
        creating = asyncio.ensure_future(lease.create("a"))
        await until(lambda: backend.waiting)
        creating.cancel()
        await asyncio.wait([creating])
        backend.slow = set()
        await lease.create("a")
        backend.go_on.set()
        await store._abandoned.wait()
        await asyncio.sleep(0)
        assert (len(lease), await store.exists("a")) == (1, True)


async def test_a_stop_waits_for_abandoned_creates() -> None:
    """And for the deletion of what they made."""
    backend = FailingBackend(Limits())
    store = SessionStore(backend=backend)
    await store.start()
    backend.slow = {"create"}
    creating = asyncio.ensure_future(store.lease().create("a"))
    await until(lambda: backend.waiting)
    creating.cancel()
    await asyncio.wait([creating])
    stopping = asyncio.ensure_future(store.stop())
    await asyncio.sleep(0)
    backend.go_on.set()
    await stopping
    assert (backend.server.last_stats.created, backend.server.last_stats.deleted) == (1, 1)


@WHEN
async def test_a_cancelled_sweep_reports_what_it_ended(takes_place: bool, emissions: Emissions) -> None:
    """It waits for its reply, since no other sweep will have those ends."""
    clock = FakeClock()
    async with started(takes_place, clock=clock, emit=emissions.take) as (store, backend):
        await store.create("a", ttl=1)
        clock.advance(1)
        backend.slow = {"prune"}
        sweeping = asyncio.ensure_future(store.sweep())
        await until(lambda: backend.waiting)
        sweeping.cancel()
        await asyncio.sleep(0)
        backend.go_on.set()
        await asyncio.wait([sweeping])
        assert sweeping.cancelled()
        assert emissions.counts(PRUNED) == [("ttl", 1)]
    assert backend.server.last_stats.reported == 1
