"""Tools that the proofs run in workers."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from snakepit_otel import BaseAdapter, tool


class Proving(BaseAdapter):
    """Tools that leave a trace of each run."""

    @tool
    def count(self, run: str, runs: str, seconds: float = 0.0) -> int:
        """Write down that this run has begun, before anything else; then add one to the session's total."""
        _note(runs, run)
        time.sleep(seconds)
        total: int = self.session_context.state.change("total", lambda total: total + 1, default=0)
        return total

    @tool
    def work(self, seconds: float) -> float:
        """Take so many seconds."""
        time.sleep(seconds)
        return seconds

    @tool
    def rest(self, started: str, seconds: float) -> str:
        """Say that it has started, and take so many seconds."""
        Path(started).touch()
        time.sleep(seconds)
        return "rested"

    @tool
    def hold_the_interpreter(self, started: str, seconds: int) -> str:
        """Say that it has started, and spend so many seconds in C code that does not release the GIL."""
        Path(started).touch()
        ctypes.PyDLL(None).sleep(seconds)
        return "let go"

    @tool
    def die(self) -> None:
        """Kill the worker."""
        os.kill(os.getpid(), signal.SIGKILL)

    @tool
    async def echo(self, value: Any) -> Any:
        """Return the value, on the event loop."""
        return value

    @tool
    def fail(self) -> None:
        """Raise."""
        raise ValueError("as it was told to")

    @tool
    def numbers(self, to: int) -> Iterator[int]:
        """Stream the numbers from 1."""
        yield from range(1, to + 1)

    @tool
    async def wait(self) -> None:
        """Wait for ever."""
        await asyncio.Event().wait()

    @tool
    def length(self, data: Any) -> int:
        """Return how long an array is."""
        return len(data.to_numpy())


def _note(file: str, line: str) -> None:
    # One write in one go: what several processes append at a time does not mix.
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, f"{line}\n".encode())
    finally:
        os.close(descriptor)
