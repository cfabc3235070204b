"""Listing sessions page by page."""

from __future__ import annotations

import pytest

from snakepit_otel.sessions import SessionStore
from snakepit_otel.testing import FakeClock


@pytest.fixture
async def store(clock: FakeClock) -> SessionStore:
    """A store with five sessions, created in no order, one of which expires first."""
    store = SessionStore(clock=clock)
    for session_id in ("d", "b", "é", "a", "c"):
        await store.create(session_id, ttl=10 if session_id == "b" else 60)
    return store


async def pages(store: SessionStore, limit: int) -> list[list[str]]:
    """Return the ids page by page, up to the first page that is not full."""
    found: list[list[str]] = []
    after = None
    while True:
        page = [session.id for session in await store.list(after=after, limit=limit)]
        found.append(page)
        if len(page) < limit:
            return found
        after = page[-1]


async def test_sessions_are_listed_in_order_of_id(store: SessionStore) -> None:
    """The order is that of the ids, whatever was created or used when."""
    await store.get("a")
    assert [session.id for session in await store.list()] == ["a", "b", "c", "d", "é"]


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (2, [["a", "b"], ["c", "d"], ["é"]]),
        (5, [["a", "b", "c", "d", "é"], []]),
        (9, [["a", "b", "c", "d", "é"]]),
    ],
)
async def test_pages_follow_each_other_without_gap_or_overlap(
    store: SessionStore, limit: int, expected: list[list[str]]
) -> None:
    """Asking for what is after the last id of a page gives the next page."""
    assert await pages(store, limit) == expected


async def test_a_page_may_start_at_an_id_that_is_gone(store: SessionStore) -> None:
    """`after` need not be live, so deleting while listing skips no session."""
    await store.delete("b")
    assert [session.id for session in await store.list(after="b", limit=2)] == ["c", "d"]


async def test_the_expired_are_not_listed(store: SessionStore, clock: FakeClock) -> None:
    """A session is off the list from the instant of its end, and takes no place on a page."""
    clock.advance(10)
    assert [session.id for session in await store.list(limit=2)] == ["a", "c"]


async def test_a_listed_session_has_all_fields(store: SessionStore, clock: FakeClock) -> None:
    """A session on the list is the same as one that was asked for."""
    await store.set_state("a", "key", "value")
    await store.assign_worker("a", "worker-1")
    clock.advance(5)
    listed = (await store.list(limit=1))[0]
    assert listed == await store.get("a", touch=False)
    assert (listed.last_worker_id, listed.memory_bytes) == ("worker-1", len("a") + len("key") + len('"value"'))
