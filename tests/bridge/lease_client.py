"""A program that holds sessions at an authority until it is killed: `ADDRESS SESSION…`, or `ADDRESS busy SESSION…`."""

from __future__ import annotations

import asyncio
import sys
import time

from snakepit_otel import Client


async def main(address: str, *names: str) -> None:
    """Hold the sessions, print `held`, and wait; with `busy`, and block the event loop."""
    client = Client(address)
    for name in names:
        if name != "busy":
            await client.create_session(name, bound=True)
    print("held", file=sys.stderr, flush=True)
    while "busy" in names:
        time.sleep(60)  # noqa: ASYNC251 - to be stuck is the point
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
