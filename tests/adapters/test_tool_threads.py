"""Threads for plain code, and how its results come back."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Iterator

import pytest

from snakepit_otel.adapters._tool_threads import ToolThreads
from tests.waiting import until

who = contextvars.ContextVar("who", default="nobody")


@pytest.fixture
def threads() -> Iterator[ToolThreads]:
    """One thread."""
    with ToolThreads() as made:
        yield made


def fail() -> None:
    """Raise."""
    raise KeyError("no")


async def test_every_result_goes_to_its_caller(threads: ToolThreads) -> None:
    """Of many functions at once, each caller gets its own result, in the order they were asked for."""
    order: list[int] = []

    def work(number: int) -> int:
        order.append(number)
        return number * number

    results = await asyncio.gather(*(threads.run(lambda number=number: work(number)) for number in range(200)))
    assert results == [number * number for number in range(200)]
    assert order == list(range(200))


async def test_errors_go_to_their_caller_and_the_thread_goes_on(threads: ToolThreads) -> None:
    """What a function raises is raised where it is awaited; the next one runs."""
    with pytest.raises(KeyError):
        await threads.run(fail)
    with pytest.raises(KeyError):
        await threads.run_to_its_end(fail)
    assert await threads.run(lambda: 1) == 1


async def test_the_callers_context_goes_along(threads: ToolThreads) -> None:
    """Context variables have the caller's values, and what the function sets stays in there."""
    who.set("caller")

    def look() -> str:
        seen = who.get()
        who.set("function")
        return seen

    assert await threads.run(look) == "caller"
    assert who.get() == "caller"


async def test_cancelled_before_its_turn_it_never_runs(threads: ToolThreads) -> None:
    """A function that waits for the thread is called off by cancelling."""
    go, ran = threading.Event(), []
    first = asyncio.ensure_future(threads.run(go.wait))
    waiting = [asyncio.ensure_future(run(lambda: ran.append(1))) for run in (threads.run, threads.run_to_its_end)]
    await asyncio.sleep(0)
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)
    go.set()
    await first
    assert await threads.run(lambda: "next") == "next"
    assert ran == []


async def test_cancelled_while_it_runs_its_end_is_waited_for_where_asked(threads: ToolThreads) -> None:
    """`run_to_its_end` is cancelled only once the function is done; `run` at once."""
    started, go, ended = threading.Event(), threading.Event(), []

    def work() -> None:
        started.set()
        go.wait()
        ended.append(True)

    patient = asyncio.ensure_future(threads.run_to_its_end(work))
    await until(started.is_set)
    patient.cancel()
    for _ in range(5):
        await asyncio.sleep(0)
    assert not patient.done()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await patient
    assert ended == [True]
    started.clear()
    go.clear()
    hasty = asyncio.ensure_future(threads.run(work))
    await until(started.is_set)
    hasty.cancel()
    with pytest.raises(asyncio.CancelledError):
        await hasty
    go.set()
    assert await threads.run(lambda: len(ended)) == 2


async def test_no_more_threads_than_allowed() -> None:
    """With two threads, two functions run side by side, and a third waits."""
    with ToolThreads(2) as two:
        meet, names = threading.Barrier(2), set()

        def work() -> None:
            meet.wait(10)
            names.add(threading.current_thread().name)

        await asyncio.gather(*(two.run(work) for _ in range(6)))
    assert len(names) == 2


async def test_closing_calls_off_what_has_not_begun(threads: ToolThreads) -> None:
    """What runs goes on to its end; what waits is cancelled."""
    started, go = threading.Event(), threading.Event()

    def work() -> str:
        started.set()
        go.wait()
        return "done"

    running = asyncio.ensure_future(threads.run(work))
    await until(started.is_set)
    waiting = asyncio.ensure_future(threads.run(work))
    await asyncio.sleep(0)
    threads.close()
    go.set()
    assert await running == "done"
    with pytest.raises(asyncio.CancelledError):
        await waiting


@pytest.mark.parametrize("patient", [False, True])
async def test_who_cancels_is_told_of_the_end(threads: ToolThreads, patient: bool) -> None:
    """Cancelling what runs gives a future that is done with the function, whatever it raises, and not before."""
    started, go = threading.Event(), threading.Event()
    rests: list[asyncio.Future[object]] = []

    def work() -> None:
        started.set()
        go.wait()
        fail()

    run = threads.run_to_its_end if patient else threads.run
    running = asyncio.ensure_future(run(work, rests.append))
    await until(started.is_set)
    running.cancel()
    rest = await until(lambda: rests and rests[0])
    assert not rest.done()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await running
    await until(rest.done)
    assert len(rests) == 1


@pytest.mark.parametrize("patient", [False, True])
async def test_there_is_nothing_to_tell_of_what_never_ran_or_has_ended(threads: ToolThreads, patient: bool) -> None:
    """Nobody is told of an end where the function was called off, or had ended before it was cancelled."""
    started, go = threading.Event(), threading.Event()
    rests: list[asyncio.Future[object]] = []
    run = threads.run_to_its_end if patient else threads.run

    def work() -> None:
        started.set()
        go.wait()

    ending = asyncio.ensure_future(run(work, rests.append))
    await until(started.is_set)
    never = asyncio.ensure_future(run(fail, rests.append))
    await asyncio.sleep(0)
    never.cancel()
    await asyncio.wait([never])
    go.set()
    assert await ending is None
    assert rests == []
