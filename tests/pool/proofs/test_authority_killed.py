"""Authorities killed under load, with workers that are stuck: none of their workers outlives them."""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import suppress
from pathlib import Path

import pytest

from snakepit_otel import Client
from snakepit_otel.errors import SnakepitError
from tests.pool.proofs.figures import Say, saying, spread
from tests.processes import alive, program, workers_of
from tests.waiting import BUSY, until

SEED = 20_261_122
WORKERS = 3


async def kill_one(directory: Path, delay: float) -> float:
    """Kill an authority with one worker stuck in C, one busy and one free; return how long they lived on."""
    socket = directory / "a.sock"
    arguments = ["serve", "tests.pool.proofs.adapter:Proving", "--workers", str(WORKERS), "--socket", str(socket)]
    async with program("-m", "snakepit_otel", *arguments) as authority:
        await authority.says("serving")
        workers = workers_of(authority.process.pid)
        assert len(workers) == WORKERS
        async with Client(f"unix:{socket}") as client:
            held, resting = directory / "held", directory / "resting"

            async def call(tool: str, started: Path) -> None:
                with suppress(SnakepitError):
                    await client.execute(tool, {"started": str(started), "seconds": 60})

            calls = [
                asyncio.create_task(call("hold_the_interpreter", held)),
                asyncio.create_task(call("rest", resting)),
            ]
            await until(lambda: held.exists() and resting.exists())
            await asyncio.sleep(delay)
            killed = time.monotonic()
            authority.process.kill()
            await until(lambda: not any(map(alive, workers)))
            lived_on = time.monotonic() - killed
            await authority.ends()
            await asyncio.wait_for(asyncio.gather(*calls), 30)
    return lived_on


async def prove(kills: int, directory: Path, say: Say, late: float = 3.0) -> None:
    """Kill so many authorities."""
    chance, lived_on = random.Random(SEED), []
    for number in range(kills):
        (directory / str(number)).mkdir(mode=0o700)
        lived_on.append(await kill_one(directory / str(number), 0.1 * chance.random()))
    say(f"{kills} authorities killed: their workers were gone after {spread(lived_on)} (target 1 s)")
    assert max(lived_on) <= late


async def test_a_killed_authority(short_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With one worker stuck in C, one mid-request and one free, all are gone at once, and callers are told."""
    await prove(1, short_path, saying(capsys), late=3.0 + BUSY)


@pytest.mark.matrix
@pytest.mark.timeout(300)
async def test_twenty_killed_authorities(short_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same, twenty times."""
    await prove(20, short_path, saying(capsys))
