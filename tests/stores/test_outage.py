"""Outages of a store: it is killed, stopped or slow, under load."""

from __future__ import annotations

import asyncio
import logging
import resource
import time

import pytest

from snakepit_otel import Snakepit
from snakepit_otel.errors import SessionStoreUnavailable
from snakepit_otel.sessions.backends.redis import RedisOptions
from snakepit_otel.sessions.backends.redis._address import parse_url
from snakepit_otel.telemetry import _switch
from tests.stores.conftest import backend_at, store_at
from tests.stores.proxy import Proxy
from tests.stores.servers import StoreServer
from tests.waiting import BUSY, until


@pytest.mark.parametrize("how", ["killed", "stopped"])
async def test_calls_fail_within_their_time_and_go_on_without_a_restart(
    server: StoreServer, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Each ends with `SessionStoreUnavailable` in time, the log has a line for the loss and one for the return."""
    caplog.set_level(logging.INFO, "snakepit_otel.sessions")
    store = store_at(server.url, timeout=0.5)
    await store.start()
    await store.create("a", ttl=3_600)
    server.kill() if how == "killed" else server.pause()
    for _ in range(3):
        started = time.monotonic()
        with pytest.raises(SessionStoreUnavailable):
            await store.get("a")
        assert time.monotonic() - started < 0.5 + BUSY
    server.start() if how == "killed" else server.resume()

    async def answers() -> bool:
        try:
            return (await store.get("a")).id == "a"
        except SessionStoreUnavailable:
            return False

    async with asyncio.timeout(60):
        while not await answers():
            await asyncio.sleep(0.01)
    lines = [record.getMessage() for record in caplog.records if "session store at" in record.getMessage()]
    if how == "killed":
        assert [("is lost" in line, "answers again" in line) for line in lines] == [(True, False), (False, True)]
    await store.stop()


async def test_requests_without_a_session_are_not_touched(server: StoreServer) -> None:
    """They are served while the store is stopped, others fail, certainly not run."""
    backend = backend_at(server.url, timeout=0.3)
    async with Snakepit("tests.adapters_for_tests:Useful", workers=1, session_backend=backend) as pit:
        assert await pit.execute("echo", {"value": 1}, session_id="a") == 1
        server.pause()
        with pytest.raises(SessionStoreUnavailable) as caught:
            await pit.execute("echo", {"value": 2}, session_id="a")
        assert (caught.value.may_have_run, caught.value.retryable) == (False, True)
        assert await pit.execute("echo", {"value": 3}) == 3
        assert (await pit.status()).sessions.store_is_away
        server.resume()


async def test_callers_wait_for_a_few_connections(server: StoreServer) -> None:
    """A thousand callers, before and after the server was started again, share what is allowed."""
    proxy = Proxy(server.port)
    await proxy.start()
    store = store_at(proxy.url, connections=8, timeout=5.0)
    await store.start()
    await asyncio.gather(*(store.create(f"s{number}") for number in range(1_000)))
    server.kill()
    server.start()

    async def get(number: int) -> bool:
        try:
            return bool(await store.get(f"s{number}"))
        except SessionStoreUnavailable:
            return False

    found = await asyncio.gather(*(get(number) for number in range(1_000)))
    assert sum(found) > 900
    assert proxy.most_open <= 8 + 1  # one more while the start is checked
    await store.stop()
    await until(lambda: proxy.open == 0)
    await proxy.stop()


@pytest.mark.matrix
async def test_a_long_outage_costs_no_memory(server: StoreServer, request: pytest.FixtureRequest) -> None:
    """Twenty thousand calls at a store that is gone: each fails at once, and nothing of them is kept."""
    request.addfinalizer(lambda: _switch.set_enabled(True))
    _switch.set_enabled(False)  # the spans would be kept by the test's own telemetry
    store = store_at(server.url, timeout=0.2)
    await store.start()
    server.kill()
    failures = 0

    async def call() -> None:
        nonlocal failures
        try:
            await store.get("a")
        except SessionStoreUnavailable:
            failures += 1

    await asyncio.gather(*(call() for _ in range(1_000)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(20):
        await asyncio.gather(*(call() for _ in range(1_000)))
    assert failures == 21_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000  # KiB
    server.start()
    await store.stop()


def test_options_show_no_secret() -> None:
    """Neither by their text nor by that of an address."""
    url = "redis://user:very-secret@cache:6379"
    options = RedisOptions(url, password="very-secret")
    assert "very-secret" not in repr(options)
    assert "very-secret" not in str(parse_url(url))
