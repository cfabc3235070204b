"""A pool under everything at once, for as long as it is told to: python -m benchmarks.soak --minutes 10.

Plain and async tools, streams, sessions' state, arrays by reference, errors, calls given up and deadlines that pass;
workers are replaced for their age in requests, in rolling restarts, and when they are killed. Every request is
accounted for, and so is every session. Prints the straight lines through the memory of the authority and of its
workers, and the authority's descriptors and threads, after a warm-up of a fifth of the time, and exits with 1 where
anything is unaccounted for. With `--steady`, no worker is replaced or killed, so that what one keeps for good is seen
as well.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import signal
import sys
import time
from array import array
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from statistics import median

from benchmarks.figures import Figure, note, option_parser
from benchmarks.overload import percentile, resident, slope
from benchmarks.transports import choose, server_settings
from snakepit_otel import Snakepit
from snakepit_otel.errors import DeadlineExceeded, PoolSaturated, ToolError, WorkerExited
from snakepit_otel.pool.workers.base import Worker, WorkerState

ADAPTER = "tests.pool.proofs.adapter:Proving"
POOL = {"size": 3, "spares": 1, "worker_max_requests": 2_000, "cancel_grace": 500}
CALLERS = 6
# Seconds between two requests of one caller, on average.
PAUSE = 0.005
SESSIONS = 20
RESTART_EVERY = 20.0
KILL_EVERY = 7.0
# From the first fifth after warming up to the last, by medians; MiB of memory. Generous, for busy machines.
MOST_GROWTH = {"memory": 24.0, "workers": 24.0, "descriptors": 12.0, "threads": 4.0}
STEADY = {name: value for name, value in POOL.items() if name != "worker_max_requests"}


class Sample:
    """Some of many values, chosen at random, in memory that is taken at once: what grows is to be the pool's."""

    def __init__(self, size: int) -> None:
        self._values = array("d", bytes(8 * size))
        self._seen = 0
        self._most = 0.0
        self._chance = random.Random(0)

    def add(self, value: float) -> None:
        self._most = max(self._most, value)
        place = self._seen if self._seen < len(self._values) else self._chance.randrange(self._seen + 1)
        if place < len(self._values):
            self._values[place] = value
        self._seen += 1

    @property
    def values(self) -> list[float]:
        return [*self._values[: self._seen], self._most]


@dataclass
class Soak:
    pit: Snakepit
    # How requests ended, by kind and end.
    ends: Counter[str] = field(default_factory=Counter)
    begun: int = 0
    latencies: Sample = field(default_factory=lambda: Sample(10_000))
    # By session, what is known to have been added.
    added: Counter[str] = field(default_factory=Counter)
    # By session, what may have been added by a request that lost its worker.
    in_doubt: Counter[str] = field(default_factory=Counter)
    deleted: int = 0
    # MiB, second by second.
    memory: list[float] = field(default_factory=list)
    # MiB of the workers that are ready, their median.
    workers: list[float] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)
    threads: list[int] = field(default_factory=list)
    kills: int = 0
    rolled: int = 0
    surprises: Counter[str] = field(default_factory=Counter)

    async def plain(self, _chance: random.Random) -> str:
        return str(await self.pit.execute("work", {"seconds": 0.002}) == 0.002)

    async def loop(self, _chance: random.Random) -> str:
        return str(await self.pit.execute("echo", {"value": "x" * 200}) == "x" * 200)

    async def stream(self, _chance: random.Random) -> str:
        numbers = [number async for number in self.pit.stream("numbers", {"to": 20})]
        return str(numbers == list(range(1, 21)))

    async def part(self, _chance: random.Random) -> str:
        async with aclosing(self.pit.stream("numbers", {"to": 100_000})) as numbers:
            async for number in numbers:
                if number == 3:
                    break
        return "True"

    async def state(self, chance: random.Random) -> str:
        session = f"kept-{chance.randrange(SESSIONS)}"
        try:
            await self.pit.execute("count", {"run": "-", "runs": os.devnull}, session_id=session)
        except WorkerExited:
            self.in_doubt[session] += 1
            raise
        self.added[session] += 1
        return "True"

    async def short(self, chance: random.Random) -> str:
        session = f"short-{chance.getrandbits(64):x}"
        await self.pit.sessions.create(session)
        try:
            await self.pit.execute("count", {"run": "-", "runs": os.devnull}, session_id=session)
        finally:
            await self.pit.sessions.delete(session)
            self.deleted += 1
        return "True"

    async def error(self, _chance: random.Random) -> str:
        try:
            await self.pit.execute("fail")
        except ToolError as error:
            return str("as it was told to" in str(error))
        return "no error"

    async def given_up(self, chance: random.Random) -> str:
        call = asyncio.create_task(self.pit.execute("wait"))
        await asyncio.sleep(0.02 * chance.random())
        call.cancel()
        try:
            await call
        except asyncio.CancelledError:
            return "True"
        return "no end"

    async def late(self, _chance: random.Random) -> str:
        try:
            await self.pit.execute("wait", timeout=0.03)
        except (DeadlineExceeded, PoolSaturated):
            return "True"
        return "no deadline"

    async def reference(self, _chance: random.Random) -> str:
        return str(await self.pit.execute("length", {"data": _array()}) == len(_array()))

    @property
    def kinds(self) -> dict[str, tuple[int, Callable[[random.Random], Awaitable[str]]]]:
        return {
            "plain": (6, self.plain),
            "async": (6, self.loop),
            "stream": (2, self.stream),
            "left stream": (1, self.part),
            "state": (6, self.state),
            "short session": (2, self.short),
            "error": (1, self.error),
            "given up": (1, self.given_up),
            "deadline": (1, self.late),
            "reference": (2, self.reference),
        }

    async def call(self, until: float, seed: int) -> None:
        chance, kinds = random.Random(seed), self.kinds
        weights = [weight for weight, _ in kinds.values()]
        while time.monotonic() < until:
            [name] = chance.choices(list(kinds), weights)
            self.begun += 1
            began = time.monotonic()
            try:
                async with asyncio.timeout(60):
                    end = await kinds[name][1](chance)
            except WorkerExited:
                end = "worker exited"
            except Exception as error:  # noqa: BLE001 - whatever it is, it is to be told
                end = f"{type(error).__name__}: {error}"[:200]
            self.ends[end] += 1
            if end == "True":
                self.latencies.add(time.monotonic() - began)
            elif end != "worker exited":
                self.surprises[f"{name}: {end}"] += 1
            await asyncio.sleep(2 * PAUSE * chance.random())

    def ready(self) -> list[Worker]:
        return [worker for worker in self.pit.pool.workers if worker.state is WorkerState.READY]

    async def kill(self, seed: int) -> None:
        chance = random.Random(seed)
        while True:
            await asyncio.sleep(2 * KILL_EVERY * chance.random())
            if ready := self.ready():
                os.kill(chance.choice(ready).pid, signal.SIGKILL)
                self.kills += 1

    async def roll(self) -> None:
        while True:
            await asyncio.sleep(RESTART_EVERY)
            report = await self.pit.restart_workers()
            self.rolled += len(report.replacements)
            for failure in report.failures:
                self.surprises[f"not replaced: {failure}"] += 1

    async def watch(self) -> None:
        while True:
            await asyncio.sleep(1)
            if len(self.memory) % 5 == 0:
                gc.collect()
            self.memory.append(resident(os.getpid()) / 2**20)
            # One may have ended since it was ready, which is not known yet.
            with suppress(OSError):
                ready = self.ready()
                if ready:
                    self.workers.append(median(resident(worker.pid) / 2**20 for worker in ready))
            self.descriptors.append(len(os.listdir("/proc/self/fd")))  # noqa: PTH208 - no pathlib in coroutines
            self.threads.append(len(os.listdir("/proc/self/task")))  # noqa: PTH208


def _array() -> object:
    import numpy as np

    return np.arange(50_000, dtype="f8")


async def soak(seconds: float, seed: int = 1, *, steady: bool = False) -> Soak:
    async with Snakepit(ADAPTER, pool=STEADY if steady else POOL, server=server_settings()) as pit:
        seen = Soak(pit)
        works = [seen.watch(), *([] if steady else [seen.kill(seed), seen.roll()])]
        beside = [asyncio.create_task(work) for work in works]
        end = time.monotonic() + seconds
        await asyncio.gather(*(seen.call(end, seed + number) for number in range(CALLERS)))
        for task in beside:
            task.cancel()
        for outcome in await asyncio.gather(*beside, return_exceptions=True):
            if isinstance(outcome, Exception):
                seen.surprises[f"beside: {outcome!r}"] += 1
        await _account(seen)
    return seen


async def _account(seen: Soak) -> None:
    stats = await seen.pit.sessions.stats()
    if stats.created - stats.deleted - stats.pruned_ttl - stats.pruned_overflow != stats.live:
        seen.surprises[f"the ledger: {stats}"] += 1
    if stats.live != len(seen.added) or stats.deleted != seen.deleted:
        seen.surprises[f"{len(seen.added)} sessions kept and {seen.deleted} deleted, but {stats}"] += 1
    for session, added in seen.added.items():
        total = await seen.pit.sessions.get_state(session, "total")
        if not added <= total <= added + seen.in_doubt[session]:
            seen.surprises[f"{session}: {total} of {added}, {seen.in_doubt[session]} in doubt"] += 1


def report(seen: Soak, seconds: float) -> bool:
    lost = seen.ends["worker exited"]
    fleet = seen.pit.pool.fleet
    p50, p99, most = (1e3 * percentile(seen.latencies.values, share) for share in (0.5, 0.99, 1.0))
    print(f"soak: {seconds:.0f} s, {seen.begun} requests of {len(seen.kinds)} kinds, {seen.begun / seconds:.0f}/s")
    print(f"  {seen.kills} workers killed, {seen.rolled} in rolling restarts, {fleet.restart_count} started again")
    unanswered, others = seen.begun - sum(seen.ends.values()), dict(seen.surprises) or "none"
    print(f"  as they should be: {seen.ends['True']}; lost with a killed worker: {lost}; others: {others}")
    print(f"  unanswered: {unanswered}; p50 {p50:.1f} ms, p99 {p99:.1f} ms, most {most:.0f} ms")
    print(f"  sessions: {len(seen.added)} kept, {seen.deleted} made and deleted")
    flat = True
    for name, most in MOST_GROWTH.items():
        after = warm(getattr(seen, name))
        ends = f"{after[0]:.1f} to {after[-1]:.1f} (most {max(after):.1f})"
        print(f"  {name:11} {ends}, {600 * slope(after):+.2f} in ten minutes; by medians {growth(seen, name):+.2f}")
        flat = flat and growth(seen, name) <= most
    return flat and not seen.surprises and not unanswered and lost <= seen.kills


def warm(values: list[float] | list[int]) -> list[float] | list[int]:
    """Return what was seen after warming up, which is a fifth of the time."""
    return values[len(values) // 5 :]


def growth(seen: Soak, name: str) -> float:
    """Return by how much the median of the last fifth is above that of the first after warming up."""
    values = getattr(seen, name)
    fifth = max(len(values) // 5, 1)
    return median(values[-fifth:]) - median(values[fifth:][:fifth])


def main() -> int:
    parser = option_parser(__doc__)
    parser.add_argument("--minutes", type=float, help="how long (10; with --quick 1)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steady", action="store_true", help="replace and kill no worker")
    given = parser.parse_args()
    choose(given.transport)
    seconds = 60 * (given.minutes or (1.0 if given.quick else 10.0))
    seen = asyncio.run(soak(seconds, given.seed, steady=given.steady))
    grown = {line: growth(seen, name) for line, name in (("soak", "memory"), ("soak workers", "workers"))}
    note(given.figures, [Figure(line, value, value, value) for line, value in grown.items()])
    return 0 if report(seen, seconds) else 1


if __name__ == "__main__":
    sys.exit(main())
