"""Cancellation of a tool whose caller has gone, and the time that it is given."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from time import monotonic
from typing import Any, ClassVar

import pytest

from snakepit_otel.adapters import BaseAdapter, RequestAbandoned, SessionContext, tool
from snakepit_otel.adapters._lifecycle import AdapterHost
from snakepit_otel.adapters._request import Request
from tests.adapters.hosting import Unreachable, hosted, request
from tests.waiting import until


class Watching(BaseAdapter):
    """Plain tools that look whether somebody still waits."""

    started: threading.Event
    seen: ClassVar[list[Any]] = []

    def cleanup(self) -> None:
        self.seen.append("cleanup")

    @tool
    def watch(self) -> None:
        self.started.set()
        while not self.session_context.cancelled:
            pass
        self.seen.append("noticed")

    @tool
    def give_up(self) -> None:
        self.started.set()
        while True:
            try:
                self.session_context.raise_if_cancelled()
            except Exception:
                self.seen.append("swallowed")

    @tool
    def think(self) -> Iterator[int]:
        self.give_up()
        yield 1

    @tool
    async def aside(self) -> None:
        await asyncio.to_thread(self.watch)

    @tool
    async def endless(self) -> AsyncIterator[int]:
        try:
            while True:
                yield 1
        finally:
            self.seen.append(self.session_context.cancelled)


class WatchingAsync(Watching):
    async def initialize(self) -> None: ...


class TakesAny:
    """Takes every call, the guide's way."""

    def execute_tool(self, tool_name: str, args: dict[str, Any], context: SessionContext) -> str:
        Watching.started.set()
        while not context.cancelled:
            pass
        Watching.seen.append("noticed")
        return tool_name


@pytest.fixture(autouse=True)
def begin_anew() -> None:
    """Begin with nothing seen."""
    Watching.seen.clear()
    Watching.started = threading.Event()


async def leave(host: AdapterHost, job: Request, *, stream: bool = False) -> None:
    """Begin a request, cancel it once its tool has started, and see that it ends so."""

    async def take(chunk: Any) -> None:
        Watching.started.set()
        await asyncio.Event().wait()

    running = asyncio.ensure_future(host.stream(job, take) if stream else host.run(job))
    await until(Watching.started.is_set)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


@pytest.mark.parametrize("adapter", [Watching, WatchingAsync])
@pytest.mark.parametrize("name", ["watch", "give_up", "think"])
async def test_a_plain_tool_learns_that_its_caller_has_gone(adapter: type, name: str) -> None:
    """A tool in a thread sees at once that it was cancelled, and can end by that; its clean-up runs."""
    with hosted(adapter) as host:
        await leave(host, request(name), stream=name == "think")
    assert Watching.seen == (["noticed", "cleanup"] if name == "watch" else ["cleanup"])


@pytest.mark.parametrize("stream", [False, True])
async def test_an_adapter_of_the_guides_kind_learns_it_too(stream: bool) -> None:
    """`execute_tool` sees it on the context that it is given."""
    with hosted(TakesAny) as host:
        await leave(host, request("anything"), stream=stream)
    assert Watching.seen == ["noticed"]


async def test_what_a_coroutine_has_started_learns_it() -> None:
    """A thread that a coroutine tool has started itself sees that the request was cancelled."""
    with hosted(Watching) as host:
        await leave(host, request("aside"))
        await until(lambda: "noticed" in Watching.seen)


async def test_an_async_generator_learns_it_in_its_end() -> None:
    """As its generator is closed because the reader has gone, a tool sees why."""
    with hosted(Watching) as host:
        await leave(host, request("endless"), stream=True)
    assert Watching.seen == [True, "cleanup"]


@pytest.mark.parametrize("on_main_thread", [False, True])
async def test_a_deadline_that_passes_is_seen_everywhere(on_main_thread: bool) -> None:
    """A tool sees that its time is up without being told, on the main thread too."""
    with hosted(Watching) as host:
        context = SessionContext(None, Unreachable(), deadline=monotonic() + 0.02)
        await host.run(Request("watch", {}, context, on_main_thread))
    assert Watching.seen == ["noticed", "cleanup"]


def test_the_time_that_remains() -> None:
    """It is told in seconds, never below 0, and not at all without a deadline."""
    assert SessionContext(None, Unreachable()).time_remaining() is None
    left = SessionContext(None, Unreachable(), deadline=monotonic() + 60).time_remaining()
    assert left is not None
    assert 50 < left <= 60
    late = SessionContext(None, Unreachable(), deadline=monotonic() - 1)
    assert late.time_remaining() == 0
    assert late.cancelled


def test_nobody_is_told_before_the_time() -> None:
    """While somebody waits and there is time, a tool may go on."""
    for context in (
        SessionContext(None, Unreachable()),
        SessionContext(None, Unreachable(), deadline=monotonic() + 60),
    ):
        assert not context.cancelled
        context.raise_if_cancelled()
        context.abandon()
        assert context.cancelled
        with pytest.raises(RequestAbandoned):
            context.raise_if_cancelled()


async def test_what_goes_on_is_known() -> None:
    """A request that was left tells when its thread is done; one that nobody left, or that never ran, has no rest."""
    with hosted(Watching) as host:
        context = SessionContext(None, Unreachable(), deadline=monotonic())
        done = Request("watch", {}, context)
        await host.run(done)
        assert done.orphaned_work is None

        release = threading.Event()
        Watching.started.clear()
        blocked = Request("watch", {}, SessionContext(None, Unreachable()))
        # Held, so that the thread does not see it yet.
        blocked.context.abandon = release.set  # type: ignore[method-assign]
        running = asyncio.ensure_future(host.run(blocked))
        await until(Watching.started.is_set)
        queued = request("watch")
        waiting = asyncio.ensure_future(host.run(queued))
        await asyncio.sleep(0)
        for task in (running, waiting):
            task.cancel()
        await asyncio.wait([running, waiting])
        assert release.is_set()
        assert queued.orphaned_work is None
        assert blocked.orphaned_work is not None
        assert not blocked.orphaned_work.done()
        SessionContext.abandon(blocked.context)
        await asyncio.wait_for(blocked.orphaned_work, 10)
    assert Watching.seen == ["noticed", "cleanup"] * 2
