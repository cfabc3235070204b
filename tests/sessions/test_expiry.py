"""Expiry of sessions, and the state that ends with them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from snakepit_otel.errors import InvalidSession, SessionNotFound
from snakepit_otel.sessions import Limits, MemoryBackend, SessionStore, Stats
from snakepit_otel.sessions.backends.base import NewSession
from snakepit_otel.telemetry import names
from snakepit_otel.testing import FakeClock
from tests.sessions.conftest import Emissions

USES: dict[str, Callable[[SessionStore], Awaitable[object]]] = {
    "get": lambda store: store.get("a"),
    "create": lambda store: store.create("a", ttl=1),
    "read": lambda store: store.read("a"),
    "get_state": lambda store: store.get_state("a", "key"),
    "list_state": lambda store: store.list_state("a"),
    "set_state": lambda store: store.set_state("a", "key", 1),
    "update": lambda store: store.update("a", lambda _: None),
}

LOOKS: dict[str, Callable[[SessionStore], Awaitable[object]]] = {
    "get without touch": lambda store: store.get("a", touch=False),
    "read without touch": lambda store: store.read("a", touch=False),
    "exists": lambda store: store.exists("a"),
    "list": lambda store: store.list(),
    "assign_worker": lambda store: store.assign_worker("a", "worker-1"),
    "sweep": lambda store: store.sweep(),
}


async def test_a_session_lives_until_the_instant_its_ttl_has_passed(clock: FakeClock) -> None:
    """One second before its end a session is there, at the instant itself it is not."""
    store = SessionStore(clock=clock)
    await store.create("a", ttl=10)
    clock.advance(9)
    assert await store.exists("a")
    clock.advance(1)
    assert not await store.exists("a")
    with pytest.raises(SessionNotFound, match="'a' not found"):
        await store.get("a")


@pytest.mark.parametrize("use", USES.values(), ids=USES)
async def test_every_use_starts_the_ttl_anew(
    clock: FakeClock, use: Callable[[SessionStore], Awaitable[object]]
) -> None:
    """After a use a session has its whole TTL again, not more and not less."""
    store = SessionStore(clock=clock)
    await store.create("a", ttl=10)
    clock.advance(9)
    await use(store)
    clock.advance(9)
    assert await store.exists("a")
    clock.advance(1)
    assert not await store.exists("a")


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
async def test_looking_does_not_extend_a_life(
    clock: FakeClock, look: Callable[[SessionStore], Awaitable[object]]
) -> None:
    """What only looks at a session leaves its end where it was."""
    store = SessionStore(clock=clock)
    await store.create("a", ttl=10)
    clock.advance(9)
    await look(store)
    clock.advance(1)
    assert not await store.exists("a")


async def test_an_expired_session_does_not_exist_on_any_path(clock: FakeClock, emissions: Emissions) -> None:
    """Before any sweep has seen it, an expired session can be neither listed, deleted, used nor revived."""
    store = SessionStore(clock=clock, emit=emissions.take)
    await store.create("a", ttl=10)
    clock.advance(10)
    assert await store.list() == []
    assert await store.delete("a") is False
    await store.assign_worker("a", "worker-1")
    with pytest.raises(SessionNotFound):
        await store.set_state("a", "key", 1)
    assert await store.sweep() == 1
    assert emissions.counts(names.EVENT_BRIDGE_SESSION_PRUNED) == [("ttl", 1)]
    assert (store.stats_snapshot().deleted, store.stats_snapshot().pruned_ttl) == (0, 1)


async def test_an_expired_id_is_created_anew(clock: FakeClock, emissions: Emissions) -> None:
    """The new session has nothing of the old one, whose end is counted and reported."""
    store = SessionStore(clock=clock, emit=emissions.take)
    await store.create("a", ttl=10, metadata={"user": "ann"}, owner="one")
    await store.assign_worker("a", "worker-1")
    clock.advance(10)
    session = await store.create("a", ttl=20)
    assert (session.metadata, session.owner, session.last_worker_id, session.ttl) == ({}, None, None, 20)
    assert session.created_at == clock.time()
    assert store.stats_snapshot() == Stats(created=2, pruned_ttl=1, live=1, memory_bytes=1)
    assert emissions.counts(names.EVENT_BRIDGE_SESSION_PRUNED) == [("ttl", 1)]


async def test_a_refused_create_of_an_expired_id_loses_nothing(clock: FakeClock, emissions: Emissions) -> None:
    """Where the new session is refused, the end of the old one is still reported, by the next sweep."""
    store = SessionStore(clock=clock, emit=emissions.take, max_session_bytes=256)
    await store.create("a", ttl=10)
    clock.advance(10)
    with pytest.raises(InvalidSession):
        await store.create("a", metadata={"key": "x" * 300})
    assert await store.sweep() == 1
    assert emissions.counts(names.EVENT_BRIDGE_SESSION_PRUNED) == [("ttl", 1)]


async def test_a_sweep_removes_what_has_expired_and_nothing_else(clock: FakeClock, emissions: Emissions) -> None:
    """Sessions of several TTLs go as each one's time comes, in one event for each sweep."""
    store = SessionStore(clock=clock, emit=emissions.take)
    for ttl in (10, 10, 20, 30):
        await store.create(ttl=ttl)
    swept = []
    for _ in range(4):
        swept.append(await store.sweep())
        clock.advance(10)
    assert swept == [0, 2, 1, 1]
    assert [(one.measurements["count"], one.measurements["remaining_sessions"]) for one in emissions] == [
        (2, 2),
        (1, 1),
        (1, 0),
    ]


async def test_a_sweep_finds_the_expired_among_those_still_used(clock: FakeClock) -> None:
    """A session that was used does not hide an expired one of the same TTL."""
    store = SessionStore(clock=clock)
    for session_id in ("used", "forgotten"):
        await store.create(session_id, ttl=10)
    clock.advance(5)
    await store.get("used")
    clock.advance(5)
    assert await store.sweep() == 1
    assert [session.id for session in await store.list()] == ["used"]


async def test_stats_count_the_expired_as_pruned(clock: FakeClock, emissions: Emissions) -> None:
    """The ledger sweeps first, with events like any sweep; a glance does not."""
    store = SessionStore(clock=clock, emit=emissions.take)
    await store.create("a", ttl=10)
    clock.advance(10)
    assert store.stats_snapshot().live == 1
    assert await store.stats() == Stats(created=1, pruned_ttl=1, reported=1)
    assert emissions.counts(names.EVENT_BRIDGE_SESSION_PRUNED) == [("ttl", 1)]


async def test_a_session_that_expires_during_stats_is_reported_later(emissions: Emissions) -> None:
    """A session that ends between the sweep and the reading is not pruned behind everybody's back."""

    class RunningClock(FakeClock):
        def monotonic(self) -> float:
            self.advance(1)
            return super().monotonic()

    store = SessionStore(clock=RunningClock(), emit=emissions.take)
    await store.create("a", ttl=3)
    while (await store.stats()).live:
        pass
    assert emissions.counts(names.EVENT_BRIDGE_SESSION_PRUNED) == [("ttl", 1)]


async def test_an_end_by_ttl_is_dated_by_the_ttl(clock: FakeClock) -> None:
    """How long an expired session lived does not depend on when the sweep came."""
    backend = MemoryBackend(Limits(), clock)
    await backend.create(NewSession("a", 10, {}))
    clock.advance(5)
    await backend.get("a")
    clock.advance(500)
    (ended,) = (await backend.prune(10)).ended
    assert ended.lifetime == 15


async def test_a_long_sweep_lets_other_tasks_run(clock: FakeClock, emissions: Emissions) -> None:
    """Thousands of sessions are swept in batches, with other tasks between them, and reported once."""
    store = SessionStore(clock=clock, emit=emissions.take, max_sessions=3_000)
    for _ in range(2_500):
        await store.create(ttl=10)
    emissions.clear()
    clock.advance(10)
    seen: list[int] = []

    async def other() -> None:
        while not seen or seen[-1]:
            seen.append(store.stats_snapshot().live)
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    assert await store.sweep() == 2_500
    await task
    assert seen == [1_500, 500, 0]
    assert emissions.counts(names.EVENT_BRIDGE_SESSION_PRUNED) == [("ttl", 2_500)]


async def test_a_cancelled_sweep_reports_the_removed_sessions(clock: FakeClock, emissions: Emissions) -> None:
    """Cancelled between two batches, a sweep still reports the sessions it removed."""
    store = SessionStore(clock=clock, emit=emissions.take)
    for _ in range(1_500):
        await store.create(ttl=10)
    clock.advance(10)
    sweep = asyncio.create_task(store.sweep())
    await asyncio.sleep(0)
    sweep.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sweep
    assert store.stats_snapshot().pruned_ttl == 1_000
    assert emissions.counts(names.EVENT_BRIDGE_SESSION_PRUNED) == [("ttl", 1_000)]
