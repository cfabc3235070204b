"""Adapters and tools of the authority that hold up the end of a server, each in its own way."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from pathlib import Path

from snakepit_otel import AuthorityContext, BaseAdapter, authority_tool, tool

IMPORTING = os.environ.get("TEST_IMPORTING")
"""A file in whose presence importing this takes long; it gets a line each time."""
if IMPORTING and Path(IMPORTING).exists():
    with Path(IMPORTING).open("a") as file:
        file.write("importing\n")
    time.sleep(600)


class Plain(BaseAdapter):
    """An adapter."""

    @tool
    def ping(self) -> str:
        """Answer."""
        return "pong"


@authority_tool
def stuck(context: AuthorityContext) -> None:
    """Never end."""
    threading.Event().wait()


@authority_tool
async def swallows(context: AuthorityContext) -> None:
    """Never end, cancelled or not."""
    while True:
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            continue


@authority_tool
async def fills_the_executor(context: AuthorityContext) -> None:
    """Take all threads of the event loop's executor, for good."""
    await asyncio.gather(*(asyncio.to_thread(time.sleep, 600) for _ in range(64)))


@authority_tool
def leaves_a_thread(context: AuthorityContext) -> None:
    """Start a thread that the interpreter waits for."""
    threading.Thread(target=time.sleep, args=(600,), daemon=False).start()


@authority_tool
async def blocks(context: AuthorityContext) -> None:
    """Keep the event loop from turning."""
    print("blocking", file=sys.stderr)
    time.sleep(600)  # noqa: ASYNC251 - what it is for
