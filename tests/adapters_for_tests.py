"""Adapters that tests have workers load."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from snakepit_otel import BaseAdapter, tool


class Useful(BaseAdapter):
    """Tools of every kind."""

    @tool
    def echo(self, value: Any) -> Any:
        """Return the value."""
        return value

    @tool
    async def echo_async(self, value: Any) -> Any:
        """Return the value, on the event loop."""
        return value

    @tool
    def pid(self) -> int:
        """Return the worker's process id."""
        return os.getpid()

    @tool
    def add(self, amount: int) -> int:
        """Add to the session's total and return it."""
        total: int = self.session_context.state.change("total", lambda total: total + amount, default=0)
        return total

    @tool
    def fail(self, message: str) -> None:
        """Raise."""
        raise ValueError(message)

    @tool
    def die(self, marker: str) -> None:
        """Leave a mark, and kill the worker."""
        with Path(marker).open("a") as file:
            file.write("ran\n")
        os.kill(os.getpid(), signal.SIGKILL)

    @tool
    def wait_for(self, path: str, started: str) -> str:
        """Say that the tool has started, and wait until there is a file at `path`."""
        Path(started).touch()
        while not Path(path).exists():
            time.sleep(0.01)
        return "seen"

    @tool
    async def wait_forever(self, started: str, cancelled: str) -> None:
        """Say that the tool has started, wait, and say if it was cancelled."""
        Path(started).touch()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            Path(cancelled).touch()
            raise

    @tool
    async def exit_in_a_task(self) -> None:
        """Have a task of its own, and a call-back that nobody waits for, leave the program."""

        async def leave() -> None:
            sys.exit(3)

        asyncio.get_running_loop().call_soon(sys.exit, 4)
        await asyncio.create_task(leave())

    @tool
    def hold_the_interpreter(self, started: str) -> None:
        """Say that the tool has started, and block in C code without releasing the GIL, for a minute."""
        Path(started).touch()
        ctypes.PyDLL(None).sleep(60)

    @tool
    def on_main_thread(self) -> bool:
        """Say where it runs."""
        return threading.current_thread() is threading.main_thread()

    @tool
    def on_main_thread_too(self) -> bool:
        """Say where it runs, under another name."""
        return threading.current_thread() is threading.main_thread()

    @tool
    def count(self, to: int) -> Iterator[dict[str, int]]:
        """Stream the numbers from 1."""
        for number in range(1, to + 1):
            yield {"number": number}

    @tool
    async def count_async(self, to: int) -> AsyncIterator[dict[str, int]]:
        """Stream the numbers from 1, on the event loop."""
        for number in range(1, to + 1):
            yield {"number": number}

    @tool
    def read_standard_input(self) -> str:
        """Return what standard input has."""
        return sys.stdin.read()


class NoTools(BaseAdapter):
    """Has none."""


class Halved(BaseAdapter):
    """Tools that say half of a character, wherever they can say anything."""

    @tool
    def keep(self) -> None:
        """Set state under such a key."""
        self.session_context.state["\ud800"] = 1

    @tool
    async def keep_async(self) -> None:
        """Set such a state."""
        await self.session_context.state.aset("key", "\ud800")

    @tool
    def call(self) -> Any:
        """Call a tool of the authority by such a name."""
        return self.session_context.call_elixir_tool("\ud800")

    @tool
    def pass_on(self) -> Any:
        """Call one with such a parameter."""
        return self.session_context.call_elixir_tool("get_session_state", **{"\ud800": 1})

    @tool
    def answer(self) -> str:
        """Return it."""
        return "\ud800"

    @tool
    def complain(self) -> None:
        """Raise it."""
        raise ValueError("\ud800")

    @tool
    def stream(self) -> Iterator[str]:
        """Stream it."""
        yield "fine"
        yield "\ud800"
