"""A hundred workers killed under steady load: everything is answered, nothing runs twice, no session is lost."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from snakepit_otel import Snakepit
from snakepit_otel.errors import SnakepitError, WorkerExited
from snakepit_otel.pool.workers.base import Worker, WorkerState
from tests.pool.proofs.adapter import Proving
from tests.pool.proofs.figures import Say, assert_ledger_is_exact, percentile, saying, spread
from tests.waiting import BUSY, PATIENT, until

RATE = 200
"""Requests a second."""
INTERVAL = 0.9
"""Seconds from one kill to the next, on average."""
SESSIONS = 40
POOL = {**PATIENT, "size": 4, "spares": 2}
SEED = 20_261_122


@dataclass
class Storm:
    """What became of the requests, and when workers were killed."""

    runs: Path
    latencies: list[float] = field(default_factory=list)
    answered: Counter[str] = field(default_factory=Counter)
    """By session."""
    failures: Counter[str] = field(default_factory=Counter)
    offered: Counter[bool] = field(default_factory=Counter)
    """By whether it was idempotent."""
    good: Counter[bool] = field(default_factory=Counter)
    killed: dict[str, float] = field(default_factory=dict)
    """When each worker was."""
    heard: list[float] = field(default_factory=list)
    """Seconds from a worker's kill to the error of its request."""

    async def request(self, pit: Snakepit, number: int) -> None:
        """Make one request, every other one idempotent, and note what becomes of it."""
        idempotent, session = number % 2 == 0, f"s-{number % SESSIONS}"
        self.offered[idempotent] += 1
        began = time.monotonic()
        arguments = {"run": f"{number} {session}", "runs": str(self.runs)}
        try:
            await pit.execute("count", arguments, session_id=session, idempotent=idempotent, timeout=30)
        except WorkerExited as error:
            self.failures["WorkerExited"] += 1
            worker = str(error).split()[1]
            self.heard.append(time.monotonic() - self.killed[worker])
        except SnakepitError as error:
            self.failures[f"{type(error).__name__}: {error}"] += 1
        else:
            self.latencies.append(time.monotonic() - began)
            self.answered[session] += 1
            self.good[idempotent] += 1

    async def kill(self, pit: Snakepit, kills: int, interval: float) -> None:
        """Kill workers that serve, at random moments."""
        chance = random.Random(SEED)
        for _ in range(kills):
            await asyncio.sleep(interval * 2 * chance.random())
            worker: Worker = await until(lambda: next(iter(_serving(pit, chance)), None))
            self.killed[worker.id] = time.monotonic()
            with suppress(ProcessLookupError):  # where it has only just been
                os.kill(worker.pid, signal.SIGKILL)


def _serving(pit: Snakepit, chance: random.Random) -> list[Worker]:
    ready = [worker for worker in pit.pool.workers if worker.state is WorkerState.READY]
    return chance.sample(ready, len(ready))


async def storm(
    kills: int, runs: Path, say: Say, rate: float = RATE, interval: float = INTERVAL, late: float = 2.0
) -> None:
    """Kill so many workers under load, and see to it that all is as it should be."""
    seen, requests = Storm(runs), set[asyncio.Task[None]]()
    async with Snakepit(Proving, pool=POOL) as pit:
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
        took = time.monotonic() - began
        if requests:
            await asyncio.wait(requests, timeout=35)
        unanswered = number - sum(seen.good.values()) - sum(seen.failures.values())
        await until(lambda: sum(worker.state is WorkerState.READY for worker in pit.pool.workers) == POOL["size"])
        await _report(seen, pit, kills, number / took, took, unanswered, say)
        assert unanswered == 0
        await _assert_nothing_ran_twice_or_was_lost(seen, pit)
    assert set(seen.failures) <= {"WorkerExited"}, seen.failures
    assert seen.good[True] >= 0.999 * seen.offered[True]
    assert percentile(seen.latencies, 0.99) <= late
    assert not seen.heard or max(seen.heard) <= late


async def _report(seen: Storm, pit: Snakepit, kills: int, rate: float, took: float, unanswered: int, say: Say) -> None:
    shares = {kind: seen.good[kind] / seen.offered[kind] for kind in (True, False)}
    say(f"kill storm: {kills} kills in {took:.0f} s, {rate:.0f} requests/s, pool {POOL}")
    say(f"answered or failed: {'all' if not unanswered else f'all but {unanswered}'} of {sum(seen.offered.values())}")
    say(f"idempotent ones that succeeded: {shares[True]:.3%} (target 99.9%); run again: {pit.pool.requests.retried}")
    say(f"others that succeeded: {shares[False]:.3%}; failures: {dict(seen.failures)}")
    say(f"latency of those that succeeded: {spread(seen.latencies)} (target for the p99: 150 ms)")
    say(f"from the kill to the error: {spread(seen.heard)} (target 200 ms)")
    say(f"workers started again: {pit.pool.fleet.restart_count}; breaker: {pit.pool.breaker.state}")


async def _assert_nothing_ran_twice_or_was_lost(seen: Storm, pit: Snakepit) -> None:
    runs, of_session = Counter[int](), Counter[str]()
    for line in seen.runs.read_text().splitlines():
        number, session = line.split()
        runs[int(number)] += 1
        of_session[session] += 1
    assert [number for number, times in runs.items() if number % 2 and times > 1] == []
    await assert_ledger_is_exact(pit, SESSIONS)
    for session, completed in seen.answered.items():
        total = await pit.sessions.get_state(session, "total")
        assert completed <= total <= of_session[session], session


async def test_killed_workers_under_load(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Some kills under load: every request is answered, nothing runs twice unasked, and no session is lost."""
    await storm(5, tmp_path / "runs", saying(capsys), rate=20, late=2.0 + BUSY)


@pytest.mark.matrix
@pytest.mark.timeout(300)
async def test_a_hundred_killed_workers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A hundred: the same, with figures."""
    await storm(100, tmp_path / "runs", saying(capsys))
