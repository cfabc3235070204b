"""A pool whose workers are killed under steady load: python -m benchmarks.kill_storm --rate 300 --kills 30.

Four workers with two spares are offered so many requests a second, whether those before are answered or not; each adds
to its session's total by a call back, and every other one is idempotent. At random moments, on average `--interval`
seconds apart, a worker is killed. Prints how long the answers took, what was lost with a worker and how soon that was
known; exits with 1 where a request had no end, another end, or ran twice unasked, or where a session's total is wrong.
`make pool-proof` has the same with a hundred kills.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.figures import LINES, Figure, note, option_parser
from benchmarks.overload import percentile
from benchmarks.transports import choose, server_settings
from snakepit_otel import Snakepit
from snakepit_otel.errors import SnakepitError, WorkerExited
from snakepit_otel.pool.workers.base import Worker, WorkerState

ADAPTER = "tests.pool.proofs.adapter:Proving"
# Requests wait as long as the start of a worker takes on a busy machine.
POOL = {"size": 4, "spares": 2, "queue_timeout": 60_000}
# Requests a second, and seconds from one kill to the next, on average.
RATE, INTERVAL = 200.0, 0.9
SESSIONS = 40
SEED = 20_261_122
# Seconds.
DEADLINE = 30.0


@dataclass
class Storm:
    """What became of the requests, and when workers were killed."""

    runs: Path
    latencies: list[float] = field(default_factory=list)
    # By session.
    answered: Counter[str] = field(default_factory=Counter)
    # By what the error was.
    failures: Counter[str] = field(default_factory=Counter)
    # By whether it was idempotent.
    offered: Counter[bool] = field(default_factory=Counter)
    good: Counter[bool] = field(default_factory=Counter)
    # When each worker was.
    killed: dict[str, float] = field(default_factory=dict)
    # Seconds from a worker's kill to the error of its request.
    error_delays: list[float] = field(default_factory=list)
    seconds: float = 0.0
    restarts: int = 0
    retries: int = 0
    breaker: str = ""
    # Of requests that ran twice unasked, sessions, and the ledger.
    surprises: list[str] = field(default_factory=list)

    @property
    def unanswered(self) -> int:
        return self.offered.total() - self.good.total() - self.failures.total()

    @property
    def p99(self) -> float:
        return percentile(self.latencies, 0.99)

    @property
    def is_well(self) -> bool:
        """Whether nothing was lost but what ran on a killed worker and must not run twice."""
        return not (self.unanswered or self.surprises or set(self.failures) - {WorkerExited.__name__})

    async def request(self, pit: Snakepit, number: int) -> None:
        """Make one request, every other one idempotent, and note what becomes of it."""
        idempotent, session = number % 2 == 0, f"s-{number % SESSIONS}"
        self.offered[idempotent] += 1
        began = time.monotonic()
        arguments = {"run": f"{number} {session}", "runs": str(self.runs)}
        try:
            await pit.execute("count", arguments, session_id=session, idempotent=idempotent, timeout=DEADLINE)
        except WorkerExited as error:
            self.failures[WorkerExited.__name__] += 1
            worker = str(error).split()[1]
            self.error_delays.append(time.monotonic() - self.killed[worker])
        except SnakepitError as error:
            self.failures[type(error).__name__] += 1
        else:
            self.latencies.append(time.monotonic() - began)
            self.answered[session] += 1
            self.good[idempotent] += 1

    async def kill(self, pit: Snakepit, kills: int, interval: float) -> None:
        """Kill workers that serve, at random moments."""
        chance = random.Random(SEED)
        for _ in range(kills):
            await asyncio.sleep(interval * 2 * chance.random())
            while not (ready := serving(pit)):
                await asyncio.sleep(0.01)
            worker = chance.choice(ready)
            self.killed[worker.id] = time.monotonic()
            with suppress(ProcessLookupError):  # where it has only just been
                os.kill(worker.pid, signal.SIGKILL)


def serving(pit: Snakepit) -> list[Worker]:
    return [worker for worker in pit.pool.workers if worker.state is WorkerState.READY]


async def storm(kills: int, runs: Path, rate: float = RATE, interval: float = INTERVAL) -> Storm:
    """Kill so many workers under load, and return what came of it; requests note their runs in the file `runs`."""
    seen, requests = Storm(runs), set[asyncio.Task[None]]()
    async with Snakepit(ADAPTER, pool=POOL, server=server_settings()) as pit:
        # So that a session's first request is not also the worker's first.
        await asyncio.gather(*(seen.request(pit, number) for number in range(SESSIONS)))
        seen.latencies.clear()
        killing = asyncio.ensure_future(seen.kill(pit, kills, interval))
        began, number = time.monotonic(), SESSIONS
        while not killing.done():
            # Open loop: what is late does not keep the next from coming.
            while time.monotonic() - began >= (number - SESSIONS) / rate:
                task = asyncio.create_task(seen.request(pit, number))
                requests.add(task)
                task.add_done_callback(requests.discard)
                number += 1
            await asyncio.sleep(0.5 / rate)
        await killing
        seen.seconds = time.monotonic() - began
        if requests:
            await asyncio.wait(requests, timeout=DEADLINE + 5)
        async with asyncio.timeout(DEADLINE):
            while len(serving(pit)) != POOL["size"]:
                await asyncio.sleep(0.01)
        seen.restarts, seen.retries = pit.pool.fleet.restart_count, pit.pool.requests.retried
        seen.breaker = str(pit.pool.breaker.state)
        seen.surprises += await account(seen, pit)
    return seen


async def account(seen: Storm, pit: Snakepit) -> list[str]:
    """Return what is wrong with the runs of requests, the sessions' totals and the ledger."""
    runs, of_session = Counter[int](), Counter[str]()
    for line in seen.runs.read_text().splitlines():
        number, session = line.split()
        runs[int(number)] += 1
        of_session[session] += 1
    wrong = [f"request {number} ran {times} times" for number, times in runs.items() if number % 2 and times > 1]
    stats = await pit.sessions.stats()
    if not SESSIONS == stats.live == stats.created - stats.deleted - stats.pruned_ttl - stats.pruned_overflow:
        wrong.append(f"the ledger of {SESSIONS} sessions: {stats}")
    for session, completed in seen.answered.items():
        total = await pit.sessions.get_state(session, "total")
        if not completed <= total <= of_session[session]:
            wrong.append(f"{session}: {total}, with {completed} answers of {of_session[session]} runs")
    return wrong


def report(seen: Storm) -> list[str]:
    """Return the lines that are printed of it."""
    shares = {kind: seen.good[kind] / seen.offered[kind] for kind in (True, False)}
    rate = (seen.offered.total() - SESSIONS) / seen.seconds
    target = LINES["kill storm"].in_words()
    unanswered = f"all but {seen.unanswered}" if seen.unanswered else "all"
    return [
        f"kill storm: {len(seen.killed)} kills in {seen.seconds:.0f} s, {rate:.0f} requests/s, pool {POOL}",
        f"answered or failed: {unanswered} of {seen.offered.total()}",
        f"idempotent ones that succeeded: {shares[True]:.3%} (target 99.9%); run again: {seen.retries}",
        f"others that succeeded: {shares[False]:.3%}; failures: {dict(seen.failures)}",
        f"latency of those that succeeded: {spread(seen.latencies)} (target for the p99: {target})",
        f"from the kill to the error: {spread(seen.error_delays)} (target 200 ms)",
        f"workers started again: {seen.restarts}; breaker: {seen.breaker}",
        f"run twice unasked, or sessions wrong: {'; '.join(seen.surprises) or 'none'}",
    ]


def spread(values: list[float]) -> str:
    return ", ".join(
        f"{name} {1e3 * percentile(values, share):.0f} ms"
        for name, share in (("p50", 0.5), ("p99", 0.99), ("most", 1.0))
    )


def main() -> int:
    parser = option_parser(__doc__)
    parser.add_argument("--rate", type=float, default=300.0, help="requests a second (300)")
    parser.add_argument("--kills", type=int, help="workers that are killed (30; with --quick 10)")
    parser.add_argument(
        "--interval", type=float, default=INTERVAL, help=f"seconds between two, on average ({INTERVAL})"
    )
    given = parser.parse_args()
    kills = given.kills or (10 if given.quick else 30)
    choose(given.transport)
    with tempfile.TemporaryDirectory(prefix="sp-") as directory:
        seen = asyncio.run(storm(kills, Path(directory) / "runs", given.rate, given.interval))
    print("\n  ".join(report(seen)))
    note(given.figures, [Figure("kill storm", *3 * (1e3 * seen.p99,))])
    return 0 if seen.is_well else 1


if __name__ == "__main__":
    sys.exit(main())
