"""One session that is used hard, or is large, and the others."""

from __future__ import annotations

import asyncio
import statistics
import time
from typing import Any

from snakepit_otel.sessions import Limits, SessionStore
from tests.stores.conftest import backend_at, store_at
from tests.stores.servers import StoreServer


def _increment(state: dict[str, Any]) -> None:
    state["n"] = state.get("n", 0) + 1


async def test_concurrent_updates_of_several_authorities_lose_nothing(shared_server: StoreServer) -> None:
    """Six stores count in one session: the sum is exact, and others are served meanwhile."""
    stores = [store_at(shared_server.url, "hot") for _ in range(6)]
    for store in stores:
        await store.start()
    await stores[0].create("hot")
    await stores[0].create("cold")

    async def count(store: SessionStore) -> None:
        for _ in range(20):
            await store.update("hot", _increment)

    counting = asyncio.gather(*(count(store) for store in stores for _ in range(2)))
    served = 0
    while not counting.done():
        await stores[0].get("cold")
        served += 1
    await counting
    assert await stores[0].get_state("hot", "n") == 240
    assert served > 20
    for store in stores:
        await store.stop()


async def test_large_state_does_not_hold_up_others(shared_server: StoreServer) -> None:
    """While a MiB is read and written again and again, a small session's calls take much less than the large ones."""
    limits = Limits(max_session_bytes=2 << 20)
    stores = [
        SessionStore(backend=backend_at(shared_server.url, "large", limits=limits), max_session_bytes=2 << 20)
        for _ in range(2)
    ]
    for store in stores:
        await store.start()
    large, small = stores
    await large.create("large")
    await small.create("small")
    value = "x" * (1 << 20)
    times: list[float] = []
    done = asyncio.Event()

    async def measure() -> None:
        while not done.is_set():
            started = time.perf_counter()
            await small.get("small")
            times.append(time.perf_counter() - started)

    measuring = asyncio.ensure_future(measure())
    started = time.perf_counter()
    for _ in range(20):
        await large.set_state("large", "value", value)
        assert len(await large.get_state("large", "value")) == 1 << 20
    each = (time.perf_counter() - started) / 20
    done.set()
    await measuring
    # In one process, so the large state's own work is in the small one's times, too.
    assert statistics.median(times) < each
    assert len(times) > 20
    for store in stores:
        await store.stop()
