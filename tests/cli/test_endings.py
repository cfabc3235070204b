"""The end of `serve`, whatever it is doing: within its grace and three seconds, and with a true exit status."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from snakepit_otel import Client
from tests.processes import Program, alive, program, workers_of
from tests.waiting import BUSY, until

GRACE = 0.5
"""Seconds."""
BEYOND = 3.0
"""Seconds, as documented."""


@asynccontextmanager
async def serve(directory: Path, *options: str, environ: Mapping[str, str] | None = None) -> AsyncIterator[Program]:
    """Start a server, and return at once."""
    arguments = ["serve", "tests.cli.endings:Plain", "--workers", "1", "--socket", str(directory / "a.sock"), *options]
    grace = {"SNAKEPIT_OTEL_POOL__SHUTDOWN_GRACE": str(round(GRACE * 1000))}
    async with program("-m", "snakepit_otel", *arguments, environ={**grace, **(environ or {})}) as started:
        yield started


async def ends(server: Program, signals: Iterable[int] = (signal.SIGTERM,)) -> int:
    """Send the signals, and return the exit status; fail if it is late, or if a worker survives."""
    workers = workers_of(server.process.pid)
    began = time.monotonic()
    for number in signals:
        server.process.send_signal(number)
    status = await server.ends()
    assert time.monotonic() - began < GRACE + BEYOND + BUSY
    await until(lambda: not any(map(alive, workers)), timeout=5)
    return status


async def call(directory: Path, tool: str, timeout: float | None) -> str:
    """Call a tool, and return the name of what came of it."""
    async with Client(f"unix:{directory / 'a.sock'}") as client:
        try:
            await client.execute(tool, timeout=timeout)
        except Exception as error:
            return type(error).__name__
        return "result"


TOOLS = ("stuck", "swallows", "fills_the_executor", "leaves_a_thread")


@pytest.mark.parametrize("signals", [[signal.SIGTERM], [signal.SIGINT, signal.SIGTERM]], ids=["once", "twice"])
async def test_tools_that_do_not_end_are_left(signals: list[int], short_path: Path) -> None:
    """With each kind of tool stuck, before its deadline and after it, the end is in good order; all are answered."""
    async with serve(short_path, "--authority-tools", "tests.cli.endings") as server:
        await server.says("serving")
        late = [call(short_path, tool, 0.1) for tool in TOOLS]
        assert set(await asyncio.gather(*late)) <= {"DeadlineExceeded", "result"}
        calls = [asyncio.ensure_future(call(short_path, tool, None)) for tool in TOOLS]
        # Where the machine is not too busy, they have begun by the time that one which came later is answered.
        await call(short_path, "ping", 60)
        assert await ends(server, signals) == 0
        async with asyncio.timeout(30):
            assert set(await asyncio.gather(*calls)) <= {"AuthorityUnavailable", "PoolNotStarted", "result"}


async def test_a_blocked_event_loop_is_ended_by_force(short_path: Path) -> None:
    """A coroutine that does not wait keeps no server from ending; the exit status says that this was by force."""
    async with serve(short_path, "--authority-tools", "tests.cli.endings") as server:
        await server.says("serving")
        blocked = asyncio.ensure_future(call(short_path, "blocks", 30))
        await server.says("blocking")
        assert await ends(server) == 1
        assert await blocked == "AuthorityUnavailable"


async def test_starting_is_given_up(short_path: Path) -> None:
    """While workers import, SIGTERM ends the start at once, with exit status 0."""
    importing = short_path / "importing"
    importing.touch()
    async with serve(short_path, environ={"TEST_IMPORTING": str(importing)}) as server:
        await until(importing.read_text)
        assert await ends(server) == 0


async def test_importing_tools_is_given_up(short_path: Path) -> None:
    """While a module of `authority_tools` is imported, SIGTERM ends that, with exit status 0."""
    importing = short_path / "importing"
    importing.touch()
    options = ["--authority-tools", "tests.cli.endings"]
    async with serve(short_path, *options, environ={"TEST_IMPORTING": str(importing)}) as server:
        await until(importing.read_text)
        assert await ends(server) == 0


async def test_a_rolling_restart_is_given_up(short_path: Path) -> None:
    """While a successor imports, SIGTERM ends both workers and the server."""
    importing = short_path / "importing"
    async with serve(short_path, environ={"TEST_IMPORTING": str(importing)}) as server:
        await server.says("serving")
        importing.touch()
        server.process.send_signal(signal.SIGHUP)
        await until(importing.read_text)
        assert await ends(server) == 0
