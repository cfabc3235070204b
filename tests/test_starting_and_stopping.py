"""Starting and stopping, in every order."""

from __future__ import annotations

import asyncio
import os

import pytest

from snakepit_otel import Snakepit
from snakepit_otel.errors import AlreadyStarted, PoolNotStarted
from tests.adapters_for_tests import Useful
from tests.processes import children, workers_of


async def test_one_set_of_workers_whatever_is_asked() -> None:
    """Starts while it starts or runs are refused, stops are taken at any time, and nothing is left at the end."""
    before = set(children(os.getpid()))
    pit = Snakepit(Useful, workers=1)
    await pit.stop()
    await pit.drain()
    with pytest.raises(PoolNotStarted):
        await pit.execute("pid")
    for _ in range(2):  # once stopped, it can be started again
        outcomes = await asyncio.gather(*(pit.start() for _ in range(3)), return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [type(None), AlreadyStarted, AlreadyStarted]
        workers = set(workers_of(os.getpid())) - before
        assert len(workers) == 1
        with pytest.raises(AlreadyStarted, match="running already"):
            async with pit:
                pass
        # The block that was refused did not stop what others use.
        assert await pit.execute("pid") in workers
        await asyncio.gather(*(pit.stop() for _ in range(3)))
        assert set(children(os.getpid())) == before
        with pytest.raises(PoolNotStarted):
            await pit.execute("pid")


async def test_stop_waits_for_a_start() -> None:
    """A stop during a start leaves no worker behind, and a start that is cancelled none either."""
    before = set(children(os.getpid()))
    pit = Snakepit(Useful, workers=1)
    starting = asyncio.ensure_future(pit.start())
    await asyncio.sleep(0)
    await pit.stop()
    assert starting.done()
    assert set(children(os.getpid())) == before
    starting = asyncio.ensure_future(pit.start())
    await asyncio.sleep(0)
    starting.cancel()
    await asyncio.wait([starting])
    assert starting.cancelled()
    assert set(children(os.getpid())) == before


async def test_a_start_that_fails_can_be_repeated() -> None:
    """Nothing is left of it, so the next start is not refused as a second one."""
    pit = Snakepit("tests.broken_adapter:Broken", workers=1)
    for _ in range(2):
        with pytest.raises(Exception, match="broken_adapter"):
            await pit.start()
    await pit.stop()
