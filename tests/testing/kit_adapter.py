"""Adapter whose tools do what a testing kit has to notice."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from snakepit_otel import BaseAdapter, tool
from snakepit_otel.adapters import StreamChunk

KEPT: list[Any] = []
STOP = threading.Event()


class Untold:
    """A value that JSON has no form for."""


class Kit(BaseAdapter):
    @tool
    def kind(self, value: Any) -> str:
        """Return the type of the argument."""
        return type(value).__name__

    @tool
    def give(self, what: str) -> Any:
        """Return a value that changes on the wire, or cannot be sent."""
        values = {"tuple": (1, (2,)), "date": date(2026, 1, 2), "object": Untold(), "keys": {1: "a"}, "half": "\ud800"}
        return values[what]

    @tool
    def chunks(self) -> Iterator[Any]:
        """Stream a tuple, metadata with a chunk, and an end without data."""
        yield (1, 2)
        yield StreamChunk({"a": 1}, metadata={"k": "v"})
        yield StreamChunk(None, is_final=True)

    @tool
    def keep_in_state(self, value: Any) -> Any:
        """Return what the state makes of a value."""
        state = self.session_context.state
        state["value"] = (value, (1, 2))
        return state["value"]

    @tool
    def state_object(self) -> None:
        """Keep what cannot be kept."""
        self.session_context.state["value"] = Untold()

    @tool
    def fail(self) -> None:
        """Raise an error of its own."""
        raise LookupError("not here")

    @tool
    async def wait(self, seconds: float) -> float | None:
        """Wait, and return the time that was left."""
        left = self.session_context.time_remaining()
        await asyncio.sleep(seconds)
        return left

    @tool
    def timed_out(self) -> None:
        """Raise the error that timeouts raise."""
        raise TimeoutError("the database")

    @tool
    def block(self, seconds: float) -> None:
        """Block a thread, whatever the deadline."""
        time.sleep(seconds)

    @tool
    def leave(self, what: str) -> None:
        """Leave something behind."""
        if what == "thread":
            thread = threading.Thread(target=STOP.wait, name="left-thread", daemon=True)
            thread.start()
        elif what == "file":
            KEPT.append(Path(__file__).open())  # noqa: SIM115
        elif what == "socket":
            KEPT.append(socket.socket())
        elif what == "process":
            KEPT.append(subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE))

    @tool
    async def leave_task(self) -> None:
        """Leave a task behind."""
        KEPT.append(asyncio.create_task(asyncio.sleep(60), name="left-task"))

    @tool
    def sum(self, array: np.ndarray[Any, Any], keep: bool = False) -> float:
        """Return the sum, and keep a view if told to."""
        if keep:
            KEPT.append(array[1:])
        return float(array.sum())

    @tool
    async def leave_for_a_moment(self) -> None:
        """Start what ends by itself."""
        KEPT.append(asyncio.create_task(asyncio.sleep(0.02)))
        threading.Thread(target=time.sleep, args=(0.02,)).start()
