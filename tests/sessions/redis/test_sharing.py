"""Several authorities over one Redis, and several shards in it."""

from __future__ import annotations

import asyncio
import random

import pytest

from snakepit_otel.errors import ConfigurationError, SessionQuotaExceeded
from snakepit_otel.sessions import Limits, Overflow, Stats
from snakepit_otel.sessions.backends import NewSession
from snakepit_otel.sessions.backends.redis import RedisBackend
from tests.sessions.redis.stores import Stores


@pytest.mark.parametrize("overflow", list(Overflow))
async def test_the_quota_holds_and_ends_are_reported_once_under_contention(stores: Stores, overflow: Overflow) -> None:
    """Four authorities create, use, delete and sweep at once; what they were given is what the ledger has."""
    limits = Limits(max_sessions=40, overflow=overflow)
    first = stores.backend(limits)
    backends = [first, *(stores.backend(limits, namespace=first.options.namespace) for _ in range(3))]
    for backend in backends:
        await backend.open()
    ended: list[tuple[str, int]] = []
    live: list[int] = []

    async def use(backend: RedisBackend, seed: int) -> None:
        chance = random.Random(seed)
        for number in range(60):
            session_id = f"{seed}-{number}"
            try:
                created = await backend.create(NewSession(session_id, chance.choice((0.005, 60.0)), {}))
            except SessionQuotaExceeded:
                continue
            finally:
                live.append(backend.last_stats.live)
            ended.extend((one.session_id, one.incarnation) for one in created.ended)
            if chance.random() < 0.4 and (deleted := (await backend.delete(session_id)).ended):
                ended.append((deleted.session_id, deleted.incarnation))
            if chance.random() < 0.1:
                ended.extend((one.session_id, one.incarnation) for one in (await backend.prune(10)).ended)

    await asyncio.gather(
        *(use(backend, 10 * number + task) for number, backend in enumerate(backends) for task in range(4))
    )
    stats = await first.stats()
    assert max(live) <= 40
    assert len(ended) == len(set(ended)) == stats.deleted + stats.pruned_ttl + stats.pruned_overflow
    assert stats.created - len(ended) == stats.live == stores.client.hlen(f"{{{first.options.namespace}:0}}:meta")
    for backend in backends:
        await backend.close()


async def test_shards_have_their_shares_and_lists_merge_them(stores: Stores) -> None:
    """The quota of all is exact, pages are in order of id, and nothing is left when all is deleted."""
    backend = stores.backend(Limits(max_sessions=30), shards=3)
    await backend.open()
    made = []
    for number in range(60):
        try:
            await backend.create(NewSession(f"s{number:02}", 60, {}, owner="alice"))
        except SessionQuotaExceeded:
            continue
        made.append(f"s{number:02}")
    assert [session.id for session in await backend.page(None, 100)] == made
    assert [session.id for session in await backend.page("s05", 4)] == [name for name in made if name > "s05"][:4]
    assert [session.id for session in await backend.page(None, 5, owner="alice")] == made[:5]
    assert sorted([session.id async for batch in backend.scan() for session in batch]) == made
    assert (await backend.stats()) == Stats(created=30, rejected=30, live=30, memory_bytes=90)
    assert (await backend.suspects()).by_owner == "30 of alice"
    for name in made:
        await backend.delete(name)
    assert (await backend.stats())[1:8] == (30, 0, 0, 30, 0, 0, 0)
    await backend.close()


async def test_the_number_of_shards_and_the_layout_are_the_stores(stores: Stores) -> None:
    """Authorities that disagree are refused, by the setting's name and both values; limits can be changed."""
    first = stores.backend(Limits(max_sessions=30))
    namespace = first.options.namespace
    assert await first.stored_limits() is None
    await first.open()
    with pytest.raises(ConfigurationError, match=r"session_store.shards is 2 here, and 1 in"):
        await stores.backend(Limits(max_sessions=30), namespace=namespace, shards=2).stored_limits()
    other = stores.backend(Limits(max_sessions=31), namespace=namespace)
    with pytest.raises(ConfigurationError, match=r"max_sessions is 31 here, and 30 in"):
        await other.open()
    await other.close()
    await other.set_limits()
    assert await first.stored_limits() == Limits(max_sessions=31)
    stores.client.hset(f"{{{namespace}:0}}:stat", "layout", "0")
    with pytest.raises(ConfigurationError, match="has layout '0'"):
        await other.stored_limits()
    await first.close()


def test_quotas_that_shards_cannot_keep_are_refused(stores: Stores) -> None:
    """Fewer sessions than shards, and a quota of owners."""
    with pytest.raises(ConfigurationError, match="shards is 4, and max_sessions only 3"):
        stores.backend(Limits(max_sessions=3), shards=4)
    with pytest.raises(ConfigurationError, match="max_sessions_per_owner needs shards = 1"):
        stores.backend(Limits(max_sessions_per_owner=3), shards=2)


async def test_a_store_that_was_emptied_begins_anew(stores: Stores) -> None:
    """Authorities that run go on, and sessions do not get the incarnations of those before."""
    backend = stores.backend()
    await backend.open()
    before = (await backend.create(NewSession("a", 60, {}))).session
    for key in stores.client.keys(f"{{{backend.options.namespace}:*"):
        stores.client.delete(key)
    created = await backend.create(NewSession("a", 60, {}))
    assert (created.new, created.session.incarnation == before.incarnation) == (True, False)
    assert (await backend.stats()).live == 1
    await backend.close()
