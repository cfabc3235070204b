"""What a session's last worker means to its next request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from snakepit_otel import Snakepit
from snakepit_otel.errors import QueueTimeout, SessionWorkerUnavailable, WorkerBusy, WorkerExited
from snakepit_otel.telemetry import names
from snakepit_otel.testing import Capture
from tests.pool.adapters import Other, Patient, lines
from tests.waiting import PATIENT, until


@asynccontextmanager
async def busy(pit: Snakepit, directory: Path, session_id: str) -> AsyncIterator[int]:
    """Keep the session's worker busy for as long as the block runs; gives its process id."""
    go, started = directory / f"go-{session_id}", directory / f"started-{session_id}"
    call = asyncio.ensure_future(
        pit.execute("wait_for", {"path": str(go), "started": str(started)}, session_id=session_id)
    )
    await until(lambda: lines(started))
    try:
        yield int(lines(started)[0])
    finally:
        go.touch()
        await call


async def test_hint_takes_another_worker_rather_than_wait(tmp_path: Path) -> None:
    """By default a session whose worker is busy is served by another one, at once."""
    async with Snakepit(Patient, workers=2) as pit, busy(pit, tmp_path, "s") as pid:
        assert await pit.execute("pid", session_id="s") != pid


async def test_strict_queue_waits_for_the_worker(tmp_path: Path) -> None:
    """A session waits for its own worker, while others are served by any."""
    async with Snakepit(Patient, workers=2, pool={"affinity": "strict_queue"}) as pit:
        async with busy(pit, tmp_path, "s") as pid:
            waiting = asyncio.ensure_future(pit.execute("pid", session_id="s"))
            await until(lambda: len(pit.pool.queue) == 1)
            assert await pit.execute("pid", session_id="other") != pid
            assert not waiting.done()
        assert await waiting == pid


async def test_strict_queue_gives_up_with_the_queue_timeout(tmp_path: Path) -> None:
    """A session does not wait for its worker for ever, and says which it was."""
    settings = {"affinity": "strict_queue", "queue_timeout": 50}
    async with Snakepit(Patient, workers=2, pool=settings) as pit, busy(pit, tmp_path, "s"):
        worker = (await pit.sessions.get("s")).last_worker_id
        with pytest.raises(QueueTimeout, match=f"worker {worker}, the only one allowed"):
            await pit.execute("pid", session_id="s")


async def test_strict_fail_fast_refuses_at_once(tmp_path: Path) -> None:
    """A session whose worker is busy is told so, and nothing has run."""
    async with Snakepit(Patient, workers=2, pool={"affinity": "strict_fail_fast"}) as pit:
        async with busy(pit, tmp_path, "s") as pid:
            with pytest.raises(WorkerBusy, match="did not run"):
                await pit.execute("pid", session_id="s")
        assert await pit.execute("pid", session_id="s") == pid


@pytest.mark.parametrize("affinity", ["strict_queue", "strict_fail_fast"])
async def test_strict_modes_say_once_that_the_worker_is_gone(affinity: str) -> None:
    """A session whose worker has died hears of it, and has any worker from then on."""
    async with Snakepit(Patient, workers=2, pool={**PATIENT, "affinity": affinity}) as pit:
        with pytest.raises(WorkerExited):
            await pit.execute("die", session_id="s")
        with pytest.raises(SessionWorkerUnavailable, match="is gone"):
            await pit.execute("pid", session_id="s")
        pid = await pit.execute("pid", session_id="s")
        assert await pit.execute("pid", session_id="s") == pid


async def test_those_who_wait_for_a_worker_hear_that_it_is_gone(tmp_path: Path) -> None:
    """A session that waits for its own worker does not wait for one that has died."""
    async with Snakepit(Patient, workers=2, pool={**PATIENT, "affinity": "strict_queue"}) as pit:
        started = tmp_path / "started"
        arguments = {"path": str(tmp_path / "never"), "started": str(started)}
        call = asyncio.ensure_future(pit.execute("wait_for", arguments, session_id="s"))
        await until(lambda: lines(started))
        waiting = asyncio.ensure_future(pit.execute("pid", session_id="s"))
        await until(lambda: len(pit.pool.queue) == 1)
        next(worker for worker in pit.pool.workers if worker.active).kill()
        with pytest.raises(SessionWorkerUnavailable):
            await waiting
        with pytest.raises(WorkerExited):
            await call


async def test_a_worker_of_another_pool_is_no_hint(tmp_path: Path) -> None:
    """A session that used another pool last is served here by any worker, also in a strict mode."""
    pools = {"other": {"adapter": Other, "size": 1}}
    async with Snakepit(Patient, workers=1, pool={"affinity": "strict_fail_fast"}, pools=pools) as pit:
        await pit.execute("elsewhere", session_id="s")
        assert (await pit.sessions.get("s")).last_worker_id == "other-1.1"
        async with busy(pit, tmp_path, "s"):
            assert (await pit.sessions.get("s")).last_worker_id == "default-1.1"


async def test_outcomes_are_counted_with_their_reasons(capture: Capture, tmp_path: Path) -> None:
    """Each request says on its span, and to the metric, what became of the hint and why."""
    async with Snakepit(Patient, workers=2, pool=PATIENT) as pit:
        await pit.execute("pid", session_id="s")
        await pit.execute("pid", session_id="s")
        async with busy(pit, tmp_path, "s"):
            await pit.execute("pid", session_id="s")
        with pytest.raises(WorkerExited):
            await pit.execute("die", session_id="s")
        await pit.execute("pid", session_id="s")
    told = [
        (span.attributes[names.SNAKEPIT_AFFINITY_OUTCOME], span.attributes[names.SNAKEPIT_AFFINITY_REASON])
        for span in capture.spans("dispatch request")
    ]
    assert sorted(told) == [
        ("broken", "gone"), ("hit", "preferred"), ("hit", "preferred"), ("hit", "preferred"),
        ("miss", "busy"), ("none", "no_hint"),
    ]  # fmt: skip
    counted = {
        (
            point.attributes[names.SNAKEPIT_AFFINITY_OUTCOME],
            point.attributes[names.SNAKEPIT_AFFINITY_REASON],
        ): point.value
        for point in capture.points(names.METRIC_POOL_AFFINITY_DECISIONS.name)
    }
    assert counted == {("broken", "gone"): 1, ("hit", "preferred"): 3, ("miss", "busy"): 1, ("none", "no_hint"): 1}
