"""Metrics of a real server's client."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from snakepit_otel.sessions import Limits, SessionStore
from snakepit_otel.sessions.backends.redis import RedisBackend, RedisOptions
from snakepit_otel.testing import Capture
from tests.stores.servers import StoreServer, running


@pytest.fixture
def server(tmp_path: Path) -> Iterator[StoreServer]:
    """A Valkey."""
    made = StoreServer(tmp_path / "server")
    with running(made):
        yield made


async def test_the_client_of_a_server_is_seen(server: StoreServer, capture: Capture) -> None:
    """Operations, connections and the skew of the clock are metrics, under the name that the store has for all."""
    backend = RedisBackend(Limits(), RedisOptions(server.url, connections=3))
    async with SessionStore(backend=backend) as store:
        await store.create("a")
        metrics = capture.metrics()
        values = {
            name.removeprefix("snakepit.session."): point.value
            for name, points in metrics.items()
            for point in points
            if point.attributes.get("snakepit.session.store") == store.name
        }
        assert values["store.connection.limit"] == 3
        assert 0 <= values["store.connection.usage"] <= 3
        assert (values["store.retries"], values["store.not_durable"], values["store.clock.skew"]) == (0, 0, 0)
        assert (values["count"], values["unreported"]) == (0, 0), "the first export has the ledger of the start"
        server.client().hset("{snakepit:0}:stat", "clk", int((time.time() + 600) * 1e6))
        await backend.stats()
        (skew,) = (point.value for point in capture.points("snakepit.session.store.clock.skew"))
        assert 590 < skew <= 600
