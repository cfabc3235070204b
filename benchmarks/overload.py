"""A pool that is offered three times what it can do: python -m benchmarks.overload.

First what it can do, its capacity, with as many requests in flight as keep all workers busy; then requests three times
as often, each with a deadline of a second, whether those before are answered or not. Once with the authority in this
process, and once with one of its own, called through its socket. Prints the useful answers as a share of the capacity,
how late they were, how soon the others were refused, and what became of the authority's memory. With `--runs`,
the p99 of refusals is the median of so many runs: what one run has depends on a few moments.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.figures import LINES, figure_of, note, option_parser
from benchmarks.transports import choose, server_settings
from snakepit_otel import BaseAdapter, Client, Snakepit, tool
from snakepit_otel.errors import PoolSaturated, SnakepitError

WORKERS = 4
# Seconds.
WORK = 0.02
TIMES = 3
DEADLINE = 1.0
LEAST_USEFUL = 0.85

# Makes a request, with so many seconds until its deadline.
Execute = Callable[[float | None], Awaitable[object]]
# Gives a way to an authority, and its process id.
Where = Callable[[], AbstractAsyncContextManager[tuple[Execute, int]]]


class Working(BaseAdapter):
    @tool
    def work(self) -> None:
        time.sleep(WORK)


@dataclass
class Offered:
    # Requests a second.
    capacity: float
    seconds: float
    # How long those took that were answered.
    answered: list[float] = field(default_factory=list)
    # How long those took that were refused because there were too many.
    refused: list[float] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    # Resident bytes of the authority, second by second.
    memory: list[int] = field(default_factory=list)
    # By how much the offers were late, at most.
    behind: float = 0.0

    @property
    def useful(self) -> float:
        """Those answered in time, as a share of the capacity."""
        return sum(took <= DEADLINE for took in self.answered) / self.seconds / self.capacity

    @property
    def offers(self) -> int:
        return len(self.answered) + len(self.refused) + sum(self.others.values())

    @property
    def growth(self) -> float:
        """Bytes a second, by a straight line through the second half of what was seen."""
        return slope(self.memory[len(self.memory) // 2 :])


async def capacity_of(execute: Execute, seconds: float) -> float:
    answered = 0
    end = time.perf_counter() + seconds

    async def caller() -> None:
        nonlocal answered
        while time.perf_counter() < end:
            await execute(None)
            answered += 1

    began = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(2 * WORKERS)))
    return answered / (time.perf_counter() - began)


async def offer(execute: Execute, capacity: float, seconds: float, authority: int) -> Offered:
    seen, requests = Offered(capacity, seconds), set[asyncio.Task[None]]()

    async def request() -> None:
        began = time.perf_counter()
        try:
            await execute(DEADLINE)
        except PoolSaturated:
            seen.refused.append(time.perf_counter() - began)
        except SnakepitError as error:
            seen.others[type(error).__name__] += 1
        else:
            seen.answered.append(time.perf_counter() - began)

    began, number = time.perf_counter(), 0
    while (now := time.perf_counter() - began) < seconds:
        if now >= len(seen.memory):
            seen.memory.append(resident(authority))
        if now < number / (TIMES * capacity):
            await asyncio.sleep(0.002)
            continue
        seen.behind = max(seen.behind, now - number / (TIMES * capacity))
        task = asyncio.create_task(request())
        requests.add(task)
        task.add_done_callback(requests.discard)
        number += 1
        if number % 8 == 0:
            await asyncio.sleep(0)
    if requests:
        await asyncio.wait(requests)
    assert seen.offers == number
    return seen


@asynccontextmanager
async def in_this_process() -> AsyncIterator[tuple[Execute, int]]:
    async with Snakepit("benchmarks.overload:Working", workers=WORKERS, server=server_settings()) as pit:
        yield lambda deadline: pit.execute("work", timeout=deadline), os.getpid()


@asynccontextmanager
async def in_another_process() -> AsyncIterator[tuple[Execute, int]]:
    with tempfile.TemporaryDirectory(prefix="sp-", dir="/tmp") as directory:
        socket = Path(directory) / "a.sock"
        arguments = ["serve", "benchmarks.overload:Working", "--workers", str(WORKERS), "--socket", str(socket)]
        server = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "snakepit_otel", *arguments, stderr=asyncio.subprocess.PIPE
        )
        try:
            assert server.stderr is not None
            while b"serving" not in (line := await server.stderr.readline()):
                if not line:
                    raise RuntimeError("the authority did not start")
            async with Client(f"unix:{socket}") as client:
                yield lambda deadline: client.execute("work", timeout=deadline), server.pid
        finally:
            server.terminate()
            await server.communicate()


async def measure(seconds: float, where: Where) -> Offered:
    async with where() as (execute, authority):
        await capacity_of(execute, min(1.0, seconds))
        capacity = await capacity_of(execute, min(5.0, seconds / 2))
        gc.collect()
        return await offer(execute, capacity, seconds, authority)


def report(name: str, seen: Offered) -> None:
    rate = len(seen.answered) / seen.seconds
    print(f"  {name}")
    print(f"    capacity {seen.capacity:.0f}/s; offered {seen.offers / seen.seconds:.0f}/s for {seen.seconds:.0f} s")
    print(f"    answered in time: {rate:.0f}/s, {seen.useful:.1%} of capacity (target {LEAST_USEFUL:.0%})")
    print(f"    slowest answer: {1e3 * max(seen.answered):.0f} ms (deadline {1e3 * DEADLINE:.0f} ms)")
    print(
        f"    refused: {len(seen.refused)}, p50 {1e3 * percentile(seen.refused, 0.5):.1f} ms, "
        f"p99 {1e3 * percentile(seen.refused, 0.99):.1f} ms (target {LINES['refused'].in_words()}), "
        f"most {1e3 * max(seen.refused, default=0):.1f} ms"
    )
    print(f"    other ends: {dict(seen.others) or 'none'}; the generator was {1e3 * seen.behind:.0f} ms late at most")
    first, last = seen.memory[0] / 2**20, seen.memory[-1] / 2**20
    print(f"    authority's memory: {first:.1f} to {last:.1f} MiB, {seen.growth / 2**10:+.1f} KiB/s in the second half")


def percentile(values: list[float], share: float) -> float:
    """Return the value that this share of all does not exceed; 0 where there is none."""
    return sorted(values)[max(int(share * len(values) + 0.999999) - 1, 0)] if values else 0.0


def slope(values: list[int] | list[float]) -> float:
    """Return by how much the values grow from one to the next, by least squares."""
    count = len(values)
    if count < 2:
        return 0.0
    middle, mean = (count - 1) / 2, sum(values) / count
    above = sum((place - middle) * (value - mean) for place, value in enumerate(values))
    return above / sum((place - middle) ** 2 for place in range(count))


def resident(pid: int) -> int:
    """Return the resident bytes of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    parser = option_parser(__doc__)
    parser.add_argument("--seconds", type=float, help="seconds of overload in a run (20; with --quick 5)")
    parser.add_argument("--runs", type=int, default=1)
    given = parser.parse_args()
    choose(given.transport)
    seconds = given.seconds or (5.0 if given.quick else 20.0)
    print(f"{TIMES} times capacity, {WORKERS} workers, {1e3 * WORK:.0f} ms of work")
    refused = []
    for _ in range(given.runs):
        report("authority in this process", asyncio.run(measure(seconds, in_this_process)))
        seen = asyncio.run(measure(seconds, in_another_process))
        report("through its socket", seen)
        refused.append(1e3 * percentile(seen.refused, 0.99))
    note(given.figures, [figure_of("refused", refused)])


if __name__ == "__main__":
    main()
