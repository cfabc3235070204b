"""Requests whose caller goes away before the end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any, ClassVar

import pytest

from snakepit_otel.adapters import BaseAdapter, tool
from tests.adapters.hosting import hosted, request
from tests.waiting import until


class Plain(BaseAdapter):
    """Tools that can be left in the middle; `release` lets a blocked one go on."""

    seen: ClassVar[list[str]] = []
    started: threading.Event
    release: threading.Event

    def cleanup(self) -> None:
        self.seen.append("cleanup")

    @tool
    def block(self) -> None:
        self.started.set()
        assert self.release.wait(10)
        self.seen.append("went on")

    @tool
    async def wait(self) -> None:
        self.started.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.seen.append("cancelled")

    @tool
    def numbers(self) -> Iterator[int]:
        try:
            yield 1
            self.seen.append("went on")
            yield 2
        finally:
            self.seen.append("closed")

    @tool
    async def later(self) -> AsyncIterator[int]:
        try:
            yield 1
            self.seen.append("went on")
            yield 2
        finally:
            self.seen.append("closed")

    @tool
    def thinking(self) -> Iterator[int]:
        try:
            self.started.set()
            assert self.release.wait(10)
            yield 1
        finally:
            self.seen.append("closed")


class AsyncHooks(Plain):
    async def initialize(self) -> None: ...

    async def cleanup(self) -> None:
        super().cleanup()


ADAPTERS = [Plain, AsyncHooks]


@pytest.fixture(autouse=True)
def begin_anew() -> None:
    """Begin with nothing seen and nobody released."""
    Plain.seen.clear()
    Plain.started, Plain.release = threading.Event(), threading.Event()


async def cancelled(task: asyncio.Future[Any]) -> None:
    """Cancel a request and see that it ends so."""
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("adapter", ADAPTERS)
async def test_a_coroutine_is_cancelled_and_cleaned_up(adapter: type[Plain]) -> None:
    """Cancelling a request cancels its coroutine and runs its clean-up before the request ends."""
    with hosted(adapter) as host:
        running = asyncio.ensure_future(host.run(request("wait")))
        await until(adapter.started.is_set)
        await cancelled(running)
        assert adapter.seen == ["cancelled", "cleanup"]


async def test_a_thread_is_not_waited_for() -> None:
    """A plain request that is cancelled is let go at once; its thread finishes and cleans up on its own."""
    with hosted(Plain) as host:
        running = asyncio.ensure_future(host.run(request("block")))
        await until(Plain.started.is_set)
        await cancelled(running)
        assert Plain.seen == []
        Plain.release.set()
    assert Plain.seen == ["went on", "cleanup"]


async def test_no_clean_up_beside_a_running_tool() -> None:
    """With async hooks a cancelled plain tool is waited for: the clean-up never runs beside it."""
    with hosted(AsyncHooks) as host:
        running = asyncio.ensure_future(host.run(request("block")))
        await until(Plain.started.is_set)
        running.cancel()
        asyncio.get_running_loop().call_soon(Plain.release.set)
        with pytest.raises(asyncio.CancelledError):
            await running
        assert Plain.seen == ["went on", "cleanup"]


@pytest.mark.parametrize("adapter", ADAPTERS)
async def test_a_request_that_waits_for_a_thread_never_runs(adapter: type[Plain]) -> None:
    """The tool of a request that was cancelled before a thread took it up never runs."""
    with hosted(adapter) as host:
        first = asyncio.ensure_future(host.run(request("block")))
        await until(Plain.started.is_set)
        second = asyncio.ensure_future(host.run(request("block")))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await cancelled(second)
        Plain.release.set()
        await first
    assert Plain.seen.count("went on") == 1


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("name", ["numbers", "later"])
async def test_a_stream_left_half_way_is_closed(adapter: type[Plain], name: str) -> None:
    """A stream whose reader is cancelled while it takes a chunk: generator closed, clean-up run."""
    holding = asyncio.Event()

    async def take(chunk: Any) -> None:
        holding.set()
        await asyncio.Event().wait()

    with hosted(adapter) as host:
        running = asyncio.ensure_future(host.stream(request(name), take))
        await holding.wait()
        await cancelled(running)
    assert adapter.seen == ["closed", "cleanup"]


@pytest.mark.parametrize("adapter", ADAPTERS)
async def test_a_stream_left_between_chunks_is_closed_at_the_next(adapter: type[Plain]) -> None:
    """A generator that is thinking when its reader leaves is closed at its next chunk, which nobody gets."""
    chunks = []

    async def take(chunk: Any) -> None:
        chunks.append(chunk)

    with hosted(adapter) as host:
        running = asyncio.ensure_future(host.stream(request("thinking"), take))
        await until(adapter.started.is_set)
        running.cancel()
        asyncio.get_running_loop().call_soon(adapter.release.set)
        with pytest.raises(asyncio.CancelledError):
            await running
    assert chunks == []
    assert adapter.seen == ["closed", "cleanup"]


async def test_an_instance_built_for_nobody_is_cleaned_up() -> None:
    """A request cancelled while its instance is built in a thread cleans that instance up."""

    class Slow(AsyncHooks):
        def __init__(self) -> None:
            self.started.set()
            assert self.release.wait(10)
            self.seen.append("built")

    with hosted(Slow) as host:
        running = asyncio.ensure_future(host.run(request("wait")))
        await until(Slow.started.is_set)
        running.cancel()
        asyncio.get_running_loop().call_soon(Slow.release.set)
        with pytest.raises(asyncio.CancelledError):
            await running
    assert Slow.seen == ["built", "cleanup"]


async def test_the_thread_is_free_again() -> None:
    """After a reader that never took its chunk, the thread serves the next request."""

    async def never(chunk: Any) -> None:
        Plain.started.set()
        await asyncio.Event().wait()

    with hosted(Plain) as host:
        running = asyncio.ensure_future(host.stream(request("numbers"), never))
        await until(Plain.started.is_set)
        await cancelled(running)
        Plain.release.set()
        await asyncio.wait_for(host.run(request("block")), 10)
    assert Plain.seen == ["closed", "cleanup", "went on", "cleanup"]
