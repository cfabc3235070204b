"""Requests that go on when nobody waits for them any more."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from snakepit_otel import Snakepit
from snakepit_otel.errors import DeadlineExceeded, WorkerExited
from snakepit_otel.telemetry import names
from snakepit_otel.testing import Capture
from tests.pool.adapters import Patient, lines
from tests.waiting import until


def arguments(directory: Path) -> dict[str, str]:
    """Return what `wait_for` takes."""
    return {"path": str(directory / "go"), "started": str(directory / "started")}


async def test_a_worker_is_busy_until_its_late_request_ends(tmp_path: Path) -> None:
    """What runs on after its deadline keeps its place, so that nobody waits behind it unawares."""
    async with Snakepit(Patient, workers=1, pool={"cancel_grace": 60_000}) as pit:
        await pit.execute("pid")  # so that the next one begins at once
        with pytest.raises(DeadlineExceeded):
            await pit.execute("wait_for", arguments(tmp_path), timeout=1)
        pid = int(lines(tmp_path / "started")[0])
        waiting = asyncio.ensure_future(pit.execute("pid"))
        await until(lambda: len(pit.pool.queue) == 1)
        (tmp_path / "go").touch()
        assert await waiting == pid


@pytest.mark.parametrize("cancelled", [False, True])
async def test_a_worker_whose_request_does_not_end_is_replaced(
    cancelled: bool, tmp_path: Path, capture: Capture
) -> None:
    """What runs on beyond `cancel_grace` is killed, and those in line get the successor."""
    async with Snakepit(Patient, workers=1, pool={"cancel_grace": 100, "queue_timeout": 60_000}) as pit:
        await pit.execute("pid")  # so that the next one begins at once
        call = asyncio.ensure_future(pit.execute("wait_for", arguments(tmp_path), timeout=None if cancelled else 1))
        await until(lambda: lines(tmp_path / "started"))
        if cancelled:
            call.cancel()
        await asyncio.wait([call])
        assert cancelled == call.cancelled()
        if not cancelled:
            assert isinstance(call.exception(), DeadlineExceeded)
        assert await pit.execute("pid", timeout=30) != int(lines(tmp_path / "started")[0])
        await until(lambda: len(pit.pool.workers) == 1)
        assert pit.pool.breaker.state == "closed"
    (event,) = capture.events(names.EVENT_WORKER_RECYCLED.name)
    assert event.attributes[names.SNAKEPIT_WORKER_EXIT_REASON] == ("cancelled" if cancelled else "deadline")
    assert not capture.events(names.EVENT_WORKER_CRASH.name)


async def test_a_coroutine_is_cancelled_and_its_worker_stays(tmp_path: Path) -> None:
    """A tool that can be cancelled is, and its worker serves on."""
    async with Snakepit(Patient, workers=1) as pit:
        await pit.execute("pid")  # so that the next one begins at once
        marks = {"started": str(tmp_path / "started"), "cancelled": str(tmp_path / "cancelled")}
        with pytest.raises(DeadlineExceeded):
            await pit.execute("wait_forever", marks, timeout=1)
        await until(lambda: lines(tmp_path / "cancelled"))
        assert await pit.execute("pid") == int(lines(tmp_path / "started")[0])


async def test_neighbours_of_a_stuck_request_end_first(tmp_path: Path) -> None:
    """Where a worker runs several, it takes no more, and is killed only when the others have had their time."""
    settings = {"size": 1, "profile": "thread", "threads_per_worker": 2, "cancel_grace": 50, "queue_timeout": 60_000}
    async with Snakepit(Patient, pool=settings) as pit:
        await pit.execute("pid")  # so that the next one begins at once
        stuck, well = tmp_path / "stuck", tmp_path / "well"
        stuck.mkdir()
        well.mkdir()
        other = asyncio.ensure_future(pit.execute("wait_for", arguments(well)))
        with pytest.raises(DeadlineExceeded):
            await pit.execute("wait_for", arguments(stuck), timeout=1)
        await until(lambda: pit.pool.workers[0].state == "draining")
        (well / "go").touch()
        assert await other == int(lines(stuck / "started")[0])
        assert await pit.execute("pid") != await other


async def test_what_a_killed_worker_had_else_fails_as_lost(tmp_path: Path) -> None:
    """Neighbours that do not end within the grace are lost with the worker, and are told so."""
    settings = {"size": 1, "profile": "thread", "threads_per_worker": 2, "cancel_grace": 50, "shutdown_grace": 50}
    async with Snakepit(Patient, pool=settings) as pit:
        await pit.execute("pid")  # so that the next one begins at once
        other = asyncio.ensure_future(pit.execute("wait_for", arguments(tmp_path)))
        with pytest.raises(DeadlineExceeded):
            await pit.execute("wait_for", arguments(tmp_path), timeout=1)
        with pytest.raises(WorkerExited, match=r"being replaced \(deadline\)"):
            await other


async def test_a_retired_worker_changes_nothing(tmp_path: Path) -> None:
    """What a worker writes that has lost its request to another one is refused."""
    async with Snakepit(Patient, workers=2) as pit:
        await pit.execute("pid")  # so that the next one begins at once
        marks = {key: str(tmp_path / key) for key in ("path", "started", "outcome")}
        call = asyncio.ensure_future(pit.execute("write_late", marks, session_id="s"))
        await until(lambda: lines(tmp_path / "started"))
        worker = next(worker for worker in pit.pool.workers if worker.active)
        worker.revoke()
        (tmp_path / "path").touch()
        with pytest.raises(Exception, match="may not call back"):
            await call
        assert lines(tmp_path / "outcome") == ["WorkerFenced"]
        assert await pit.sessions.get_state("s", "late") is None
