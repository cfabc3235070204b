"""Two authorities that share one session store, of which one is killed, and the store's own account at the end."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from tests.dashboards.proof.deployment import Deployment
from tests.dashboards.proof.pace import EXPORT_SECONDS, SCRAPE_SECONDS

SHARING = "sharing"
"""The service that both are."""
KEPT = 3
"""Sessions that are there to the end."""
_SELDOM = 8
"""Rounds from one request at the other to the next: not a fifth of all are to find another worker than the last."""
_EVERY = 0.3
_SHORT = 1.0
_TIME_TO_END = 60.0
_BEFORE_THE_KILL = 20
"""Rounds of requests."""


@dataclass(frozen=True)
class Account:
    """The ledger as the store has it, at rest, and when that was."""

    at: float
    """Seconds since 1970."""
    store: str
    live: int
    created: int
    deleted: int
    pruned: int


def two(folder: Path, otlp: str) -> tuple[Deployment, Deployment]:
    """Return two authorities over one file, which are instances of one service."""
    settings = {
        "adapter": "tests.dashboards.proof.adapter:Good",
        "pool": {"size": 1},
        "session_store": {
            "backend": "snakepit_otel.sessions.backends.sqlite:SqliteBackend",
            "backend_options": {"path": str(folder / f"{SHARING}.db")},
            "max_sessions": 1_000,
            "cleanup_interval": 1_000,
        },
    }
    of_one_service = {"OTEL_SERVICE_NAME": SHARING}
    one, other = (Deployment(f"{SHARING}-{number}", folder, settings, of_one_service, otlp) for number in (1, 2))
    return one, other


async def live(one: Deployment, other: Deployment, over: asyncio.Event) -> Account:
    """Use sessions of the one at the other, kill one meanwhile, and return the account when all is at rest."""
    for number in range(KEPT):
        await one.client.execute("add", {"amount": 1}, session_id=f"kept-{number}")
    restarted: asyncio.Task[Any] | None = None
    for number in count():
        if over.is_set():
            break
        if number == _BEFORE_THE_KILL:
            await other.kill()
            restarted = asyncio.create_task(other.start())
        both = restarted is None or restarted.done()
        await _round(one, other if both else one, number)
        await asyncio.sleep(_EVERY)
    if restarted is not None:
        await restarted
    return await _at_rest(one)


async def _round(one: Deployment, other: Deployment, number: int) -> None:
    """Begin two sessions at the one, have the other see one of them, and end it; the second is forgotten."""
    guest = f"guest-{number}"
    for total in (1, 2):
        assert await one.client.execute("add", {"amount": 1}, session_id=guest) == total
    if number % _SELDOM:
        assert await other.client.heartbeat(guest)
    else:
        assert await other.client.execute("add", {"amount": 1}, session_id=guest) == 3
    await other.client.delete_session(guest)
    await one.client.create_session(f"forgotten-{number}", ttl=_SHORT)


async def _at_rest(deployment: Deployment) -> Account:
    """Wait until what was forgotten has ended, and until Prometheus has all of it."""
    async with asyncio.timeout(_TIME_TO_END):
        while (await deployment.client.stats()).live != KEPT:
            await asyncio.sleep(_EVERY)
    # Two exports of each authority, since the first has the ledger that was fetched for it, and then a scrape.
    await asyncio.sleep(3 * EXPORT_SECONDS + 2 * SCRAPE_SECONDS)
    stats = await deployment.client.stats()
    return Account(time.time(), stats.store, stats.live, stats.created, stats.deleted, stats.pruned_ttl)
