"""A rolling restart under load: python -m benchmarks.rolling_restart.

A pool whose model takes 1.8 s to load in `on_worker_start` is offered 100 requests a second, whether those before are
answered or not: for some seconds as it is, and then while all its workers are replaced. Prints the p99 of the requests
with a restart by that without, as the median of several runs, once for a model whose loading waits, as for a disk, and
once for one whose loading computes, which needs a core that is free.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from dataclasses import dataclass, field

from benchmarks.overload import percentile
from snakepit_otel import BaseAdapter, Snakepit, WorkerContext, tool

RATE = 100
WORKERS = 4
# Seconds.
LOADING = 1.8
WORK = 0.003
MOST = 1.2


def burn(seconds: float) -> None:
    """Compute for so much of this thread's processor time."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        sum(range(100))


class Model(BaseAdapter):
    loaded = False

    @classmethod
    def on_worker_start(cls, worker: WorkerContext) -> None:
        if worker.environment["LOADING"] == "computes":
            burn(LOADING)
        else:
            time.sleep(LOADING)
        cls.loaded = True

    @tool
    def predict(self) -> bool:
        burn(WORK)
        return self.loaded


@dataclass
class Offered:
    took: list[float] = field(default_factory=list)
    failed: int = 0

    @property
    def p99(self) -> float:
        return percentile(self.took, 0.99)


async def offer(pit: Snakepit, until: asyncio.Future[object]) -> Offered:
    """Offer requests until a future is done, and return what became of them, by when each was due."""
    seen, requests = Offered(), set[asyncio.Task[None]]()

    async def request(due: float) -> None:
        try:
            assert await pit.execute("predict")
        except Exception:  # noqa: BLE001 - counted, whatever it is
            seen.failed += 1
        else:
            seen.took.append(time.perf_counter() - due)

    began, number = time.perf_counter(), 0
    while not until.done():
        due = began + number / RATE
        await asyncio.sleep(max(due - time.perf_counter(), 0.0))
        task = asyncio.create_task(request(due))
        requests.add(task)
        task.add_done_callback(requests.discard)
        number += 1
    if requests:
        await asyncio.wait(requests)
    return seen


async def measure(loading: str, runs: int, seconds: float) -> list[tuple[Offered, Offered, float]]:
    found = []
    async with Snakepit(
        "benchmarks.rolling_restart:Model", workers=WORKERS, pool={"environment": {"LOADING": loading}}
    ) as pit:
        await offer(pit, asyncio.ensure_future(asyncio.sleep(1)))
        for _ in range(runs):
            before = await offer(pit, asyncio.ensure_future(asyncio.sleep(seconds)))
            began = time.perf_counter()
            restart = asyncio.ensure_future(pit.restart_workers())
            during = await offer(pit, restart)
            assert not (await restart).failures
            found.append((before, during, time.perf_counter() - began))
    return found


def report(loading: str, found: list[tuple[Offered, Offered, float]]) -> None:
    print(f"  a model whose loading {loading}")
    for before, during, seconds in found:
        print(
            f"    p99 {1e3 * before.p99:.1f} ms as it is, {1e3 * during.p99:.1f} ms in a restart of {seconds:.1f} s "
            f"({during.p99 / before.p99:.2f}); most {1e3 * max(before.took):.0f} and {1e3 * max(during.took):.0f} ms; "
            f"{len(during.took)} requests, {before.failed + during.failed} failed"
        )
    ratio = statistics.median(during.p99 / before.p99 for before, during, _ in found)
    print(f"    median: p99 with a restart is {ratio:.2f} times that without (target {MOST})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--loading", choices=("waits", "computes"), nargs="*", default=["waits", "computes"])
    given = parser.parse_args()
    print(f"{RATE} requests a second of {1e3 * WORK:.0f} ms, {WORKERS} workers, a model that loads in {LOADING} s")
    for loading in given.loading:
        report(loading, asyncio.run(measure(loading, given.runs, given.seconds)))


if __name__ == "__main__":
    main()
