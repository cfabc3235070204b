"""Cost of a sweep for other tasks, and for memory."""

from __future__ import annotations

import asyncio

from snakepit_otel import SessionStore
from snakepit_otel.sessions import MemoryBackend
from snakepit_otel.testing import FakeClock


async def test_long_sweep_lets_others_run(clock: FakeClock) -> None:
    """While many sessions are swept, other tasks run."""
    store = SessionStore(clock=clock, max_sessions=float("inf"))
    for number in range(5_000):
        await store.create(f"s{number}", ttl=1)
    clock.advance(1)
    turns = 0

    async def other() -> None:
        nonlocal turns
        while not sweeping.done():
            turns += 1
            await asyncio.sleep(0)

    sweeping = asyncio.ensure_future(store.sweep())
    await other()
    assert await sweeping == 5_000
    assert turns >= 5


async def test_many_different_ttls_leave_nothing_behind(clock: FakeClock) -> None:
    """A store whose every session had a TTL of its own does not keep what it kept for them."""
    backend = MemoryBackend(clock=clock)
    store = SessionStore(clock=clock, backend=backend)
    for number in range(2_000):
        await store.create("s", ttl=1_000_000 + number)
        await store.delete("s")
    assert len(backend._due) < 100
    assert backend._by_ttl == {}
