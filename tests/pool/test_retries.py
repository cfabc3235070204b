"""Requests that lose their worker."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

from snakepit_otel import Client, Snakepit
from snakepit_otel.errors import WorkerExited
from snakepit_otel.telemetry import names
from snakepit_otel.testing import Capture
from tests.pool.adapters import Patient, lines
from tests.waiting import PATIENT, until

MORTAL = """
import os, pathlib, signal, time
from snakepit_otel import BaseAdapter, tool
ran = pathlib.Path(__file__).with_name("ran")
while ran.exists():
    time.sleep(0.1)

class Mortal(BaseAdapter):
    @tool
    def die(self) -> None:
        ran.write_text("ran")
        os.kill(os.getpid(), signal.SIGKILL)
"""
"""An adapter that cannot be loaded again once it has run."""


async def test_what_is_not_idempotent_runs_once(tmp_path: Path) -> None:
    """A request whose worker dies is not run again unless that was asked for."""
    async with Snakepit(Patient, workers=2, pool=PATIENT) as pit:
        with pytest.raises(WorkerExited, match=r"killed by SIGKILL while it ran 'die_once'; .* may have run in part"):
            await pit.execute("die_once", {"ran": str(tmp_path / "ran")})
    assert len(lines(tmp_path / "ran")) == 1


async def test_what_is_idempotent_runs_again_elsewhere(tmp_path: Path) -> None:
    """An idempotent request survives its worker, and its session goes with it."""
    async with Snakepit(Patient, workers=2, pool=PATIENT) as pit:
        pid = await pit.execute("die_once", {"ran": str(tmp_path / "ran")}, session_id="s", idempotent=True)
        first, second = lines(tmp_path / "ran")
        assert first != second == str(pid)
        assert await pit.execute("pid", session_id="s") == pid


async def test_a_client_asks_for_it_too(tmp_path: Path) -> None:
    """`idempotent` crosses the wire."""
    async with Snakepit(Patient, workers=2, pool=PATIENT) as pit, Client(pit.socket) as client:
        await client.execute("die_once", {"ran": str(tmp_path / "ran")}, idempotent=True)
    assert len(lines(tmp_path / "ran")) == 2


async def test_what_kills_every_worker_is_given_up(tmp_path: Path) -> None:
    """A request that kills whoever runs it is run `max_retries` times more, and no more."""
    async with Snakepit(Patient, workers=3, pool={**PATIENT, "max_retries": 2}) as pit:
        with pytest.raises(WorkerExited):
            await pit.execute("die_once", {"ran": str(tmp_path / "ran"), "times": 9}, idempotent=True)
    assert len(lines(tmp_path / "ran")) == 3


async def test_no_retry_beyond_the_deadline(tmp_path: Path) -> None:
    """A request whose time is up is not run again; that it was lost is what is said."""
    (tmp_path / "mortal.py").write_text(MORTAL)
    async with Snakepit(f"{tmp_path / 'mortal.py'}:Mortal", workers=1, pool=PATIENT) as pit:
        with pytest.raises(WorkerExited):
            await pit.execute("die", idempotent=True, timeout=2)
    assert len(lines(tmp_path / "ran")) == 1


@pytest.mark.parametrize(("before", "idempotent", "runs"), [(0, True, 2), (2, True, 1), (0, False, 1)])
async def test_streams_run_again_only_before_their_first_chunk(
    before: int, idempotent: bool, runs: int, tmp_path: Path
) -> None:
    """What a consumer has seen is not sent to it again."""
    got: list[int] = []

    async def collect() -> None:
        arguments = {"ran": str(tmp_path / "ran"), "before": before}
        async for number in pit.stream("count_and_die_once", arguments, idempotent=idempotent):
            got.append(number)  # noqa: PERF401 - what came before the failure counts

    async with Snakepit(Patient, workers=2, pool=PATIENT) as pit:
        if runs == 2:
            await collect()
        else:
            with pytest.raises(WorkerExited):
                await collect()
    assert got == (list(range(4)) if runs == 2 else list(range(before)))
    assert len(lines(tmp_path / "ran")) == runs


async def test_a_death_is_noticed_although_a_child_holds_the_connection(tmp_path: Path) -> None:
    """A process that the adapter forked keeps the worker's sockets open; its death is told at once nevertheless."""
    async with Snakepit(Patient, pool={"size": 1, "queue_timeout": 60_000}) as pit:
        started = time.monotonic()
        with pytest.raises(WorkerExited):
            await pit.execute("leave_a_child_and_die", {"child": str(tmp_path / "child")})
        assert time.monotonic() - started < 15, "the child lives for twenty seconds"
        assert await pit.execute("pid")
    os.kill(int((tmp_path / "child").read_text()), signal.SIGKILL)


async def test_several_requests_of_a_worker_are_one_failure_for_the_breaker(tmp_path: Path) -> None:
    """A worker that takes ten requests with it does not open the circuit breaker."""
    settings = {"size": 2, "profile": "thread", "threads_per_worker": 10, "breaker_failures": 2}
    async with Snakepit(Patient, pool=settings) as pit:
        arguments = {"path": str(tmp_path / "never"), "started": str(tmp_path / "started")}
        calls = [asyncio.ensure_future(pit.execute("wait_for", arguments)) for _ in range(20)]
        await until(lambda: len(lines(tmp_path / "started")) == 20)
        pit.pool.workers[0].kill()
        await until(lambda: sum(call.done() for call in calls) == 10)
        assert pit.pool.breaker.state == "closed"
        (tmp_path / "never").touch()
        ended = await asyncio.gather(*calls, return_exceptions=True)
    assert sum(isinstance(end, WorkerExited) for end in ended) == 10


async def test_retries_are_told(capture: Capture, tmp_path: Path) -> None:
    """Each run has a span of its own within the request, and repetitions are counted."""
    async with Snakepit(Patient, workers=2, pool=PATIENT) as pit:
        await pit.execute("die_once", {"ran": str(tmp_path / "ran")}, idempotent=True)
    runs = capture.spans("dispatch request")
    (request,) = capture.spans("execute request")
    assert [run.attributes.get("error.type") for run in runs] == ["WorkerExited", None]
    assert {run.parent_id for run in runs} == {request.span_id}
    assert "error.type" not in request.attributes
    assert [point.value for point in capture.points(names.METRIC_POOL_RETRIES.name)] == [1]
