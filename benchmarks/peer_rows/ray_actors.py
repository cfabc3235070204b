"""Two Ray actors of each kind, whose attributes are the sessions' state; the caller is Ray's driver.

Every session is of one actor. Task events are off, as nothing is recorded for peers.
"""

from __future__ import annotations

import asyncio
import sys

import ray

from benchmarks.peer_rows.turns import (
    HELLO,
    IN_FLIGHT,
    WORKERS,
    Burst,
    Counts,
    concurrent,
    is_echo,
    pipelined,
    take_turns,
)


class Coroutines:
    def __init__(self) -> None:
        self._counts = dict[int, int]()

    async def echo(self, value: object) -> object:
        return value

    async def count(self, session: int) -> int:
        self._counts[session] = count = self._counts.get(session, 0) + 1
        return count


class Plain:
    def __init__(self) -> None:
        self._counts = dict[int, int]()

    def echo(self, value: object) -> object:
        return value

    def count(self, session: int) -> int:
        self._counts[session] = count = self._counts.get(session, 0) + 1
        return count


def start_ray(directory: str) -> None:
    ray.init(
        num_cpus=WORKERS,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        object_store_memory=100 << 20,
        _temp_dir=f"{directory}/ray",
    )


def bursts(kind: type, name: str, **options: object) -> dict[str, Burst]:
    """Return bursts on actors of a kind, awaited as an asyncio program does it, and by `ray.get` as any other does."""
    remote = ray.remote(num_cpus=0, enable_task_events=False, **options)(kind)
    awaited, got = ([remote.remote() for _ in range(WORKERS)] for _ in range(2))
    return {
        f"{name} awaited echo": concurrent(lambda place: awaited[place % WORKERS].echo.remote(HELLO), is_echo),
        f"{name} awaited count": concurrent(lambda place: awaited[place % WORKERS].count.remote(place), Counts()),
        f"{name} echo": pipelined(lambda place: got[place % WORKERS].echo.remote(HELLO), ray.get, is_echo),
        f"{name} count": pipelined(lambda place: got[place % WORKERS].count.remote(place), ray.get, Counts()),
    }


def main() -> None:
    start_ray(sys.argv[1])
    try:
        kinds = bursts(Coroutines, "async", max_concurrency=IN_FLIGHT // WORKERS) | bursts(Plain, "plain")
        asyncio.run(take_turns(kinds))
    finally:
        ray.shutdown()


if __name__ == "__main__":
    main()
