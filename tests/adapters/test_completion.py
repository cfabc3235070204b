"""Coroutines of user code in tasks of their own."""

from __future__ import annotations

import asyncio
import inspect

import pytest

from snakepit_otel.adapters._completion import run_isolated


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
