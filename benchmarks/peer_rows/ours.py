"""A pool of two workers, called in the authority's process and through `Client` from another one.

A counter is a key of its session's state, which the authority keeps: the tool reads it and writes it, by two calls
to the authority. The environment decides what telemetry records.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from benchmarks.peer_rows.turns import HELLO, IN_FLIGHT, WORKERS, Counts, concurrent, is_echo, take_turns
from benchmarks.transports import server_settings
from snakepit_otel import BaseAdapter, Client, Snakepit, telemetry, tool

ADAPTER = "benchmarks.peer_rows.ours:Sessions"
POOLS = {
    "thread": {"size": WORKERS, "profile": "thread", "threads_per_worker": IN_FLIGHT // WORKERS},
    "process": {"size": WORKERS, "profile": "process"},
}


def one_more(count: int) -> int:
    return count + 1


class Sessions(BaseAdapter):
    __thread_safe__ = True

    @tool
    async def echo(self, value: object) -> object:
        return value

    @tool
    async def count(self) -> int:
        return await self.session_context.state.achange("count", one_more, default=0)

    @tool
    def plain_echo(self, value: object) -> object:
        return value

    @tool
    def plain_count(self) -> int:
        return self.session_context.state.change("count", one_more, default=0)


@asynccontextmanager
async def in_process(pool: dict[str, object]) -> AsyncIterator[Snakepit]:
    if os.environ.get("SNAKEPIT_TELEMETRY_LEVEL") != "off":
        telemetry.setup("peers")
    async with Snakepit(ADAPTER, pool=pool, server=server_settings()) as running:
        yield running


@contextmanager
def authority(directory: str, pool: dict[str, object]) -> Iterator[str]:
    """Yield the address of an authority that is a process of its own, and ends with the block."""
    address, log = f"{directory}/authority.sock", Path(directory, "authority.log")
    command = [sys.executable, "-m", "snakepit_otel", "serve", ADAPTER, "--socket", address]
    settings = {f"SNAKEPIT_OTEL_POOL__{name.upper()}": str(value) for name, value in pool.items()}
    with log.open("wb") as errors:
        server = subprocess.Popen(command, stderr=errors, env=os.environ | settings)
    try:
        while "serving" not in (written := log.read_text()):
            if server.poll() is not None:
                raise RuntimeError(f"the authority did not start: {written}")
            time.sleep(0.05)
        yield f"unix:{address}"
    finally:
        server.terminate()
        server.wait()


@asynccontextmanager
async def by_client(directory: str, pool: dict[str, object]) -> AsyncIterator[Client]:
    if os.environ.get("SNAKEPIT_TELEMETRY_LEVEL") != "off":
        telemetry.setup("peers", role="client")
    with authority(directory, pool) as address:
        async with Client(address) as connected:
            yield connected


async def main(arguments: argparse.Namespace) -> None:
    pool = POOLS[arguments.profile]
    opened = by_client(arguments.directory, pool) if arguments.client else in_process(pool)
    prefix = "plain_" if arguments.plain else ""
    sessions = [f"session-{place}" for place in range(IN_FLIGHT)]
    async with opened as caller:
        bursts = {
            "ours echo": concurrent(lambda _place: caller.execute(f"{prefix}echo", {"value": HELLO}), is_echo),
            "ours count": concurrent(
                lambda place: caller.execute(f"{prefix}count", session_id=sessions[place]), Counts()
            ),
        }
        await take_turns(bursts)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory")
    parser.add_argument("--profile", choices=POOLS, default="thread")
    parser.add_argument("--plain", action="store_true", help="tools that are no coroutines")
    parser.add_argument("--client", action="store_true", help="call from another process than the authority's")
    return parser.parse_args()


if __name__ == "__main__":
    asyncio.run(main(options()))
