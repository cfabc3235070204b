"""Upgrade of an adapter, and then of the whole server, while a client calls without a pause.

python examples/upgrade.py
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from pathlib import Path

from snakepit_otel import Client

ADAPTER = """
from snakepit_otel import BaseAdapter, tool

class Shop(BaseAdapter):
    @tool
    def version(self) -> int:
        return {version}
"""


class Load:
    """A client that calls without a pause; `version` is what the last call returned."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.failed = 0
        self.version = 0
        self.ended = False

    async def run(self) -> None:
        """Call until `ended`."""
        while not self.ended:
            try:
                # Idempotent: made again if the connection ends under it.
                self.version = await self.client.execute("version", idempotent=True, timeout=30)
            except Exception as error:  # noqa: BLE001 - counted
                self.failed += 1
                print(f"failed: {error!r}")
            await asyncio.sleep(0.01)

    async def until(self, version: int) -> None:
        """Wait until an answer is of this version."""
        async with asyncio.timeout(60):
            while self.version != version:
                await asyncio.sleep(0.01)


servers: list[asyncio.subprocess.Process] = []


async def serve(directory: Path, *options: str) -> asyncio.subprocess.Process:
    """Start a server, and return when it serves."""
    command = ["serve", f"{directory}/shop.py:Shop", "--workers", "2", "--socket", f"{directory}/a.sock", *options]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "snakepit_otel", *command),
        stderr=asyncio.subprocess.PIPE,
        # Python takes a file of the same size and second for the one that it has compiled.
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    servers.append(process)
    assert process.stderr is not None
    while line := await process.stderr.readline():
        if line.startswith(b"serving"):
            return process
    raise SystemExit("the server did not start")


async def main() -> None:
    """Serve version 1, then 2 by new workers, then 3 by a new server."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        adapter = directory / "shop.py"
        adapter.write_text(ADAPTER.format(version=1))
        old = await serve(directory)
        async with Client(f"unix:{directory}/a.sock") as client:
            load = Load(client)
            loading = asyncio.ensure_future(load.run())
            await load.until(1)
            print("version 1 serves")

            adapter.write_text(ADAPTER.format(version=2))
            report = await client.restart_workers()
            await load.until(2)
            done = len(report.replacements) - len(report.failures)
            print(f"restart: {done} of {len(report.replacements)} workers replaced; version 2 serves")

            adapter.write_text(ADAPTER.format(version=3))
            new = await serve(directory, "--take-over")
            assert await old.wait() == 0
            await load.until(3)
            print("take-over: the old server has ended; version 3 serves")

            load.ended = True
            await loading
            print(f"failed calls: {load.failed}")
        new.terminate()
        assert await new.wait() == 0


async def main_and_end() -> None:
    """Run the program, and leave no server behind, whatever happens."""
    try:
        await main()
    finally:
        for server in servers:
            if server.returncode is None:
                server.terminate()
                await server.wait()


if __name__ == "__main__":
    os.environ.setdefault("OTEL_SDK_DISABLED", "true")
    asyncio.run(main_and_end())
