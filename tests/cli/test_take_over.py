"""`serve --take-over`: a new server in place of a running one, with real processes."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from snakepit_otel import Client
from tests.processes import Program, program, run

SERVE = ("-m", "snakepit_otel", "serve", "tests.adapters_for_tests:Useful", "--workers", "1")


@pytest.fixture
def place(short_path: Path) -> dict[str, str]:
    """The environment of servers with their sockets in a directory of the test."""
    for name in ("s", "o"):
        (short_path / name).mkdir(mode=0o700, exist_ok=True)
    return {"XDG_RUNTIME_DIR": str(short_path), "SNAKEPIT_OTEL_SERVER__SOCKET": str(short_path / "s" / "a.sock")}


@asynccontextmanager
async def serving(place: dict[str, str], *options: str) -> AsyncIterator[tuple[Program, str]]:
    """Run a server; give its address on TCP."""
    async with program(*SERVE, "--listen", "127.0.0.1:0", *options, environ=place) as started:
        yield started, (await started.says("serving")).partition(" and ")[2].partition(";")[0].strip()


async def _calls(address: str, ended: asyncio.Event) -> int:
    """Call without a pause until the event; return how often."""
    async with Client(address) as client:
        number = 0
        while not ended.is_set():
            assert await client.execute("echo", {"value": number}, idempotent=True, timeout=60) == number
            number += 1
        return number


async def test_callers_are_answered_throughout(place: dict[str, str]) -> None:
    """The new server has both addresses, the old one ends by itself with a request in flight, and no call fails."""
    unix = f"unix:{place['SNAKEPIT_OTEL_SERVER__SOCKET']}"
    ended = asyncio.Event()
    async with serving(place) as (old, tcp), Client(unix) as client:
        calls = [asyncio.ensure_future(_calls(address, ended)) for address in (unix, tcp)]
        before = await client.execute("pid", idempotent=True)
        await client.execute("add", {"amount": 1}, session_id="alice")
        async with serving(place, "--take-over") as (new, again):
            assert again == tcp
            said = await new.says("took over")
            assert said == f"took over from process {old.process.pid}; 1 sessions in its memory end with it\n"
            assert await old.ends() == 0
            await old.says(f"process {new.process.pid} has taken over: running requests may end")
            assert await client.execute("pid", idempotent=True) != before
            ended.set()
            assert all(await asyncio.gather(*calls))


async def test_a_server_that_cannot_start_takes_nothing(place: dict[str, str]) -> None:
    """The error of the new one is its own, and the old one goes on."""
    async with serving(place) as (old, _), Client(f"unix:{place['SNAKEPIT_OTEL_SERVER__SOCKET']}") as client:
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            taken = f"127.0.0.1:{other.getsockname()[1]}"
            # Found out when its workers are ready, as late as can be.
            code, _, complaint = await run(*SERVE[2:], "--take-over", "--listen", taken, environ=place)
            assert (code, f"cannot listen on {taken}: it is in use" in complaint) == (2, True)
        assert await client.execute("echo", {"value": 1}) == 1
        assert old.process.returncode is None


async def test_there_is_nothing_to_take_over(place: dict[str, str]) -> None:
    """The server starts as without the option, also where a killed one has left its socket."""
    path = Path(place["SNAKEPIT_OTEL_SERVER__SOCKET"])
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    path.chmod(0o600)
    async with serving(place, "--take-over"), Client(f"unix:{path}") as client:
        assert await client.execute("echo", {"value": 1}) == 1
