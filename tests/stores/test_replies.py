"""Replies that are lost, late or of cancelled calls, by way of a proxy."""

from __future__ import annotations

import asyncio

import pytest

from snakepit_otel.errors import SessionNotFound, SessionStoreUnavailable
from snakepit_otel.sessions import Limits, Overflow
from snakepit_otel.sessions.backends.base import NewSession
from tests.stores.conftest import backend_at, store_at
from tests.stores.proxy import Proxy
from tests.stores.servers import StoreServer


async def test_what_is_made_again_after_a_lost_reply_is_done_once(proxy: Proxy) -> None:
    """Every third reply is lost with its connection: sessions are new to their creators, and counted once."""
    replies = 0

    def lose(piece: bytes) -> bytes | None:
        nonlocal replies
        replies += 1
        return None if replies % 3 == 0 else piece

    backend = backend_at(proxy.url)
    await backend.open()
    proxy.on_reply = lose
    for number in range(40):
        created = await backend.create(NewSession(str(number), 60.0, {}, token=number + 1))
        assert created.new
        version = await backend.write(str(number), {"n": b"1"}, token=number + 1)
        assert (await backend.read(str(number))).version == version
    proxy.on_reply = bytes
    stats = await backend.stats()
    assert (stats.created, stats.live) == (40, 40)
    assert backend.client.retries > 10
    await backend.close()


async def test_an_end_whose_reply_is_lost_is_counted_once(proxy: Proxy) -> None:
    """What was evicted for a create comes with the second reply; the event of a delete is lost, not its count."""
    backend = backend_at(proxy.url, limits=Limits(max_sessions=2, overflow=Overflow.EVICT))
    await backend.open()
    await backend.create(NewSession("a", 60.0, {}, token=1))
    await backend.create(NewSession("b", 60.0, {}, token=2))
    await backend.delete("nothing")  # so that the server has the script, and the next reply is that of a call
    left = 1

    def lose_one(piece: bytes) -> bytes | None:
        nonlocal left
        left -= 1
        return piece if left else None

    left, proxy.on_reply = 1, lose_one
    created = await backend.create(NewSession("c", 60.0, {}, token=3))
    assert (created.new, [ended.session_id for ended in created.ended]) == (True, ["a"])
    left = 1
    deleted = await backend.delete("b")
    stats = await backend.stats()
    assert deleted.ended is None
    assert (stats.deleted, stats.pruned_overflow, stats.live) == (1, 1, 1)
    await backend.close()


async def test_a_reply_that_is_lost_twice_is_an_error(proxy: Proxy) -> None:
    """The call is made twice and no more, within its time, and the error says that it may have been done."""
    backend = backend_at(proxy.url, timeout=0.5)
    await backend.open()
    calls = 0

    def lose(_: bytes) -> None:
        nonlocal calls
        calls += 1

    proxy.on_reply = lose
    with pytest.raises(SessionStoreUnavailable) as caught:
        await backend.create(NewSession("a", 60.0, {}, token=1))
    assert caught.value.may_have_run
    assert calls == 2
    await backend.close()


async def test_cancelled_calls_leave_no_reply_to_others(proxy: Proxy) -> None:
    """Three hundred are cancelled behind a delay: each later call gets its own reply, and connections stay."""
    store = store_at(proxy.url)
    await store.start()
    for number in range(10):
        await store.create(f"s{number}", metadata={"n": str(number)})
    connections = proxy.connections
    proxy.delay = 0.002
    wrong = 0
    for number in range(300):
        call = asyncio.ensure_future(store.get(f"s{number % 10}"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        call.cancel()
        session = await store.get(f"s{(number + 1) % 10}")
        wrong += session.metadata != {"n": str((number + 1) % 10)}
    assert wrong == 0
    assert proxy.connections - connections <= 4
    proxy.delay = 0.0
    await store.stop()


async def test_a_cancelled_create_takes_place_or_not(proxy: Proxy) -> None:
    """Whichever it was, the ledger agrees with what is there."""
    store = store_at(proxy.url)
    await store.start()
    proxy.delay = 0.001
    for number in range(30):
        call = asyncio.ensure_future(store.create(f"s{number}"))
        for _ in range(number % 6):
            await asyncio.sleep(0)
        call.cancel()
    proxy.delay = 0.0
    await store.create("last")
    listed = await store.list()
    stats = await store.stats()
    assert len(listed) == stats.live == stats.created
    await store.stop()


async def test_scripts_that_the_server_has_lost_are_sent_again(
    shared_server: StoreServer,
) -> None:
    """SCRIPT FLUSH under load, again and again: no call fails."""
    store = store_at(shared_server.url)
    await store.start()
    client = shared_server.client()

    async def use(name: str) -> None:
        await store.create(name)
        for number in range(20):
            await store.set_state(name, "n", number)
            assert await store.get_state(name, "n") == number
        assert await store.delete(name)

    users = asyncio.gather(*(use(f"u{number}") for number in range(16)))
    while not users.done():
        client.script_flush()
        await asyncio.sleep(0.005)
    await users
    assert (await store.stats()).deleted == 16
    await store.stop()


async def test_a_server_that_refuses_one_call_fails_no_other(shared_server: StoreServer) -> None:
    """An error in a batch is that call's own."""
    store = store_at(shared_server.url)
    await store.start()
    await store.create("there")
    found = await asyncio.gather(
        *(store.get("there" if number % 2 else "missing") for number in range(40)), return_exceptions=True
    )
    for number, one in enumerate(found):
        assert isinstance(one, SessionNotFound) is (number % 2 == 0)
    await store.stop()
