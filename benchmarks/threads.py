"""The cost of a change of threads, against an executor: python -m benchmarks.threads.

A function that does next to nothing is run in one thread for 32 callers at a time, by the tool threads and
by asyncio over a ThreadPoolExecutor, in turn. The figures are medians.
"""

from __future__ import annotations

import asyncio
import contextvars
import statistics
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

from snakepit_otel.adapters._tool_threads import ToolThreads

CALLERS = 32
CALLS_EACH = 250
ROUNDS = 11


def work() -> int:
    return sum(range(100))


async def burst(run: Callable[[], Awaitable[int]]) -> float:
    async def caller() -> None:
        for _ in range(CALLS_EACH):
            await run()

    started = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    return (time.perf_counter() - started) / (CALLERS * CALLS_EACH)


async def main() -> None:
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(1) as executor, ToolThreads() as threads:

        def by_executor() -> Awaitable[int]:
            return loop.run_in_executor(executor, contextvars.copy_context().run, work)

        pairs = [(await burst(by_executor), await burst(lambda: threads.run(work))) for _ in range(ROUNDS)]
    print(f"a change of threads, {CALLERS} callers, medians of {ROUNDS} bursts in turn")
    print(f"  executor      {statistics.median(slow for slow, _ in pairs) * 1e6:5.1f} µs     1 ×")
    fast = statistics.median(fast for _, fast in pairs) * 1e6
    print(f"  tool threads  {fast:5.1f} µs  {statistics.median(fast / slow for slow, fast in pairs):4.2f} ×")


if __name__ == "__main__":
    asyncio.run(main())
