"""Creates at the quota."""

from __future__ import annotations

import pytest

from snakepit_otel.errors import SessionQuotaExceeded
from snakepit_otel.sessions import SessionStore, Stats
from snakepit_otel.telemetry import names
from snakepit_otel.testing import FakeClock
from tests.sessions.conftest import Emissions


async def filled(store: SessionStore, *session_ids: str) -> SessionStore:
    """Create the sessions in order and return the store."""
    for session_id in session_ids:
        await store.create(session_id)
    return store


async def ids(store: SessionStore) -> list[str]:
    """Return the ids of the live sessions."""
    return [session.id for session in await store.list()]


async def test_a_create_at_the_quota_is_refused(clock: FakeClock) -> None:
    """By default the quota is the limit: the error names it, and nothing else changes."""
    store = await filled(SessionStore(max_sessions=2, clock=clock), "a", "b")
    with pytest.raises(SessionQuotaExceeded, match="2 sessions are live") as caught:
        await store.create("c")
    assert caught.value.limit == 2
    assert store.stats_snapshot() == Stats(created=2, rejected=1, live=2, memory_bytes=2)


async def test_a_live_id_needs_no_quota() -> None:
    """At the quota a live session can still be asked for by creating it."""
    store = await filled(SessionStore(max_sessions=2), "a", "b")
    assert (await store.create("a")).id == "a"
    assert store.stats_snapshot().rejected == 0


async def test_a_deletion_makes_room() -> None:
    """A place is free at once when a session is deleted."""
    store = await filled(SessionStore(max_sessions=1), "a")
    await store.delete("a")
    assert (await store.create("b")).id == "b"


@pytest.mark.parametrize("overflow", ["reject", "evict"])
async def test_expired_sessions_make_room_first(clock: FakeClock, emissions: Emissions, overflow: str) -> None:
    """At the quota all that has expired is swept before the policy is asked."""
    store = SessionStore(max_sessions=3, overflow=overflow, clock=clock, emit=emissions.take)
    await store.create("long", ttl=60)
    await store.create("short", ttl=10)
    await store.create("brief", ttl=5)
    clock.advance(10)
    await store.create("new")
    assert await ids(store) == ["long", "new"]
    assert emissions.counts(names.EVENT_BRIDGE_SESSION_PRUNED) == [("ttl", 2)]
    assert (store.stats_snapshot().pruned_ttl, store.stats_snapshot().pruned_overflow) == (2, 0)


async def test_the_least_recently_used_is_evicted() -> None:
    """Eviction goes by last use and not by age; a look without touch and a worker's name are no use."""
    store = await filled(SessionStore(max_sessions=4, overflow="evict"), "a", "b", "c", "d")
    await store.get("a")
    await store.set_state("b", "key", 1)
    await store.get("c", touch=False)
    await store.assign_worker("c", "worker-1")
    for new, expected in (("e", ["a", "b", "d", "e"]), ("f", ["a", "b", "e", "f"]), ("g", ["b", "e", "f", "g"])):
        await store.create(new)
        assert await ids(store) == expected


async def test_creating_a_live_id_is_a_use() -> None:
    """A session that was asked for by creating it again is not the next to go."""
    store = await filled(SessionStore(max_sessions=2, overflow="evict"), "a", "b", "a", "c")
    assert await ids(store) == ["a", "c"]


async def test_an_eviction_is_reported_as_overflow(clock: FakeClock, emissions: Emissions) -> None:
    """Each eviction is one pruned event with the count that remained before the new session."""
    store = SessionStore(max_sessions=2, overflow="evict", clock=clock, emit=emissions.take)
    await filled(store, "a", "b", "c")
    (event,) = [one for one in emissions if one.event is names.EVENT_BRIDGE_SESSION_PRUNED]
    assert event.attributes == {"reason": "overflow", "table_name": "sessions"}
    assert event.measurements == {"count": 1, "remaining_sessions": 1}
    assert await store.stats() == Stats(created=3, pruned_overflow=1, live=2, memory_bytes=2, reported=1)


async def test_without_a_quota_nothing_is_refused() -> None:
    """An infinite quota takes every session."""
    store = SessionStore(max_sessions=float("inf"))
    await filled(store, *(str(number) for number in range(200)))
    assert store.stats_snapshot().live == 200
