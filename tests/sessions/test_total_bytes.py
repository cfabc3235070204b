"""Limit on the memory of all sessions, and the charges to their callers."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from snakepit_otel.bridge.authority.byte_budget import Budget, Charge
from snakepit_otel.bridge.wire.peers import Peer
from snakepit_otel.errors import (
    BudgetExceeded,
    ConfigurationError,
    InvalidSession,
    SessionStoreFull,
    StateRefused,
)
from snakepit_otel.sessions import SessionStore
from snakepit_otel.testing import FakeClock

KIB = 1_024
SOMEBODY = Peer("10.0.0.1", is_known=False)
SETTINGS: dict[str, Any] = {"max_total_bytes": 128 * KIB, "max_session_bytes": 100 * KIB}


def ledger_is_exact(store: SessionStore) -> bool:
    """Say whether every session that was made is live, or was counted out once."""
    stats = store.stats_snapshot()
    return stats.created - stats.deleted - stats.pruned_ttl - stats.pruned_overflow == stats.live


@pytest.fixture
def budget() -> Budget:
    """A budget with room for 64 KiB of an anonymous caller's."""
    return Budget(anonymous=64 * KIB, anonymous_peer=64 * KIB)


async def test_what_goes_over_is_refused() -> None:
    """With the policy to reject, a create and a write over the limit fail, change nothing, and name the setting."""
    store = SessionStore(**SETTINGS)
    await store.create("a")
    await store.set_state("a", "key", "v" * 90 * KIB)
    await store.create("b")
    before = store.stats_snapshot()
    with pytest.raises(SessionStoreFull, match=r"session_store\.max_total_bytes is 131072") as caught:
        await store.set_state("b", "key", "v" * 60 * KIB)
    assert 0 < caught.value.missing < 60 * KIB
    with pytest.raises(SessionStoreFull):
        await store.update("b", lambda state: {**state, "key": "v" * 60 * KIB})
    with pytest.raises(SessionStoreFull):
        await store.create("c", metadata={"k": "v" * 60 * KIB})
    assert store.stats_snapshot() == before
    await store.set_state("b", "key", "v" * 20 * KIB)
    await store.delete("a")
    await store.set_state("b", "key", "v" * 60 * KIB)
    assert ledger_is_exact(store)


async def test_what_has_expired_goes_first(clock: FakeClock) -> None:
    """A write that finds no room sweeps before it is refused."""
    store = SessionStore(**SETTINGS, clock=clock)
    await store.create("old", ttl=1, metadata={"k": "v" * 40 * KIB})
    await store.create("new")
    clock.advance(2)
    await store.set_state("new", "key", "v" * 95 * KIB)
    assert store.stats_snapshot().pruned_ttl == 1
    assert ledger_is_exact(store)


@pytest.mark.parametrize("write", [True, False], ids=["write", "create"])
async def test_the_least_recently_used_are_evicted(write: bool) -> None:
    """With the policy to evict, others make room, and never the session that is written to."""
    store = SessionStore(**SETTINGS, overflow="evict")
    ended: list[str] = []
    store.on_ended(ended.append)
    for session_id in ("own", "a", "b"):
        await store.create(session_id, metadata={"k": "v" * 10 * KIB})
    await store.set_state("b", "key", "v" * 70 * KIB)
    if write:
        await store.set_state("own", "key", "v" * 80 * KIB)
        # Itself the least recently used until then.
        assert ended == ["a", "b"]
    else:
        await store.create("c", metadata={"k": "v" * 40 * KIB})
        assert ended == ["own", "a"]
    assert store.stats_snapshot().pruned_overflow == 2
    assert ledger_is_exact(store)


async def test_small_things_count_with_what_it_takes_to_keep_them() -> None:
    """Neither empty sessions nor tiny keys are free."""
    store = SessionStore(max_total_bytes=1 << 16)
    for number in range(40):
        await store.create(str(number))
    with pytest.raises(SessionStoreFull):
        await asyncio.gather(*(store.create(str(number)) for number in range(40, 64)))
    store = SessionStore(max_total_bytes=1 << 16)
    await store.create("a")
    with pytest.raises(SessionStoreFull):
        await store.write("a", {str(number): b"1" for number in range(200)})


async def test_the_number_of_keys_is_limited() -> None:
    """A session has a key for every 64 bytes that it may hold, and at least a thousand."""
    store = SessionStore(max_session_bytes=80_000)
    await store.create("a")
    await store.write("a", {f"{number}": b"1" for number in range(1_250)})
    with pytest.raises(StateRefused, match="would have 1251 keys; at most 1250 are allowed"):
        await store.write("a", {"one more": b"1"})
    await store.write("a", {"0": None, "one more": b"1"})


async def test_metadata_has_so_many_entries() -> None:
    """A thousand entries of metadata are taken, and not one more."""
    store = SessionStore()
    await store.create("a", metadata={str(number): "" for number in range(1_000)})
    with pytest.raises(InvalidSession, match="1001 entries; at most 1000 are allowed"):
        await store.create("b", metadata={str(number): "" for number in range(1_001)})
    with pytest.raises(InvalidSession) as caught:
        await store.create("b", metadata={"k" * 100_000: 1})  # type: ignore[dict-item]
    assert len(str(caught.value)) < 400


async def test_the_longest_ttl() -> None:
    """A caller may choose a TTL up to `max_ttl`; the default is one that it allows."""
    store = SessionStore(default_ttl=60, max_ttl=100)
    await store.create("a", ttl=100)
    with pytest.raises(InvalidSession, match=r"ttl is 101; session_store\.max_ttl allows at most 100 seconds"):
        await store.create("b", ttl=101)
    assert store.stats_snapshot().created == 1
    with pytest.raises(ConfigurationError, match="default_ttl: is 60 seconds, and max_ttl only 59"):
        SessionStore(default_ttl=60, max_ttl=59)


@pytest.mark.parametrize("end", ["delete", "expiry", "eviction"])
async def test_a_session_is_charged_to_its_creator_until_it_ends(clock: FakeClock, budget: Budget, end: str) -> None:
    """Its metadata and its state are, by whomever they were written, however it ends; a live id is not twice."""
    store = SessionStore(clock=clock, max_sessions=1, overflow="evict")
    await store.create("a", ttl=10, metadata={"k": "v" * KIB}, charge=Charge(budget, SOMEBODY, 0, "sessions"))
    made = budget.held(SOMEBODY)
    assert made > 2 * KIB
    await store.create("a", charge=Charge(budget, SOMEBODY, 0, "sessions"))
    assert budget.held(SOMEBODY) == made
    await store.set_state("a", "key", "v" * 10 * KIB)
    assert budget.held(SOMEBODY) > made + 10 * KIB
    await store.delete_state("a", "key")
    assert budget.held(SOMEBODY) == made
    if end == "delete":
        await store.delete("a")
    elif end == "expiry":
        clock.advance(11)
        await store.sweep()
    else:
        await store.create("b")
    assert budget.held(SOMEBODY) == 0


async def test_a_creator_without_room_is_refused(clock: FakeClock, budget: Budget) -> None:
    """Over the budget nothing is kept, what has expired goes first, and others' sessions are not concerned."""
    store = SessionStore(clock=clock)
    await store.create("a", ttl=10, charge=Charge(budget, SOMEBODY, 0, "sessions"))
    await store.create("others")
    before = budget.held(SOMEBODY)
    for attempt in (
        store.set_state("a", "key", "v" * 64 * KIB),
        store.create("b", metadata={"k": "v" * 64 * KIB}, charge=Charge(budget, SOMEBODY, 0, "sessions")),
    ):
        with pytest.raises(BudgetExceeded, match="of sessions: this peer holds"):
            await attempt
    assert (budget.held(SOMEBODY), store.stats_snapshot().live) == (before, 2)
    await store.set_state("others", "key", "v" * 100 * KIB)
    await store.set_state("a", "key", "v" * 50 * KIB)
    clock.advance(11)
    await store.create("b", metadata={"k": "v" * 50 * KIB}, charge=Charge(budget, SOMEBODY, 0, "sessions"))
    assert store.stats_snapshot().pruned_ttl == 1
    assert ledger_is_exact(store)


async def test_a_create_that_the_quota_refuses_is_charged_for_nothing(budget: Budget) -> None:
    """What was reserved for a session that does not come to be is given back."""
    store = SessionStore(max_sessions=1)
    await store.create("a")
    with pytest.raises(Exception, match="1 sessions are live"):
        await store.create("b", charge=Charge(budget, SOMEBODY, 0, "sessions"))
    assert budget.held(SOMEBODY) == 0
