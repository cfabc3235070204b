"""`snakepit-otel status`, once and watching, in terminals and in pipes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from snakepit_otel.bridge.wire.status import SessionsStatus
from snakepit_otel.cli import status as cli_status
from snakepit_otel.cli.status_view import duration, size
from tests.bridge.parts import authority
from tests.cli.scripted import STATUS, Scripted, scripted
from tests.cli.terminals import terminal
from tests.processes import ROOT, program, run

FAST = ("--interval", "0.1")


@pytest.fixture
async def server(short_path: Path) -> AsyncIterator[Scripted]:
    """An authority that says what it is told to."""
    async with scripted(short_path) as said:
        yield said


@asynccontextmanager
async def watching(
    address: str, *options: str
) -> AsyncIterator[tuple[asyncio.subprocess.Process, asyncio.StreamReader]]:
    """Watch in a pipe; gives the process, and what it writes."""
    async with program("-m", "snakepit_otel", "status", "--address", address, "--watch", *FAST, *options) as started:
        assert started.process.stdout is not None
        async with asyncio.timeout(60):
            yield started.process, started.process.stdout


async def test_all_that_matters_is_shown(server: Scripted) -> None:
    """Server, sessions, pool, queue, breaker, crash barrier and workers are shown, without escape codes in a pipe."""
    code, output, complaint = await run("status", "--address", server.address)
    assert (code, complaint) == (0, "")
    assert "\x1b" not in output
    lines = [" ".join(line.split()) for line in output.splitlines()]
    assert lines == [
        "server 1.2.3, pid 4321, up 2 h 5 min, run snakepit-abc, telemetry full",
        "sessions 4 of 100 live, 2 KiB; 9 created, 2 deleted, 3 expired, 0 evicted, 0 rejected",
        "",
        "pool default, shop.adapters:Shop, process, hint",
        "workers 1 of 2 ready, 0 of 1 spare, 1 of 1 slots busy, none is started for 42 s, too many died",
        "queue 3 of 1000, the first for 1.2 s, about 12 ms a request",
        "breaker open, tries again in 12 s",
        (
            "requests 100 answered, 7 of them raised, 2 failed, 5 rejected (pool_saturated 1, queue_timeout 4), "
            "5 retried; "
            "6 workers replaced"
        ),
        "",
        "worker state active requests age memory heartbeat slot pid",
        "default-1.1 ready 1/1 77 3 min 64 MiB 400 ms 0 101 suspect: heartbeat, 2 beats late",
        "default-2.3 starting 0/1 0 0 ms - - 1 -",
    ]


async def test_a_server_that_stops_says_so(server: Scripted) -> None:
    """Stopping, and sessions without a quota, are shown as such."""
    server.status = replace(STATUS, stopping=True, sessions=SessionsStatus(live=4), pools=())
    _, output, _ = await run("status", "--address", server.address)
    assert output.splitlines()[0].endswith(", stopping")
    assert " 4 live" in output


async def test_tools_are_shown_with_their_calls(server: Scripted) -> None:
    """Each tool of the authority and the pools has a line; JSON has them too."""
    code, output, complaint = await run("status", "--tools", "--address", server.address)
    assert (code, complaint) == (0, "")
    lines = [" ".join(line.split()) for line in output.splitlines()]
    assert lines[3:] == [
        "tool pool calls raised refused p50 p95 failed retried",
        r"cheap\x1b[31m (authority) 0 0 0 - - 0 0",
        "classify default 100 7 1 1.5 ms 250 ms 2 5",
    ]
    code, output, _ = await run("status", "--tools", "--json", "--address", server.address)
    assert json.loads(output)["tools"][1]["raised"] == 7
    async with terminal("status", "--tools", "--address", server.address, "--watch", *FAST) as screen:
        await screen.shows("classify")


async def test_json_is_one_object(server: Scripted) -> None:
    """--json prints every field, under the names that the Python classes have; no quota is null."""
    code, output, _ = await run("status", "--address", server.address, "--json")
    assert (code, json.loads(output)) == (0, json.loads(json.dumps(cli_status.as_dict(STATUS))))
    server.status = replace(STATUS, sessions=SessionsStatus())
    _, output, _ = await run("status", "--address", server.address, "--json")
    assert json.loads(output)["sessions"]["max_sessions"] is None


async def test_it_finds_the_server_as_other_commands_do(server: Scripted) -> None:
    """Without an address, it is that of the environment."""
    code, output, _ = await run("status", environ={"SNAKEPIT_OTEL_ADDRESS": server.address})
    assert (code, "snakepit-abc" in output) == (0, True)


async def test_what_goes_wrong_is_said(short_path: Path) -> None:
    """Nobody there, somebody who does not offer it, and a bad interval have their words and exit codes."""
    code, output, complaint = await run("status", "--address", f"unix:{short_path}/none")
    assert (code, output) == (4, "")
    assert "snakepit-otel serve" in complaint
    async with authority(short_path) as served:
        code, output, complaint = await run("status", "--address", served.address)
        assert (code, output) == (1, "")
        assert "does not offer this" in complaint
    code, _, complaint = await run("status", "--watch", "--interval", "0")
    assert (code, "interval" in complaint) == (2, True)


@pytest.mark.parametrize("columns", [100, 70, 40, 20])
async def test_it_fits_the_terminal(server: Scripted, columns: int) -> None:
    """Whatever the width, no line is longer, and the workers and their states are there."""
    code, output, _ = await run("status", "--address", server.address, environ={"COLUMNS": str(columns)})
    assert code == 0
    assert max(map(len, output.splitlines())) <= columns
    assert ("64 MiB" in output, " 101 " in output) == (columns >= 60, columns >= 90)
    assert "default" in output
    assert "ready" in output
    assert "suspect: heartbeat, 2 beats late" in " ".join(output.split())


async def test_watching_in_a_terminal_that_is_too_low(server: Scripted) -> None:
    """What does not fit is counted, and the rest is there."""
    many = tuple(replace(STATUS.pools[0].workers[0], id=f"default-{slot}.1") for slot in range(1, 41))
    server.status = replace(STATUS, pools=(replace(STATUS.pools[0], workers=many),))
    async with terminal("status", "--address", server.address, "--watch", *FAST) as screen:
        assert "default-6.1" in await screen.shows("more lines than fit")


async def test_watching_in_a_terminal(server: Scripted) -> None:
    """What changes is seen; Ctrl-C ends it quietly with exit code 0 and leaves the terminal as it was."""
    async with terminal("status", "--address", server.address, "--watch", *FAST) as screen:
        await screen.shows("\x1b[?1049h")
        assert "\x1b[32mready" in await screen.shows("default-2.3")
        server.status = replace(STATUS, pid=9999)
        await screen.shows("pid 9999")
        screen.press(b"\x03")
        code, written = await screen.ends()
        assert code == 0
        assert "\x1b[?1049l" in written
        assert "\x1b[?25h" in written
        assert not {"Aborted", "Traceback", "error"} & set(written.split())


async def test_watching_when_told_to_stop(server: Scripted) -> None:
    """SIGTERM leaves the terminal as it was, too."""
    async with terminal("status", "--address", server.address, "--watch", *FAST) as screen:
        await screen.shows("default-2.3")
        screen.process.send_signal(signal.SIGTERM)
        code, written = await screen.ends()
        assert (code, "\x1b[?1049l" in written) == (0, True)


async def test_watching_while_the_terminal_shrinks(server: Scripted) -> None:
    """A terminal that is made narrow gets what fits it."""
    async with terminal("status", "--address", server.address, "--watch", *FAST) as screen:
        await screen.shows("heartbeat")
        screen.resize(50)
        server.status = replace(STATUS, version="9.9.9")
        await screen.shows("9.9.9")
        server.status = replace(STATUS, version="8.8.8")
        await screen.shows("8.8.8")
        assert "64 MiB" not in await screen.shows("starting")


async def test_watching_while_the_server_is_away(short_path: Path) -> None:
    """It may be away at first, and again later: that is said, what was seen last stays, and it is found again."""
    address = f"unix:{short_path}/a.sock"
    async with terminal("status", "--address", address, "--watch", *FAST) as screen:
        await screen.shows("no answer at")
        async with scripted(short_path):
            await screen.shows("default-2.3")
        await screen.shows("no answer at")
        await screen.shows("default-2.3")
        async with scripted(short_path) as again:
            again.status = replace(STATUS, pid=9999)
            await screen.shows("pid 9999")
        screen.press(b"\x03")
        assert (await screen.ends())[0] == 0


async def test_watching_in_a_pipe(short_path: Path) -> None:
    """A pipe gets a block at each look, without escape codes, and is told when the server is away."""
    async with watching(f"unix:{short_path}/a.sock") as (process, output):
        await output.readuntil(b"no answer at")
        async with scripted(short_path):
            await output.readuntil(b"\nserver")
            for _ in range(2):
                block = (await output.readuntil(b"\n\nserver")).decode()
                assert "default-2.3" in block
                assert "\x1b" not in block
        await output.readuntil(b"no answer at")
        process.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(process.wait(), 30) == 0


async def test_watching_in_json(short_path: Path) -> None:
    """--json gives one object a line, at each look, and an object that says so while the server is away."""
    async with watching(f"unix:{short_path}/a.sock", "--json") as (process, output):
        assert json.loads(await output.readline()).keys() == {"unavailable"}
        async with scripted(short_path):
            while (found := json.loads(await output.readline())).keys() == {"unavailable"}:
                pass
            assert found["pools"][0]["name"] == "default"
        while json.loads(await output.readline()).keys() != {"unavailable"}:
            pass
        process.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(process.wait(), 30) == 0


async def test_whoever_reads_may_leave(server: Scripted) -> None:
    """When the reader of the pipe is gone, it ends without a traceback."""
    reader, writer = os.pipe()
    command = [sys.executable, "-m", "snakepit_otel", "status", "--address", server.address, "--watch", *FAST]
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=writer, stderr=asyncio.subprocess.PIPE)
    os.close(writer)
    await asyncio.to_thread(os.read, reader, 1)
    os.close(reader)
    _, complaint = await asyncio.wait_for(process.communicate(), 30)
    assert b"Traceback" not in complaint


def test_a_duration_that_is_none() -> None:
    """A status that has no number for a time is shown nevertheless."""
    assert {duration(float(text)) for text in ("nan", "inf", "-inf")} == {"?"}


def test_durations_and_sizes_in_words() -> None:
    """Numbers are as exact as one wants to know."""
    assert [duration(seconds) for seconds in (0, 0.0124, 1.25, 59, 60, 3_599, 7_500, 90_000)] == [
        *("0 ms", "12 ms", "1.2 s", "59 s", "1 min", "59 min", "2 h 5 min", "1 d 1 h")
    ]
    assert [size(count) for count in (0, 1_023, 1_024, 64 << 20, 3 << 30, 5_000 << 30)] == [
        *("0 B", "1023 B", "1 KiB", "64 MiB", "3.0 GiB", "5000.0 GiB")
    ]
