"""Upstream-style adapters for tests, loaded in a worker, where `snakepit_bridge` is upstream's or the double's."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from snakepit_bridge import telemetry
from snakepit_bridge.base_adapter import BaseAdapter, tool
from snakepit_bridge.base_adapter_threaded import ThreadSafeAdapter, thread_safe_method
from snakepit_bridge.zero_copy import ZeroCopyRef


def note(what: str) -> None:
    """Write a word to the file that ADAPTER_NOTES names: what happens to adapters, in order."""
    if path := os.environ.get("ADAPTER_NOTES"):
        with Path(path).open("a") as file:
            file.write(f"{what}\n")


def wait_for(path: str) -> None:
    """Return once there is such a file."""
    while not Path(path).exists():
        time.sleep(0.005)


@dataclass
class Chunk:
    """A chunk that says more than its data."""

    data: Any
    is_final: bool = False
    metadata: dict[str, Any] = field(default_factory=dict)


class Noted(BaseAdapter):
    """An adapter that notes each phase of its life."""

    def __init__(self) -> None:
        note("build")
        super().__init__()

    def set_session_context(self, session_context: Any) -> None:
        note("set_session_context")
        super().set_session_context(session_context)

    def initialize(self) -> None:
        note("initialize")

    def cleanup(self) -> None:
        note("cleanup")


class Plain(Noted):
    """Every kind of tool there is, each reached by its name."""

    def execute_tool(self, tool_name: str, arguments: dict[str, Any], context: Any) -> Any:
        """Run the method of that name."""
        note(f"execute {tool_name}")
        return getattr(self, tool_name)(context=context, **arguments)

    @tool(description="Return what came.")
    def echo(self, context: Any = None, **arguments: Any) -> Any:
        return arguments

    @tool(description="Return one value as it is.")
    def value(self, value: Any = None, context: Any = None) -> Any:
        return value

    @tool(description="Raise ValueError.")
    def fail(self, words: str = "no", context: Any = None, **_: Any) -> Any:
        raise ValueError(words)

    @tool(description="Say where it runs.")
    def where(self, context: Any = None, **_: Any) -> dict[str, Any]:
        return {
            "pid": os.getpid(),
            "pgid": os.getpgrp(),
            "main_thread": threading.current_thread() is threading.main_thread(),
            "session_id": self.session_id,
            "request_metadata": context.request_metadata,
            "correlation_id": telemetry.get_correlation_id(),
        }

    @tool(description="Say which spans there are around it.")
    def trace(self, context: Any = None, **_: Any) -> dict[str, str]:
        from opentelemetry import trace

        current = trace.get_current_span().get_span_context()
        return {"trace_id": f"{current.trace_id:032x}", "span_id": f"{current.span_id:016x}"}

    @tool(description="Run a tool in Elixir.")
    def ask(self, name: str, parameters: dict[str, Any] | None = None, context: Any = None) -> Any:
        return context.call_elixir_tool(name, **(parameters or {}))

    @tool(description="Emit an event, and a span around a block that may fail.")
    def emit(self, words: str = "", context: Any = None) -> str:
        telemetry.emit("tool.result_size", {"bytes": 5}, {"tool": "emit"}, telemetry.get_correlation_id())
        with telemetry.span("tool.execution", {"tool": "emit"}, telemetry.get_correlation_id()):
            if words:
                raise ValueError(words)
        return "emitted"

    @tool(description="Return a reference.")
    def make_reference(self, ref: str = "ref-1", size: int = 64, context: Any = None) -> Any:
        return ZeroCopyRef.from_payload(
            {
                "__snakepit_zero_copy__": True,
                "kind": "dlpack",
                "device": "cpu",
                "dtype": "float32",
                "shape": [size // 4],
                "owner": "python",
                "ref": ref,
                "copy": False,
                "bytes": size,
            }
        )

    @tool(description="Take a reference and say what it is.")
    def take_reference(self, reference: Any = None, context: Any = None) -> dict[str, Any]:
        kind = type(reference).__name__
        return {"type": kind, "ref": reference.ref, "bytes": reference.bytes}

    @tool(description="Block until there is such a file.")
    def wait(self, path: str, context: Any = None) -> str:
        note("waiting")
        wait_for(path)
        return "waited"

    @tool(description="Count, a chunk at a time.", supports_streaming=True)
    def count(self, to: int = 3, fail_at: int = 0, context: Any = None) -> Iterator[dict[str, int]]:
        try:
            for number in range(1, int(to) + 1):
                if number == fail_at:
                    raise ValueError(f"no {number}")
                yield {"number": number}
        finally:
            note("stream closed")

    @tool(description="Count and say which chunk is the last.", supports_streaming=True)
    def count_to_final(self, to: int = 3, context: Any = None) -> Iterator[Chunk]:
        for number in range(1, int(to) + 1):
            yield Chunk({"number": number}, is_final=number == to, metadata={"of": to})

    @tool(description="Send bytes and text.", supports_streaming=True)
    def bytes_and_text(self, context: Any = None) -> Iterator[bytes | str]:
        yield b"\x00\xff"
        yield "text"

    @tool(description="Send a chunk, and the next when there is such a file.", supports_streaming=True)
    def stream_and_wait(self, path: str, context: Any = None) -> Iterator[dict[str, bool]]:
        try:
            yield {"waiting": True}
            wait_for(path)
            yield {"waiting": False}
        finally:
            note("stream closed")


class Async(Noted):
    """The same as coroutines and asynchronous generators."""

    async def initialize(self) -> None:  # type: ignore[override]
        await asyncio.sleep(0)
        note("initialize")

    async def cleanup(self) -> None:  # type: ignore[override]
        await asyncio.sleep(0)
        note("cleanup")

    async def execute_tool(self, tool_name: str, arguments: dict[str, Any], context: Any) -> Any:
        note(f"execute {tool_name}")
        await asyncio.sleep(0)
        if tool_name == "count":
            return self.count(**arguments)
        if tool_name == "stream_and_wait":
            return self.stream_and_wait(**arguments)
        if tool_name == "fail":
            raise ValueError(arguments.get("words", "no"))
        if tool_name == "wait":
            await self._wait_for(arguments["path"])
        if tool_name == "ask":
            name, parameters = arguments["name"], arguments.get("parameters") or {}
            return await asyncio.to_thread(context.call_elixir_tool, name, **parameters)
        return arguments

    async def count(self, to: int = 3, fail_at: int = 0) -> AsyncIterator[dict[str, int]]:
        try:
            for number in range(1, int(to) + 1):
                await asyncio.sleep(0)
                if number == fail_at:
                    raise ValueError(f"no {number}")
                yield {"number": number}
        finally:
            note("stream closed")

    async def stream_and_wait(self, path: str) -> AsyncIterator[dict[str, bool]]:
        try:
            yield {"waiting": True}
            await self._wait_for(path)
            yield {"waiting": False}
        finally:
            note("stream closed")

    async def _wait_for(self, path: str) -> None:
        note("waiting")
        while not Path(path).exists():
            await asyncio.sleep(0.005)


class Bare:
    """An adapter with nothing but what a worker insists on: no base class, no phases, no tools to register."""

    def set_session_context(self, session_context: Any) -> None:
        self.session_context = session_context

    def execute_tool(self, tool_name: str, arguments: dict[str, Any], context: Any) -> Any:
        return {"tool": tool_name, "arguments": arguments, "session": context.session_id}


class Toolless(BaseAdapter):
    """An adapter that cannot run anything."""


class FailsToBuild(Plain):
    """Its constructor raises."""

    def __init__(self) -> None:
        super().__init__()
        raise OSError("cannot be built")


class FailsToInitialize(Plain):
    """Its initialize method raises."""

    def initialize(self) -> None:
        super().initialize()
        raise OSError("cannot be initialized")


class FailsToCleanUp(Plain):
    """Its cleanup method raises."""

    def cleanup(self) -> None:
        super().cleanup()
        raise OSError("cannot be cleaned up")


class ThreadSafe(ThreadSafeAdapter, Plain):
    """`Plain`, for the threaded server."""

    @thread_safe_method
    def execute_tool(self, tool_name: str, arguments: dict[str, Any], context: Any) -> Any:
        """Run the method of that name."""
        return super().execute_tool(tool_name, arguments, context)


class ThreadSafeAsync(Async):
    """`Async`, for the threaded server."""

    __thread_safe__ = True


class ThreadSafeToolless(ThreadSafeAdapter):
    """`Toolless`, for the threaded server."""
