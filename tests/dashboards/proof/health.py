"""A healthy deployment: a few requests of every kind."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from itertools import count, cycle

import numpy as np

from tests.dashboards.proof.deployment import Deployment

_EVERY = 0.1
"""Seconds from one request to the next."""
_STANDING = 2
"""Sessions that there are all the time; few, since each loses its worker when that is replaced, and not a fifth of all
requests are to be those that do."""
_SHORT = 3.0
"""Seconds that sessions live that nobody ends."""
_CROWD = 6
"""Requests that come at once, for two workers."""
_ARRAY = np.arange(20_000.0)


async def live(deployment: Deployment, until_told: asyncio.Event) -> None:
    """Make requests until told to end; raise whatever one of them does."""
    client, numbers = deployment.client, count()

    async def in_a_standing_session() -> None:
        session = f"standing-{next(numbers) % _STANDING}"
        await client.execute("add", {"amount": 1}, session_id=session)

    async def in_a_new_session() -> None:
        session = f"guest-{next(numbers)}"
        await client.execute("add", {"amount": 1}, session_id=session)
        await client.delete_session(session)

    async def in_a_session_that_is_forgotten() -> None:
        session = f"forgotten-{next(numbers)}"
        await client.create_session(session, ttl=_SHORT)
        await client.execute("add", {"amount": 1}, session_id=session)

    async def with_an_array() -> None:
        assert len(await client.execute("double", {"array": _ARRAY})) == len(_ARRAY)

    async def as_a_stream() -> None:
        assert [number async for number in client.stream("numbers", {"to": 3})] == [1, 2, 3]

    async def all_at_once() -> None:
        await asyncio.gather(*(client.execute("work", {"seconds": 0.05}) for _ in range(_CROWD)))

    usual: list[Callable[[], Awaitable[None]]] = [
        in_a_standing_session,
        with_an_array,
        in_a_standing_session,
        in_a_new_session,
        in_a_standing_session,
        as_a_stream,
        in_a_standing_session,
        in_a_session_that_is_forgotten,
        in_a_standing_session,
        all_at_once,
    ]
    # As for a new release; requests go on meanwhile.
    replacing = asyncio.create_task(client.restart_workers())
    for request in cycle(usual):
        if until_told.is_set():
            break
        await request()
        await asyncio.sleep(_EVERY)
    await replacing
