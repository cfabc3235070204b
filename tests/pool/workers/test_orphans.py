"""No worker survives its authority."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from snakepit_otel import Client
from tests.processes import alive, program, workers_of
from tests.waiting import until


def serve(socket: Path) -> list[str]:
    """The command line of an authority with two workers."""
    return [
        "-m",
        "snakepit_otel",
        "serve",
        "tests.adapters_for_tests:Useful",
        "--workers",
        "2",
        "--socket",
        str(socket),
    ]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGABRT, signal.SIGTERM, signal.SIGINT])
async def test_workers_end_with_their_authority(number: signal.Signals, short_path: Path) -> None:
    """However the authority ends, its workers are gone at once."""
    async with program(*serve(short_path / "a.sock")) as authority:
        await authority.says("serving")
        workers = workers_of(authority.process.pid)
        assert len(workers) == 2
        os.kill(authority.process.pid, number)
        await authority.ends()
        await until(lambda: not any(alive(worker) for worker in workers))


async def test_worker_stuck_in_c_ends_with_its_authority(short_path: Path, tmp_path: Path) -> None:
    """A worker that holds the interpreter in C code, where no Python runs, ends with its authority too."""
    async with program(*serve(short_path / "a.sock")) as authority:
        await authority.says("serving")
        workers = workers_of(authority.process.pid)
        async with Client(f"unix:{short_path / 'a.sock'}") as client:
            call = asyncio.ensure_future(client.execute("hold_the_interpreter", {"started": str(tmp_path / "started")}))
            await until((tmp_path / "started").exists)
            authority.process.kill()
            await authority.ends()
            await until(lambda: not any(alive(worker) for worker in workers))
            call.cancel()
            await asyncio.wait([call])
