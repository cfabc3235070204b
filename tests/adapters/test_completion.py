"""Coroutines of user code, in tasks of their own and in those of their calls."""

from __future__ import annotations

import asyncio
import inspect

import pytest

from snakepit_otel.adapters._cancellation import CancelledError
from snakepit_otel.adapters._completion import run_in_own_task, run_isolated


class Call:
    """A call, whose caller may go."""

    caller_has_gone = False


async def test_a_coroutine_that_never_began_is_closed() -> None:
    """Cancelled before its first step, a coroutine is closed, so that Python warns of none that was never awaited."""

    async def work() -> None:
        raise AssertionError("it must not begin")

    coroutine = work()
    outer = asyncio.create_task(run_isolated(coroutine))
    await asyncio.sleep(0)
    outer.cancel()
    with pytest.raises(asyncio.CancelledError):
        await outer
    assert inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED


def own_task() -> asyncio.Task[object]:
    task = asyncio.current_task()
    assert task is not None
    return task


async def test_a_coroutine_that_cancels_its_task_has_failed_and_its_call_goes_on() -> None:
    """Its cancellation is an error of its own, and what the call awaits next is not cancelled."""

    async def work() -> None:
        own_task().cancel()
        await asyncio.sleep(60)

    async def serve() -> str:
        with pytest.raises(CancelledError):
            await run_in_own_task(work(), Call())
        await asyncio.sleep(0)
        return "answered"

    served = asyncio.create_task(serve())
    assert await served == "answered"
    assert served.cancelling() == 0


async def test_a_cancellation_that_a_coroutine_leaves_behind_reaches_nothing_else() -> None:
    """A coroutine that cancels its task, several times, and awaits nothing since has its result."""

    async def work() -> str:
        own_task().cancel()
        own_task().cancel()
        return "done"

    async def serve() -> str:
        done = await run_in_own_task(work(), Call())
        await asyncio.sleep(0)
        return done

    assert await asyncio.create_task(serve()) == "done"


async def test_a_caller_that_has_gone_cancels_the_coroutine() -> None:
    """The cancellation passes through it, whatever it does meanwhile, and remains one."""
    call = Call()
    seen: list[str] = []

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            seen.append("cleaned up")

    served = asyncio.create_task(run_in_own_task(work(), call))
    await asyncio.sleep(0)
    call.caller_has_gone = True
    served.cancel()
    with pytest.raises(asyncio.CancelledError):
        await served
    assert seen == ["cleaned up"]


async def test_time_limits_in_a_coroutine_work() -> None:
    """A limit of the coroutine's own cancels its task, too, and ends with that."""

    async def work() -> str:
        try:
            async with asyncio.timeout(0):
                await asyncio.sleep(60)
        except TimeoutError:
            return "in time"
        return "never"

    assert await run_in_own_task(work(), Call()) == "in time"


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), RuntimeError("no")])
async def test_whatever_a_coroutine_raises_is_an_error_of_its_request(error: BaseException) -> None:
    """It reaches the code that awaits the coroutine, and ends neither the task nor the loop."""

    async def work() -> None:
        raise error

    async def serve() -> BaseException | None:
        try:
            await run_in_own_task(work(), Call())
        except BaseException as raised:
            return raised
        return None

    assert await asyncio.create_task(serve()) is error
