"""Code that holds the interpreter: not taken for dead while it has time, and replaced once that is over."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from snakepit_otel import Snakepit
from snakepit_otel.errors import DeadlineExceeded
from snakepit_otel.pool.workers.base import WorkerState
from tests.pool.proofs.adapter import Proving
from tests.pool.proofs.figures import saying
from tests.waiting import until

HASTY = {"heartbeat_interval": 100, "heartbeat_timeout": 300, "heartbeat_max_missed": 2, "cancel_grace": 500}


@pytest.mark.matrix
async def test_a_worker_stuck_within_its_deadline_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nine seconds in C code with the GIL held, far beyond the heartbeats' patience, and the answer comes."""
    async with Snakepit(Proving, workers=2, pool=HASTY) as pit:
        before = {worker.id for worker in pit.pool.workers}
        arguments = {"started": str(tmp_path / "started"), "seconds": 9}
        held = asyncio.create_task(pit.execute("hold_the_interpreter", arguments, timeout=30))
        await until((tmp_path / "started").exists)
        stuck = next(worker for worker in pit.pool.workers if worker.active)
        others, missed = 0, 0
        while not held.done():
            assert await pit.execute("echo", {"value": others}, timeout=5) == others
            others, missed = others + 1, max(missed, stuck.missed_heartbeats)
            await asyncio.sleep(0.01)
        assert await held == "let go"
        assert {worker.id for worker in pit.pool.workers} == before
        assert missed >= 2
        saying(capsys)(f"stuck for 9 s, {missed} heartbeats missed: answered; {others} others were served meanwhile")
        await until(lambda: not any(worker.suspect for worker in pit.pool.workers))


@pytest.mark.matrix
async def test_a_worker_stuck_beyond_its_deadline_is_replaced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The caller hears of it at its deadline; the only worker is replaced a grace and a start later, and serves."""
    async with Snakepit(Proving, workers=1, pool=HASTY) as pit:
        [stuck] = pit.pool.workers
        arguments = {"started": str(tmp_path / "started"), "seconds": 60}
        began = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            await pit.execute("hold_the_interpreter", arguments, timeout=1)
        told = time.monotonic() - began
        assert await pit.execute("echo", {"value": 1}, timeout=20) == 1
        served = time.monotonic() - began
        await until(lambda: stuck.state is WorkerState.GONE)
        gone = time.monotonic() - began
        [successor] = pit.pool.workers
        assert successor.id != stuck.id
        saying(capsys)(
            f"stuck, with a deadline of 1 s and a grace of 0.5 s: the caller was told after {told:.2f} s, "
            f"the worker gone after {gone:.2f} s, the next request answered after {served:.2f} s"
        )
        assert 1.0 <= told <= 2.0
        assert served <= 10.0
