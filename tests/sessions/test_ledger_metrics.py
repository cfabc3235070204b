"""Metrics of a ledger that several authorities share, and of their clients."""

from __future__ import annotations

import asyncio
import gc
import itertools
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from snakepit_otel.errors import SessionNotFound, SessionStoreUnavailable
from snakepit_otel.sessions import Limits, MemoryBackend, SessionStore, Stats
from snakepit_otel.sessions.backends._client_counters import ClientCounters
from snakepit_otel.testing import Capture, FakeClock
from tests.sessions.remote_backend import RemoteBackend
from tests.waiting import until

COUNT, CREATED, ENDED = "snakepit.session.count", "snakepit.session.created", "snakepit.session.ended"
STORE = "snakepit.session.store"


_numbers = itertools.count(1)


@pytest.fixture(autouse=True)
def _own_name() -> None:
    """Name this test's store as no other's: those of other tests may still be there, and would be counted as well."""
    Faulty.store_name = f"shared-{next(_numbers)}"


class Faulty(RemoteBackend):
    """A remote backend that does not reach its server while `is_away`, and waits for it while it is `stuck`."""

    store_name = ""
    is_away = False
    stuck: asyncio.Event | None = None

    def __init__(self, server: MemoryBackend) -> None:
        super().__init__(server.limits, server=server)
        self.name = self.store_name

    async def stats(self) -> Stats:
        """Return the ledger, or raise."""
        if self.is_away:
            raise SessionStoreUnavailable("the store is away")
        if self.stuck is not None:
            await self.stuck.wait()
        return await super().stats()


@asynccontextmanager
async def authority(server: MemoryBackend, **settings: Any) -> AsyncIterator[SessionStore]:
    """An authority over the server, started."""
    backend = Faulty(server)
    async with SessionStore(backend=backend, cleanup_interval=3_600_000, **settings) as store:
        yield store


def faulty(store: SessionStore) -> Any:
    """Return the backend of an authority, with what a test sets."""
    return store._backend


def own(points: Iterable[Any]) -> list[Any]:
    """Return the points of this test's store."""
    return [point for point in points if point.attributes.get(STORE) == Faulty.store_name]


async def collected(capture: Capture, metric: str) -> list[float]:
    """Return the values of a metric at a collection, and let what that has asked for be fetched."""
    values = [point.value for point in own(capture.points(metric))]
    for _ in range(10):
        await asyncio.sleep(0)
    return values


async def test_two_authorities_over_one_store_are_one_ledger(capture: Capture) -> None:
    """What each has created is counted once, under the store's name, also by the one that did nothing."""
    server = MemoryBackend(Limits())
    async with authority(server) as one, authority(server) as two:
        await collected(capture, COUNT)
        for number in range(3):
            await one.create(f"a{number}")
        await two.create("b")
        await two.delete("a0")
        assert await collected(capture, COUNT) == [3]
        points = capture.metrics()
        assert [(p.value, p.attributes) for p in own(points[COUNT])] == [(3, {STORE: Faulty.store_name})]
        assert sum(p.value for p in own(points[CREATED])) == 0, "all four were counted at the collection before"


async def test_an_authority_that_begins_later_adds_nothing(capture: Capture) -> None:
    """Its first collection has the ledger as it was at the start, its second what came since."""
    server = MemoryBackend(Limits())
    async with authority(server) as before:
        for number in range(5):
            await before.create(f"a{number}")
        await collected(capture, CREATED)
    await collected(capture, CREATED)
    del before
    gc.collect()
    async with authority(server) as store:
        await store.create("b")
        assert await collected(capture, CREATED) == [0], "a delta of nothing: five, as before"
        assert await collected(capture, CREATED) == [1]


async def test_an_authority_that_has_stopped_reports_once_more(capture: Capture) -> None:
    """The last ledger is not lost, and does not stay."""
    server = MemoryBackend(Limits())
    async with authority(server) as store:
        await collected(capture, COUNT)
        await store.create("a")
    assert await collected(capture, COUNT) == [1]
    assert await collected(capture, COUNT) == []
    async with store:
        await store.create("b")
        await collected(capture, COUNT)
        assert await collected(capture, COUNT) == [2]


async def test_a_ledger_out_of_date_is_not_reported(capture: Capture) -> None:
    """An authority that does not reach the store is silent, and does not hold up what others say of it."""
    server = MemoryBackend(Limits())
    async with authority(server) as one, authority(server) as two:
        for number in range(3):
            await one.create(f"a{number}")
        await collected(capture, COUNT)
        faulty(one).is_away = True
        await collected(capture, COUNT)
        for number in range(3):
            await two.delete(f"a{number}")
        await collected(capture, COUNT)
        assert await collected(capture, COUNT) == [0]
        faulty(two).is_away = True
        await collected(capture, COUNT)
        assert await collected(capture, COUNT) == []
        assert await collected(capture, ENDED) == []
        faulty(two).is_away = False
        await collected(capture, COUNT)
        assert await collected(capture, COUNT) == [0]


async def test_a_ledger_that_does_not_come_is_out_of_date(capture: Capture) -> None:
    """After five seconds without an answer there is no figure; a store that is asked is not asked again meanwhile."""
    clock, server = FakeClock(), MemoryBackend(Limits())
    async with authority(server, clock=clock) as store:
        faulty(store).stuck = asyncio.Event()
        await collected(capture, COUNT)
        clock.advance(4.9)
        assert await collected(capture, COUNT) == [0]
        clock.advance(0.2)
        assert await collected(capture, COUNT) == []
        assert faulty(store).calls.count("stats") <= 1
        faulty(store).stuck.set()
        await collected(capture, COUNT)
        assert await collected(capture, COUNT) == [0]


async def test_a_counter_does_not_fall_with_a_store_that_loses_writes(capture: Capture) -> None:
    """After a fail-over that cost the store its last seconds, counters stand until it has caught up."""
    server = MemoryBackend(Limits())
    async with authority(server) as store:
        await collected(capture, CREATED)
        for number in range(3):
            await store.create(f"a{number}")
        await collected(capture, CREATED)
        faulty(store).server = MemoryBackend(Limits())
        await store.create("b")
        assert await collected(capture, CREATED) == [0]


async def test_events_that_nobody_confirms_are_a_number(capture: Capture) -> None:
    """Those of an authority that died with the reply stay; those that are about to be confirmed are not counted."""
    clock = FakeClock()
    server = MemoryBackend(Limits(), clock)
    async with authority(server, clock=clock) as store:
        for number in range(3):
            await store.create(f"a{number}", ttl=1)
        clock.advance(2)
        await server.prune(2)  # by an authority that dies now
        await store.create("b", ttl=1)
        await store.sweep()
        await collected(capture, COUNT)
        assert await collected(capture, "snakepit.session.unreported") == [2]


async def test_operations_are_measured_with_their_errors(capture: Capture) -> None:
    """Each call of a store elsewhere is counted by method and outcome, under the store's name."""
    async with authority(MemoryBackend(Limits())) as store:
        capture.metrics()
        await store.create("a")
        with pytest.raises(SessionNotFound):
            await store.get("b")
        faulty(store).is_away = True
        await store._metrics.ledger._fetch()
        points = capture.points("snakepit.session.store.operation.duration")
        found = {
            (p.attributes["snakepit.session.store.operation"], p.attributes.get("error.type")): p.count
            for p in own(points)
            if p.count
        }
        assert found == {
            ("create", None): 1,
            ("get", "SessionNotFound"): 1,
            ("stats", None): 1,
            ("stats", "SessionStoreUnavailable"): 1,
        }


def of_client(capture: Capture) -> dict[str, float]:
    """Return the figures of the client of the store `shared-with-a-client`."""
    return {
        name.removeprefix("snakepit.session.store."): point.value
        for name, points in capture.metrics().items()
        for point in points
        if point.attributes.get(STORE) == "shared-with-a-client"
    }


async def test_figures_of_the_client_are_read_where_there_are_any(capture: Capture) -> None:
    """A backend's `client` becomes metrics; what it does not have does not."""
    async with authority(MemoryBackend(Limits())) as store:
        faulty(store).name = "shared-with-a-client"  # by which no other test's store is taken for it
        faulty(store).client = ClientCounters(retries=2, not_durable=1, clock_skew=0.5)
        values = of_client(capture)
        assert (values["retries"], values["not_durable"], values["clock.skew"]) == (2, 1, 0.5)
        assert "connection.usage" not in values
        faulty(store).client = ClientCounters(connections_used=3, connections_limit=32)
        values = of_client(capture)
        assert (values["connection.usage"], values["connection.limit"]) == (3, 32)


async def test_a_store_that_is_away_at_the_start_is_read_later(capture: Capture) -> None:
    """No zeros are reported for a ledger that nobody has seen."""
    server = MemoryBackend(Limits())
    backend = Faulty(server)
    backend.is_away = True
    async with SessionStore(backend=backend) as store:
        assert await collected(capture, COUNT) == []
        backend.is_away = False
        await store.create("a")
        await until(lambda: [point.value for point in own(capture.points(COUNT))] == [1])
