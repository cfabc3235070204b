"""`snakepit-otel restart` against a server that says what became of its workers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from snakepit_otel.bridge.wire.restart_report import Replacement
from tests.cli.scripted import Scripted, scripted
from tests.cli.terminals import terminal
from tests.processes import run

FIRST = Replacement("default", "default-1.1", "default-1.2", remaining=1)
LAST = Replacement("default", "default-2.1", "default-2.2")
FAILED = Replacement("default", "default-2.1", "default-2.2", failure="it was not ready within 60 s")


@pytest.fixture
async def server(short_path: Path) -> AsyncIterator[Scripted]:
    """An authority that says what it is told to."""
    async with scripted(short_path) as said:
        yield said


async def test_each_replacement_is_told(server: Scripted) -> None:
    """Every worker has its line, and at the end there is a count."""
    server.replacements = (FIRST, LAST)
    code, output, complaint = await run("restart", "--address", server.address)
    assert (code, complaint) == (0, "")
    assert output.splitlines() == [
        "default-1.1 -> default-1.2, 1 to go in pool default",
        "default-2.1 -> default-2.2, the last of pool default",
        "2 of 2 workers replaced",
    ]
    assert server.restarted == [None]


async def test_a_failure_is_told(server: Scripted) -> None:
    """A worker that could not be replaced is named with the reason, and the exit code is 1."""
    server.replacements = (FIRST, FAILED)
    code, output, complaint = await run("restart", environ={"SNAKEPIT_OTEL_ADDRESS": server.address})
    assert (code, complaint) == (1, "default-2.1 was not replaced: it was not ready within 60 s\n")
    assert output.splitlines()[-1] == "1 of 2 workers replaced"


async def test_one_pool_alone(server: Scripted) -> None:
    """--pool names the pool; one that there is not has exit code 3."""
    assert (await run("restart", "--address", server.address, "--pool", "default"))[0] == 0
    assert await run("restart", "--address", server.address, "--pool", "gpu") == (
        3,
        "",
        "error: there is no pool 'gpu'\n",
    )
    assert server.restarted == ["default", "gpu"]


async def test_nobody_there(short_path: Path) -> None:
    """Without a server, the exit code is 4."""
    code, _, complaint = await run("restart", "--address", f"unix:{short_path}/none")
    assert (code, "Is it running?" in complaint) == (4, True)


async def test_leaving_early(server: Scripted) -> None:
    """Ctrl-C leaves, and says that the server goes on."""
    server.replacements = (FIRST,)
    server.hold.clear()
    async with terminal("restart", "--address", server.address) as screen:
        await screen.shows("1 to go")
        screen.press(b"\x03")
        code, written = await screen.ends()
        assert (code, "the server goes on replacing workers" in written) == (130, True)
    server.hold.set()
