"""Anonymous callers cannot acquire all of a pool from known ones."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakepit_otel import Client, Snakepit
from snakepit_otel.errors import PoolSaturated
from snakepit_otel.pool.dispatch.anonymous_share import AnonymousShare, Permit
from snakepit_otel.testing import FakeClock
from tests.pool.adapters import Patient, lines
from tests.waiting import until


def share(clock: FakeClock, slots: int = 3, limit: int = 10) -> AnonymousShare:
    """Return the share of a pool with so many slots."""
    return AnonymousShare(limit, clock.monotonic, lambda: slots)


async def enter(of: AnonymousShare) -> Permit:
    """Acquire a permit, or wait for one."""
    return of.acquire() or await of.queue.enter(
        tool="x", service_time=0.0, timeout=60.0, capacity=of.limit, busy_for=0.0
    )


def test_one_slot_is_left_while_known_callers_are_there() -> None:
    """All but one slot may be taken, for a minute after a known caller's request; all of them otherwise."""
    clock = FakeClock()
    of = share(clock)
    assert of.limit == 3
    of.on_known_caller()
    assert of.limit == 2
    clock.advance(59.5)
    assert of.limit == 2
    clock.advance(0.5)
    assert of.limit == 3


def test_a_pool_of_one_place() -> None:
    """Where there is one slot, or none as yet, anonymous callers may have it."""
    clock = FakeClock()
    for slots in (0, 1):
        of = share(clock, slots)
        of.on_known_caller()
        assert of.limit == 1


async def test_waiting_requests_are_served_in_order() -> None:
    """A request that finds no permit waits for the first that is released."""
    clock = FakeClock()
    of = share(clock, 2)
    of.on_known_caller()
    first = await enter(of)
    order: list[int] = []

    async def wait(number: int) -> Permit:
        permit = await enter(of)
        order.append(number)
        return permit

    waiting = [asyncio.create_task(wait(number)) for number in range(3)]
    await asyncio.sleep(0)
    assert len(of.queue) == 3
    before = first
    for number, task in enumerate(waiting):
        before.release()
        before = await task
        assert order == list(range(number + 1))
    before.release()
    assert of.acquire() is not None


async def test_a_request_that_runs_on_keeps_its_permit() -> None:
    """A permit is free again only when its request has ended on its worker, although its caller has gone."""
    clock = FakeClock()
    of = share(clock, 1)
    permit = await enter(of)
    permit.retain()
    permit.release()
    assert of.acquire() is None
    permit.release()
    assert of.acquire() is not None


async def test_the_queue_is_bounded() -> None:
    """As many wait as may wait in the pool's own queue; the next is refused at once."""
    clock = FakeClock()
    of = share(clock, 1, limit=1)
    await enter(of)
    waiting = asyncio.create_task(enter(of))
    await asyncio.sleep(0)
    with pytest.raises(PoolSaturated):
        await enter(of)
    waiting.cancel()
    await asyncio.wait([waiting])
    assert len(of.queue) == 0


@given(st.integers(1, 4), st.lists(st.booleans(), max_size=40))
def test_never_more_than_the_share(slots: int, steps: list[bool]) -> None:
    """Whatever is acquired and released, no more than the share is taken, and released permits can be acquired."""
    of = share(FakeClock(), slots)
    of.on_known_caller()
    held: list[Permit] = []
    for acquire in steps:
        if acquire:
            permit = of.acquire()
            assert (permit is None) == (len(held) >= of.limit)
            held += [permit] if permit else []
        elif held:
            held.pop().release()
    assert len(held) <= of.limit


async def test_a_known_caller_finds_a_worker(tmp_path: Path) -> None:
    """While anonymous callers would keep both workers busy, a known one is served; they get all when it has gone."""
    go, started = tmp_path / "go", tmp_path / "started"
    server = {"listen": "127.0.0.1:0"}
    async with Snakepit(Patient, workers=2, server=server) as pit, Client(pit.address) as stranger:
        await pit.execute("pid")
        arguments = {"path": str(go), "started": str(started)}
        calls = [asyncio.create_task(stranger.execute("wait_for", arguments)) for _ in range(3)]
        await until(lambda: pit.pool.waiting == 2)
        await until(lambda: len(lines(started)) == 1)
        assert await pit.execute("pid")
        assert len(lines(started)) == 1
        go.touch()
        await asyncio.gather(*calls)
        assert pit.pool.waiting == 0


async def test_an_abandoned_request_keeps_its_permit(tmp_path: Path) -> None:
    """A request whose anonymous caller has gone has its permit until it has ended on its worker."""
    go, started = tmp_path / "go", tmp_path / "started"
    server = {"listen": "127.0.0.1:0"}
    pool = {"cancel_grace": 60_000}
    async with Snakepit(Patient, workers=2, pool=pool, server=server) as pit, Client(pit.address) as stranger:
        await pit.execute("pid")
        arguments = {"path": str(go), "started": str(started)}
        call = asyncio.create_task(stranger.execute("wait_for", arguments))
        await until(lambda: lines(started))
        call.cancel()
        await asyncio.wait([call])
        waiting = asyncio.create_task(stranger.execute("pid"))
        await until(lambda: pit.pool.waiting == 1)
        assert await pit.execute("pid")
        assert not waiting.done()
        go.touch()
        assert await waiting
