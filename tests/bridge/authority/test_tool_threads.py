"""The running of the authority's own tools: the line, the deadline, and those that are stuck."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from snakepit_otel.bridge.authority.settings import AuthoritySettings
from snakepit_otel.bridge.authority.state_tools import STATE_TOOLS
from snakepit_otel.bridge.authority.tool_registry import AuthorityContext, ToolRegistry
from snakepit_otel.bridge.authority.tool_threads import AuthorityThreads
from snakepit_otel.errors import DeadlineExceeded, PoolSaturated, QueueTimeout
from snakepit_otel.sessions import SessionStore
from tests.waiting import until


class Stuck:
    """A function that runs until it is let go."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.begun = 0

    def __call__(self) -> int:
        """Wait."""
        self.begun += 1
        self.go.wait()
        return 1


@pytest.fixture
def stuck() -> Iterator[Stuck]:
    """Return such a function, let go at the end."""
    function = Stuck()
    yield function
    function.go.set()


def threads(**settings: int) -> AuthorityThreads:
    """Return threads with these settings."""
    made = AuthorityThreads(AuthoritySettings(**settings))
    made.open()
    return made


def soon(seconds: float = 0.02) -> float:
    """Return a deadline."""
    return time.monotonic() + seconds


async def test_a_stuck_tool_takes_its_share_and_no_more(stuck: Stuck) -> None:
    """Calls of one tool that go on after their time leave threads for others, and get none beyond their share."""
    mine = threads(tool_threads=4, tool_threads_each=2)
    calls = [mine.run("stuck", stuck, soon()) for _ in range(40)]
    ends = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(end) for end in ends} == {DeadlineExceeded}
    assert (stuck.begun, mine.active, mine.abandoned) == (2, 2, 2)
    assert await mine.run("quick", lambda: "quick", soon(5)) == "quick"


async def test_abandoned_threads_are_replaced_up_to_the_limit(stuck: Stuck) -> None:
    """Where every tool is stuck, others still run, until as many threads are abandoned as may be replaced."""
    mine = threads(tool_threads=1, tool_threads_each=1, tool_threads_abandoned=2)
    for number in range(3):
        with pytest.raises(DeadlineExceeded, match="did not end in time"):
            await mine.run(f"stuck-{number}", stuck, soon())
    with pytest.raises(DeadlineExceeded, match="did not run"):
        await mine.run("quick", lambda: 1, soon())
    stuck.go.set()
    assert await mine.run("quick", lambda: 1, soon(5)) == 1
    await until(lambda: mine.active == 0)
    assert mine.abandoned == 0


async def test_the_line_is_bounded_for_each_tool(stuck: Stuck) -> None:
    """Beyond its length calls of a tool are refused at once, and those of others are not."""
    mine = threads(tool_threads=2, tool_threads_each=1, max_queue_size=1)
    first = asyncio.ensure_future(mine.run("a", stuck, None))
    second = asyncio.ensure_future(mine.run("a", lambda: 2, None))
    await until(lambda: stuck.begun == 1)
    with pytest.raises(PoolSaturated, match="did not run"):
        await mine.run("a", lambda: 3, None)
    assert await mine.run("b", lambda: "b", None) == "b"
    stuck.go.set()
    assert await asyncio.gather(first, second) == [1, 2]


async def test_waiting_has_its_own_limit(stuck: Stuck) -> None:
    """A call that gets no thread within `queue_timeout` has not run, and will not."""
    mine = threads(tool_threads=1, tool_threads_each=1, queue_timeout=20)
    first = asyncio.ensure_future(mine.run("a", stuck, None))
    ran: list[int] = []
    await until(lambda: stuck.begun == 1)
    with pytest.raises(QueueTimeout, match="did not run"):
        await mine.run("a", lambda: ran.append(1), None)
    stuck.go.set()
    assert await first == 1
    assert await mine.run("b", lambda: 2, None) == 2
    assert not ran
    assert mine.abandoned == 0


async def test_who_leaves_abandons_the_call(stuck: Stuck) -> None:
    """A caller that is cancelled leaves the thread, which is counted until it ends; in line, nothing runs."""
    mine = threads(tool_threads=1, tool_threads_each=1)
    running, waiting = (asyncio.ensure_future(mine.run("a", stuck, None)) for _ in range(2))
    await until(lambda: stuck.begun == 1)
    for call in (waiting, running):
        call.cancel()
    await asyncio.wait([waiting, running])
    assert mine.abandoned == 1
    async with asyncio.timeout(10):
        await mine.drain(60)
    stuck.go.set()
    await until(lambda: not mine.abandoned)
    assert stuck.begun == 1


async def test_without_a_deadline_there_is_one(stuck: Stuck) -> None:
    """`tool_timeout` ends the waiting for a call that sets no limit."""
    mine = threads(tool_timeout=20)
    with pytest.raises(DeadlineExceeded):
        await mine.run("a", stuck, None)


async def test_a_coroutine_that_swallows_its_cancellation_is_left() -> None:
    """Its caller is answered at its deadline, and it is counted until it ends."""
    mine, go = threads(max_queue_size=1), asyncio.Event()

    async def swallows() -> None:
        while not go.is_set():
            try:
                await go.wait()
            except asyncio.CancelledError:
                continue

    with pytest.raises(DeadlineExceeded):
        await mine.run_coroutine("a", swallows(), soon())
    assert mine.abandoned == 1
    with pytest.raises(PoolSaturated):
        await mine.run_coroutine("a", swallows(), soon())
    go.set()
    await until(lambda: not mine.abandoned)


async def test_state_tools_share_no_limit(stuck: Stuck) -> None:
    """With every thread and every place taken by tools that are stuck, session state is read and written."""
    sessions = SessionStore()
    await sessions.create("s")

    def waits(context: AuthorityContext) -> Any:
        return stuck()

    tools = ToolRegistry((*STATE_TOOLS, waits), AuthoritySettings(tool_threads=1, tool_threads_each=1))
    context = AuthorityContext("s", sessions)
    call = asyncio.ensure_future(tools.run(tools.exposed("waits"), context, {}))
    await until(lambda: stuck.begun == 1)
    version = await tools.run(tools.exposed("set_session_state"), context, {"key": "k", "value": 1})
    assert version == 1
    assert await tools.run(tools.exposed("get_session_state"), context, {"key": "k"}) == 1
    stuck.go.set()
    assert await call == 1


def test_a_stuck_thread_does_not_hold_up_the_end_of_the_loop(stuck: Stuck) -> None:
    """`asyncio.run` returns while a tool goes on; what comes in another loop finds the counts as they are."""
    mine = threads(tool_threads=2, tool_threads_each=1)

    async def leave() -> None:
        with pytest.raises(DeadlineExceeded):
            await mine.run("a", stuck, soon())

    began = time.monotonic()
    asyncio.run(leave())
    assert time.monotonic() - began < 5
    assert mine.abandoned == 1
    stuck.go.set()

    async def again() -> int:
        await until(lambda: not mine.abandoned)
        result: int = await mine.run("a", lambda: 2, None)
        return result

    assert asyncio.run(again()) == 2


async def test_where_no_thread_can_be_started_calls_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's own limit is an error of the call, and leaves nothing counted."""
    mine = threads()

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises(PoolSaturated, match="can't start new thread"):
            await mine.run("a", lambda: 1, None)
    assert mine.active == 0
    assert await mine.run("a", lambda: 1, None) == 1
