"""Processes that tools have started do not outlive what ran the tools unseen."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import pytest

from snakepit_otel import Client, Snakepit
from snakepit_otel.pool.workers.orphans import kill_orphans
from snakepit_otel.system.private_directory import PrivateDirectory
from snakepit_otel.telemetry import names
from snakepit_otel.testing import Capture
from tests.pool.leftover_adapter import Leaving
from tests.processes import Program, alive, program, workers_of
from tests.waiting import until

_ALL = {"stubborn", "daemonic", "spawned", "program", "grandchild"}


@contextmanager
def spared(left: dict[str, int]) -> Iterator[None]:
    """See that the detached process, and no other, lives on; and end it."""
    try:
        yield
        assert {kind for kind, pid in left.items() if alive(pid)} == {"detached"}
    finally:
        for pid in left.values():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@asynccontextmanager
async def serving(directory: Path) -> AsyncIterator[tuple[Program, Client]]:
    """An authority with one worker, and a client of it."""
    arguments = (
        "serve",
        "tests.pool.leftover_adapter:Leaving",
        "--workers",
        "1",
        "--socket",
        str(directory / "a.sock"),
    )
    more = ("--authority-tools", "tests.pool.leftover_adapter")
    environ = {"XDG_RUNTIME_DIR": str(directory)}
    async with program("-m", "snakepit_otel", *arguments, *more, environ=environ) as authority:
        await authority.says("serving")
        async with Client(f"unix:{directory / 'a.sock'}") as client:
            yield authority, client


async def test_what_a_worker_leaves_ends_with_it(short_path: Path) -> None:
    """A worker that stops ends what its tools have left, says what that is, and is not held up by it."""
    async with serving(short_path) as (authority, client):
        left = await client.execute("leave")
        with spared(left):
            authority.process.terminate()
            said = await authority.says("has left processes of its tools behind")
            assert await authority.ends() == 0
            for kind in _ALL - {"grandchild"}:
                assert f"(pid {left[kind]})" in said


async def test_what_the_authority_leaves_ends_with_it(short_path: Path) -> None:
    """So does an authority with what its own tools have left."""
    async with serving(short_path) as (authority, client):
        left = await client.execute("leave_here")
        with spared(left):
            authority.process.terminate()
            said = await authority.says("the authority has left processes of its tools behind")
            assert await authority.ends() == 0
            assert f"(pid {left['program']})" in said


async def test_what_a_killed_worker_leaves_is_ended(capture: Capture, caplog: pytest.LogCaptureFixture) -> None:
    """The authority ends what a killed worker has left, grandchildren too, and counts it; workers serve on."""
    async with Snakepit(Leaving, workers=1) as pit:
        left = await pit.execute("leave")
        with spared(left):
            os.kill(await pit.execute("pid"), signal.SIGKILL)
            assert await pit.execute("pid", timeout=60, idempotent=True)
            await until(lambda: not any(alive(left[kind]) for kind in _ALL))
    (counted,) = capture.points(names.METRIC_TOOL_PROCESSES_ENDED_COUNT.name)
    assert counted.value == len(_ALL)
    assert "has left processes of its tools behind, which are ended: " in caplog.text


async def test_what_a_killed_worker_leaves_does_not_outlive_stop() -> None:
    """When stop returns nothing is left, however short before a worker was killed."""
    async with Snakepit(Leaving, workers=1) as pit:
        left = await pit.execute("leave")
        os.kill(pit.pool.workers[0].pid, signal.SIGKILL)
    with spared(left):
        pass


async def test_what_workers_of_a_killed_authority_leave_is_ended_by_the_next(
    short_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever finds the record of a dead authority ends what is left of its workers' processes."""
    async with serving(short_path) as (authority, client):
        left = await client.execute("leave")
        with spared(left):
            (worker,) = workers_of(authority.process.pid)
            authority.process.kill()
            # Its output stays open: what is left has it, too.
            await until(lambda: not alive(worker) and not alive(authority.process.pid))
            assert alive(left["stubborn"])
            monkeypatch.setenv("XDG_RUNTIME_DIR", str(short_path))

            def all_ended_by_the_next() -> bool:
                # The lock is free once the last thread of the authority has gone, a moment after its first.
                PrivateDirectory(kill_orphans).close()
                return not any(alive(left[kind]) for kind in _ALL)

            await until(all_ended_by_the_next)
