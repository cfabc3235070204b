"""Losses of telemetry in workers of a real pool, reported by their authority."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from snakepit_otel import Client, Snakepit
from snakepit_otel.errors import ToolError, WorkerExited
from snakepit_otel.pool.workers.base import Worker
from snakepit_otel.telemetry import Ledger, names
from snakepit_otel.testing import Capture, OtlpSink
from tests.processes import program
from tests.telemetry.difficult_sink import DifficultSink, Mood, flapping
from tests.telemetry.ending_adapter import ProcessExit
from tests.telemetry.lone_worker import QUICK, SPANS_OF_A_REQUEST
from tests.waiting import BUSY, until

GRACE = 1.0
OF_WORKERS = 3.0
"""Seconds after their grace in which workers are gone."""
OF_AUTHORITY = 1.5
"""Seconds that the authority then has for the rest of its own, and to be gone."""
FLAPPING = "flapping"
MOODS = [Mood.OK, Mood.REFUSED, Mood.MUTE, Mood.HOLD, Mood.SLOW, Mood.EXHAUSTED, Mood.UNAVAILABLE, FLAPPING]
WORKERS = 2


def moods(*always: str) -> list[Any]:
    """All moods as parameters; those that are not for always are part of the matrix."""
    return [pytest.param(mood, id=str(mood), marks=() if mood in always else pytest.mark.matrix) for mood in MOODS]


@contextmanager
def difficult(mood: str, meanwhile: ExitStack) -> Iterator[DifficultSink]:
    """Run a collector of that mood."""
    with DifficultSink(Mood.OK if mood == FLAPPING else Mood(mood)) as sink:
        if mood == FLAPPING:
            meanwhile.enter_context(flapping(sink))
        yield sink
        meanwhile.close()


class Books:
    """The ledgers of workers, which can be read still when the authority has removed the files."""

    def __init__(self, open_files: ExitStack) -> None:
        self._open_files = open_files
        self._files: dict[str, BinaryIO] = {}

    def keep(self, workers: list[Worker]) -> None:
        """Keep these workers' ledgers."""
        for worker in workers:
            if worker.id not in self._files:
                file = Path(worker._ledger.path).open("rb")  # noqa: SIM115 - closed with the others
                self._files[worker.id] = self._open_files.enter_context(file)

    def of(self, worker_id: str, directory: Path) -> Ledger:
        """Return what a worker's ledger says."""
        file = self._files[worker_id]
        file.seek(0)
        copy = directory / f"{worker_id}.ledger"
        copy.write_bytes(file.read())
        found = Ledger.read(copy)
        assert found is not None
        return found

    def missing(self, directory: Path) -> Counter[str]:
        """Return what all of them together had recorded and not delivered, by signal."""
        found: Counter[str] = Counter()
        for worker_id in self._files:
            found.update(
                {
                    name: account.ended - account.delivered
                    for name, account in self.of(worker_id, directory).accounts.items()
                }
            )
        return +found

    def ended(self, signal_name: str, directory: Path) -> int:
        """Return how many items all of them had recorded."""
        return sum(self.of(worker_id, directory)[signal_name].ended for worker_id in self._files)


class Counted(Counter[str]):
    """What the authority has counted as lost, by signal."""

    def look(self, capture: Capture) -> Counted:
        """Add what was counted since the last look."""
        for point in capture.points(names.METRIC_WORKER_TELEMETRY_LOST.name):
            self[point.attributes[names.SNAKEPIT_TELEMETRY_SIGNAL]] += int(point.value)
        return self


async def traffic(pit: Snakepit, requests: int) -> None:
    """Make so many requests, and have them all answered, in time."""

    async def one(number: int) -> None:
        if number % 10:
            assert await pit.execute("echo", {"value": number}, timeout=8.0) == number
        else:
            with pytest.raises(ToolError, match=str(number)):
                await pit.execute("fail", {"value": number}, timeout=8.0)

    for first in range(0, requests, 8):
        await asyncio.gather(*(one(number) for number in range(first, min(first + 8, requests))))


@pytest.mark.parametrize("mood", moods(Mood.OK, Mood.HOLD))
async def test_authority_counts_what_dead_workers_took_with_them(mood: str, tmp_path: Path, capture: Capture) -> None:
    """A worker is killed, one leaves in a tool, and the pool is stopped: the figures are those of the ledgers."""
    with ExitStack() as meanwhile, ExitStack() as files, difficult(mood, meanwhile) as sink:
        books, counted = Books(files), Counted()
        pit = Snakepit(
            ProcessExit,
            pool={
                "size": WORKERS,
                "shutdown_grace": int(GRACE * 1000),
                "environment": {**QUICK, **sink.environ},
            },
        )
        async with pit:
            counted.look(capture).clear()
            books.keep(pit.pool.workers)
            await traffic(pit, 200)
            first = pit.pool.workers[0]
            os.kill(first.pid, signal.SIGKILL)
            await until(lambda: first not in pit.pool.workers)
            with pytest.raises(WorkerExited):
                await pit.execute("leave", timeout=8.0)
            await until(lambda: len(pit.pool.workers) == WORKERS and all(worker.tools for worker in pit.pool.workers))
            books.keep(pit.pool.workers)
            await traffic(pit, 50)
            stopping = time.monotonic()
        took = time.monotonic() - stopping
        counted.look(capture)
        missing = books.missing(tmp_path)
        print(f"\npool | {mood} | stopped after {took:.2f} s | lost {dict(counted)}")
        assert +counted == missing
        # Each worker's load of the adapter, and the requests answered.
        assert books.ended("traces", tmp_path) == 2 * WORKERS + SPANS_OF_A_REQUEST * 250
        assert books.ended("logs", tmp_path) == 25
        if mood != FLAPPING:  # whether it was ever up when it was asked is chance; that the books are right is not
            assert (missing["traces"] == books.ended("traces", tmp_path)) == (mood not in (Mood.OK, Mood.SLOW))
        assert took < GRACE + OF_WORKERS + BUSY


@pytest.mark.parametrize("mood", moods(Mood.MUTE))
async def test_stopping_the_authority_takes_seconds_and_tells_the_losses(mood: str, short_path: Path) -> None:
    """With a collector that only takes metrics, the last of these say how many of the workers' spans are lost."""
    with ExitStack() as meanwhile, OtlpSink() as good, difficult(mood, meanwhile) as sink:
        status, took, answered = await serve_until_stopped(
            short_path, {**sink.environ, "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": good.endpoint}
        )
    print(f"\nserve | {mood} | exit {status} after {took:.2f} s")
    assert status == 0
    assert took < GRACE + OF_WORKERS + OF_AUTHORITY + BUSY
    lost: Counter[str] = Counter()
    for point in good.points:
        if point.metric == names.METRIC_WORKER_TELEMETRY_LOST.name:
            lost[dict(point.attributes)[names.SNAKEPIT_TELEMETRY_SIGNAL]] += int(point.value)
    spans = WORKERS + SPANS_OF_A_REQUEST * answered
    if mood in (Mood.OK, Mood.SLOW):
        assert lost["traces"] == 0
    elif mood == FLAPPING:
        assert 0 <= lost["traces"] <= spans
    else:
        assert lost["traces"] == spans


@pytest.mark.parametrize("mood", moods(Mood.HOLD))
async def test_stop_is_bounded_for_all_signals(mood: str, short_path: Path) -> None:
    """With all three signals sent to a difficult collector, by the authority and its workers."""
    with ExitStack() as meanwhile, difficult(mood, meanwhile) as sink:
        status, took, _ = await serve_until_stopped(short_path, sink.environ)
    print(f"\nserve, all signals | {mood} | exit {status} after {took:.2f} s")
    assert status == 0
    assert took < GRACE + OF_WORKERS + OF_AUTHORITY + BUSY


async def serve_until_stopped(directory: Path, environ: Mapping[str, str]) -> tuple[int, float, int]:
    """Serve some requests; return the exit status, the seconds from SIGTERM to exit, and how many were answered."""
    environ = {**QUICK, **environ, "SNAKEPIT_OTEL_POOL__SHUTDOWN_GRACE": str(int(GRACE * 1000))}
    socket = directory / "a.sock"
    arguments = [
        "serve",
        "tests.telemetry.ending_adapter:ProcessExit",
        "--workers",
        str(WORKERS),
        "--socket",
        str(socket),
    ]
    async with program("-m", "snakepit_otel", *arguments, environ=environ) as server:
        await server.says("serving")
        async with Client(f"unix:{socket}") as client:
            answers = await asyncio.gather(*(client.execute("echo", {"value": n}, timeout=8.0) for n in range(100)))
            assert answers == list(range(100))
        sent = time.monotonic()
        os.kill(server.process.pid, signal.SIGTERM)
        status = await server.ends()
        return status, time.monotonic() - sent, len(answers)
