"""Places where the parts of a request run: a thread, the event loop, the main thread."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from snakepit_otel.adapters import BaseAdapter, tool
from tests.adapters.hosting import hosted, request

caller = contextvars.ContextVar("caller", default="nobody")


def here() -> str:
    """Say where this runs."""
    return "main" if threading.current_thread() is threading.main_thread() else "thread"


class Plain(BaseAdapter):
    """Notes where each step runs."""

    def __init__(self) -> None:
        self.where = [here()]

    def initialize(self) -> None:
        self.where.append(here())

    def cleanup(self) -> None:
        self.where.append(here())

    @tool
    def plain(self) -> list[str]:
        self.where.append(here())
        return self.where

    @tool
    async def coroutine(self) -> list[str]:
        self.where.append(here())
        return self.where

    @tool
    def numbers(self) -> Iterator[Any]:
        try:
            self.where.append(here())
            yield self.where
        finally:
            self.where.append(here())

    @tool
    async def later(self) -> AsyncIterator[Any]:
        self.where.append(here())
        yield self.where


class AsyncHooks(Plain):
    async def initialize(self) -> None:
        super().initialize()

    async def cleanup(self) -> None:
        super().cleanup()


async def places(adapter: type, name: str, *, on_main_thread: bool = False) -> list[str]:
    """Return where the steps of one request ran."""
    chunks: list[Any] = []

    async def take(chunk: Any) -> None:
        chunks.append(chunk)

    with hosted(adapter) as host:
        asked = request(name, on_main_thread=on_main_thread)
        if host.tools[name].supports_streaming:
            await host.stream(asked, take)
            return chunks[0]  # type: ignore[no-any-return]
        return (await host.run(asked)).result  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("adapter", "name", "expected"),
    [
        (Plain, "plain", ["thread", "thread", "thread", "thread"]),
        (Plain, "coroutine", ["thread", "thread", "main", "thread"]),
        (Plain, "numbers", ["thread", "thread", "thread", "thread", "thread"]),
        (Plain, "later", ["thread", "thread", "main", "thread"]),
        (AsyncHooks, "plain", ["thread", "main", "thread", "main"]),
        (AsyncHooks, "coroutine", ["thread", "main", "main", "main"]),
        (AsyncHooks, "numbers", ["thread", "main", "thread", "thread", "main"]),
        (AsyncHooks, "later", ["thread", "main", "main", "main"]),
    ],
)
async def test_plain_parts_run_in_a_thread_and_coroutines_on_the_loop(
    adapter: type, name: str, expected: list[str]
) -> None:
    """Build, initialize, tool and clean-up run each where its kind belongs, a generator's end included."""
    assert await places(adapter, name) == expected


@pytest.mark.parametrize("adapter", [Plain, AsyncHooks])
@pytest.mark.parametrize("name", ["plain", "coroutine", "numbers", "later"])
async def test_a_thread_sensitive_request_stays_on_the_main_thread(adapter: type, name: str) -> None:
    """All of a request marked so runs on the main thread, whichever parts of it are plain."""
    assert set(await places(adapter, name, on_main_thread=True)) == {"main"}


async def test_a_plain_request_stays_on_one_thread() -> None:
    """Where all is plain, one thread does all of it, so that thread-bound things work."""

    class Bound(BaseAdapter):
        def __init__(self) -> None:
            self.threads = {threading.get_ident()}

        def initialize(self) -> None:
            self.threads.add(threading.get_ident())

        @tool
        def paint(self) -> int:
            return len(self.threads | {threading.get_ident()})

    with hosted(Bound, threads=4) as host:
        results = await asyncio.gather(*(host.run(request("paint")) for _ in range(8)))
    assert [outcome.result for outcome in results] == [1] * 8


async def test_plain_tools_run_side_by_side() -> None:
    """With more than one thread, plain tools of several requests overlap."""
    barrier = threading.Barrier(2, timeout=10)

    class Meeting(BaseAdapter):
        @tool
        def meet(self) -> bool:
            barrier.wait()
            return True

    with hosted(Meeting, threads=2) as host:
        results = await asyncio.gather(*(host.run(request("meet")) for _ in range(2)))
    assert [outcome.result for outcome in results] == [True, True]


async def test_a_plain_tool_does_not_hold_up_the_loop() -> None:
    """While a plain tool blocks its thread, coroutine tools go on."""
    release = threading.Event()

    class Blocking(BaseAdapter):
        @tool
        def block(self) -> bool:
            return release.wait(10)

        @tool
        async def open(self) -> None:
            release.set()

    with hosted(Blocking) as host:
        blocked = asyncio.ensure_future(host.run(request("block")))
        await host.run(request("open"))
        assert (await blocked).result


@pytest.mark.parametrize("adapter", [Plain, AsyncHooks])
@pytest.mark.parametrize("name", ["whose", "whose_async"])
async def test_context_variables_reach_the_tool(adapter: type, name: str) -> None:
    """What is set around a request is seen in its thread, and what the tool sets stays inside."""

    class Asking(adapter):  # type: ignore[misc, valid-type]
        @tool
        def whose(self) -> str:
            return caller.get()

        @tool
        async def whose_async(self) -> str:
            return caller.get()

    with hosted(Asking) as host:
        caller.set("alice")
        assert (await host.run(request(name))).result == "alice"
