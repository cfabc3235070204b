"""Servers that take over from each other under load: no idempotent call is refused."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from snakepit_otel import Client
from tests.pool.proofs.figures import saying, spread
from tests.processes import program

HAND_OVERS = 10
CLIENTS = 4  # two on the Unix socket, two on TCP
CALLS_A_SECOND = 100


class Load:
    """One client's share of the calls, each begun on time, whatever the others take."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.seconds: list[float] = []
        self.failures: list[str] = []
        self.repeated = 0
        self.ended = False

    async def run(self) -> None:
        """Call until `ended`."""
        async with Client(self.address) as client:
            calls = []
            while not self.ended:
                calls.append(asyncio.ensure_future(self._call(client, len(calls))))
                await asyncio.sleep(CLIENTS / CALLS_A_SECOND)
            await asyncio.gather(*calls)
            self.repeated = client.repeated

    async def _call(self, client: Client, number: int) -> None:
        started = time.monotonic()
        try:
            assert await client.execute("echo", {"value": number}, idempotent=True, timeout=30) == number
        except Exception as error:
            self.failures.append(repr(error))
        self.seconds.append(time.monotonic() - started)


@pytest.mark.matrix
@pytest.mark.timeout(600)
async def test_ten_servers_one_after_the_other(short_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A hundred calls a second on both addresses go on through ten hand-overs, and none fails."""
    socket = short_path / "a.sock"
    serve = ["-m", "snakepit_otel", "serve", "tests.adapters_for_tests:Useful", "--workers", "2"]
    serve += ["--socket", str(socket), "--listen", "127.0.0.1:0"]
    environ = {"XDG_RUNTIME_DIR": str(short_path)}
    async with AsyncExitStack() as servers:
        server = await servers.enter_async_context(program(*serve, environ=environ))
        tcp = (await server.says("serving")).partition(" and ")[2].partition(";")[0].strip()
        loads = [Load(address) for address in (f"unix:{socket}", tcp) for _ in range(CLIENTS // 2)]
        running = [asyncio.ensure_future(load.run()) for load in loads]
        for _ in range(HAND_OVERS):
            successor = await servers.enter_async_context(program(*serve, "--take-over", environ=environ))
            await successor.says("took over")
            assert await server.ends() == 0
            server = successor
        for load in loads:
            load.ended = True
        await asyncio.gather(*running)
    seconds = [one for load in loads for one in load.seconds]
    say = saying(capsys)
    say(
        f"{HAND_OVERS} hand-overs, {len(seconds)} calls: {sum(len(load.failures) for load in loads)} failed, "
        f"{sum(load.repeated for load in loads)} made again; {spread(seconds)}"
    )
    assert [failure for load in loads for failure in load.failures] == []
