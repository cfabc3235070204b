"""The cost of the session store, telemetry off: python -m benchmarks.store.

Prints the cost of an operation as a multiple of a dict insert measured beside it, and of a sweep at one
size as a multiple of the same sweep at another. Each figure is a median of rounds in one process; garbage
collection stays on.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any

from snakepit_otel.sessions import SessionStore
from snakepit_otel.telemetry import _switch
from snakepit_otel.testing import FakeClock

LIVE = 100_000
OPERATIONS = 50_000
ROUNDS = 7
EXPIRED = 1_000


async def main() -> None:
    _switch.set_enabled(False)
    await operations()
    await sweeps()


async def operations() -> None:
    """Create, get and update at 100 000 live sessions, against inserts into a dict of as many entries."""
    ratios: dict[str, list[float]] = {
        name: [] for name in ("create", "get", "update", "first update", "delete", "strict create")
    }
    micros: dict[str, list[float]] = {name: [] for name in (*ratios, "dict insert")}
    for number in range(ROUNDS):
        store = SessionStore(max_sessions=float("inf"))
        for live in range(LIVE - OPERATIONS):
            await store.create(f"live-{number}-{live}")
        insert = dict_insert(number)
        new = [f"new-{number}-{index}" for index in range(OPERATIONS)]
        taken = {
            "create": await timed(store.create, new),
            "get": await timed(store.get, new),
            "first update": await timed(lambda key, store=store: store.update(key, bump), new),
            "update": await timed(lambda key, store=store: store.update(key, bump), new),
        }
        stats = await store.stats()
        assert stats.live == LIVE, stats
        assert await store.get_state(new[0], "visits") == 2
        taken["delete"] = await timed(store.delete, new)
        # What it takes to say who: the call site of every creation. No target; strict mode is for development.
        strict = SessionStore(max_sessions=float("inf"), strict_mode=True)
        taken["strict create"] = await timed(strict.create, new)
        for name, seconds in taken.items():
            ratios[name].append(seconds / insert)
            micros[name].append(seconds * 1e6)
        micros["dict insert"].append(insert * 1e6)
        del store, strict
        gc.collect()
    print(f"store operations at {LIVE:,} live sessions, {ROUNDS} rounds of {OPERATIONS:,}; target: at most 30 ×")
    print(f"  {'dict insert':14} {statistics.median(micros['dict insert']):6.2f} µs      1 ×")
    for name, values in ratios.items():
        print(f"  {name:14} {statistics.median(micros[name]):6.2f} µs  {statistics.median(values):5.1f} ×")


def bump(state: dict[str, Any]) -> None:
    state["visits"] = state.get("visits", 0) + 1


def dict_insert(number: int) -> float:
    table = {f"live-{number}-{live}": live for live in range(LIVE - OPERATIONS)}
    keys = [f"new-{number}-{index}" for index in range(OPERATIONS)]
    value = object()
    started = time.perf_counter()
    for key in keys:
        table[key] = value  # type: ignore[assignment]
    return (time.perf_counter() - started) / OPERATIONS


async def timed(operation: Callable[[str], Awaitable[Any]], keys: list[str]) -> float:
    started = time.perf_counter()
    for key in keys:
        await operation(key)
    return (time.perf_counter() - started) / len(keys)


async def sweeps() -> None:
    taken = {}
    for live in (10_000, 1_000_000):
        clock = FakeClock()
        store = SessionStore(max_sessions=float("inf"), clock=clock)
        for index in range(live - EXPIRED):
            await store.create(f"live-{index}", ttl=1e6)
        rounds = []
        for number in range(ROUNDS * 3):
            for index in range(EXPIRED):
                await store.create(f"old-{number}-{index}", ttl=60)
            # Most of the sessions are in use, so their expiry has moved since they were created.
            for index in range(0, live - EXPIRED, max(1, live // 1_000)):
                await store.get(f"live-{index}")
            clock.advance(60)
            started = time.perf_counter()
            swept = await store.sweep()
            rounds.append(time.perf_counter() - started)
            assert swept == EXPIRED, swept
        stats = await store.stats()
        assert stats.created - stats.pruned_ttl == stats.live == live - EXPIRED
        taken[live] = statistics.median(rounds)
        del store
        gc.collect()
    small, large = taken.values()
    print(f"sweeping {EXPIRED:,} expired sessions, medians of {ROUNDS * 3}; target: at most 2 ×")
    print(f"  of    10,000  {small * 1e3:6.2f} ms      1 ×")
    print(f"  of 1,000,000  {large * 1e3:6.2f} ms  {large / small:5.2f} ×")


if __name__ == "__main__":
    asyncio.run(main())
