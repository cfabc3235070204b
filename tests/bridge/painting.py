"""An adapter that workers of these tests serve."""

from __future__ import annotations

import asyncio
import math
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any, ClassVar

from opentelemetry import trace

from snakepit_otel import BaseAdapter, StreamChunk, tool


class Painting(BaseAdapter):
    """Tools of every kind; the events let a test hold one and see where it is."""

    started: ClassVar[threading.Event] = threading.Event()
    release: ClassVar[threading.Event] = threading.Event()
    closed: ClassVar[threading.Event] = threading.Event()

    @tool
    def echo(self, value: Any) -> Any:
        """Return the value."""
        return value

    @tool
    async def echo_async(self, value: Any) -> Any:
        """Return the value, on the loop."""
        return value

    @tool
    def add(self, a: int, b: int = 1) -> int:
        """Add two numbers."""
        return a + b

    @tool
    def request(self) -> dict[str, Any]:
        """Say what the request brought, and where it runs."""
        context = self.session_context
        return {
            "session_id": context.session_id,
            "metadata": context.request_metadata,
            "main": threading.current_thread() is threading.main_thread(),
        }

    @tool
    def length(self, data: bytes) -> int:
        """Count bytes."""
        return len(data)

    @tool
    def picture(self) -> bytes:
        """Return bytes."""
        return b"\x89PNG"

    @tool
    def bulk(self, size: int) -> str:
        """Return a lot."""
        return "x" * size

    @tool
    def odd(self, what: str) -> Any:
        """Return what JSON has no word for."""
        return {"nan": math.nan, "opaque": threading.Lock(), "surrogate": "\ud800"}[what]

    @tool
    def fail(self, message: str = "no paint") -> None:
        """Raise."""
        raise ValueError(message)

    @tool
    def leave(self) -> None:
        """Exit."""
        sys.exit(3)

    @tool
    def block(self) -> str:
        """Wait in a thread until released."""
        self.started.set()
        assert self.release.wait(10)
        return "released"

    @tool
    async def wait(self) -> None:
        """Wait on the loop until cancelled."""
        self.started.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.closed.set()

    @tool
    def call(self, tool_name: str, parameters: dict[str, Any] | None = None) -> Any:
        """Call a tool of the authority, from a thread."""
        return self.session_context.call_elixir_tool(tool_name, **(parameters or {}))

    @tool
    async def call_async(self, tool_name: str, parameters: dict[str, Any] | None = None) -> Any:
        """Call a tool of the authority, from the loop."""
        return await self.session_context.acall_elixir_tool(tool_name, **(parameters or {}))

    @tool
    def send_bytes(self) -> Any:
        """Send the authority bytes, from a thread."""
        return self.session_context.call_elixir_tool("echo", data=b"x")

    @tool
    async def send_bytes_async(self) -> Any:
        """Send the authority bytes, from the loop."""
        return await self.session_context.acall_elixir_tool("echo", data=b"x")

    @tool
    def known(self) -> dict[str, Any]:
        """Return the authority's tools."""
        return dict(self.session_context.elixir_tools)

    @tool
    def count(self, by: int = 1) -> int:
        """Add to the session's total."""
        total: int = self.session_context.state.change("total", lambda total: total + by, default=0)
        return total

    @tool
    def keep(self, key: str, value: Any) -> None:
        """Keep a value in the session."""
        self.session_context.state[key] = value

    @tool
    def trace(self) -> str:
        """Return the id of the current trace."""
        return f"{trace.get_current_span().get_span_context().trace_id:032x}"

    @tool
    def strokes(self, values: list[Any]) -> Iterator[Any]:
        """Stream the values."""
        try:
            yield from values
        finally:
            self.closed.set()

    @tool
    async def strokes_async(self, values: list[Any]) -> AsyncIterator[Any]:
        """Stream the values, on the loop."""
        try:
            for value in values:
                yield value
        finally:
            self.closed.set()

    @tool
    def finish(self, more: bool = False) -> Iterator[StreamChunk]:
        """Stream chunks that say more than their data."""
        yield StreamChunk({"n": 1}, metadata={"layer": "base"})
        yield StreamChunk("done", is_final=True)

    @tool
    def drip(self, after: int, message: str) -> Iterator[int]:
        """Stream some numbers, then fail."""
        yield from range(after)
        raise ValueError(message)

    @tool
    def endless(self) -> Iterator[int]:
        """Stream numbers for ever."""
        number = 0
        try:
            while True:
                yield number
                number += 1
        finally:
            self.closed.set()


class Untidy(BaseAdapter):
    """Fails in its clean-up."""

    def cleanup(self) -> None:
        """Raise."""
        raise OSError("disk full")

    @tool
    def paint(self) -> str:
        """Paint."""
        return "painted"


class TakesAny(BaseAdapter):
    """Takes every call, the guide's way."""

    def execute_tool(self, tool_name: str, args: dict[str, Any], context: Any) -> Any:
        """Say what was called."""
        return [tool_name, args, context.session_id]
